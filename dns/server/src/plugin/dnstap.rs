//! `dnstap`: copies of queries and answers for an observer (dnstap.info), over Frame Streams on a socket.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::Next;
use super::Plugin;
use super::forward::connection::Stream;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::message::Transport;

/// Frames that wait for the observer; beyond these they are dropped, since answers never wait for him.
const WAITING_MAX: usize = 10_000;

const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Control frames of Frame Streams.
const ACCEPT: u32 = 1;
const START: u32 = 2;
const STOP: u32 = 3;
const READY: u32 = 4;

enum Observer {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

struct Dnstap {
    observer: Arc<Observer>,
    /// Messages whole, not only who, when and how.
    full: bool,
    identity: String,
    version: String,
    frames: mpsc::Sender<Vec<u8>>,
    /// Taken by the task that sends, which ends when the plugin is dropped.
    waiting: Mutex<Option<mpsc::Receiver<Vec<u8>>>>,
}

/// Reads `dnstap SOCKET [full] { identity TEXT; version TEXT }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let [socket, rest @ ..] = line.between(1, 2)? else {
        return Err(line.error("dnstap names no socket", "write dnstap SOCKET [full]"));
    };
    let full = match rest {
        [] => false,
        [word, ..] if word.text == "full" => true,
        [word, ..] => {
            return Err(word.error(
                format!("dnstap: unexpected {}", word.text),
                "write full or nothing",
            ));
        }
    };
    let observer = match socket.text.split_once("://") {
        Some(("tcp", address)) => {
            let address = address
                .replace("localhost", "127.0.0.1")
                .parse()
                .map_err(|_| {
                    socket.error(
                        format!("dnstap: {address} is not an address with a port"),
                        "write tcp://127.0.0.1:6000",
                    )
                })?;
            Observer::Tcp(address)
        }
        Some(("unix", path)) => Observer::Unix(setup.path(path)),
        Some((scheme, _)) => {
            return Err(socket.error(
                format!("dnstap: {scheme}:// is not spoken"),
                "write tcp://ADDRESS:PORT, unix://PATH or a path",
            ));
        }
        None => Observer::Unix(setup.path(&socket.text)),
    };
    let mut identity = super::nsid::hostname();
    let mut version = concat!("Fairlead-", env!("CARGO_PKG_VERSION")).to_owned();
    for option in &line.block {
        match option.name.text.as_str() {
            "identity" => identity.clone_from(&option.exactly::<1>()?[0].text),
            "version" => version.clone_from(&option.exactly::<1>()?[0].text),
            _ => return Err(option.unknown("dnstap", &["identity", "version"])),
        }
    }
    let (frames, waiting) = mpsc::channel(WAITING_MAX);
    Ok(Some(Arc::new(Dnstap {
        observer: Arc::new(observer),
        full,
        identity,
        version,
        frames,
        waiting: Mutex::new(Some(waiting)),
    })))
}

impl Plugin for Dnstap {
    fn name(&self) -> &'static str {
        "dnstap"
    }

    fn start(&self) {
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(waiting) = waiting else {
            return;
        };
        tokio::spawn(send(Arc::clone(&self.observer), waiting));
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let asked = SystemTime::now();
            // A full queue loses frames, never answers.
            let _ = self.frames.try_send(self.frame(request, asked, None));
            let served = next.serve(request).await;
            let answer = match &served {
                Ok(Outcome::Answer(response)) => Some(response.message.clone()),
                Ok(Outcome::Stream(_) | Outcome::Silence(_)) => None,
                // As the server will answer for whoever failed.
                Err(failure) => Some(request.reply(failure.code)),
            };
            if let Some(answer) = answer {
                let octets = match self.full {
                    true => answer.to_vec().unwrap_or_default(),
                    false => Vec::new(),
                };
                let _ = self
                    .frames
                    .try_send(self.frame(request, asked, Some(octets)));
            }
            served
        })
    }
}

