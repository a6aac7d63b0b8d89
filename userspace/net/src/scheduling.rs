//! How the scheduler treats threads that have little to do each time they wake, and are waited for.

use std::io;
use std::mem;
use std::time::Duration;

/// `struct sched_attr` of sched_setattr(2), as of its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Asks for slices of this length for the calling thread: one that asks for little at a time gets it sooner. Takes
/// effect from Linux 6.12 on ("sched/eevdf: Use sched_attr::sched_runtime to set request/slice suggestion"), from 0.1
/// to 100 ms; kernels before that take and ignore it. A thread with another policy than the usual is left alone.
///
/// # Errors
/// When the kernel refuses.
pub fn ask_for_slices(length: Duration) -> io::Result<()> {
    // SAFETY: the call reads and writes no memory of ours; zero is the calling thread.
    if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_OTHER {
        return Ok(());
    }
    let attributes = Attributes {
        size: mem::size_of::<Attributes>() as u32,
        policy: libc::SCHED_OTHER as u32,
        // Given anew with the policy, so it must be what it was.
        nice: rustix::process::getpriority_process(None)?,
        runtime: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX),
        ..Attributes::default()
    };
    // SAFETY: the pointer is to a structure that lives until the call returns, and of the size that it tells; the call
    // reads it only. The first zero is the calling thread, the last says that there are no flags.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_it_and_nothing_else_changes() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        ask_for_slices(Duration::from_micros(500)).expect("no privilege is needed");
        assert_eq!(nice(), before);
    }
}
