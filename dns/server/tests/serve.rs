//! Real sockets in front of a cluster whose API server is a function of this process.

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Hosts of the headless Service: more than a datagram of 512 octets holds.
const HOSTS: usize = 200;

/// A Service with an address, one with more hosts than a datagram of 512 octets holds, and an alias.
fn cluster() -> String {
    let hosts: Vec<String> = (0..HOSTS)
        .map(|n| format!("- addresses: [172.0.0.{n}]\n"))
        .collect();
    format!("{OBJECTS}{}", hosts.concat())
}

const OBJECTS: &str = "
kind: Namespace
metadata: {name: default}
---
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{name: http, port: 80}]}
---
kind: Service
metadata: {name: big, namespace: default}
spec: {clusterIP: None, clusterIPs: [None]}
---
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: web.default.svc.cluster.local}
---
kind: EndpointSlice
metadata:
  name: big-1
  namespace: default
  labels: {kubernetes.io/service-name: big}
addressType: IPv4
endpoints:
";

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn udp(server: SocketAddr, octets: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    socket.connect(server).unwrap();
    socket.send(octets).unwrap();
    let mut buffer = [0; 65_535];
    let length = socket.recv(&mut buffer).ok()?;
    Some(buffer[..length].to_vec())
}

fn ask(server: SocketAddr, message: &Message) -> Message {
    let octets = udp(server, &message.to_vec().unwrap()).expect("an answer");
    let answer = Message::from_vec(&octets).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    assert_eq!(answer.queries, message.queries);
    answer
}

async fn tcp(server: SocketAddr, messages: &[Message]) -> Vec<Message> {
    let mut stream = tokio::net::TcpStream::connect(server).await.unwrap();
    let mut out = Vec::new();
    for message in messages {
        let octets = message.to_vec().unwrap();
        out.extend_from_slice(&u16::try_from(octets.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&octets);
    }
    stream.write_all(&out).await.unwrap();
    let mut answers = Vec::new();
    for _ in messages {
        let length = stream.read_u16().await.unwrap();
        let mut octets = vec![0; usize::from(length)];
        stream.read_exact(&mut octets).await.unwrap();
        answers.push(Message::from_vec(&octets).unwrap());
    }
    answers
}

/// Once with a chain that is passed by, once with one (`log`) that is not: answers are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_answered_on_udp_and_tcp() {
    for slow in ["", "header {\n response set ra\n }\n"] {
        let text = format!(
            ". {{\n bind 127.0.0.1\n errors\n {slow} kubernetes cluster.local in-addr.arpa {{\n ttl 30\n }}\n loadbalance\n}}\n"
        );
        let server = common::run(&text, Some(&cluster())).await;
        let local = server.address;
        let slow = slow.to_owned();
        let answers = tokio::task::spawn_blocking(move || {
            let web = ask(
                local,
                &query("WeB.default.svc.cluster.local.", RecordType::A),
            );
            assert_eq!(web.metadata.response_code, ResponseCode::NoError);
            assert!(web.metadata.authoritative);
            assert_eq!(web.answers.len(), 1);
            assert_eq!(web.answers[0].ttl, 30);
            let missing = ask(
                local,
                &query("no.default.svc.cluster.local.", RecordType::A),
            );
            assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
            assert_eq!(missing.authorities.len(), 1);
            let alias = ask(
                local,
                &query("alias.default.svc.cluster.local.", RecordType::A),
            );
            assert_eq!(alias.answers.len(), 2, "the alias and what it leads to");
            let nobodys = ask(local, &query("example.com.", RecordType::A));
            assert_eq!(nobodys.metadata.response_code, ResponseCode::ServFail);
            // Too much for a datagram: what fits, and TC.
            let mut big = query("big.default.svc.cluster.local.", RecordType::A);
            let cut = ask(local, &big);
            assert!(
                cut.metadata.truncation && cut.answers.len() > 20,
                "{}",
                cut.answers.len()
            );
            let mut edns = Edns::new();
            edns.set_max_payload(4096);
            big.set_edns(edns);
            let whole = ask(local, &big);
            // The library that writes the chain's answers compresses the first hundred or so names only.
            let all = whole.answers.len() == HOSTS && !whole.metadata.truncation;
            assert!(
                all || !slow.is_empty() && whole.answers.len() > 100,
                "{slow:?} {}",
                whole.answers.len()
            );
            assert!(whole.edns.is_some());
            // What is no ordinary query.
            let mut octets = query("a.", RecordType::A).to_vec().unwrap();
            octets[2] = 0x28;
            assert_eq!(udp(local, &octets).unwrap()[3] & 15, 4, "NOTIMP");
            octets[2] = 1;
            octets[5] = 2;
            assert_eq!(udp(local, &octets).unwrap()[3] & 15, 1, "FORMERR");
        });
        answers.await.unwrap();
        let names = ["big", "web", "alias", "no"];
        let asked =
            names.map(|name| query(&format!("{name}.default.svc.cluster.local."), RecordType::A));
        let mut lengths: Vec<usize> = tcp(local, &asked)
            .await
            .iter()
            .map(|a| a.answers.len())
            .collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [0, 1, 2, HOSTS]);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_after_its_queries() {
    let text = ". {\n bind 127.0.0.1\n timeouts {\n  maxtcpqueries 2\n }\n whoami\n}\n";
    let server = common::run(text, None).await;
    let mut stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let mut out = Vec::new();
    for name in ["a.", "b.", "c."] {
        let octets = query(name, RecordType::A).to_vec().unwrap();
        out.extend_from_slice(&u16::try_from(octets.len()).unwrap().to_be_bytes());
        out.extend_from_slice(&octets);
    }
    stream.write_all(&out).await.unwrap();
    let mut answers = Vec::new();
    while let Ok(length) = stream.read_u16().await {
        let mut octets = vec![0; usize::from(length)];
        stream.read_exact(&mut octets).await.unwrap();
        answers.push(Message::from_vec(&octets).unwrap());
    }
    assert_eq!(answers.len(), 2);
    server.stop().await;
}
