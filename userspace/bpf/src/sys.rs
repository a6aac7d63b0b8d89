//! bpf(2) and mmap(2) as functions with types. Only what aya 0.14 lacks: links that can be replaced after a
//! restart, batched table operations, tables mapped into memory, test runs.
//!
//! Everything here returns [`io::Error`]; the callers know the names that make it a sentence.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Commands of bpf(2), `enum bpf_cmd` of linux/bpf.h.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Command {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    Pin = 6,
    Get = 7,
    TestRun = 10,
    ProgramById = 13,
    Info = 15,
    Query = 16,
    LookupBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkById = 30,
    LinkNextId = 31,
    LinkDetach = 34,
}

/// Attach types, `enum bpf_attach_type` of linux/bpf.h.
pub(crate) mod attach {
    pub(crate) const INET4_CONNECT: u32 = 10;
    pub(crate) const INET6_CONNECT: u32 = 11;
    pub(crate) const UDP4_SENDMSG: u32 = 14;
    pub(crate) const UDP6_SENDMSG: u32 = 15;
    pub(crate) const UDP4_RECVMSG: u32 = 19;
    pub(crate) const UDP6_RECVMSG: u32 = 20;
    pub(crate) const INET4_GETPEERNAME: u32 = 29;
    pub(crate) const INET6_GETPEERNAME: u32 = 30;
    pub(crate) const XDP: u32 = 37;
    pub(crate) const TCX_INGRESS: u32 = 46;
    pub(crate) const TCX_EGRESS: u32 = 47;
}

/// Kinds of link, `enum bpf_link_type`.
mod link_type {
    pub(super) const CGROUP: u32 = 3;
    pub(super) const XDP: u32 = 6;
    pub(super) const TCX: u32 = 11;
}

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;
pub(crate) const XDP_NATIVE: u32 = 1 << 2;

/// `ENOTSUPP`, which the kernel lets escape to userspace although no header there names it.
pub(crate) const ENOTSUPP: i32 = 524;

const BPF_F_RDONLY: u32 = 1 << 3;

/// Calls bpf(2). `attr` is the leading part of `union bpf_attr` that the command reads.
fn bpf<A: IntoBytes + FromBytes>(command: Command, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes at most `size_of::<A>()` bytes of `attr`, which is exclusively
    // borrowed plain data; pointers inside of it are built by the callers from slices that outlive the call and
    // are as long as the lengths given with them.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if ret < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret as i32)
    }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just gave us this descriptor, nobody else holds it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "path holds a zero byte"))
}

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens a pinned map, program or link.
pub(crate) fn get(path: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let flags = if read_only { BPF_F_RDONLY } else { 0 };
    let mut attr = ObjectAttr {
        path: address(path.as_bytes_with_nul()),
        fd: 0,
        flags,
    };
    bpf(Command::Get, &mut attr).map(owned)
}

/// Pins a map, program or link at a path that does not exist yet.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr {
        path: address(path.as_bytes_with_nul()),
        fd: fd.as_raw_fd() as u32,
        flags: 0,
    };
    bpf(Command::Pin, &mut attr).map(drop)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct ElementAttr {
    map: u32,
    _pad: u32,
    key: u64,
    /// A value, or the next key.
    value: u64,
    flags: u64,
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> ElementAttr {
    ElementAttr {
        map: map.as_raw_fd() as u32,
        _pad: 0,
        key,
        value,
        flags: 0,
    }
}

/// Reads the element of `key` into `value`, which must be as long as the map's values (each CPU's, for per-CPU
/// maps, rounded up to eight bytes).
pub(crate) fn lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    let mut attr = element(map, address(key), address_mut(value));
    bpf(Command::MapLookup, &mut attr).map(drop)
}

/// Inserts or replaces the element of `key`.
pub(crate) fn update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = element(map, address(key), address(value));
    bpf(Command::MapUpdate, &mut attr).map(drop)
}

/// Deletes the element of `key`.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = element(map, address(key), 0);
    bpf(Command::MapDelete, &mut attr).map(drop)
}

