//! `fairlead dns query NAME [TYPE]`: asks a server, or with `--explain` the configuration itself, and says who made
//! the answer.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dns_server::cluster::Clusters;
use dns_server::instance::{Environment, Instance};
use dns_server::message::{Outcome, Request, Transport};
use dns_server::plugin::{code_name, file::present};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::cli::DnsQuery;
use crate::commands::connect;
use crate::output;

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(flags: &DnsQuery) -> anyhow::Result<()> {
    let mut name = Name::from_ascii(&flags.name)
        .with_context(|| format!("{:?} is no domain name", flags.name))?;
    name.set_fqdn(true);
    let kind: RecordType = dns_server::plugin::asked_kind(&flags.kind).with_context(|| {
        format!(
            "{:?} is no type of records, such as A, AAAA or SRV",
            flags.kind
        )
    })?;
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    let text = if flags.explain {
        explain(flags, message).await?
    } else {
        ask(flags.server, message).await?
    };
    output::emit(&text)
}

/// Asks a server.
async fn ask(server: SocketAddr, message: Message) -> anyhow::Result<String> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.context("open a socket")?;
    socket
        .connect(server)
        .await
        .with_context(|| format!("reach {server}"))?;
    let asked = Instant::now();
    let octets = message.to_vec().context("write the query")?;
    socket
        .send(&octets)
        .await
        .with_context(|| format!("ask {server}"))?;
    let mut buffer = vec![0; 65_535];
    let answer = loop {
        let received = timeout(
            PATIENCE.saturating_sub(asked.elapsed()),
            socket.recv(&mut buffer),
        );
        let length = received
            .await
            .with_context(|| format!("{server} did not answer within {} s", PATIENCE.as_secs()))?
            .with_context(|| {
                format!("no answer from {server}: is `fairlead dns` running there?")
            })?;
        let answer = Message::from_vec(&buffer[..length]).context("the answer is malformed")?;
        if answer.metadata.id == message.metadata.id {
            break answer;
        }
    };
    // What does not fit a datagram is asked for again by a stream (RFC 7766, 5).
    let (answer, carrier) = match answer.metadata.truncation {
        true => (by_stream(server, &octets).await?, "tcp"),
        false => (answer, "udp"),
    };
    let elapsed = asked.elapsed();
    Ok(show(&answer) + &format!("server {server} by {carrier}, {} us\n", elapsed.as_micros()))
}

/// Asks over TCP.
async fn by_stream(server: SocketAddr, octets: &[u8]) -> anyhow::Result<Message> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(octets.len()).map_err(std::io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes(), octets].concat())
            .await?;
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        Ok::<_, std::io::Error>(buffer)
    };
    let buffer = timeout(PATIENCE, exchange)
        .await
        .with_context(|| {
            format!(
                "{server} did not answer by TCP within {} s",
                PATIENCE.as_secs()
            )
        })?
        .with_context(|| format!("no answer by TCP from {server}"))?;
    Message::from_vec(&buffer).context("the answer is malformed")
}

/// Has the Corefile's own chain answer in this process, on the cluster as its API server tells it.
async fn explain(flags: &DnsQuery, message: Message) -> anyhow::Result<String> {
    let client = match &flags.kubeconfig {
        Some(file) => Some(connect(file)?),
        None => None,
    };
    let mut environment = Environment::new(53);
    environment.clusters = Clusters::new(client);
    environment.logs_queries = false;
    let file = flags
        .conf
        .as_ref()
        .context("--explain asks a Corefile: name it with --conf FILE")?;
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the Corefile {}", file.display()))?;
    let environment = Arc::new(environment);
    let instance = Arc::new(Instance::build(&environment, file, &text)?);
    // Plugins start, sockets and HTTP servers do not: another process may be serving this very file.
    instance.start_plugins();
    // A cluster that does not say what it has in time is one that queries are failed for as well.
    let _ = timeout(PATIENCE, instance.until_ready()).await;
    let listen = instance
        .listens()
        .into_iter()
        .next()
        .context("the Corefile listens nowhere")?;
    let octets = message.to_vec().context("write the query")?;
    let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
    let mut request = Request::new(message, octets.into(), here, here, Transport::Udp);
    request.described = true;
    let asked = Instant::now();
    let outcome = instance.serve(&listen, &mut request).await;
    let elapsed = asked.elapsed();
    let Outcome::Answer(response) = outcome else {
        return Ok("no answer is sent\n".to_owned());
    };
    let mut out = show(&response.message);
    out += &format!("block {} zone {}\n", request.server, request.zone);
    out += &format!("plugin {}\n", response.plugin);
    if let Some(origin) = &response.origin {
        out += &format!("because {origin}\n");
    }
    for (key, value) in &request.metadata {
        out += &format!("{key} {value}\n");
    }
    Ok(out + &format!("{} us\n", elapsed.as_micros()))
}

/// Code and records, a line each.
fn show(answer: &Message) -> String {
    let code = code_name(answer.metadata.response_code);
    let mut out = format!("status {code}\n");
    let sections = [
        ("", &answer.answers),
        ("authority ", &answer.authorities),
        ("additional ", &answer.additionals),
    ];
    for (section, records) in sections {
        for record in records {
            out += &format!("{section}{}\n", present::record(record));
        }
    }
    out
}
