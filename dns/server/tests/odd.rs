//! Messages that are no ordinary questions, over real sockets: NOTIFY, questions for OPT, versions of EDNS to come.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

const OBJECTS: &str = "
kind: Namespace
metadata: {name: default}
---
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1]}
";

const NAME: &[u8] = b"\x03web\x07default\x03svc\x07cluster\x05local\0";

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// What it has of each section.
fn counts(octets: &[u8]) -> [u8; 4] {
    [octets[5], octets[7], octets[9], octets[11]]
}

fn message(opcode: u8, kind: u8, opt: &[u8]) -> Vec<u8> {
    let head = [
        0,
        7,
        opcode << 3,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(!opt.is_empty()),
    ];
    [&head[..], NAME, &[0, kind, 0, 1], opt].concat()
}

fn ask(server: SocketAddr, octets: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.send_to(octets, server).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_question_gets_no_data() {
    let text = ". {\n bind 127.0.0.1\n errors\n kubernetes cluster.local\n whoami\n}\n";
    let server = common::run(text, Some(OBJECTS)).await;
    let address = server.address;
    let asked = tokio::task::spawn_blocking(move || {
        let (a, soa, opt) = (1, 6, 41);
        let answer = ask(address, &message(0, a, &[]));
        assert_eq!((answer[3] & 15, counts(&answer)), (NOERROR, [1, 1, 0, 0]));
        // A NOTIFY: nobody here has the zone from somewhere else.
        for kind in [a, soa] {
            let answer = ask(address, &message(4, kind, &[]));
            assert_eq!(answer[2] >> 3 & 15, 4, "the opcode is repeated");
            assert_eq!((answer[3] & 15, counts(&answer)), (REFUSED, [1, 0, 0, 0]));
        }
        let answer = ask(address, &message(0, opt, &[]));
        assert_eq!(answer[3] & 15, FORMERR);
        // EDNS version 1: the question is repeated, BADVERS stands in the OPT record and the version that is known.
        let version_1 = [0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0];
        let query = message(0, a, &version_1);
        let answer = ask(address, &query);
        assert_eq!((answer[3] & 15, counts(&answer)), (0, [1, 0, 0, 1]));
        let question = answer.len() - version_1.len();
        assert_eq!(answer[12..question], query[12..question]);
        assert_eq!(answer[question..question + 3], [0, 0, 41]);
        assert_eq!(answer[question + 5..question + 7], [1, 0]);
    });
    asked.await.unwrap();
    server.stop().await;
}

/// RFC 7873 section 5.4, RFC 6891 section 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edns_is_answered_with_edns() {
    let text = ". {\n bind 127.0.0.1\n whoami\n}\n";
    let server = common::run(text, None).await;
    let address = server.address;
    let asked = tokio::task::spawn_blocking(move || {
        let opt = |options: &[u8]| {
            let length = u8::try_from(options.len()).unwrap();
            [&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length], options].concat()
        };
        let cookie = opt(b"\0\x0a\0\x08abcdefgh");
        let head = [0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let answer = ask(address, &[&head[..], &cookie].concat());
        assert_eq!((answer[3] & 15, counts(&answer)), (NOERROR, [0, 0, 0, 1]));
        assert_eq!(answer[21..27], [0, 28, 0, 10, 0, 24]);
        assert_eq!(&answer[27..35], b"abcdefgh");
        // Without a cookie there is nothing to be said.
        let answer = ask(address, &[&head[..], &opt(&[])].concat());
        assert_eq!((answer[3] & 15, counts(&answer)), (FORMERR, [0, 0, 0, 1]));
        // A cookie of seven octets.
        let wrong = opt(b"\0\x0a\0\x07abcdefg");
        let answer = ask(address, &message(0, 1, &wrong));
        assert_eq!((answer[3] & 15, counts(&answer)), (FORMERR, [0, 0, 0, 1]));
        assert_eq!(answer[12..15], [0, 0, 41]);
        // Two questions, and nobody who speaks EDNS.
        let mut two = message(0, 1, &[]);
        two[5] = 2;
        let answer = ask(address, &two);
        assert_eq!((answer[3] & 15, answer.len()), (FORMERR, 12));
    });
    asked.await.unwrap();
    server.stop().await;
}

/// RFC 6891 section 6.1.3: a code above 15 is told in two parts, and whoever speaks no EDNS sees one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_codes_are_for_those_who_speak_edns() {
    for (code, high, low) in [(16, 1, 0), (23, 1, 7)] {
        let text =
            format!(". {{\n bind 127.0.0.1\n template ANY ANY {{\n  rcode {code}\n }}\n}}\n");
        let server = common::run(&text, None).await;
        let address = server.address;
        let asked = tokio::task::spawn_blocking(move || {
            let (a, opt) = (1, [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
            let answer = ask(address, &message(0, a, &opt));
            let of_opt = answer.len() - opt.len() + 5;
            assert_eq!((answer[of_opt], answer[3] & 15), (high, low), "{code}");
            let answer = ask(address, &message(0, a, &[]));
            assert_eq!(answer[3] & 15, SERVFAIL, "{code}");
        });
        asked.await.unwrap();
        server.stop().await;
    }
}

/// The codes of the answers to NOTIFYs of types of records, of a zone that is somebody else's.
async fn notified<const N: usize>(lines: &str, kinds: [u8; N]) -> [u8; N] {
    let text = format!(
        ". {{\n bind 127.0.0.1\n{lines} secondary cluster.local {{\n  transfer from 127.0.0.1:9\n }}\n}}\n"
    );
    let server = common::run(&text, None).await;
    let address = server.address;
    let asked = tokio::task::spawn_blocking(move || {
        kinds.map(|kind| {
            let mut octets = vec![0, 7, 4 << 3, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            octets.extend_from_slice(b"\x07cluster\x05local\0");
            octets.extend_from_slice(&[0, kind, 0, 1]);
            ask(address, &octets)[3] & 15
        })
    });
    let codes = asked.await.unwrap();
    server.stop().await;
    codes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_soa_record_is_said_to_have_changed() {
    let (a, soa) = (1, 6);
    assert_eq!(notified("", [soa, a]).await, [NOERROR, FORMERR]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notify_is_signed_where_the_opcode_demands_it() {
    let tsig = |option| format!(" tsig {{\n  secret key.example. c2VjcmV0\n  {option}\n }}\n");
    let soa = 6;
    for (option, expected) in [
        ("require_opcode NOTIFY", REFUSED),
        ("require_opcode QUERY", NOERROR),
        ("require_opcode none", NOERROR),
    ] {
        assert_eq!(notified(&tsig(option), [soa]).await, [expected], "{option}");
    }
}
