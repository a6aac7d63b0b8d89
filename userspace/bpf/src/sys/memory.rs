//! Arrays as memory shared with the kernel.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Memory shared with the kernel: the elements of an array made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<libc::c_void>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes of the array from byte `offset`, which is a multiple of the page size. All of them count as the
    /// process's memory from then on, whether they are touched or not.
    pub(crate) fn new(
        map: &impl AsFd,
        offset: usize,
        len: usize,
        read_only: bool,
    ) -> io::Result<Mapping> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
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
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start).ok_or_else(|| io::Error::other("mmap returned address zero"))?;
        Ok(Mapping { start, len })
    }

    /// The mapped memory as words. Others (the programs, another process) may change them at any time, which is
    /// what atomics are for. A read-only mapping must only be loaded from: storing there is a fault.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is a live mapping of `len` bytes, aligned to a page, and lives as long as `self`;
        // AtomicU64 permits changes from elsewhere.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast::<AtomicU64>(), self.len / 8) }
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
