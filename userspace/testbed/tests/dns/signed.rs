//! Zones that knot signs, here as a secondary: what is proven of names that are not there is what knot proves.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hickory_proto::rr::{Name, RecordType};
use testbed::{Node, Process, wait_for};

use crate::differential::{ask, ask_with_proofs};
use crate::stage::fairlead;

/// By how knot signs them.
const ZONES: [(&str, &str); 4] = [
    ("nsec.test", "nsec3: off"),
    ("nsec3.test", "nsec3: on"),
    (
        "salted.test",
        "nsec3: on\n    nsec3-iterations: 10\n    nsec3-salt-length: 8",
    ),
    ("optout.test", "nsec3: on\n    nsec3-opt-out: on"),
];

const RECORDS: &str = "$TTL 300
@ SOA ns h 10 60 60 600 60
@ NS ns
ns A 192.0.2.1
www A 192.0.2.2
alias CNAME www
*.wild A 192.0.2.3
a.ent.deep TXT x
sub NS ns.sub
ns.sub A 192.0.2.4
lone.below.ent NS ns
sec NS ns.sec
ns.sec A 192.0.2.5
sec DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF
";

const QUESTIONS: [(&str, RecordType); 17] = [
    ("nope", RecordType::A),
    ("deeper.nope", RecordType::A),
    ("www", RecordType::MX),
    ("below.www", RecordType::A),
    ("ent.deep", RecordType::A),
    ("deep", RecordType::TXT),
    ("ent", RecordType::A),
    ("alias", RecordType::AAAA),
    ("b.wild", RecordType::A),
    ("b.wild", RecordType::TXT),
    ("c.b.wild", RecordType::A),
    ("wild", RecordType::A),
    ("sub", RecordType::DS),
    ("x.sub", RecordType::A),
    ("x.sec", RecordType::A),
    ("sec", RecordType::DS),
    ("*.wild", RecordType::TXT),
];

#[test]
fn what_is_not_there_is_proven_as_by_who_signed_the_zone() -> Result<()> {
    let node = Node::create()?;
    let folder = node.folder().display().to_string();
    let mut knot = format!(
        "server:\n  rundir: \"{folder}\"\n  listen: 127.0.0.1@5301\ndatabase:\n  storage: \"{folder}/knot\"\n\
         log:\n  - target: stderr\n    any: error\n\
         acl:\n  - id: transfer\n    address: 127.0.0.1\n    action: transfer\npolicy:\n"
    );
    for (zone, signed) in ZONES {
        knot += &format!("  - id: {zone}\n    algorithm: ecdsap256sha256\n    {signed}\n");
    }
    knot += "zone:\n";
    let mut corefile = String::new();
    for (zone, _) in ZONES {
        std::fs::write(node.folder().join(zone), RECORDS)?;
        knot += &format!(
            "  - domain: {zone}\n    file: \"{folder}/{zone}\"\n    zonefile-sync: -1\n    zonefile-load: difference-no-serial\n\
             \x20   journal-content: all\n    acl: transfer\n    dnssec-signing: on\n    dnssec-policy: {zone}\n"
        );
        corefile += &format!(
            "{zone}:5300 {{\n bind 127.0.0.1\n secondary {{\n  transfer from 127.0.0.1:5301\n }}\n}}\n"
        );
    }
    std::fs::create_dir(node.folder().join("knot"))?;
    std::fs::write(node.folder().join("knot.conf"), knot)?;
    std::fs::write(node.folder().join("Corefile"), corefile)?;
    let place = node.place()?.without_cgroup();
    let mut command = place.command(Path::new("knotd"))?;
    command.arg("-c").arg(node.folder().join("knot.conf"));
    let _theirs = Process::start(&mut command, "knotd")
        .context("knot is missing: `cargo xtask test` installs it on Debian")?;
    let socket = |port| {
        node.netns().run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            Ok(socket)
        })
    };
    let theirs = socket(5301)?;
    let there = |socket: &UdpSocket, zone: &str| {
        let name = Name::from_ascii(format!("www.{zone}."))?;
        wait_for(zone, Duration::from_secs(40), || {
            let told = ask(socket, &name, RecordType::A).ok()?;
            (told.answers.len() == 1).then_some(())
        })
    };
    ZONES
        .iter()
        .try_for_each(|(zone, _)| there(&theirs, zone))?;
    let mut command = place.command(&fairlead()?)?;
    command
        .args(["dns", "--conf"])
        .arg(node.folder().join("Corefile"));
    let _ours = Process::start(&mut command, "fairlead dns")?;
    let ours = socket(5300)?;
    let mut proofs = 0;
    for (zone, _) in ZONES {
        there(&ours, zone)?;
        for (name, kind) in QUESTIONS {
            let name = Name::from_ascii(format!("{name}.{zone}."))?;
            let [mine, peers] = [&ours, &theirs].map(|socket| ask_with_proofs(socket, &name, kind));
            let (mine, peers) = (mine?, peers?);
            assert_eq!(mine, peers, "{name} {kind}");
            proofs += mine.1.len();
        }
    }
    assert!(proofs > 100, "{proofs} is too few");
    Ok(())
}
