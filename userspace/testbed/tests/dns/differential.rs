//! Master files served by `file` and by knot, nsd and unbound: every question gets the same answer from both, but for
//! what [`explained`] and the peer's own oddities name.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use testbed::{Node, Process, wait_for};

use crate::stage::fairlead;

/// Every shape that RFC 1034 section 4.3.2, RFC 4592 and RFC 6672 tell apart.
const ZONE: &str = "$ORIGIN example.org.
$TTL 300
@ SOA ns1 hostmaster 2026010101 7200 3600 1209600 300
@ NS ns1
@ NS ns2
@ MX 10 mail
@ TXT \"v=spf1 -all\" \"second part\"
@ A 192.0.2.1
ns1 A 192.0.2.53
ns2 A 192.0.2.54
ns2 AAAA 2001:db8::54
mail A 192.0.2.25
www A 192.0.2.80
www A 192.0.2.81
www AAAA 2001:db8::80
alias CNAME www
chain CNAME alias
dangling CNAME nothing
circle CNAME round
round CNAME circle
abroad CNAME www.example.net.
_http._tcp SRV 0 100 80 www
deep.empty.nonterminal A 192.0.2.90
*.wild A 192.0.2.99
*.wild MX 10 mail
known.wild TXT \"hides the wildcard\"
below.empty.wild A 192.0.2.98
*.alias-wild CNAME www
_http.*.hollow TXT \"below an asterisk\"
child NS ns.child
child NS ns2
ns.child A 192.0.2.70
other NS ns.example.net.
tree DNAME target
a.target A 192.0.2.60
b.c.target TXT \"two labels\"
far DNAME example.net.
caa CAA 0 issue \"ca.example.net\"
UPPER A 192.0.2.61
esc\\.aped A 192.0.2.62
\\034 A 192.0.2.63
";

/// Labels that lead to the zone's corners; a name is made of up to four of them.
const LABELS: [&str; 35] = [
    "www",
    "alias",
    "chain",
    "dangling",
    "circle",
    "round",
    "abroad",
    "_http",
    "_tcp",
    "deep",
    "empty",
    "nonterminal",
    "*",
    "wild",
    "known",
    "below",
    "alias-wild",
    "child",
    "ns",
    "other",
    "tree",
    "a",
    "b",
    "c",
    "target",
    "far",
    "caa",
    "upper",
    "UPPER",
    "ns1",
    "ns2",
    "mail",
    "nothing",
    "esc\\.aped",
    "WWW",
];

const TYPES: [RecordType; 11] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::NS,
    RecordType::SOA,
    RecordType::CNAME,
    RecordType::MX,
    RecordType::TXT,
    RecordType::SRV,
    RecordType::CAA,
    RecordType::DS,
    RecordType::HTTPS,
];

/// Questions that are asked at random, beside one of each name of two labels or fewer.
const RANDOM: u64 = 4_000;

/// What is compared: order and repetition do not matter, and additional records are each server's own choice.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    code: ResponseCode,
    authoritative: bool,
    pub(crate) answers: BTreeSet<String>,
    authorities: BTreeSet<String>,
}

