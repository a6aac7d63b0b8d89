//! An event as it is shown.

use std::net::{IpAddr, SocketAddr};

use abi::{Counter, Judged, ServiceId};
use plan::text;
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::commands::filter::Seen;

/// What happened, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Told {
    /// `new`, `drop`, `refuse`, `error` or `policy`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// The counter that counted it, or what policies said.
    pub(super) reason: &'static str,
    pub(super) meaning: &'static str,
}

impl Told {
    /// What the programs mean by a number.
    pub(super) fn of(what: u16) -> Told {
        if let Some(judged) = Judged::ALL.iter().find(|known| **known as u16 == what) {
            return Told {
                kind: "policy",
                reason: judged.label(),
                meaning: judged.meaning(),
            };
        }
        let counter = Counter::ALL
            .iter()
            .find(|known| **known as u32 == u32::from(what));
        let Some(counter) = counter else {
            return Told {
                kind: "drop",
                reason: "unknown",
                meaning: "Something that this version does not know.",
            };
        };
        Told {
            kind: kind_of(*counter),
            reason: counter.label(),
            meaning: counter.meaning(),
        }
    }

    /// Whether its destination is a service's address.
    pub(super) fn is_services(self) -> bool {
        matches!(self.kind, "new" | "refuse") && self.reason != Counter::TcMasquerade.label()
    }
}

/// What kind of event a counter is one of.
fn kind_of(counter: Counter) -> &'static str {
    match counter {
        Counter::SocketConnect
        | Counter::SocketSend
        | Counter::TcNewFlow
        | Counter::XdpNewFlow
        | Counter::TcMasquerade => "new",
        Counter::SocketNoEndpoint | Counter::TcNoEndpoint | Counter::TcTooBig => "refuse",
        Counter::TcIcmpError => "error",
        // Every other one that is told of is a drop.
        _ => "drop",
    }
}

/// Who began it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// What a packet says.
    Packet(SocketAddr),
    /// Of a call, an address of the caller's network namespace: the socket may have none yet.
    Client(IpAddr),
}

impl Source {
    pub(super) fn addr(self) -> IpAddr {
        match self {
            Source::Packet(end) => end.ip(),
            Source::Client(addr) => addr,
        }
    }

    fn text(self) -> String {
        match self {
            Source::Packet(end) => end.to_string(),
            Source::Client(addr) => addr.to_string(),
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

/// An event with names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    #[serde(serialize_with = "rfc3339")]
    pub(super) time: Option<OffsetDateTime>,
    #[serde(flatten)]
    pub(super) told: Told,
    #[serde(serialize_with = "protocol")]
    pub(super) protocol: u8,
    /// `None` for a call from a network namespace that was not found.
    pub(super) source: Option<Source>,
    pub(super) source_name: Option<String>,
    pub(super) destination: SocketAddr,
    /// Where the destination is no service's.
    pub(super) destination_name: Option<String>,
    pub(super) service: Option<ServiceId>,
    pub(super) service_name: Option<String>,
    /// Where the source is translated.
    pub(super) becomes_source: Option<SocketAddr>,
    pub(super) backend: Option<SocketAddr>,
    pub(super) backend_name: Option<String>,
    /// Where the packet was seen or judged; `None` for a call on a socket.
    pub(super) device: Option<String>,
    /// Of a call, the cookie of its network namespace (`SO_NETNS_COOKIE`).
    pub(super) netns_cookie: Option<u64>,
    /// Of a call, who makes it, as this host numbers processes.
    pub(super) pid: Option<u32>,
    /// Of a call, the name of the thread that makes it.
    pub(super) process: Option<String>,
    pub(super) bytes: u32,
}

fn rfc3339<S: Serializer>(time: &Option<OffsetDateTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.and_then(|time| time.format(&Rfc3339).ok())
        .serialize(serializer)
}

fn protocol<S: Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&protocol_name(*number))
}

fn protocol_name(number: u8) -> String {
    match (text::protocol_name(number), number) {
        (_, 1) => "ICMP".to_owned(),
        (_, 58) => "ICMPv6".to_owned(),
        ("?", _) => number.to_string(),
        (name, _) => name.to_owned(),
    }
}

impl Line {
    pub(super) fn seen(&self) -> Seen {
        let source = match self.source {
            Some(Source::Packet(end)) => end,
            Some(Source::Client(addr)) => SocketAddr::new(addr, 0),
            None => self.destination,
        };
        Seen {
            service: self.service.unwrap_or(0),
            protocol: self.protocol,
            ends: [
                source,
                self.destination,
                self.becomes_source.unwrap_or(source),
                self.backend.unwrap_or(self.destination),
            ],
        }
    }

