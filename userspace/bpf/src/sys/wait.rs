//! poll(2).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// Waits until `input` can be read, for so long at most; false once nobody reads what is written to `output`.
pub(crate) fn wait_readable(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    patience: Duration,
) -> io::Result<bool> {
    let asked = |fd: BorrowedFd<'_>, events| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // Of what is written to, the kernel says by itself that its other end is gone.
    let mut asked = [asked(input, libc::POLLIN), asked(output, 0)];
    let patience_ms = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel writes to as many elements as it is told there are.
    let ready = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, patience_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(true),
            _ => Err(error),
        };
    }
    Ok(asked[1].revents & (libc::POLLERR | libc::POLLHUP) == 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_reader_that_is_gone_is_noticed() {
        let (silent, _kept) = io::pipe().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        let wait = |patience| wait_readable(silent.as_fd(), writer.as_fd(), patience).unwrap();
        assert!(wait(Duration::ZERO));
        drop(reader);
        assert!(!wait(Duration::from_secs(60)));
    }
}
