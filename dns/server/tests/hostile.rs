//! Datagrams and streams that no client should send: each gets the RFC's answer or silence, and the server goes on.

mod common;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

const COREFILE: &str =
    ". {\n bind 127.0.0.1\n template IN A {\n  answer \"{{ .Name }} 1 IN A 192.0.2.1\"\n }\n}\n";

/// How long silence must last to count.
const SILENCE: Duration = Duration::from_millis(300);

/// A question for `a.` of type and class, after a header with the given third octet and counts.
fn message(third: u8, counts: [u8; 4], tail: &[u8]) -> Vec<u8> {
    let [q, a, n, r] = counts;
    let head = [0x47, 0x11, third, 0, 0, q, 0, a, 0, n, 0, r];
    [head.as_slice(), tail].concat()
}

const QUESTION: &[u8] = b"\x01a\x00\x00\x01\x00\x01";

fn with(tail: &[u8]) -> Vec<u8> {
    [QUESTION, tail].concat()
}

/// A request with one question, which `question` is.
fn asks(question: &[u8]) -> Vec<u8> {
    message(1, [1, 0, 0, 0], question)
}

/// A request with an OPT record.
fn extended(version: u8, options: &[u8]) -> Vec<u8> {
    let head = [0, 0, 41, 4, 0xd0, 0, version, 0, 0, 0, options.len() as u8];
    message(1, [1, 0, 0, 1], &with(&[&head[..], options].concat()))
}

type Case = (&'static str, Vec<u8>);

/// What is sent, by the code of the answer; nothing for silence.
fn table() -> Vec<(Option<u16>, Vec<Case>)> {
    let one = [1, 0, 0, 0];
    let long = [[1, b'a'].repeat(128), vec![0, 0, 1, 0, 1]].concat();
    let circle = with(b"\xc0\x15\xc0\x13\x00\x01\x00\x01\0\0\0\0\0\0");
    let silence = vec![
        ("nothing", vec![]),
        ("less than a header", vec![0; 11]),
        ("an answer", message(0x81, one, QUESTION)),
        ("more than is taken", asks(&with(&[0; 5000]))),
    ];
    let malformed = vec![
        ("no question", message(1, [0; 4], b"")),
        ("no question, but octets", message(1, [0; 4], QUESTION)),
        ("two questions", message(1, [2, 0, 0, 0], &with(QUESTION))),
        ("a name that is cut off", asks(b"\x05ab")),
        ("a question that is cut off", asks(b"\x01a\x00\x00")),
        ("a pointer to itself", asks(b"\xc0\x0c\x00\x01\x00\x01")),
        (
            "a pointer beyond the end",
            asks(b"\xff\xff\x00\x01\x00\x01"),
        ),
        (
            "a label of a reserved kind",
            asks(b"\x80a\x00\x00\x01\x00\x01"),
        ),
        ("a name of more than 255 octets", asks(&long)),
        ("octets after the question", asks(&with(b"x"))),
        (
            "fewer records than told",
            message(1, [1, 0, 0, 1], QUESTION),
        ),
        (
            "owners that point at each other",
            message(1, [1, 1, 0, 0], &circle),
        ),
        (
            "an option longer than its record",
            extended(0, b"\x00\x0a\x00\x09abc"),
        ),
        (
            "a cookie of seven octets",
            extended(0, b"\x00\x0a\x00\x07abcdefg"),
        ),
    ];
    let opcodes = [
        ("IQUERY", 1),
        ("STATUS", 2),
        ("UPDATE", 5),
        ("opcode 15", 15),
    ];
    let unknown = opcodes.map(|(what, opcode)| (what, message(opcode << 3 | 1, one, QUESTION)));
    let refused = vec![
        (
            "class CH, which nobody serves",
            asks(b"\x01a\x00\x00\x01\x00\x03"),
        ),
        ("class 65280", asks(b"\x01a\x00\x00\x01\xff\x00")),
    ];
    let unserved = asks(b"\x01a\x00\xff\x00\x00\x01");
    vec![
        (None, silence),
        (Some(1), malformed),
        (Some(2), vec![("type 65280, which nobody serves", unserved)]),
        (Some(4), unknown.into()),
        (Some(5), refused),
        (Some(16), vec![("EDNS version 1", extended(1, b""))]),
        (
            Some(0),
            vec![("a question as it should be", asks(QUESTION))],
        ),
    ]
}

/// The code of an answer, with the part that stands in an OPT record.
fn code(answer: &[u8]) -> u16 {
    assert_eq!(answer[..2], [0x47, 0x11], "another query's answer");
    assert_eq!(answer[2] & 0x80, 0x80, "no answer");
    // An OPT record without options, eleven octets, ends the answer where there is one.
    let high = match answer.last_chunk::<11>() {
        Some([0, 0, 41, _, _, high, ..]) if answer[11] == 1 => u16::from(*high),
        _ => 0,
    };
    high << 4 | u16::from(answer[3] & 15)
}

async fn by_datagram(server: SocketAddr, octets: &[u8]) -> Option<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(octets).await.unwrap();
    let mut answer = [0; 4096];
    let length = timeout(SILENCE, socket.recv(&mut answer))
        .await
        .ok()?
        .unwrap();
    Some(code(&answer[..length]))
}

