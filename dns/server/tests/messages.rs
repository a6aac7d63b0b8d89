//! Messages of every kind through a long chain: whatever can be read is answered, and the answer can be written.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dns_server::corefile::Scheme;
use dns_server::instance::Environment;
use dns_server::instance::Instance;
use dns_server::instance::Listen;
use dns_server::message::Request;
use dns_server::message::Transport;
use hickory_proto::op::Message;
use proptest::prelude::*;

const CHAIN: &str = r#"
. {
    errors
    nsid
    bufsize
    tsig {
        secret key.example. c2VjcmV0
        require none
    }
    any
    chaos
    local
    rrl {
        nxdomains-per-second 1
    }
    loadbalance
    autopath resolv.conf
    rewrite name suffix .a.example. .b.example.
    rewrite name regex (.*)[.]c {1}.d
    rewrite edns0 subnet set 24 56
    acl {
        block type HINFO
    }
    cache {
        serve_stale
        prefetch 1
    }
    header {
        response set ra
    }
    minimal
    template IN A {
        match (?P<first>[a-z]*)[.].*
        answer "{{ .Name }} 1 IN CNAME {{ .Group.first }}.a.example."
        fallthrough
    }
    dns64
    hosts {
        192.0.2.1 a.example
        fallthrough
    }
    transfer {
        to *
    }
    file zone example
    whoami
}
"#;

const ZONE: &str =
    "@ 60 SOA ns hm 1 1 1 1 1\n@ 60 NS ns\n*.w 60 CNAME x.w\nd 60 DNAME d.d\ne 60 CNAME e\n";

fn instance(folder: &Path) -> Arc<Instance> {
    std::fs::write(folder.join("zone"), ZONE).unwrap();
    std::fs::write(folder.join("resolv.conf"), "search a b.example\n").unwrap();
    let environment = Arc::new(Environment::new(53));
    match Instance::build(&environment, &folder.join("Corefile"), CHAIN) {
        Ok(instance) => Arc::new(instance),
        Err(error) => panic!("{error}"),
    }
}

fn serve(
    runtime: &tokio::runtime::Runtime,
    instance: &Arc<Instance>,
    octets: &[u8],
    transport: Transport,
) {
    let Ok(message) = Message::from_vec(octets) else {
        return;
    };
    let client = "[2001:db8::7]:999".parse().unwrap();
    let local = "[::1]:53".parse().unwrap();
    let raw = Bytes::copy_from_slice(octets);
    let mut request = Request::new(message, raw, client, local, transport);
    let listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().unwrap(),
    };
    let outcome = runtime.block_on(instance.serve(&listen, &mut request));
    if let Some(message) = outcome.message() {
        message.to_vec().expect("an answer can be written");
    }
}

/// Labels that lead into the corners of the chain, and any others.
fn label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "a",
            "b",
            "c",
            "d",
            "e",
            "w",
            "x",
            "example",
            "localhost",
            "*",
            "ns"
        ])
        .prop_map(|label| label.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..20),
        prop::collection::vec(any::<u8>(), 63),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn questions(
        labels in prop::collection::vec(label(), 0..12),
        kind in prop_oneof![prop::sample::select(vec![1u16, 5, 6, 12, 28, 33, 43, 251, 252, 255]), any::<u16>()],
        class in prop_oneof![4 => Just(1u16), 1 => any::<u16>()],
        flags in any::<u16>(),
        tail in prop::collection::vec(any::<u8>(), 0..40),
        stream in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let instance = instance(folder.path());
        let mut octets = vec![0, 1];
        octets.extend((flags & 0x7fff).to_be_bytes());
        octets.extend([0, 1, 0, 0, 0, 0, 0, u8::from(!tail.is_empty())]);
        for label in &labels {
            octets.push(u8::try_from(label.len()).unwrap());
            octets.extend(label);
        }
        octets.push(0);
        octets.extend(kind.to_be_bytes());
        octets.extend(class.to_be_bytes());
        let plain = octets.len();
        octets.extend(&tail);
        let transport = if stream { Transport::Tcp } else { Transport::Udp };
        serve(&runtime, &instance, &octets, transport);
        octets.truncate(plain);
        octets[11] = 0;
        // Twice: what was kept the first time is answered the second.
        serve(&runtime, &instance, &octets, transport);
        serve(&runtime, &instance, &octets, transport);
    }

    #[test]
    fn octets(octets in prop::collection::vec(any::<u8>(), 0..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        serve(&runtime, &instance(folder.path()), &octets, Transport::Udp);
    }
}
