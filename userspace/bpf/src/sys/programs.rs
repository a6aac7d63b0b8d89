//! Loaded programs: what the kernel says of them, and runs on a packet of our choice.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Command, IdAttr, address, address_mut, bpf, info, owned};

/// `struct bpf_prog_info` up to `verified_insns`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    _xlated_len: u32,
    _insns: [u64; 2],
    _load_time: u64,
    _uid: u32,
    _map_count: u32,
    _map_ids: u64,
    name: [u8; 16],
    _middle: [u64; 14],
    run_time_ns: u64,
    run_count: u64,
    _recursion_misses: u64,
    verified_insns: u32,
    _attach: u32,
}
const _: () = assert!(std::mem::offset_of!(RawProgramInfo, run_time_ns) == 192);

/// What the kernel says of a program.
#[derive(Clone, Debug)]
pub(crate) struct ProgramInfo {
    pub(crate) id: u32,
    pub(crate) tag: [u8; 8],
    pub(crate) name: String,
    pub(crate) jited_bytes: u32,
    pub(crate) verified_instructions: u32,
    pub(crate) run_count: u64,
    pub(crate) run_time_ns: u64,
}

/// What the kernel says of a program.
pub(crate) fn program_info(fd: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    let raw: RawProgramInfo = info(fd)?;
    let name =
        CStr::from_bytes_until_nul(&raw.name).map_or_else(|_| raw.name.as_slice(), CStr::to_bytes);
    Ok(ProgramInfo {
        id: raw.id,
        tag: raw.tag,
        name: String::from_utf8_lossy(name).into_owned(),
        jited_bytes: raw.jited_len,
        verified_instructions: raw.verified_insns,
        run_count: raw.run_count,
        run_time_ns: raw.run_time_ns,
    })
}
/// `union bpf_attr` for `BPF_PROG_LOAD`, as far as it is needed.
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach_type: u32,
}

/// Kinds of programs, `enum bpf_prog_type`.
pub(crate) mod kind {
    pub(crate) const CLASSIFIER: u32 = 3;
    pub(crate) const XDP: u32 = 6;
    pub(crate) const CGROUP_SOCK_ADDR: u32 = 18;
}

/// `BPF_F_XDP_HAS_FRAGS`: the program is made for packets of several buffers.
pub(crate) const XDP_HAS_FRAGS: u32 = 1 << 5;

/// Loads a program of a few instructions. What the verifier says goes to `log`, if that has room.
pub(crate) fn load(
    kind: u32,
    attach_type: u32,
    instructions: &[[u8; 8]],
    flags: u32,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let mut attr = LoadAttr {
        kind,
        instruction_count: instructions.len() as u32,
        instructions: address(instructions.as_bytes()),
        license: address(b"GPL\0"),
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { address_mut(log) },
        kernel_version: 0,
        flags,
        name: *b"fairlead\0\0\0\0\0\0\0\0",
        ifindex: 0,
        attach_type,
    };
    bpf(Command::ProgramLoad, &mut attr).map(owned)
}

/// Loads an XDP program of two instructions: `r0 = XDP_PASS; exit`.
pub(crate) fn load_xdp_pass() -> io::Result<OwnedFd> {
    let instructions = [[0xb7, 0, 0, 0, 2, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    load(kind::XDP, 0, &instructions, 0, &mut [])
}

/// Opens a program by its identifier.
pub(crate) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = IdAttr {
        id,
        next: 0,
        flags: 0,
    };
    bpf(Command::ProgramById, &mut attr).map(owned)
}
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct TestRunAttr {
    program: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    _pad: u32,
}

/// What a program did with a packet.
pub(crate) struct Ran {
    pub(crate) verdict: u32,
    /// The packet afterwards, behind what XDP left before it.
    pub(crate) packet: Vec<u8>,
    /// The context afterwards; empty where none was given.
    pub(crate) context: Vec<u8>,
    /// Mean duration of a run.
    pub(crate) duration_ns: u32,
}

/// Runs a packet program on `data` (`BPF_PROG_TEST_RUN`). `ctx` is a `struct __sk_buff` or `struct xdp_md`, or
/// empty.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    data: &[u8],
    ctx: &[u8],
    repeat: u32,
) -> io::Result<Ran> {
    // Room for headers that a program adds.
    let mut out = vec![0; data.len() + 256];
    // The whole of a context, or the kernel calls it too small.
    let mut ctx_out = vec![0; if ctx.is_empty() { 0 } else { 256 }];
    let mut attr = TestRunAttr {
        program: program.as_raw_fd() as u32,
        retval: 0,
        data_size_in: data.len() as u32,
        data_size_out: out.len() as u32,
        data_in: address(data),
        data_out: address_mut(&mut out),
        repeat,
        duration: 0,
        ctx_size_in: ctx.len() as u32,
        ctx_size_out: ctx_out.len() as u32,
        ctx_in: if ctx.is_empty() { 0 } else { address(ctx) },
        ctx_out: if ctx.is_empty() {
            0
        } else {
            address_mut(&mut ctx_out)
        },
        flags: 0,
        cpu: 0,
        batch_size: 0,
        _pad: 0,
    };
    bpf(Command::TestRun, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    ctx_out.truncate(attr.ctx_size_out as usize);
    Ok(Ran {
        verdict: attr.retval,
        packet: out,
        context: ctx_out,
        duration_ns: attr.duration,
    })
}
