//! Requests, many of them, and what became of them.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;
use crate::probe::connect_from;

/// Longest that one step of a request may take: connecting, writing, reading.
const STEP_LIMIT: Duration = Duration::from_secs(3);

/// How requests use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Mode {
    /// HTTP: connect, request, response, close.
    Close,
    /// HTTP: one connection for all requests of a thread; opened anew when it breaks.
    Keep,
    /// One stream of bytes per thread; `ok` counts 64 KiB blocks.
    Bulk,
    /// A datagram and its answer, each from a new connected socket.
    Udp,
}

/// What to send.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
pub struct Load {
    /// Where to
    #[arg(long)]
    pub target: SocketAddr,
    /// How requests use connections
    #[arg(long, value_enum, default_value = "close")]
    pub mode: Mode,
    /// Requests at one time
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// End after this many requests
    #[arg(long, default_value_t = u64::MAX)]
    pub requests: u64,
    /// End after this many milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub millis: u64,
    /// Microseconds between a response and the next request on a connection
    #[arg(long, default_value_t = 0)]
    pub pause_micros: u64,
}

impl Load {
    /// A number of requests, each on its own connection, one after the other.
    pub fn requests(target: SocketAddr, requests: u64) -> Self {
        Self {
            target,
            mode: Mode::Close,
            connections: 1,
            requests,
            millis: 30_000,
            pause_micros: 0,
        }
    }

