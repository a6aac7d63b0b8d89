//! Elements of tables, one by one and in batches.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Command, address, address_mut, bpf, info, owned};

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct ElementAttr {
    map: u32,
    _pad: u32,
    key: u64,
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

/// Inserts the element of `key`, unless there is one.
pub(crate) fn insert(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    const BPF_NOEXIST: u64 = 1;
    let mut attr = ElementAttr {
        flags: BPF_NOEXIST,
        ..element(map, address(key), address(value))
    };
    bpf(Command::MapUpdate, &mut attr).map(drop)
}

/// Deletes the element of `key`.
pub(crate) fn delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    let mut attr = element(map, address(key), 0);
    bpf(Command::MapDelete, &mut attr).map(drop)
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

fn batch(
    command: Command,
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> Result<(), usize> {
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
    bpf(command, &mut attr)
        .map(drop)
        .map_err(|error| match error.raw_os_error() {
            // A kernel that refuses the command as a whole does not touch the count.
            Some(libc::EINVAL | libc::EPERM | libc::EFAULT) => 0,
            _ => attr.count as usize,
        })
}

/// Inserts or replaces `count` elements (`BPF_MAP_UPDATE_BATCH`). `keys` and `values` are the
/// elements one after the other. The error is the number of elements that took effect; the next one tells why.
pub(crate) fn update_batch(
    map: BorrowedFd<'_>,
    keys: &[u8],
    values: &[u8],
    count: usize,
) -> Result<(), usize> {
    batch(Command::UpdateBatch, map, keys, values, count)
}

/// Deletes `count` elements (`BPF_MAP_DELETE_BATCH`). The error is as with [`update_batch`].
pub(crate) fn delete_batch(map: BorrowedFd<'_>, keys: &[u8], count: usize) -> Result<(), usize> {
    batch(Command::DeleteBatch, map, keys, &[], count)
}

/// Where a batched read goes on.
pub(crate) type Cursor = [u8; 64];

/// Reads up to `count` elements of a hash into `keys` and `values` (`BPF_MAP_LOOKUP_BATCH`), starting
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
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries_max: u32,
    flags: u32,
}

/// Makes a ring buffer of so many bytes, a power of two of pages.
pub(crate) fn create_ring_buffer(len: u32) -> io::Result<OwnedFd> {
    const BPF_MAP_TYPE_RINGBUF: u32 = 27;
    let mut attr = CreateAttr {
        kind: BPF_MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        entries_max: len,
        flags: 0,
    };
    bpf(Command::MapCreate, &mut attr).map(owned)
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