fn question(socket: &UdpSocket, name: &Name, kind: RecordType, dnssec: bool) -> Result<Message> {
    let mut message = Message::new(rand_id(name), MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    edns.set_dnssec_ok(dnssec);
    message.set_edns(edns);
    socket.send(&message.to_vec()?)?;
    let mut buffer = [0; 4096];
    let length = socket
        .recv(&mut buffer)
        .with_context(|| format!("{name} {kind}: no answer"))?;
    let told = Message::from_vec(&buffer[..length])?;
    ensure!(
        told.metadata.id == message.metadata.id,
        "another query's answer"
    );
    Ok(told)
}

/// The code, and owners and types of what proves an answer: NSEC and NSEC3 records, and their signatures.
pub(crate) fn ask_with_proofs(
    socket: &UdpSocket,
    name: &Name,
    kind: RecordType,
) -> Result<(ResponseCode, BTreeSet<String>)> {
    let told = question(socket, name, kind, true)?;
    let of = |record: &Record| match &record.data {
        RData::Unknown { rdata, .. } if record.record_type() == RecordType::RRSIG => {
            let head = rdata.anything.get(..2)?.try_into().ok()?;
            Some(RecordType::from(u16::from_be_bytes(head)))
        }
        _ => Some(record.record_type()),
    };
    let proofs = told.authorities.iter().filter_map(|record| {
        let kind = of(record)?;
        let proves = matches!(kind, RecordType::NSEC | RecordType::NSEC3);
        let text = format!("{} {} {kind}", record.name, record.record_type());
        proves.then(|| text.to_ascii_lowercase())
    });
    Ok((told.metadata.response_code, proofs.collect()))
}

pub(crate) fn ask(socket: &UdpSocket, name: &Name, kind: RecordType) -> Result<Told> {
    let told = question(socket, name, kind, false)?;
    let texts = |records: &[Record]| {
        let text = |r: &Record| format!("{} {} {} {}", r.name, r.ttl, r.record_type(), r.data);
        records
            .iter()
            .map(|record| text(record).to_ascii_lowercase())
            .collect()
    };
    Ok(Told {
        code: told.metadata.response_code,
        authoritative: told.metadata.authoritative,
        answers: texts(&told.answers),
        authorities: texts(&told.authorities),
    })
}

/// Differs from one query to the next.
fn rand_id(name: &Name) -> u16 {
    name.iter().flatten().fold(7, |sum: u16, octet| {
        sum.wrapping_mul(31).wrapping_add(u16::from(*octet))
    })
}

/// Whether a difference is one that the RFCs leave open.
fn explained(ours: &Told, theirs: &Told) -> bool {
    // NS records of the zone beside a positive answer are an offer (RFC 1034 section 4.3.2 asks for none): nobody
    // needs them.
    let offered = |told: &Told| !told.answers.is_empty() && told.code == ResponseCode::NoError;
    ours.code == theirs.code
        && ours.authoritative == theirs.authoritative
        && ours.answers == theirs.answers
        && offered(ours)
        && offered(theirs)
}

/// Another server of the same file.
struct Peer {
    program: &'static str,
    /// Arguments before the file of its configuration.
    arguments: &'static [&'static str],
    /// Its configuration for port 5301; `FOLDER` and `ZONE` are replaced.
    configuration: &'static str,
    /// Names the differences that are its own.
    odd: fn(&Name, RecordType, &Told, &Told) -> bool,
}

const KNOT: Peer = Peer {
    program: "knotd",
    arguments: &["-c"],
    configuration: r#"
server:
    rundir: "FOLDER"
    listen: 127.0.0.1@5301
database:
    storage: "FOLDER/knot"
log:
  - target: stderr
    any: error
zone:
  - domain: example.org
    file: "ZONE"
    zonefile-load: whole
"#,
    odd: |_, _, _, _| false,
};

const NSD: Peer = Peer {
    program: "nsd",
    arguments: &["-d", "-c"],
    configuration: r#"
server:
  ip-address: 127.0.0.1@5301
  username: ""
  zonesdir: "FOLDER"
  database: ""
  pidfile: "FOLDER/nsd.pid"
  zonelistfile: "FOLDER/nsd.list"
  xfrdfile: "FOLDER/nsd.xfrd"
  xfrdir: "FOLDER"
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: example.org
  zonefile: "ZONE"
"#,
    odd: |_, _, _, _| false,
};

const UNBOUND: Peer = Peer {
    program: "unbound",
    arguments: &["-d", "-p", "-c"],
    configuration: r#"
server:
  interface: 127.0.0.1@5301
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "FOLDER"
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
remote-control:
  control-enable: no
auth-zone:
  name: example.org
  zonefile: "ZONE"
  for-downstream: yes
  for-upstream: no
"#,
    odd: |name, kind, ours, theirs| {
        // What is at the parent of all that it serves it refuses.
        let parent = kind == RecordType::DS && name.num_labels() == 2;
        // It leaves an alias that leads nowhere in the zone, or that a DNAME made, for the client to follow, and gives
        // the latter no time to live, which RFC 6672 section 3.1 has no more.
        let aliases = timeless(&ours.answers);
        let followed = aliases.iter().any(|record| record.contains(" cname "))
            && !theirs.answers.is_empty()
            && timeless(&theirs.answers).is_subset(&aliases);
        // An asterisk that has no records, only names below it, is nothing to it, where RFC 4592 section 2.2.2 has it
        // exist.
        let hollow = name.iter().any(|label| label == b"hollow")
            && (ours.code, theirs.code) == (ResponseCode::NoError, ResponseCode::NXDomain)
            && ours.answers.is_empty()
            && ours.authorities == theirs.authorities;
        parent || followed || hollow
    },
};

/// The server that this one stands in for, where a user has it: `FAIRLEAD_COREDNS` names its binary.
const COREDNS: Peer = Peer {
    program: "coredns",
    arguments: &["-conf"],
    configuration: "example.org:5301 {\n bind 127.0.0.1\n file ZONE\n}\n",
    odd: |_, _, _, _| false,
};

