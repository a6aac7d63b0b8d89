//! Answers about a cluster of four Services.

use super::*;
use crate::message::Transport;
use hickory_proto::op::Message;
use hickory_proto::op::Query;

struct Cluster;

impl Outside for Cluster {
    fn synced(&self) -> bool {
        true
    }

    fn serial(&self) -> u32 {
        9
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::Sender::new(0).subscribe()
    }

    fn namespace(&self, name: &str) -> bool {
        name == "default"
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Reached> {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let ports = vec![("http".to_owned(), "tcp".to_owned(), 80)];
        let mut reached = Reached {
            ports,
            ..Reached::default()
        };
        match (namespace, name) {
            ("default", "web") => {
                reached.addresses = vec![
                    address("192.0.2.1"),
                    address("2001:db8::1"),
                    address("192.0.2.1"),
                ];
            }
            ("default", "named") => reached.names = vec![names::parse("lb.example.net").unwrap()],
            ("default", "inside") => reached.endpoints = vec![endpoint("c", address("10.0.0.3"))],
            ("default", "hl") => {
                reached.headless = true;
                reached.endpoints = ["10.0.0.1", "fd00::1"]
                    .map(|text| endpoint("a", address(text)))
                    .into();
            }
            _ => return None,
        }
        Some(reached)
    }

    fn services(&self) -> Vec<(String, String)> {
        let names = ["web", "named", "inside", "hl"];
        names
            .map(|name| ("default".to_owned(), name.to_owned()))
            .into()
    }

    fn owners(&self, address: IpAddr) -> Vec<(String, String)> {
        match address.to_string().as_str() {
            "192.0.2.1" => vec![("default".to_owned(), "web".to_owned())],
            _ => Vec::new(),
        }
    }
}

/// An endpoint on another port than its Service's.
fn endpoint(label: &str, address: IpAddr) -> Endpoint {
    Endpoint {
        label: label.to_owned(),
        address,
        ports: vec![("http".to_owned(), "tcp".to_owned(), 8080)],
    }
}

fn external(headless: bool) -> External {
    let zones = ["out.example", "192.in-addr.arpa"];
    External {
        zones: zones
            .iter()
            .map(|zone| names::parse(zone).unwrap())
            .collect(),
        apex: "dns".to_owned(),
        ttl: 5,
        headless,
        fallthrough: Fallthrough::Never,
        cluster: Arc::default(),
    }
}

fn answer(headless: bool, name: &str, kind: &str) -> String {
    let external = external(headless);
    let mut message = Message::query();
    message.add_query(Query::query(
        Name::from_ascii(name).unwrap(),
        kind.parse().unwrap(),
    ));
    let here = "192.0.2.53:53".parse().unwrap();
    let request = Request::new(message, bytes::Bytes::new(), here, here, Transport::Udp);
    let zone = matching(&external.zones, request.name()).unwrap();
    match external.find(&Cluster, zone, &request) {
        Found::NoData => "no data".to_owned(),
        Found::Nothing => "nothing".to_owned(),
        Found::Records(answers, additionals) => {
            let shown = |record: &Record| format!("{} {}", record.record_type(), record.data);
            let answers: Vec<String> = answers.iter().map(shown).collect();
            let additionals: Vec<String> = additionals.iter().map(shown).collect();
            format!("{} | {}", answers.join(", "), additionals.join(", "))
        }
    }
}

#[test]
fn answers() {
    let table = [
        ("web.default.out.example.", "A", "A 192.0.2.1 | "),
        ("WEB.default.out.example.", "AAAA", "AAAA 2001:db8::1 | "),
        ("web.default.out.example.", "TXT", "no data"),
        (
            "web.default.out.example.",
            "SRV",
            "SRV 0 100 80 web.default.out.example. | A 192.0.2.1, AAAA 2001:db8::1",
        ),
        (
            "_http._tcp.web.default.out.example.",
            "SRV",
            "SRV 0 100 80 web.default.out.example. | A 192.0.2.1, AAAA 2001:db8::1",
        ),
        ("_http._udp.web.default.out.example.", "SRV", "nothing"),
        (
            "named.default.out.example.",
            "A",
            "CNAME lb.example.net. | ",
        ),
        (
            "named.default.out.example.",
            "SRV",
            "SRV 0 100 80 lb.example.net. | ",
        ),
        ("inside.default.out.example.", "A", "nothing"),
        ("hl.default.out.example.", "A", "nothing"),
        ("none.default.out.example.", "A", "nothing"),
        ("default.out.example.", "A", "no data"),
        ("nowhere.out.example.", "A", "nothing"),
        (
            "out.example.",
            "NS",
            "NS ns1.dns.out.example. | A 192.0.2.53",
        ),
        (
            "out.example.",
            "SOA",
            "SOA ns1.dns.out.example. hostmaster.dns.out.example. 9 7200 1800 86400 5 | ",
        ),
        ("out.example.", "A", "no data"),
        ("ns1.dns.out.example.", "A", "A 192.0.2.53 | "),
        ("x.dns.out.example.", "A", "nothing"),
        (
            "1.2.0.192.in-addr.arpa.",
            "PTR",
            "PTR web.default.out.example. | ",
        ),
        ("2.2.0.192.in-addr.arpa.", "PTR", "nothing"),
    ];
    for (name, kind, expected) in table {
        assert_eq!(answer(false, name, kind), expected, "{name} {kind}");
    }
    assert_eq!(
        answer(true, "hl.default.out.example.", "A"),
        "A 10.0.0.1 | "
    );
    assert_eq!(
        answer(true, "a.hl.default.out.example.", "A"),
        "A 10.0.0.1 | "
    );
    assert_eq!(answer(true, "b.hl.default.out.example.", "A"), "nothing");
    let endpoints = "SRV 0 100 8080 a.hl.default.out.example. | A 10.0.0.1, AAAA fd00::1";
    for name in [
        "_http._tcp.hl.default.out.example.",
        "hl.default.out.example.",
    ] {
        assert_eq!(answer(true, name, "SRV"), endpoints, "{name}");
    }
    let udp = "_http._udp.hl.default.out.example.";
    assert_eq!(answer(true, udp, "SRV"), "nothing");
    let endpoint = "c.inside.default.out.example.";
    assert_eq!(answer(true, endpoint, "A"), "A 10.0.0.3 | ");
    assert_eq!(answer(false, endpoint, "A"), "nothing");
}

#[test]
fn a_zone_is_transferred_as_it_is_answered() {
    use crate::plugin::transfer::Source as _;
    let external = external(true);
    assert!(external.cluster.set(Arc::new(Cluster)).is_ok());
    let zone = names::parse("out.example").unwrap();
    let records = external.records(&zone).unwrap();
    assert_eq!(records[0].record_type(), RecordType::SOA);
    assert_eq!(external.serial(&zone), Some(9));
    let shown = |record: &Record| {
        let owner = record.name.to_string();
        format!("{owner} {} {}", record.record_type(), record.data)
    };
    // But for this machine's own addresses.
    let mut found: Vec<String> = records[1..]
        .iter()
        .filter(|record| !record.name.to_string().starts_with("ns1."))
        .map(shown)
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "_http._tcp.hl.default.out.example. SRV 0 100 8080 a.hl.default.out.example.",
            "_http._tcp.named.default.out.example. SRV 0 100 80 lb.example.net.",
            "_http._tcp.web.default.out.example. SRV 0 100 80 web.default.out.example.",
            "a.hl.default.out.example. A 10.0.0.1",
            "a.hl.default.out.example. AAAA fd00::1",
            "c.inside.default.out.example. A 10.0.0.3",
            "hl.default.out.example. A 10.0.0.1",
            "hl.default.out.example. AAAA fd00::1",
            "named.default.out.example. CNAME lb.example.net.",
            "out.example. NS ns1.dns.out.example.",
            "web.default.out.example. A 192.0.2.1",
            "web.default.out.example. AAAA 2001:db8::1",
        ]
    );
    let reverse = names::parse("192.in-addr.arpa").unwrap();
    assert!(external.records(&reverse).is_none());
}