    /// A line for people.
    pub(super) fn text(&self) -> String {
        let named = |end: String, name: &Option<String>| match name {
            Some(name) => format!("{end} ({name})"),
            None => end,
        };
        let clock = format_description!("[hour]:[minute]:[second].[subsecond digits:6]");
        let clock = self.time.and_then(|time| time.format(&clock).ok());
        let clock = clock.unwrap_or_default();
        let kind = self.told.kind.to_ascii_uppercase();
        let source = self.source.map_or("?".to_owned(), Source::text);
        let mut out = format!(
            "{clock}  {kind:<6}  {:<4}  {}",
            protocol_name(self.protocol),
            named(source, &self.source_name)
        );
        if let (Some(process), Some(pid)) = (&self.process, self.pid) {
            out += &format!(" {process}[{pid}]");
        }
        let name = self
            .service_name
            .as_ref()
            .or(self.destination_name.as_ref());
        out += " > ";
        out += &named(self.destination.to_string(), &name.cloned());
        if let Some(source) = self.becomes_source {
            out += &format!(" as {source}");
        }
        if let Some(backend) = self.backend {
            out += &format!(" > {}", named(backend.to_string(), &self.backend_name));
        }
        let place = self.device.as_deref().unwrap_or("socket");
        out += &format!("  [{place}]");
        if self.told.kind != "new" {
            out += &format!(" {}: {}", self.told.reason, self.told.meaning);
        }
        out + "\n"
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;

    use abi::{Event, family};
    use zerocopy::FromZeros as _;

    use super::super::known::{Host, Known};
    use super::*;
    use crate::commands::cluster::Names;

    fn known() -> Known {
        Known {
            names: Names::default(),
            services: BTreeMap::from([(("10.96.0.1:80".parse().unwrap(), 6), 3)]),
            host: Host {
                devices: BTreeMap::from([(7, "pod7".to_owned())]),
                clients: BTreeMap::from([(5, vec!["10.244.0.9".parse().unwrap()])]),
                ..Host::default()
            },
            host_pods: BTreeMap::from([(1 << 31 | 1, "default/db".to_owned())]),
            epoch_ns: 0,
            missed: Cell::new(false),
        }
    }

    fn event(what: u16, ifindex: u32) -> Event {
        let mut event = Event::new_zeroed();
        event.time_ns = 1_500_000_000;
        event.what = what;
        event.family = family::V4;
        event.proto = 6;
        event.ifindex = ifindex;
        event.netns_cookie = 5;
        event.comm[..4].copy_from_slice(b"curl");
        event.pid = 42;
        event.saddr[..4].copy_from_slice(&[10, 244, 0, 9]);
        event.sport = 4000.into();
        event.daddr[..4].copy_from_slice(&[10, 96, 0, 1]);
        event.dport = 80.into();
        (event.to_saddr, event.to_sport) = (event.saddr, event.sport);
        event.to_daddr[..4].copy_from_slice(&[10, 244, 0, 1]);
        event.to_dport = 8080.into();
        event
    }

    #[test]
    fn an_event_reads_as_what_happened() {
        let mut known = known();
        for (what, ifindex, text) in [
            (
                Counter::TcNewFlow as u16,
                7,
                "00:00:01.500000  NEW     TCP   10.244.0.9:4000 > 10.96.0.1:80 > 10.244.0.1:8080  [pod7]\n",
            ),
            (
                Counter::SocketConnect as u16,
                0,
                "00:00:01.500000  NEW     TCP   10.244.0.9 curl[42] > 10.96.0.1:80 > 10.244.0.1:8080  [socket]\n",
            ),
            (
                Judged::Egress as u16,
                7,
                "00:00:01.500000  POLICY  TCP   10.244.0.9:4000 > 10.96.0.1:80 > 10.244.0.1:8080  [pod7] \
                 policy_egress: The policies of the pod that it is from let a conversation begin.\n",
            ),
        ] {
            assert_eq!(known.line(&event(what, ifindex)).text(), text);
        }
        let unknown = known.line(&event(999, 7));
        assert_eq!(
            (unknown.told.kind, unknown.told.reason),
            ("drop", "unknown")
        );
        assert!(!known.misses(), "the service is known");
    }

    #[test]
    fn a_line_of_json_is_a_document_that_says_what_people_read() {
        let mut known = known();
        let call = known.line(&event(Counter::SocketNoEndpoint as u16, 0));
        let value = serde_json::to_value(&call).unwrap();
        for (field, expected) in [
            ("type", "refuse"),
            ("reason", "socket_no_endpoint"),
            ("protocol", "TCP"),
            ("source", "10.244.0.9"),
            ("destination", "10.96.0.1:80"),
            ("process", "curl"),
            ("time", "1970-01-01T00:00:01.5Z"),
        ] {
            assert_eq!(value[field], expected, "{field} of {value}");
        }
        assert_eq!((&value["service"], &value["pid"]), (&3.into(), &42.into()));
        assert!(value["device"].is_null());
    }

    #[test]
    fn every_counter_that_is_a_drop_says_so() {
        for counter in Counter::ALL {
            let drop = counter.label().starts_with("drop_");
            let told = Told::of(*counter as u16);
            if drop {
                assert_eq!(told.kind, "drop", "{told:?}");
            }
        }
    }
}
