//! Who is answered, and how often: the ranges that may ask, and `rrl`.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns_server::instance::{Environment, MayAsk, QUERY_OCTETS_MAX};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A question for `a.`, type A.
const QUERY: &[u8] = b"\x47\x11\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";

const TEMPLATE: &str = " template IN A {\n  answer \"{{ .Name }} 1 IN A 192.0.2.1\"\n }\n";

fn code(answer: &[u8]) -> u8 {
    assert_eq!(answer[..2], QUERY[..2], "another query's answer");
    answer[3] & 15
}

/// Asks from an address, by datagram or stream.
async fn ask(from: IpAddr, server: SocketAddr, by_stream: bool) -> Vec<u8> {
    let from = SocketAddr::new(from, 0);
    let mut answer = vec![0; 512];
    if by_stream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(from).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        let mut message = u16::try_from(QUERY.len()).unwrap().to_be_bytes().to_vec();
        message.extend_from_slice(QUERY);
        stream.write_all(&message).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        answer.truncate(length.into());
        stream.read_exact(&mut answer).await.unwrap();
    } else {
        let socket = UdpSocket::bind(from).await.unwrap();
        socket.connect(server).await.unwrap();
        socket.send(QUERY).await.unwrap();
        let received = timeout(Duration::from_secs(5), socket.recv(&mut answer)).await;
        answer.truncate(received.expect("an answer").unwrap());
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_by_every_way() {
    let friend = IpAddr::from([127, 0, 0, 1]);
    let stranger = IpAddr::from([127, 0, 0, 2]);
    let may_ask: MayAsk = Box::new(move |addr| addr == friend);
    let corefile = format!(". {{\n bind 127.0.0.1\n{TEMPLATE}}}\n");
    let server = common::run_for(&corefile, None, Some(may_ask)).await;
    for by_stream in [false, true] {
        let answer = ask(friend, server.address, by_stream).await;
        assert_eq!((code(&answer), answer[7]), (0, 1), "stream: {by_stream}");
        let answer = ask(stranger, server.address, by_stream).await;
        assert_eq!((code(&answer), answer[7]), (5, 0), "stream: {by_stream}");
        assert_eq!(answer.len(), QUERY.len(), "nobody is flooded with it");
    }
    let text = common::metrics(&server.reloader);
    let line = "coredns_shed_dropped_total{reason=\"stranger\"} 2";
    assert!(text.contains(line), "{text}");
    server.stop().await;
}

/// One answer at once to a network; of those beyond, every second is an invitation to ask by TCP, where nothing is
/// bounded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_a_network_are_bounded() {
    const ASKED: usize = 30;
    let corefile = format!(
        ". {{\n bind 127.0.0.1\n rrl {{\n  responses-per-second 0.1\n  window 600\n }}\n{TEMPLATE}}}\n"
    );
    let server = common::run(&corefile, None).await;
    let mut whole = 0;
    let mut truncated = 0;
    // All from one network of 24 bits, as a forger would write them.
    for last in 1..=ASKED {
        let socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, last as u8], 0)))
            .await
            .unwrap();
        socket.connect(server.address).await.unwrap();
        socket.send(QUERY).await.unwrap();
        let mut answer = [0; 512];
        // The server answers in order, so that what comes after this is not late but dropped.
        let received = timeout(Duration::from_millis(250), socket.recv(&mut answer)).await;
        match received {
            Ok(length) if answer[2] & 2 == 0 => whole += length.map(|_| 1).unwrap(),
            Ok(length) => truncated += length.map(|_| 1).unwrap(),
            Err(_) => {}
        }
    }
    assert!((1..=3).contains(&whole), "{whole} whole answers");
    assert!(
        (ASKED / 3..=ASKED / 2 + 1).contains(&truncated),
        "{truncated} truncated answers"
    );
    for _ in 0..5 {
        let answer = ask([127, 0, 0, 7].into(), server.address, true).await;
        assert_eq!((code(&answer), answer[7]), (0, 1));
    }
    let text = common::metrics(&server.reloader);
    let exceeded = text
        .lines()
        .find_map(|line| line.strip_prefix("coredns_rrl_responses_exceeded_total{"))
        .and_then(|rest| rest.split(' ').next_back()?.parse::<usize>().ok());
    assert_eq!(exceeded, Some(ASKED - whole), "{text}");
    server.stop().await;
}

/// A server whose only upstream says nothing, and the upstream.
async fn waiting(environment: Environment) -> (common::Running, TcpListener) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = upstream.local_addr().unwrap();
    let corefile = format!(". {{\n bind 127.0.0.1\n forward . {at} {{\n  force_tcp\n }}\n}}\n");
    (common::run_in(&corefile, environment).await, upstream)
}

/// Queries behind their lengths.
fn framed(query: &[u8], times: usize) -> Vec<u8> {
    let one = [&u16::try_from(query.len()).unwrap().to_be_bytes(), query].concat();
    one.repeat(times)
}