/// Records without their times to live.
fn timeless(records: &BTreeSet<String>) -> BTreeSet<String> {
    let without = |record: &String| {
        let mut words: Vec<&str> = record.split(' ').collect();
        words.remove(1);
        words.join(" ")
    };
    records.iter().map(without).collect()
}

#[test]
fn file_zones_are_answered_as_knot_does() -> Result<()> {
    answers_are_those_of(&KNOT)
}

#[test]
fn file_zones_are_answered_as_nsd_does() -> Result<()> {
    answers_are_those_of(&NSD)
}

#[test]
fn file_zones_are_answered_as_unbound_does() -> Result<()> {
    answers_are_those_of(&UNBOUND)
}

#[test]
#[ignore = "CoreDNS is not packaged: name its binary with FAIRLEAD_COREDNS, and run with --run-ignored all"]
fn file_zones_are_answered_as_coredns_does() -> Result<()> {
    answers_are_those_of(&COREDNS)
}

fn answers_are_those_of(peer: &Peer) -> Result<()> {
    let node = Node::create()?;
    let folder = node.folder();
    let zone = folder.join("example.org.zone");
    std::fs::write(&zone, ZONE)?;
    let place = node.place()?.without_cgroup();
    let corefile = folder.join("Corefile");
    std::fs::write(
        &corefile,
        format!(
            "example.org:5300 {{\n bind 127.0.0.1\n file {}\n}}\n",
            zone.display()
        ),
    )?;
    let mut command = place.command(&fairlead()?)?;
    command.args(["dns", "--conf"]).arg(&corefile);
    let _ours = Process::start(&mut command, "fairlead dns")?;
    let configuration = peer
        .configuration
        .replace("ZONE", &zone.display().to_string());
    let configuration = configuration.replace("FOLDER", &folder.display().to_string());
    let file = folder.join("peer.conf");
    std::fs::write(&file, configuration)?;
    let given = std::env::var_os("FAIRLEAD_COREDNS").filter(|_| peer.program == "coredns");
    let program = given.map_or_else(|| PathBuf::from(peer.program), PathBuf::from);
    let mut command = place.command(&program)?;
    command.args(peer.arguments).arg(&file);
    let _theirs = Process::start(&mut command, peer.program).with_context(|| {
        format!(
            "{} is missing: `cargo xtask test` installs it on Debian",
            peer.program
        )
    })?;
    let apex = Name::from_ascii("example.org.")?;
    let socket = |port: u16| {
        let socket = node.netns().run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        })?;
        wait_for("the zone", Duration::from_secs(20), || {
            let told = ask(&socket, &apex, RecordType::SOA).ok()?;
            (told.answers.len() == 1).then_some(())
        })?;
        anyhow::Ok(socket)
    };
    let (ours, theirs) = (socket(5300)?, socket(5301)?);
    let quote = Name::from_labels([&b"\""[..], b"example", b"org"])?;
    let mut names = vec![apex.clone(), quote];
    for first in [
        "hollow",
        "www.hollow",
        "_http.www.hollow",
        "*.hollow",
        "_http.*.hollow",
    ] {
        names.push(Name::from_ascii(format!("{first}.example.org."))?);
    }
    for first in LABELS {
        names.push(Name::from_ascii(format!("{first}.example.org."))?);
        for second in LABELS {
            names.push(Name::from_ascii(format!("{first}.{second}.example.org."))?);
        }
    }
    // A stride through all names of three and four labels: the same ones in every run.
    let count = LABELS.len() as u64;
    for step in 0..RANDOM {
        let number = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let label = |power: u32| LABELS[(number / count.pow(power) % count) as usize];
        let more = match step % 2 {
            0 => String::new(),
            _ => format!("{}.", label(3)),
        };
        let text = format!("{more}{}.{}.{}.example.org.", label(2), label(1), label(0));
        names.push(Name::from_ascii(text)?);
    }
    let mut differences = Vec::new();
    let mut asked = 0;
    for (at, name) in names.iter().enumerate() {
        let few = [TYPES[at % TYPES.len()], RecordType::A];
        let kinds = if name.num_labels() <= 3 {
            &TYPES[..]
        } else {
            &few[..]
        };
        for kind in kinds {
            let (our, their) = (ask(&ours, name, *kind)?, ask(&theirs, name, *kind)?);
            asked += 1;
            let odd = || explained(&our, &their) || (peer.odd)(name, *kind, &our, &their);
            if our != their && !odd() {
                differences.push(format!(
                    "{name} {kind}\n  ours {our:?}\n  {} {their:?}",
                    peer.program
                ));
            }
        }
    }
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>();
    ensure!(
        differences.is_empty(),
        "{} of {asked} answers differ:\n{}",
        differences.len(),
        shown.join("\n")
    );
    Ok(())
}
