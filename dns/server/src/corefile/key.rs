//! Keys of server blocks: `[scheme://]zone[:port[-port]]`.

use hickory_proto::rr::Name;

use super::error::ConfigError;
use super::lex::Token;
use crate::names;

/// A range of ports names at most this many.
const PORTS_MAX: usize = 1024;

/// How queries reach a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain DNS, UDP and TCP.
    Dns,
    /// DNS over TLS.
    Tls,
    /// DNS over HTTPS.
    Https,
}

impl Scheme {
    /// The scheme as keys and metrics write it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Https => "https",
        }
    }

    /// The port where a key gives none.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Dns => 53,
            Self::Tls => 853,
            Self::Https => 443,
        }
    }
}

/// One zone on one port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// How it is reached.
    pub scheme: Scheme,
    /// The zone, in lower case, absolute.
    pub zone: Name,
    /// The port.
    pub port: u16,
}

/// The keys that one word stands for: several if it is a prefix between octets or a range of ports. `port` is the
/// port of plain DNS where the word gives none.
///
/// # Errors
///
/// When the word is not a key.
pub fn keys(token: &Token, port: u16) -> Result<Vec<Key>, ConfigError> {
    let text = token.text.as_str();
    let (scheme, rest) = match text.split_once("://") {
        None => (Scheme::Dns, text),
        Some(("dns", rest)) => (Scheme::Dns, rest),
        Some(("tls", rest)) => (Scheme::Tls, rest),
        Some(("https", rest)) => (Scheme::Https, rest),
        Some((other, _)) => {
            return Err(token.error(
                format!("{text}: the scheme {other}:// is not served"),
                "use dns://, tls:// or https://",
            ));
        }
    };
    let (zone, ports) = split_port(rest);
    let ports = match ports {
        None if scheme == Scheme::Dns => vec![port],
        None => vec![scheme.port()],
        Some(ports) => range(ports).ok_or_else(|| {
            token.error(
                format!("{text}: {ports:?} is not a port or a range of ports"),
                format!(
                    "write a number from 1 to 65535, or FIRST-LAST with at most {PORTS_MAX} ports"
                ),
            )
        })?,
    };
    let zone = if zone.is_empty() { "." } else { zone };
    let zones = names::zones(zone).map_err(|error| {
        token.error(
            format!("{text}: {error}"),
            "write a zone such as example.org, or a prefix such as 10.0.0.0/8",
        )
    })?;
    let mut keys = Vec::with_capacity(ports.len() * zones.len());
    for &port in &ports {
        keys.extend(zones.iter().map(|zone| Key {
            scheme,
            zone: zone.clone(),
            port,
        }));
    }
    Ok(keys)
}

/// An IPv6 prefix holds colons itself, so a port follows only after its slash.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((zone, ports))
            if !ports.contains('/') && (!zone.contains(':') || zone.contains('/')) =>
        {
            (zone, Some(ports))
        }
        _ => (text, None),
    }
}

fn range(text: &str) -> Option<Vec<u16>> {
    let number = |text: &str| text.parse::<u16>().ok();
    match text.split_once('-') {
        None => number(text).map(|port| vec![port]),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            let ports: Vec<u16> = (first..=last).take(PORTS_MAX + 1).collect();
            (!ports.is_empty() && ports.len() <= PORTS_MAX).then_some(ports)
        }
    }
}