/// Writes the key after `key` (the first one for `None`) into `next`; false at the end.
pub(crate) fn next_key(
    map: BorrowedFd<'_>,
    key: Option<&[u8]>,
    next: &mut [u8],
) -> io::Result<bool> {
    let mut attr = element(map, key.map_or(0, address), address_mut(next));
    match bpf(Command::MapNextKey, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// The outcome of a batched write that stopped early.
#[derive(Debug)]
pub(crate) struct BatchError {
    /// How many elements took effect.
    pub(crate) done: usize,
    pub(crate) error: io::Error,
}

fn batch(
    command: Command,
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> Result<(), BatchError> {
    let mut attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: address(keys),
        values: address(values),
        count: count as u32,
        map: map.as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    match bpf(command, &mut attr) {
        Ok(_) => Ok(()),
        // A kernel that refuses the command as a whole does not touch the count.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EPERM | libc::EFAULT | ENOTSUPP)
            ) =>
        {
            Err(BatchError { done: 0, error })
        }
        Err(error) => Err(BatchError {
            done: attr.count as usize,
            error,
        }),
    }
}

/// Inserts or replaces `count` elements (`BPF_MAP_UPDATE_BATCH`, Linux 5.6). `keys` and `values` are the
/// elements one after the other.
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> Result<(), BatchError> {
    batch(Command::UpdateBatch, map, keys, values, count)
}

/// Deletes `count` elements (`BPF_MAP_DELETE_BATCH`, Linux 5.6).
pub(crate) fn delete_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    count: usize,
) -> Result<(), BatchError> {
    batch(Command::DeleteBatch, map, keys, &[], count)
}

/// Where a batched read goes on.
pub(crate) type Cursor = [u8; 64];

/// Reads up to `count` elements of a hash into `keys` and `values` (`BPF_MAP_LOOKUP_BATCH`, Linux 5.6), starting
/// at the beginning or where `from` says. Returns how many were read, and true if there may be more.
pub(crate) fn lookup_batch(
    map: BorrowedFd<'_>,
    from: Option<&Cursor>,
    to: &mut Cursor,
    keys: &mut [u8],
    values: &mut [u8],
    count: usize,
) -> io::Result<(usize, bool)> {
    let mut attr = BatchAttr {
        in_batch: from.map_or(0, |cursor| address(cursor)),
        out_batch: address_mut(to),
        keys: address_mut(keys),
        values: address_mut(values),
        count: count as u32,
        map: map.as_raw_fd() as u32,
        element_flags: 0,
        flags: 0,
    };
    match bpf(Command::LookupBatch, &mut attr) {
        Ok(_) => Ok((attr.count as usize, true)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            Ok((attr.count as usize, false))
        }
        Err(error) => Err(error),
    }
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

fn info<T: FromBytes + IntoBytes>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let mut value = T::new_zeroed();
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        len: size_of::<T>() as u32,
        info: std::ptr::from_mut(&mut value) as u64,
    };
    bpf(Command::Info, &mut attr)?;
    Ok(value)
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes)]
pub(crate) struct MapInfo {
    pub(crate) kind: u32,
    pub(crate) id: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) entries_max: u32,
    pub(crate) flags: u32,
}

/// What the kernel says of a map.
pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<MapInfo> {
    info(fd)
}

/// `struct bpf_prog_info` up to `verified_insns` (Linux 5.16; zero before).
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

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
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

/// Every link of this machine that this process may look at (Linux 5.8).
pub(crate) fn links() -> impl Iterator<Item = LinkInfo> {
    let mut id = 0;
    std::iter::from_fn(move || {
        let mut attr = IdAttr {
            id,
            next: 0,
            flags: 0,
        };
        bpf(Command::LinkNextId, &mut attr).ok()?;
        id = attr.next;
        Some(id)
    })
    .filter_map(|id| {
        let mut attr = IdAttr {
            id,
            next: 0,
            flags: 0,
        };
        let fd = bpf(Command::LinkById, &mut attr).map(owned).ok()?;
        link_info(fd.as_fd()).ok()
    })
}

/// `struct bpf_link_info` for the kinds that we make.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    target: u64,
    _more: u64,
}

/// What a link hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A cgroup, by its identifier: the inode number of its directory. Zero once the cgroup is gone.
    Cgroup(u64),
    /// A device, by its index. Zero once the device is gone.
    Device(u32),
    /// Something that is not ours.
    Other,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pub(crate) target: Target,
}