/// What follows on the same stream is answered, whatever came before.
async fn by_stream(server: SocketAddr, octets: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(octets.len() as u16).await.unwrap();
    stream.write_all(octets).await.unwrap();
    let mut codes = Vec::new();
    let last = asks(b"\x04last\x00\x00\x01\x00\x01");
    stream.write_u16(last.len() as u16).await.unwrap();
    stream.write_all(&last).await.unwrap();
    loop {
        let length = timeout(Duration::from_secs(5), stream.read_u16()).await;
        let length = length.expect("the last query is answered").unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        if answer.get(12..17) == Some(b"\x04last") {
            return codes.pop();
        }
        codes.push(code(&answer));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_gets_its_answer_or_silence() {
    let server = common::run(COREFILE, None).await;
    let mut wrong = String::new();
    let cases = table().into_iter();
    let cases = cases.flat_map(|(code, cases)| cases.into_iter().map(move |case| (code, case)));
    for (expected, (what, octets)) in cases {
        let found = by_datagram(server.address, &octets).await;
        if found != expected {
            wrong += &format!("udp: {what}: {found:?} instead of {expected:?}\n");
        }
        // On a stream there is no length that is too much.
        if octets.len() < 4096 {
            let found = by_stream(server.address, &octets).await;
            if found.is_some() && found != expected {
                wrong += &format!("tcp: {what}: {found:?} instead of {expected:?}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    server.stop().await;
}

/// Half a message, a length without a message, and connections that say nothing: all are given up, and others served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_stall_are_given_up() {
    let text = COREFILE.replace(
        " template",
        " timeouts {\n  read 1s\n  idle 1s\n }\n template",
    );
    let server = common::run(&text, None).await;
    let mut stalled = Vec::new();
    for begun in [&b""[..], b"\x00", b"\x00\x14abc", b"\xff\xff"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stalled.push(stream);
    }
    let good = by_stream(server.address, &asks(QUESTION)).await;
    assert_eq!(good, Some(0));
    for mut stream in stalled {
        let end = timeout(Duration::from_secs(5), stream.read_u8()).await;
        assert!(
            end.expect("the server gives up").is_err(),
            "no octet was due"
        );
    }
    server.stop().await;
}

/// Many more queries than may wait at a time: those beyond are dropped and counted, memory stays, and names that need
/// nobody else are answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_shed_and_counted() {
    // An upstream that takes queries and never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        ". {{\n bind 127.0.0.1\n hosts /nonexistent {{\n  192.0.2.9 known.example\n  fallthrough\n }}\n \
         kubernetes cluster.local\n forward . {} {{\n  max_fails 0\n  read_timeout 4s\n }}\n}}\n",
        silent.local_addr().unwrap()
    );
    let objects = BIG.to_owned() + "- addresses: [172.0.0.1]\n";
    let server = common::run(&text, Some(&objects)).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(server.address).await.unwrap();
    let before = resident_kib();
    let metrics = &server.reloader.current().load_full();
    let shed = || {
        let text = metrics.environment().metrics.render();
        let line = text
            .lines()
            .find(|line| line.starts_with("coredns_shed_dropped_total{reason=\"too_many\"}"))
            .map(str::to_owned);
        line.and_then(|line| line.split(' ').next_back()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let mut sent = 0_u32;
    while shed() < 1000 {
        assert!(sent < 200_000, "nothing is shed");
        for _ in 0..100 {
            let name = format!("\x08{sent:08}\x00\x00\x01\x00\x01");
            let _ = client.send(&asks(name.as_bytes())).await;
            sent += 1;
        }
        tokio::task::yield_now().await;
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 50 * 1024, "{grown} KiB for {sent} queries");
    // The places are taken for as long as the upstream is waited for; then there is room again.
    let known = asks(b"\x05known\x07example\x00\x00\x01\x00\x01");
    let answered = timeout(Duration::from_secs(20), async {
        while by_datagram(server.address, &known).await != Some(0) {}
    });
    answered.await.expect("the server answers again");
    server.stop().await;
}

const BIG: &str = "
kind: Namespace
metadata: {name: a}
---
kind: Service
metadata: {name: big, namespace: a}
spec: {clusterIP: None, clusterIPs: [None]}
---
kind: EndpointSlice
metadata:
  name: big-1
  namespace: a
  labels: {kubernetes.io/service-name: big}
addressType: IPv4
endpoints:
";

/// Clients that ask by stream and do not read are not read either, long before their answers fill memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_not_read() {
    const CLIENTS: usize = 20;
    const QUERIES: usize = 400;
    // Answers of 48 kB.
    let hosts = (0..3000).map(|n| format!("- addresses: [172.0.{}.{}]\n", n / 250, n % 250));
    let objects = BIG.to_owned() + &hosts.collect::<String>();
    let text = ". {\n bind 127.0.0.1\n kubernetes cluster.local\n}\n";
    let server = common::run(text, Some(&objects)).await;
    let asked = asks(b"\x03big\x01a\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01");
    let framed = [&(asked.len() as u16).to_be_bytes()[..], &asked].concat();
    let queries = framed.repeat(QUERIES);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&framed).await.unwrap();
    let long = stream.read_u16().await.unwrap();
    assert!(long > 40_000, "{long}");
    let before = resident_kib();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&queries).await.unwrap();
        clients.push(stream);
    }
    // One that reads gets all its answers meanwhile.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&queries).await.unwrap();
    for _ in 0..QUERIES {
        let length = stream.read_u16().await.unwrap();
        assert_eq!(length, long);
        let mut octets = vec![0; length.into()];
        stream.read_exact(&mut octets).await.unwrap();
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB for {CLIENTS} clients");
    server.stop().await;
}

/// Resident memory of this process.
fn resident_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap()
}
