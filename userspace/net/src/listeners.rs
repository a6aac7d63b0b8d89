//! Listening TCP sockets that are about to be closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Octet of a TCP header with its flags, and those that count here (RFC 9293 section 3.1).
const FLAGS: u32 = 13;
const SYN: u32 = 1 << 1;
const ACK: u32 = 1 << 4;

/// Begins no more connections at a socket that listens: what would is dropped, so that its client tries again after a
/// second, and finds who listens then. Connections that are being made go on, and can be accepted; where the socket was
/// closed at once the kernel would reset them.
///
/// # Errors
/// When the kernel refuses.
pub fn begin_no_more(socket: impl AsFd) -> io::Result<()> {
    let instruction = |code: u32, jt, jf, k| libc::sock_filter {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "classic BPF's codes have 16 bits"
        )]
        code: code as u16,
        jt,
        jf,
        k,
    };
    // At a socket's filter a packet begins with its TCP header.
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, SYN | ACK),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, SYN),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the option takes a program of this size, which points at as many instructions as it says; both are alive
    // until the call returns, and the kernel keeps a copy.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_is_accepted_and_nobody_else_comes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waits = TcpStream::connect(address).unwrap();
        begin_no_more(&listener).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(300));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        listener.accept().unwrap();
        listener.set_nonblocking(true).unwrap();
        let none = listener.accept().unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }
}
