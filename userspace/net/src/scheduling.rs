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

/// When a thread that has become ready to run should get the core that another one is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Soon, for slices of this length: one that asks for little at a time gets it sooner. Takes effect from Linux 6.12
    /// on ("sched/eevdf: Use sched_attr::sched_runtime to set request/slice suggestion"), from 0.1 to 100 ms; kernels
    /// before that take and ignore it.
    Soon(Duration),
    /// When the other one's slice is over: work comes together meanwhile (`SCHED_BATCH`, sched(7)).
    Late,
}

/// Whether the calling thread is scheduled as threads usually are. One that somebody gave another policy keeps it.
#[must_use]
pub fn has_usual_turns() -> bool {
    // SAFETY: the call takes and gives numbers alone; zero is the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_OTHER }
}

/// Asks for turns for the calling thread.
///
/// # Errors
/// When the kernel refuses.
pub fn ask_for_turns(turns: Turns) -> io::Result<()> {
    let (policy, slice) = match turns {
        Turns::Soon(slice) => (libc::SCHED_OTHER, slice),
        // Zero is a slice of the usual length.
        Turns::Late => (libc::SCHED_BATCH, Duration::ZERO),
    };
    let attributes = Attributes {
        size: mem::size_of::<Attributes>() as u32,
        policy: policy as u32,
        // Given anew with the policy, so it must be what it was.
        nice: rustix::process::getpriority_process(None)?,
        runtime: u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX),
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
        let soon = Turns::Soon(Duration::from_micros(500));
        for (turns, usual) in [(soon, true), (Turns::Late, false), (soon, true)] {
            ask_for_turns(turns).expect("no privilege is needed");
            assert_eq!(has_usual_turns(), usual, "{turns:?}");
            assert_eq!(nice(), before);
        }
    }
}
