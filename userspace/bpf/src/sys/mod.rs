//! bpf(2) and mmap(2) as functions with types. Only what aya 0.14 lacks: links that can be replaced after a
//! restart, batched table operations, tables mapped into memory, test runs.
//!
//! Everything here returns [`io::Error`]; the callers know the names that make it a sentence.

mod links;
mod maps;
mod memory;
mod programs;
mod wait;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zerocopy::{FromBytes, Immutable, IntoBytes};

pub(crate) use links::{
    EFFECTIVE, LinkInfo, Target, XDP_GENERIC, XDP_NATIVE, attach, link_cgroup, link_detach,
    link_device, link_info, link_update, links, query, query_tcx,
};
pub(crate) use maps::{
    Cursor, MapInfo, create_ring_buffer, delete, delete_batch, insert, lookup, lookup_batch,
    map_info, update, update_batch,
};
pub(crate) use memory::Mapping;
pub(crate) use programs::{
    Ran, XDP_HAS_FRAGS, kind, load, load_xdp_pass, program_by_id, program_info, test_run,
};
pub(crate) use wait::wait_readable;

/// Commands of bpf(2), `enum bpf_cmd` of linux/bpf.h.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    ProgramLoad = 5,
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
#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}