impl Dnstap {
    /// A frame of dnstap.proto: a query of a client, or the answer to it.
    fn frame(&self, request: &Request, asked: SystemTime, answer: Option<Vec<u8>>) -> Vec<u8> {
        let (client, local) = (
            request.client.ip().to_canonical(),
            request.local.ip().to_canonical(),
        );
        let octets = |address: std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => address.octets().to_vec(),
            std::net::IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut message = Proto::default();
        // CLIENT_QUERY, CLIENT_RESPONSE
        message.number(1, if answer.is_some() { 6 } else { 5 });
        message.number(2, if client.is_ipv4() { 1 } else { 2 });
        message.number(
            3,
            match request.transport {
                Transport::Udp => 1,
                Transport::Tcp => 2,
                Transport::Tls => 3,
                Transport::Https => 4,
            },
        );
        message.bytes(4, &octets(client));
        message.bytes(5, &octets(local));
        message.number(6, u64::from(request.client.port()));
        message.number(7, u64::from(request.local.port()));
        message.time(8, 9, asked);
        if self.full && answer.is_none() {
            message.bytes(10, &request.raw);
        }
        if let Some(answer) = &answer {
            message.time(12, 13, SystemTime::now());
            if !answer.is_empty() {
                message.bytes(14, answer);
            }
        }
        let mut frame = Proto::default();
        frame.bytes(1, self.identity.as_bytes());
        frame.bytes(2, self.version.as_bytes());
        frame.bytes(14, &message.0);
        frame.number(15, 1);
        frame.0
    }
}

/// Fields of a protobuf message.
#[derive(Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push((number & 0x7f | 0x80) as u8);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    fn bytes(&mut self, field: u64, octets: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(octets.len() as u64);
        self.0.extend_from_slice(octets);
    }

    /// Seconds as a number, nanoseconds as four octets, low first.
    fn time(&mut self, seconds: u64, nanoseconds: u64, time: SystemTime) {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.number(seconds, since.as_secs());
        self.varint(nanoseconds << 3 | 5);
        self.0
            .extend_from_slice(&since.subsec_nanos().to_le_bytes());
    }
}

/// Sends frames while there is an observer, and looks for him again when there is none.
async fn send(observer: Arc<Observer>, mut waiting: mpsc::Receiver<Vec<u8>>) {
    loop {
        if let Err(error) = connected(&observer, &mut waiting).await {
            tracing::debug!(%error, "dnstap: the observer is not there");
        }
        if waiting.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn connected(
    observer: &Observer,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
) -> std::io::Result<()> {
    let mut stream: Box<dyn Stream> = match observer {
        Observer::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Observer::Tcp(address) => Box::new(TcpStream::connect(address).await?),
    };
    stream.write_all(&control(READY)).await?;
    let shaken = tokio::time::timeout(Duration::from_secs(5), accepted(&mut stream)).await;
    shaken.map_err(std::io::Error::other)??;
    stream.write_all(&control(START)).await?;
    while let Some(frame) = waiting.recv().await {
        let mut octets = (frame.len() as u32).to_be_bytes().to_vec();
        octets.extend_from_slice(&frame);
        stream.write_all(&octets).await?;
    }
    // Nothing more will come: the observer may close its file in peace.
    let mut stop = vec![0; 4];
    stop.extend(4_u32.to_be_bytes());
    stop.extend(STOP.to_be_bytes());
    stream.write_all(&stop).await?;
    stream.shutdown().await
}

/// A control frame that names our content: escape, length, type, then the field.
fn control(kind: u32) -> Vec<u8> {
    let length = CONTENT_TYPE.len() as u32;
    let mut frame = vec![0; 4];
    for number in [length + 12, kind, 1, length] {
        frame.extend(number.to_be_bytes());
    }
    frame.extend_from_slice(CONTENT_TYPE);
    frame
}

/// Waits for the observer to accept the content.
async fn accepted(stream: &mut Box<dyn Stream>) -> std::io::Result<()> {
    let wrong = |what: &str| Err(std::io::Error::other(what.to_owned()));
    if stream.read_u32().await? != 0 {
        return wrong("no control frame");
    }
    let length = stream.read_u32().await?;
    if !(4..=512).contains(&length) {
        return wrong("a control frame of strange length");
    }
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await?;
    let has_type = frame
        .windows(CONTENT_TYPE.len())
        .any(|part| part == CONTENT_TYPE);
    match frame.get(..4) {
        Some(kind) if kind == ACCEPT.to_be_bytes() && has_type => Ok(()),
        _ => wrong("the observer does not take dnstap"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_frames() {
        let mut proto = Proto::default();
        proto.number(1, 300);
        proto.bytes(14, b"ab");
        assert_eq!(proto.0, [0x08, 0xac, 0x02, 0x72, 2, b'a', b'b']);
        let frame = control(READY);
        assert_eq!(frame.len(), 4 + 4 + 12 + CONTENT_TYPE.len());
        assert_eq!(frame[..12], [0, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 4]);
    }
}
