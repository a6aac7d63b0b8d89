//! A small HTTP/1.1 server that says who it is and whom it sees.
//!
//! Threads wait in `accept` and serve the connection that they get to its end: nothing is spawned per
//! connection, so what a bench measures is the path. [`WORKERS`] bounds how many connections are open.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::udp::canonical;

/// Connections that are served at one time; more wait in the listen queue.
pub const WORKERS: usize = 64;

/// Longest request head that is read; a longer one closes the connection.
const HEAD_MAX: usize = 8192;

/// Serves for ever. The body of each answer is `NAME PEER COUNT\n`: the peer as the server sees it, and how
/// many requests it has seen so far, this one included. A path of
/// `/sink` reads a body of any length and answers once it has ended, for bulk transfers.
///
/// # Errors
///
/// When the address cannot be bound. Errors of single connections end those alone.
pub fn serve(name: &str, address: SocketAddr, ready: impl FnOnce()) -> Result<()> {
    let listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    ready();
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Ok((connection, peer)) = listener.accept() {
                    // A client that goes away in the middle is its own affair.
                    let _ = answer(name, connection, canonical(peer), &seen);
                }
            });
        }
    });
    Ok(())
}

fn answer(
    name: &str,
    mut connection: TcpStream,
    peer: SocketAddr,
    seen: &AtomicU64,
) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut buffer = vec![0; HEAD_MAX];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(end) = head_end(&buffer[..filled]) {
                break end;
            }
            if filled == buffer.len() {
                return Ok(());
            }
            let read = connection.read(&mut buffer[filled..])?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
        };
        let request = Request::read(&buffer[..head]);
        buffer.copy_within(head..filled, 0);
        filled -= head;
        if request.sink {
            filled = 0;
            std::io::copy(&mut connection, &mut std::io::sink())?;
        }
        let count = seen.fetch_add(1, Ordering::Relaxed) + 1;
        let body = format!("{name} {peer} {count}\n");
        let close = if request.close {
            "connection: close\r\n"
        } else {
            ""
        };
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n{close}\r\n{body}",
            body.len()
        );
        connection.write_all(response.as_bytes())?;
        if request.close {
            return Ok(());
        }
    }
}

/// What of a request matters here.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    /// The connection ends with the answer.
    close: bool,
    /// The body runs to the client's end of stream.
    sink: bool,
}

impl Request {
    fn read(head: &[u8]) -> Self {
        let head = String::from_utf8_lossy(head).to_ascii_lowercase();
        let first = head.lines().next().unwrap_or_default();
        let sink = first.split(' ').nth(1) == Some("/sink");
        let asks = |what: &str| {
            head.lines()
                .filter_map(|line| line.strip_prefix("connection:"))
                .any(|value| value.trim() == what)
        };
        let old = first.ends_with("http/1.0");
        Self {
            close: sink || asks("close") || (old && !asks("keep-alive")),
            sink,
        }
    }
}

/// The length of the head with its empty line, once that has come.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_its_connection_goes_on() {
        let cases: [(&[u8], bool, bool); 5] = [
            (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", false, false),
            (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", true, false),
            (b"GET / HTTP/1.0\r\n\r\n", true, false),
            (
                b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
                false,
                false,
            ),
            (b"POST /sink HTTP/1.1\r\n\r\n", true, true),
        ];
        for (head, close, sink) in cases {
            assert_eq!(
                Request::read(head),
                Request { close, sink },
                "{}",
                String::from_utf8_lossy(head)
            );
        }
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_end(b"GET / HTTP/1.1\r\n"), None);
    }
}
