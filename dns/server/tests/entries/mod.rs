//! Where octets and texts of strangers come in: one function each, for the fuzzer and for the quick test.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use dns_server::corefile::{self, Scheme};
use dns_server::instance::{Environment, Instance, Listen};
use dns_server::message::{Request, Transport};
use dns_server::plugin::file::{master, zone::Zone};
use hickory_proto::op::Message;
use hickory_proto::rr::Name;

/// A name of an entry and the entry.
pub(crate) type Entry = (&'static str, fn(&[u8]));

/// All of them.
#[allow(dead_code, reason = "a fuzz target takes one")]
pub(crate) const ENTRIES: [Entry; 4] = [
    ("query", query),
    ("message", message),
    ("corefile", corefile),
    ("master", master_file),
];

/// The reader of the fast path: what it takes, it can answer within the buffer.
pub(crate) fn query(octets: &[u8]) {
    let Ok(query) = zone::Query::parse(octets) else {
        return;
    };
    let mut buffer = [0; 1232];
    let size = buffer.len();
    let Some(mut reply) = zone::Reply::new(&mut buffer, &query, size) else {
        return;
    };
    static CONFIG: LazyLock<zone::Config> = LazyLock::new(|| {
        let zones = ["cluster.local", "in-addr.arpa", "ip6.arpa"];
        zone::Config::new(zones.iter().flat_map(|z| zone::Name::parse(z)).collect())
    });
    let snapshot = zone::Snapshot::default();
    let _ = snapshot.answer(&CONFIG, &query.question, 1, &mut reply);
    let length = reply.finish(&query, 0, &zone::Frame::default());
    assert!(length <= size, "{length} octets in a buffer of {size}");
    assert!(Message::from_vec(&buffer[..length]).is_ok(), "unreadable");
}

/// The chain: what the library can read is answered, and the answer can be written.
pub(crate) fn message(octets: &[u8]) {
    static SERVER: LazyLock<(tokio::runtime::Runtime, Arc<Instance>)> = LazyLock::new(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let environment = Arc::new(Environment::new(53));
        let text = ". {\n errors\n bufsize\n any\n chaos\n nsid\n local\n loadbalance\n rewrite name suffix .a. .b.\n \
                    acl {\n  block type HINFO\n }\n cache\n minimal\n dns64\n whoami\n}\n";
        let instance = Instance::build(&environment, Path::new("/nowhere/Corefile"), text);
        (runtime, Arc::new(instance.expect("a Corefile")))
    });
    let Ok(message) = Message::from_vec(octets) else {
        return;
    };
    let (client, local) = ([127, 0, 0, 1].into(), [127, 0, 0, 1].into());
    let (client, local): (std::net::IpAddr, std::net::IpAddr) = (client, local);
    let mut request = Request::new(
        message,
        Bytes::copy_from_slice(octets),
        (client, 4711).into(),
        (local, 53).into(),
        Transport::Udp,
    );
    let listen = Listen {
        scheme: Scheme::Dns,
        address: (std::net::Ipv6Addr::UNSPECIFIED, 53).into(),
    };
    let (runtime, instance) = &*SERVER;
    let outcome = runtime.block_on(instance.serve(&listen, &mut request));
    if let Some(message) = outcome.message() {
        message.to_vec().expect("an answer can be written");
    }
}

/// The Corefile's reader and every plugin's setup.
pub(crate) fn corefile(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    let file = Path::new("/nowhere/Corefile");
    if corefile::read(file, text, &|_| None).is_ok() {
        let _ = Instance::build(&Arc::new(Environment::new(53)), file, text);
    }
}

/// The reader of master files (RFC 1035 section 5); what it takes becomes a zone that is asked for each of its names.
pub(crate) fn master_file(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    let origin = Name::from_ascii("example.").expect("a name");
    let Ok(records) = master::parse(Path::new("/nowhere/zone"), text, &origin) else {
        return;
    };
    let names: Vec<Name> = records.iter().map(|r| r.name.clone()).take(64).collect();
    if let Ok(zone) = Zone::new(&origin, records) {
        for name in names {
            let _ = zone.find(&name, hickory_proto::rr::RecordType::A, true);
        }
    }
}
