//! Who is answered, and how often: the ranges that may ask, and `rrl`.

mod common;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dns_server::instance::MayAsk;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
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
    let metrics = server.reloader.current().load_full();
    let text = metrics.environment().metrics.render();
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
    let current = server.reloader.current().load_full();
    let text = current.environment().metrics.render();
    let exceeded = text
        .lines()
        .find_map(|line| line.strip_prefix("coredns_rrl_responses_exceeded_total{"))
        .and_then(|rest| rest.split(' ').next_back()?.parse::<usize>().ok());
    assert_eq!(exceeded, Some(ASKED - whole), "{text}");
    server.stop().await;
}
