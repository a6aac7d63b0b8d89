//! Messages as text, and clusters from YAML.
#![allow(dead_code, reason = "each test uses its part")]

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;
use view::Event;
use zone::reply::rcodes;
use zone::{Config, Frame, Name, Options, Outcome, Query, Reply, Snapshot, Store};

pub(crate) const TYPES: [(&str, u16); 13] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("HTTPS", 65),
    ("AXFR", 252),
    ("ANY", 255),
    ("OPT", 41),
];

pub(crate) fn type_number(text: &str) -> u16 {
    TYPES.iter().find(|(name, _)| *name == text).unwrap().1
}

pub(crate) fn type_name(number: u16) -> &'static str {
    TYPES.iter().find(|(_, n)| *n == number).unwrap().0
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Folds the objects of a YAML stream, lists complete.
pub(crate) fn store(yaml: &str, options: Options) -> Store {
    let mut store = Store::new(options);
    store.service(Event::Restarted);
    store.slice(Event::Restarted);
    store.namespace(Event::Restarted);
    store.pod(Event::Restarted);
    store.import(Event::Restarted);
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    for object in documents {
        apply(&mut store, object);
    }
    store.service(Event::Synced);
    store.slice(Event::Synced);
    store.namespace(Event::Synced);
    store.pod(Event::Synced);
    store.import(Event::Synced);
    store
}

pub(crate) fn apply(store: &mut Store, object: Value) {
    fn read<T: serde::de::DeserializeOwned>(object: Value) -> Event<T> {
        Event::Applied(serde_json::from_value(object).unwrap())
    }
    match object["kind"].as_str().unwrap() {
        "Service" => store.service(read(object)),
        "EndpointSlice" => store.slice(read(object)),
        "Namespace" => store.namespace(read(object)),
        "Pod" => store.pod(read(object)),
        "ServiceImport" => store.import(read(object)),
        other => panic!("{other}"),
    }
}

/// A request's octets.
pub(crate) fn request(wire: &[u8], qtype: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(wire);
    message.extend_from_slice(&qtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

/// Name in wire form, letters as given.
pub(crate) fn wire(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        out.push(u8::try_from(label.len()).unwrap());
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out
}

/// Asks, and gives what came of it and the answer as text: code, then records, each section in order.
pub(crate) fn ask(
    snapshot: &Snapshot,
    config: &Config,
    text: &str,
    qtype: u16,
) -> (Outcome, Vec<String>) {
    let message = request(&wire(text), qtype);
    let mut buffer = vec![0; 65_535];
    let query = Query::parse(&message).unwrap();
    let mut reply = Reply::new(&mut buffer, &query, 65_535).unwrap();
    let outcome = snapshot.answer(config, &query.question, 0, &mut reply);
    let rcode = match outcome {
        Outcome::NxDomain(_) => rcodes::NXDOMAIN,
        Outcome::Unsynced => rcodes::SERVFAIL,
        Outcome::NotOurs => rcodes::REFUSED,
        Outcome::Answer
        | Outcome::Alias(_)
        | Outcome::NoData
        | Outcome::Empty
        | Outcome::Transfer => rcodes::NOERROR,
    };
    let frame = Frame {
        authoritative: true,
        ..Frame::default()
    };
    let length = reply.finish(&query, rcode, &frame);
    (outcome, decode(&buffer[..length]))
}

/// A message as text.
pub(crate) fn decode(message: &[u8]) -> Vec<String> {
    let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let code = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED",
    ][usize::from(message[3] & 15)];
    let truncated = if message[2] & 2 != 0 { " TC" } else { "" };
    let mut out = vec![format!("{code}{truncated}")];
    let mut at = 12;
    for _ in 0..number(4) {
        at = read_name(message, at).1 + 4;
    }
    let sections = [
        ("", number(6)),
        ("authority ", number(8)),
        ("additional ", number(10)),
    ];
    for (section, count) in sections {
        for _ in 0..count {
            let (owner, after) = read_name(message, at);
            let rtype = number(after);
            let ttl = u32::from_be_bytes(message[after + 4..after + 8].try_into().unwrap());
            let length = usize::from(number(after + 8));
            let begin = after + 10;
            let data = data(message, rtype, begin, length);
            out.push(format!(
                "{section}{owner} {ttl} {} {data}",
                type_name(rtype)
            ));
            at = begin + length;
        }
    }
    assert_eq!(at, message.len(), "octets after the last record");
    out
}

fn data(message: &[u8], rtype: u16, at: usize, length: usize) -> String {
    let octets = &message[at..at + length];
    let name_at = |at: usize| {
        let (text, end) = read_name(message, at);
        (text, end)
    };
    match type_name(rtype) {
        "A" => Ipv4Addr::from(<[u8; 4]>::try_from(octets).unwrap()).to_string(),
        "AAAA" => Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap()).to_string(),
        "CNAME" | "NS" | "PTR" => {
            let (text, end) = name_at(at);
            assert_eq!(end, at + length);
            text
        }
        "TXT" => format!("{:?}", String::from_utf8_lossy(&octets[1..])),
        "SRV" => {
            let n = |i: usize| u16::from_be_bytes([octets[i], octets[i + 1]]);
            let target = &octets[6..];
            assert!(
                target.iter().all(|o| *o < 0xc0),
                "a target is not compressed (RFC 2782)"
            );
            format!("{} {} {} {}", n(0), n(2), n(4), name_at(at + 6).0)
        }
        "SOA" => {
            let (server, next) = name_at(at);
            let (mail, next) = name_at(next);
            assert_eq!(next + 20, at + length);
            let minimum = u32::from_be_bytes(message[next + 16..next + 20].try_into().unwrap());
            format!("{server} {mail} SERIAL 7200 1800 86400 {minimum}")
        }
        _ => format!("{octets:?}"),
    }
}

fn read_name(message: &[u8], mut at: usize) -> (String, usize) {
    let mut text = String::new();
    let mut end = None;
    for _ in 0..128 {
        let length = usize::from(message[at]);
        if length >= 0xc0 {
            end.get_or_insert(at + 2);
            let target = (length & 0x3f) << 8 | usize::from(message[at + 1]);
            assert!(target < at, "pointers lead back");
            at = target;
            continue;
        }
        if length == 0 {
            let text = if text.is_empty() { ".".into() } else { text };
            return (text, end.unwrap_or(at + 1));
        }
        text += &String::from_utf8_lossy(&message[at + 1..at + 1 + length]);
        text.push('.');
        at += 1 + length;
    }
    panic!("a name without end");
}
