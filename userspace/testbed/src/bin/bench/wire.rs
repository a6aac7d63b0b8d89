//! A client of an API server that costs next to nothing: HTTP/1.1 over TLS, one request at a time on a connection, and
//! answers whose bytes are counted rather than parsed.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What is read of a connection at once, in bytes. The TLS library asks for 4 KiB, which would be a system call each.
const READ: usize = 32 << 10;

/// Where the server is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Target {
    /// For instance `127.0.0.1:6443`.
    pub(crate) address: String,
    pub(crate) token: Arc<str>,
    connector: TlsConnector,
}

impl Target {
    /// A server whose certificate the authority in `ca` (PEM) has signed.
    pub(crate) fn new(address: &str, token: &str, ca: &[u8]) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in rustls_pki_types::CertificateDer::pem_slice_iter(ca) {
            roots.add(certificate.context("the server's authority")?)?;
        }
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            address: address.to_owned(),
            token: token.into(),
            connector: TlsConnector::from(Arc::new(config)),
        })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").context("a name")?;
        Ok(Connection {
            stream: self
                .connector
                .connect(name, BufReader::with_capacity(READ, stream))
                .await?,
            target: self.clone(),
            buffer: Vec::with_capacity(64 << 10),
        })
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TlsStream<BufReader<TcpStream>>,
    target: Target,
    /// What was read and not yet used.
    buffer: Vec<u8>,
}

impl Connection {
    /// Sends a request and reads its answer. Returns the bytes of the body; an answer that is no success is an error.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Vec<u8>> {
        self.send(method, path, content_type, body).await?;
        let head = self.head().await?;
        let answer = match head.length {
            Some(length) => {
                self.fill(length).await?;
                self.buffer.drain(..length).collect()
            }
            None => self.chunks().await?,
        };
        if !(200..300).contains(&head.code) {
            bail!(
                "{method} {path}: {} {}",
                head.code,
                String::from_utf8_lossy(&answer)
            );
        }
        Ok(answer)
    }

    /// Begins a watch; events are read by [`Connection::events`].
    pub(crate) async fn watch(&mut self, path: &str) -> Result<()> {
        self.send("GET", path, "application/json", b"").await?;
        let head = self.head().await?;
        if head.code != 200 {
            bail!("GET {path}: {}", head.code);
        }
        Ok(())
    }

    /// How many events of a watch came with what is there now or comes next. Lines of the encoding end in `\r\n`, events
    /// in `\n`; none is counted twice.
    pub(crate) async fn events(&mut self) -> Result<usize> {
        if self.buffer.is_empty() {
            self.read().await?;
        }
        // The last byte may be one half of an end of line.
        let keep = usize::from(self.buffer.last() == Some(&b'\r'));
        let used = self.buffer.len() - keep;
        let events = ends(&self.buffer[..used]);
        self.buffer.drain(..used);
        if keep == 1 {
            self.read().await?;
        }
        Ok(events)
    }

    async fn send(
        &mut self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<()> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\naccept: application/json\r\n\
             content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            self.target.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        Ok(self.stream.flush().await?)
    }

    async fn head(&mut self) -> Result<Head> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = String::from_utf8(head)
            .context("a head of text")?
            .to_ascii_lowercase();
        let code = head.split(' ').nth(1).context("a status")?.parse()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map(str::parse).transpose()?;
        Ok(Head { code, length })
    }

    async fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.buffer, b"\r\n") {
                    break at;
                }
                self.read().await?;
            };
            let size = std::str::from_utf8(&self.buffer[..end])?;
            let size = usize::from_str_radix(size.trim(), 16).context("the size of a chunk")?;
            self.buffer.drain(..end + 2);
            self.fill(size + 2).await?;
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn fill(&mut self, length: usize) -> Result<()> {
        while self.buffer.len() < length {
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(16 << 10);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => bail!("the server ended the connection"),
            _ => Ok(()),
        }
    }
}

/// How many lines of events end in the bytes. JSON has no carriage return: each is one of the encoding's.
fn ends(bytes: &[u8]) -> usize {
    // In parts whose count fits a byte, so that the compiler counts many bytes at a time: what reads shares the
    // processors with what is measured.
    let of = |part: &[u8]| {
        part.iter()
            .map(|byte| i8::from(*byte == b'\n') - i8::from(*byte == b'\r'))
            .sum::<i8>()
    };
    let ends: i64 = bytes.chunks(64).map(|part| i64::from(of(part))).sum();
    usize::try_from(ends).unwrap_or(0)
}

struct Head {
    code: u16,
    /// `None`: in chunks.
    length: Option<usize>,
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}
