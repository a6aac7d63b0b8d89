//! The lines of `dnstap`.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ServerConfig;
use rustls_pki_types::ServerName;

use super::QUEUE;
use super::outlet::Observer;
use super::outlet::Place;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::plugin::clients::Clients;
use crate::plugin::nsid;
use crate::plugin::settings;
use crate::plugin::setup::Setup;

const OPTIONS: &[&str] = &["extra", "identity", "skipverify", "tls", "version"];

/// One line, read.
pub(super) struct Line {
    pub(super) end: End,
    pub(super) full: bool,
    pub(super) identity: String,
    pub(super) version: String,
    pub(super) extra: String,
}

/// Who begins the connection.
pub(super) enum End {
    Connects {
        observer: Observer,
        /// Octets of the socket's buffer.
        buffer: Option<usize>,
        /// Frames that wait.
        queue: usize,
    },
    Listens(Place),
}

enum Address<'a> {
    Unix(&'a str),
    Tcp(&'a str, bool),
}

/// Reads `dnstap [listen] SOCKET [full] [WRITEBUFFER] [QUEUE] { OPTIONS }`.
pub(super) fn line(setup: &Setup<'_>, line: &Directive) -> Result<Line, ConfigError> {
    let words = line.between(1, 5)?;
    let (listens, words) = match words.split_first() {
        Some((first, rest)) if first.text == "listen" => (true, rest),
        _ => (false, words),
    };
    let Some((socket, words)) = words.split_first() else {
        return Err(line.error(
            "dnstap names no socket",
            "write dnstap [listen] SOCKET [full]",
        ));
    };
    let (full, words) = match words.split_first() {
        Some((first, rest)) if first.text == "full" => (true, rest),
        _ => (false, words),
    };
    let mut identity = nsid::hostname();
    let mut version = concat!("Fairlead-", env!("CARGO_PKG_VERSION")).to_owned();
    let mut extra = String::new();
    let (mut certificate, mut skip) = (None, false);
    for option in &line.block {
        match option.name.text.as_str() {
            "identity" => identity.clone_from(&option.exactly::<1>()?[0].text),
            "version" => version.clone_from(&option.exactly::<1>()?[0].text),
            "extra" => extra.clone_from(&option.exactly::<1>()?[0].text),
            "skipverify" => skip = option.exactly::<0>().map(|_| true)?,
            "tls" if listens => certificate = Some(option),
            _ => return Err(option.unknown("dnstap", OPTIONS)),
        }
    }
    let address = match socket.text.split_once("://") {
        Some(("tcp", address)) => Address::Tcp(address, false),
        Some(("tls", address)) => Address::Tcp(address, true),
        Some(("unix", path)) => Address::Unix(path),
        None => Address::Unix(&socket.text),
        Some((scheme, _)) => {
            return Err(socket.error(
                format!("dnstap: {scheme}:// is not spoken"),
                "write tcp://HOST:PORT, tls://HOST:PORT, unix://PATH or a path",
            ));
        }
    };
    let end = match listens {
        true => {
            if let Some(word) = words.first() {
                return Err(word.error(
                    format!("dnstap: unexpected {}", word.text),
                    "write dnstap listen SOCKET [full]",
                ));
            }
            End::Listens(place(setup, socket, &address, certificate, skip)?)
        }
        false => {
            let [buffer, queue] = sizes(words)?;
            End::Connects {
                observer: observer(setup, line, socket, &address, skip)?,
                buffer: buffer.map(|mebi| mebi << 20),
                queue: queue.unwrap_or(1) * QUEUE,
            }
        }
    };
    Ok(Line {
        end,
        full,
        identity,
        version,
        extra,
    })
}

/// `[WRITEBUFFER] [QUEUE]`: MiB, and tens of thousands of frames.
fn sizes(words: &[Token]) -> Result<[Option<usize>; 2], ConfigError> {
    if let Some(word) = words.get(2) {
        return Err(word.error(
            format!("dnstap: unexpected {}", word.text),
            "write dnstap SOCKET [full] [WRITEBUFFER] [QUEUE]",
        ));
    }
    let read = |at: usize, most| {
        let word = words.get(at);
        word.map(|word| word.number(1, most)).transpose()
    };
    Ok([read(0, 1024)?, read(1, 4096)?])
}

fn observer(
    setup: &Setup<'_>,
    line: &Directive,
    socket: &Token,
    address: &Address<'_>,
    skip: bool,
) -> Result<Observer, ConfigError> {
    let (text, tls) = match address {
        Address::Unix(path) => return Ok(Observer::Unix(setup.path(path))),
        Address::Tcp(text, tls) => (*text, *tls),
    };
    let wrong =
        |what: String| socket.error(what, "write tcp://HOST:PORT, as in tcp://127.0.0.1:6000");
    let host = match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => host,
        _ => return Err(wrong(format!("dnstap: {text} is not a host with a port"))),
    };
    if !tls {
        return Ok(Observer::Tcp(text.to_owned(), None));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = match bare.parse::<IpAddr>() {
        Ok(address) => ServerName::IpAddress(address.into()),
        Err(_) => ServerName::try_from(bare.to_owned())
            .map_err(|error| wrong(format!("dnstap: {host}: {error}")))?,
    };
    let provider = settings::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| line.error(format!("dnstap: {error}"), "report this"))?;
    let builder = match skip {
        true => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(client::Anyone(provider))),
        false => builder.with_root_certificates(client::system_roots()),
    };
    let config = Arc::new(builder.with_no_client_auth());
    Ok(Observer::Tcp(text.to_owned(), Some((config, name))))
}

fn place(
    setup: &Setup<'_>,
    socket: &Token,
    address: &Address<'_>,
    certificate: Option<&Directive>,
    skip: bool,
) -> Result<Place, ConfigError> {
    let (text, tls) = match address {
        Address::Unix(path) => return Ok(Place::Unix(setup.path(path))),
        Address::Tcp(text, tls) => (*text, *tls),
    };
    let address = text
        .replace("localhost", "127.0.0.1")
        .parse()
        .map_err(|_| {
            socket.error(
                format!("dnstap: {text} is not an address with a port"),
                "write listen tcp://127.0.0.1:6000",
            )
        })?;
    let config: Option<Arc<ServerConfig>> = match (tls, certificate) {
        (false, None) => None,
        (false, Some(option)) => {
            return Err(option.error(
                "dnstap: tls for a socket without it",
                "write listen tls://ADDRESS:PORT",
            ));
        }
        (true, None) => {
            return Err(socket.error(
                "dnstap: tls:// needs a certificate",
                "add a line `tls CERT KEY [CA]`",
            ));
        }
        (true, Some(option)) => {
            let words = option.between(2, 3)?;
            let clients = match words.get(2).filter(|_| !skip) {
                Some(ca) => Clients::Known {
                    roots: settings::roots(ca, &setup.path(&ca.text))?,
                    required: true,
                },
                None => Clients::Unasked,
            };
            Some(settings::server_config(setup, option, words, clients)?)
        }
    };
    Ok(Place::Tcp(address, config))
}