    /// As many requests as go into a time.
    pub fn lasting(target: SocketAddr, mode: Mode, connections: usize, time: Duration) -> Self {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            target,
            mode,
            connections,
            requests: u64::MAX,
            millis,
            pause_micros: 0,
        }
    }

    /// Sends until the number, the time or `stop` says enough.
    pub fn run(&self, stop: &AtomicBool) -> Report {
        let started = Instant::now();
        let end = started + Duration::from_millis(self.millis);
        let issued = AtomicU64::new(0);
        let mut report = Report::default();
        std::thread::scope(|scope| {
            let worker = || {
                let mut client = Client {
                    target: self.target,
                    connection: None,
                    buffer: vec![0; 65_536],
                };
                let mut report = Report::default();
                while !stop.load(Ordering::Relaxed)
                    && Instant::now() < end
                    && issued.fetch_add(1, Ordering::Relaxed) < self.requests
                {
                    let began = Instant::now();
                    match client.request(self.mode, end) {
                        Ok(Some(backend)) => {
                            report.latency.record(began.elapsed());
                            report.ok += 1;
                            match report.backends.get_mut(&backend) {
                                Some(count) => *count += 1,
                                None => drop(report.backends.insert(backend, 1)),
                            }
                        }
                        Ok(None) => report.ok += 1,
                        Err((step, error)) => {
                            client.connection = None;
                            report.fail(format!("{step}: {}", words(&error)));
                            // A refusal costs nothing; without this a dead service is asked a million times.
                            std::thread::sleep(Duration::from_millis(1));
                        }
                    }
                    if self.pause_micros > 0 {
                        std::thread::sleep(Duration::from_micros(self.pause_micros));
                    }
                }
                report
            };
            let workers: Vec<_> = (0..self.connections.max(1))
                .map(|_| scope.spawn(worker))
                .collect();
            for worker in workers {
                match worker.join() {
                    Ok(part) => report.add(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        report.seconds = started.elapsed().as_secs_f64();
        report
    }
}

/// What became of the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Answered as they should be.
    pub ok: u64,
    /// Not answered, or wrongly.
    pub failed: u64,
    /// Failures by what happened: step and kind of error.
    pub errors: BTreeMap<String, u64>,
    /// Answers by the name of who answered.
    pub backends: BTreeMap<String, u64>,
    /// From the start of a request to its answer.
    pub latency: Histogram,
    /// Wall-clock time of the whole load.
    pub seconds: f64,
    /// Unix time in seconds of the first and the last failure.
    pub failures_between: Option<(f64, f64)>,
}

impl Report {
    /// Requests answered per second.
    pub fn per_second(&self) -> f64 {
        self.ok as f64 / self.seconds.max(1e-9)
    }

    /// Gigabits per second of a [`Mode::Bulk`] load.
    pub fn gbit_per_second(&self) -> f64 {
        self.per_second() * 65_536.0 * 8.0 / 1e9
    }

    /// `web-0 34, web-1 30, web-2 36`.
    pub fn spread(&self) -> String {
        let parts: Vec<String> = self
            .backends
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        parts.join(", ")
    }

    /// Names the path that its errors happened on.
    #[must_use]
    pub fn of(mut self, path: &str) -> Self {
        let errors = std::mem::take(&mut self.errors).into_iter();
        self.errors = errors
            .map(|(error, count)| (format!("{path}: {error}"), count))
            .collect();
        self
    }

    fn fail(&mut self, what: String) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        self.failed += 1;
        *self.errors.entry(what).or_default() += 1;
        self.failures_between = Some((self.failures_between.map_or(now, |(first, _)| first), now));
    }

    /// Adds what another worker or load counted; the longer time counts.
    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        for (backend, count) in other.backends {
            *self.backends.entry(backend).or_default() += count;
        }
        self.latency.add(&other.latency);
        self.seconds = self.seconds.max(other.seconds);
        self.failures_between = match (self.failures_between, other.failures_between) {
            (Some(one), Some(two)) => Some((one.0.min(two.0), one.1.max(two.1))),
            (one, two) => one.or(two),
        };
    }
}

/// Which step failed, and how.
type Failure = (&'static str, std::io::Error);

struct Client {
    target: SocketAddr,
    connection: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    /// One request; the name of who answered, or `None` for a block of bulk.
    fn request(&mut self, mode: Mode, end: Instant) -> Result<Option<String>, Failure> {
        match mode {
            Mode::Close => {
                let mut connection =
                    connect_from(0, self.target, STEP_LIMIT).map_err(|error| ("connect", error))?;
                connection
                    .write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\nconnection: close\r\n\r\n")
                    .map_err(|error| ("send", error))?;
                self.answer(&mut connection, true).map(Some)
            }
            Mode::Keep => {
                let mut connection = match self.connection.take() {
                    Some(connection) => connection,
                    None => connect_from(0, self.target, STEP_LIMIT)
                        .map_err(|error| ("connect", error))?,
                };
                connection
                    .write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\n\r\n")
                    .map_err(|error| ("send", error))?;
                let name = self.answer(&mut connection, false)?;
                self.connection = Some(connection);
                Ok(Some(name))
            }
            Mode::Bulk => self.bulk(end),
            Mode::Udp => udp(self.target, &mut self.buffer).map(Some),
        }
    }

    /// Reads one response: to the end of the stream, or to the end of its body.
    fn answer(&mut self, connection: &mut TcpStream, to_end: bool) -> Result<String, Failure> {
        let mut filled = 0;
        loop {
            let read = connection
                .read(&mut self.buffer[filled..])
                .map_err(|error| ("receive", error))?;
            filled += read;
            let name = body(&self.buffer[..filled]);
            match name {
                Some(name) if read == 0 || !to_end => return Ok(name),
                None if read == 0 => return Err(("receive", ErrorKind::UnexpectedEof.into())),
                Some(_) | None => {}
            }
        }
    }

    fn bulk(&mut self, end: Instant) -> Result<Option<String>, Failure> {
        if self.connection.is_none() {
            let mut connection =
                connect_from(0, self.target, STEP_LIMIT).map_err(|error| ("connect", error))?;
            connection
                .write_all(b"POST /sink HTTP/1.1\r\nhost: testbed\r\n\r\n")
                .map_err(|error| ("send", error))?;
            self.connection = Some(connection);
        }
        if let Some(connection) = &mut self.connection {
            connection
                .write_all(&self.buffer)
                .map_err(|error| ("send", error))?;
            if Instant::now() >= end {
                connection
                    .shutdown(std::net::Shutdown::Write)
                    .map_err(|error| ("close", error))?;
            }
        }
        Ok(None)
    }
}

fn udp(target: SocketAddr, buffer: &mut [u8]) -> Result<String, Failure> {
    let any: SocketAddr = if target.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).map_err(|error| ("bind", error))?;
    socket.connect(target).map_err(|error| ("connect", error))?;
    socket
        .set_read_timeout(Some(STEP_LIMIT))
        .map_err(|error| ("bind", error))?;
    socket.send(b"who?").map_err(|error| ("send", error))?;
    let read = socket.recv(buffer).map_err(|error| ("receive", error))?;
    first_word(&buffer[..read]).ok_or(("receive", ErrorKind::InvalidData.into()))
}

/// The name in a complete response: the first word of a body that ends with a line end.
fn body(response: &[u8]) -> Option<String> {
    let at = response
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    let body = &response[at + 4..];
    body.ends_with(b"\n").then(|| first_word(body))?
}

fn first_word(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    text.split_whitespace().next().map(str::to_owned)
}

fn words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "timed out".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn requests_reach_the_server_and_are_counted_by_who_answers() {
        let port = free_port();
        let (sender, ready) = mpsc::channel();
        std::thread::spawn(move || crate::http::serve("web-0", port, || sender.send(()).unwrap()));
        ready.recv().unwrap();
        for (mode, connections) in [(Mode::Close, 1), (Mode::Keep, 3)] {
            let load = Load {
                mode,
                connections,
                ..Load::requests(port, 50)
            };
            let report = load.run(&AtomicBool::new(false));
            assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.errors);
            assert_eq!(report.spread(), "web-0 50");
            assert_eq!(report.latency.len(), 50);
        }
        let bulk = Load::lasting(port, Mode::Bulk, 1, Duration::from_millis(50))
            .run(&AtomicBool::new(false));
        assert!(bulk.ok > 0 && bulk.failed == 0, "{:?}", bulk.errors);
    }

    #[test]
    fn a_refusal_is_counted_with_its_words() {
        let report = Load::requests(free_port(), 3).run(&AtomicBool::new(false));
        assert_eq!(
            report.errors,
            BTreeMap::from([("connect: connection refused".to_owned(), 3)])
        );
        assert!(report.failures_between.is_some());
    }

    #[test]
    fn a_name_is_read_only_from_a_whole_response() {
        assert_eq!(
            body(b"HTTP/1.1 200 OK\r\n\r\nweb-0 10.0.0.1:1\n").as_deref(),
            Some("web-0")
        );
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n\r\nweb"), None);
        assert_eq!(body(b"HTTP/1.1 200 OK\r\n"), None);
    }

    fn free_port() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    }
}