/// Who asks by a stream is told that a query was shed, and may go on asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_shed_on_a_stream_is_answered() {
    let mut environment = Environment::new(0);
    environment.query_octets = Arc::new(Semaphore::new(QUERY.len() + 1));
    let (server, _upstream) = waiting(environment).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&framed(QUERY, 3)).await.unwrap();
    for _ in 0..2 {
        let length = timeout(Duration::from_secs(1), stream.read_u16()).await;
        let mut answer = vec![0; length.expect("at once").unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(code(&answer), 2, "SERVFAIL");
        assert_eq!(answer[12..], QUERY[12..], "the question");
    }
    let text = common::metrics(&server.reloader);
    assert!(
        text.contains("coredns_shed_dropped_total{reason=\"octets\"} 2"),
        "{text}"
    );
    server.stop().await;
}

/// A client that sends queries as long as they may be takes little of what there is for all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_queries_of_a_connection_wait_to_be_read() {
    const LONG: u16 = 60_000;
    let environment = Environment::new(0);
    let room = Arc::clone(&environment.query_octets);
    let (server, upstream) = waiting(environment).await;
    // An OPT record with one long option.
    let mut query = QUERY.to_vec();
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0]);
    query.extend_from_slice(&(LONG + 4).to_be_bytes());
    query.extend_from_slice(&0xfde9_u16.to_be_bytes());
    query.extend_from_slice(&LONG.to_be_bytes());
    query.resize(query.len() + usize::from(LONG), b'x');
    let (read, mut write) = TcpStream::connect(server.address)
        .await
        .unwrap()
        .into_split();
    let sending = tokio::spawn(async move { write.write_all(&framed(&query, 20)).await });
    let (mut asked, _) = upstream.accept().await.unwrap();
    asked.read_u16().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let taken = QUERY_OCTETS_MAX - room.available_permits();
    assert!(
        (1..=16 * 1024 + usize::from(u16::MAX)).contains(&taken),
        "{taken}"
    );
    sending.abort();
    drop(read);
    server.stop().await;
}

/// Kilobytes of memory that this process has.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.unwrap().trim().parse().unwrap()
}

/// Connections that have been answered and ask nothing more, as clients keep them, take hardly any memory; also in the
/// place of others that were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_small() {
    const MANY: usize = 700;
    let server = common::run(&format!(". {{\n bind 127.0.0.1\n{TEMPLATE}}}\n"), None).await;
    let asked = async || {
        let mut streams = Vec::with_capacity(MANY);
        for _ in 0..MANY {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(&framed(QUERY, 1)).await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await.unwrap();
            streams.push(stream);
        }
        streams
    };
    let before = resident();
    let first = asked().await;
    drop(first);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = asked().await;
    let each = resident().saturating_sub(before) * 1024 / MANY;
    // Both ends of it, and its task as a build without optimization has it.
    assert!(each <= 12 * 1024, "{each} octets for each connection");
    drop(second);
    server.stop().await;
}

/// What arrives in part is kept for few at a time; the others are closed, and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_queries_of_all_are_bounded() {
    let mut environment = Environment::new(0);
    environment.stream_octets = Arc::new(Semaphore::new(150_000));
    let (server, _upstream) = waiting(environment).await;
    let mut unfinished = u16::MAX.to_be_bytes().to_vec();
    unfinished.resize(40_000, 0);
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&unfinished).await.unwrap();
        streams.push(stream);
    }
    let mut closed = 0;
    for stream in &mut streams {
        let ended = timeout(Duration::from_millis(300), stream.read_u8()).await;
        closed += usize::from(ended.is_ok());
    }
    assert!((1..5).contains(&closed), "{closed}");
    let text = common::metrics(&server.reloader);
    let counted = format!("coredns_shed_dropped_total{{reason=\"stream_octets\"}} {closed}\n");
    assert!(text.contains(&counted), "{text}");
    server.stop().await;
}

/// Thousands of records in a request are nothing that anybody means.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_full_of_records_are_malformed() {
    let server = common::run(&format!(". {{\n bind 127.0.0.1\n{TEMPLATE}}}\n"), None).await;
    // An A record of the root.
    const RECORD: &[u8] = &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1];
    for (opcode, counts, expected) in [
        (0, [1, 1, 2], 0),
        (0, [2, 0, 0], 1),
        (0, [0, 2, 0], 1),
        (0, [0, 0, 3], 1),
        (4, [4000, 0, 0], 1),
    ] {
        let mut query = QUERY.to_vec();
        query[2] |= opcode << 3;
        for (at, count) in counts.into_iter().enumerate() {
            query[6 + 2 * at..8 + 2 * at].copy_from_slice(&u16::to_be_bytes(count));
            query.extend(RECORD.repeat(count.into()));
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&framed(&query, 1)).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(code(&answer), expected, "opcode {opcode}, {counts:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn explanations_log_nothing() {
    let mut environment = Environment::new(0);
    environment.logs_queries = false;
    let (environment, file) = (Arc::new(environment), std::path::Path::new("Corefile"));
    let text = ". {\n log\n whoami\n}\n";
    let instance = dns_server::instance::Instance::build(&environment, file, text).unwrap();
    let plugins = instance.chains()[0].iter().map(|plugin| plugin.name());
    assert_eq!(plugins.collect::<Vec<_>>(), ["whoami"]);
}