/// What the kernel says of a link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let raw: RawLinkInfo = info(fd)?;
    let target = match raw.kind {
        link_type::CGROUP => Target::Cgroup(raw.target),
        link_type::XDP | link_type::TCX => {
            let [ifindex, _]: [u32; 2] = zerocopy::transmute!(raw.target);
            Target::Device(ifindex)
        }
        _ => Target::Other,
    };
    Ok(LinkInfo {
        id: raw.id,
        program_id: raw.program_id,
        target,
    })
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkCreateAttr {
    program: u32,
    /// A descriptor of a cgroup, or the index of a device.
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _pad: u32,
    expected_revision: u64,
}

fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: program.as_raw_fd() as u32,
        target,
        attach_type,
        flags,
        relative: 0,
        _pad: 0,
        expected_revision: 0,
    };
    bpf(Command::LinkCreate, &mut attr).map(owned)
}

/// Attaches a program to a cgroup, beside whatever else is attached there (Linux 5.7).
pub(crate) fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link_create(program, cgroup.as_raw_fd() as u32, attach_type, 0)
}

/// Attaches a program to a device: TCX after those already attached (Linux 6.6), or XDP in the mode of `flags`
/// (Linux 5.9).
pub(crate) fn link_device(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    link_create(program, ifindex, attach_type, flags)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link; no packet or connect finds neither.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    bpf(Command::LinkUpdate, &mut attr).map(drop)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkDetachAttr {
    link: u32,
}

/// Detaches a link at once (Linux 5.9). Removing the last pin does so too, but a moment later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr {
        link: link.as_raw_fd() as u32,
    };
    bpf(Command::LinkDetach, &mut attr).map(drop)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    _pad: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// Identifiers of the links attached to a device with TCX, in the order in which they run; the device is looked
/// up in this thread's network namespace. Programs attached without a link show as zero.
pub(crate) fn query_tcx(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut programs = [0_u32; 64];
    let mut links = [0_u32; 64];
    let mut attr = QueryAttr {
        target: ifindex,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        program_ids: address_mut(programs.as_mut_bytes()),
        count: programs.len() as u32,
        _pad: 0,
        program_flags: 0,
        link_ids: address_mut(links.as_mut_bytes()),
        link_flags: 0,
        revision: 0,
    };
    bpf(Command::Query, &mut attr)?;
    Ok(links.into_iter().take(attr.count as usize).collect())
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

/// Runs a packet program on `data` (`BPF_PROG_TEST_RUN`). `ctx` is a `struct __sk_buff` or `struct xdp_md`, or
/// empty. Returns the verdict, the packet afterwards and the mean duration of a run in nanoseconds.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    data: &[u8],
    ctx: &[u8],
    repeat: u32,
) -> io::Result<(u32, Vec<u8>, u32)> {
    // Room for headers that a program adds.
    let mut out = vec![0; data.len() + 256];
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
        ctx_size_out: 0,
        ctx_in: if ctx.is_empty() { 0 } else { address(ctx) },
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        _pad: 0,
    };
    bpf(Command::TestRun, &mut attr)?;
    out.truncate(attr.data_size_out as usize);
    Ok((attr.retval, out, attr.duration))
}

/// Memory shared with the kernel: the elements of an array made with `BPF_F_MMAPABLE` (Linux 5.5).
#[derive(Debug)]
pub(crate) struct Mapping {
    start: std::ptr::NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of the array.
    pub(crate) fn new(map: &impl AsFd, len: usize, read_only: bool) -> io::Result<Mapping> {
        let protection = if read_only {
            libc::PROT_READ
        } else {
            libc::PROT_READ | libc::PROT_WRITE
        };
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                protection,
                libc::MAP_SHARED,
                map.as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = std::ptr::NonNull::new(start)
            .ok_or_else(|| io::Error::other("mmap returned address zero"))?;
        Ok(Mapping { start, len })
    }

    /// The mapped memory as words. Others (the programs, another process) may change them at any time, which is
    /// what atomics are for. A read-only mapping must only be loaded from: storing there is a fault.
    pub(crate) fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        // SAFETY: `start` is a live mapping of `len` bytes, aligned to a page, and lives as long as `self`;
        // AtomicU64 permits changes from elsewhere.
        unsafe {
            std::slice::from_raw_parts(
                self.start.as_ptr().cast::<std::sync::atomic::AtomicU64>(),
                self.len / 8,
            )
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; no reference outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr(), self.len) };
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only reached through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}
