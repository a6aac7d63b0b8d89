//! `forward`, `cache` and `loop` against servers on the loopback that behave well and badly.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use dns_server::corefile::Scheme;
use dns_server::instance::Environment;
use dns_server::instance::Instance;
use dns_server::instance::Listen;
use dns_server::message::Outcome;
use dns_server::message::Request;
use dns_server::message::Transport;
use hickory_proto::op::Edns;
use hickory_proto::op::Message;
use hickory_proto::op::Query;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::opt::EdnsOption;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;

/// How an upstream treats a question.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    Silent,
    /// Silent to the first question.
    Loses,
    Fails,
    Denies,
    Truncates,
    /// Sends answers to other questions first, then the right one.
    Forged,
    Slow,
}

struct Server {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
    manner: Arc<std::sync::Mutex<Manner>>,
}

impl Server {
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }
}

fn answer(query: &Message, manner: Manner, by_stream: bool) -> Message {
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.queries.clone_from(&query.queries);
    message.metadata.recursion_available = true;
    message.metadata.authentic_data = true;
    let name = query.queries[0].name().clone();
    match manner {
        Manner::Fails => message.metadata.response_code = ResponseCode::ServFail,
        Manner::Denies => {
            message.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 60);
            message.add_authority(Record::from_rdata(name, 300, RData::SOA(soa)));
        }
        Manner::Truncates if !by_stream => message.metadata.truncation = true,
        _ => {
            let last = if by_stream { 2 } else { 1 };
            let data = RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into());
            message.add_answer(Record::from_rdata(name, 300, data));
        }
    }
    message
}

async fn upstream(manner: Manner) -> Server {
    // A port that is free for both; what is free for one may be taken for the other.
    let (socket, listener) = loop {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(listener) = TcpListener::bind(socket.local_addr().unwrap()).await {
            break (Arc::new(socket), listener);
        }
    };
    let address = socket.local_addr().unwrap();
    let server = Server {
        address,
        asked: Arc::default(),
        manner: Arc::new(std::sync::Mutex::new(manner)),
    };
    let (asked, manner) = (Arc::clone(&server.asked), Arc::clone(&server.manner));
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let manner = *manner.lock().unwrap();
            // Probes of health are for the root's name servers.
            if query.queries[0].query_type() != RecordType::NS {
                asked.fetch_add(1, Ordering::Relaxed);
            }
            let manner = match manner {
                Manner::Loses if asked.load(Ordering::Relaxed) < 2 => Manner::Silent,
                manner => manner,
            };
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                let right = answer(&query, manner, false);
                match manner {
                    Manner::Silent => return,
                    Manner::Slow => tokio::time::sleep(Duration::from_millis(300)).await,
                    Manner::Forged => {
                        let mut wrong = right.clone();
                        wrong.metadata.id ^= 1;
                        socket
                            .send_to(&wrong.to_vec().unwrap(), client)
                            .await
                            .unwrap();
                        let mut wrong = right.clone();
                        wrong.queries[0].name = Name::from_ascii("evil.example.").unwrap();
                        wrong.answers[0].data =
                            RData::A(std::net::Ipv4Addr::new(6, 6, 6, 6).into());
                        socket
                            .send_to(&wrong.to_vec().unwrap(), client)
                            .await
                            .unwrap();
                        socket.send_to(b"nonsense", client).await.unwrap();
                    }
                    _ => {}
                }
                socket
                    .send_to(&right.to_vec().unwrap(), client)
                    .await
                    .unwrap();
            });
        }
    });
    let (asked, manner) = (Arc::clone(&server.asked), Arc::clone(&server.manner));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (asked, manner) = (Arc::clone(&asked), Arc::clone(&manner));
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut buffer = vec![0; usize::from(length)];
                    stream.read_exact(&mut buffer).await.unwrap();
                    asked.fetch_add(1, Ordering::Relaxed);
                    let query = Message::from_vec(&buffer).unwrap();
                    let manner = *manner.lock().unwrap();
                    let octets = answer(&query, manner, true).to_vec().unwrap();
                    let length = u16::try_from(octets.len()).unwrap();
                    stream.write_u16(length).await.unwrap();
                    stream.write_all(&octets).await.unwrap();
                }
            });
        }
    });
    server
}

fn build(corefile: &str) -> Arc<Instance> {
    let environment = Arc::new(Environment::new(53));
    let instance = Instance::build(&environment, Path::new("/nowhere/Corefile"), corefile);
    let instance = Arc::new(instance.unwrap_or_else(|error| panic!("{error}")));
    instance.start(instance.bind_http().unwrap()).unwrap();
    instance.listening();
    instance
}

async fn ask_by(instance: &Arc<Instance>, name: &str, transport: Transport) -> Outcome {
    let mut message = Message::query();
    message.metadata.id = 4711;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let client = "10.0.0.1:1234".parse().unwrap();
    let local = "127.0.0.1:53".parse().unwrap();
    let raw = Bytes::from(message.to_vec().unwrap());
    let mut request = Request::new(message, raw, client, local, transport);
    let listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().unwrap(),
    };
    let outcome = instance.serve(&listen, &mut request).await;
    if let Some(message) = outcome.message() {
        assert_eq!(message.metadata.id, 4711);
        assert_eq!(
            message.queries[0].name().to_ascii(),
            name,
            "the client's case"
        );
    }
    outcome
}

/// Code and addresses.
async fn ask(instance: &Arc<Instance>, name: &str) -> String {
    ask_over(instance, name, Transport::Udp).await
}

async fn ask_over(instance: &Arc<Instance>, name: &str, transport: Transport) -> String {
    let outcome = ask_by(instance, name, transport).await;
    let Some(message) = outcome.message() else {
        return format!("{outcome:?}");
    };
    let data: Vec<String> = message
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect();
    let truncated = if message.metadata.truncation {
        " tc"
    } else {
        ""
    };
    let code = dns_server::plugin::prometheus::code_label(message.metadata.response_code);
    format!("{code}{truncated} {}", data.join(" "))
        .trim_end()
        .to_owned()
}

#[tokio::test]
async fn answers_come_back_by_either_transport() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(". {{\n forward . {}\n}}", server.address));
    assert_eq!(ask(&instance, "A.Example.org.").await, "NOERROR 192.0.2.1");
    assert_eq!(
        ask_over(&instance, "a.example.org.", Transport::Tcp).await,
        "NOERROR 192.0.2.2"
    );
    // The stream is kept for the next question.
    assert_eq!(
        ask_over(&instance, "b.example.org.", Transport::Tcp).await,
        "NOERROR 192.0.2.2"
    );
    let metrics = instance.environment().metrics.render();
    let hits = format!(
        "coredns_proxy_conn_cache_hits_total{{proxy_name=\"forward\",to=\"{}\",proto=\"tcp\"}} 1",
        server.address
    );
    assert!(metrics.contains(&hits), "{metrics}");
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  force_tcp\n }}\n}}",
        server.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.2");
}

#[tokio::test]
async fn forged_answers_are_not_taken() {
    let server = upstream(Manner::Forged).await;
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  random_case\n }}\n}}",
        server.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
}

#[tokio::test]
async fn truncation() {
    let server = upstream(Manner::Truncates).await;
    let instance = build(&format!(". {{\n forward . {}\n}}", server.address));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR tc");
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  prefer_udp\n }}\n}}",
        server.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.2");
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_and_found_again() {
    let (dead, alive) = (
        upstream(Manner::Silent).await,
        upstream(Manner::Answers).await,
    );
    let instance = build(&format!(
        ". {{\n forward . {} {} {{\n  policy sequential\n  read_timeout 100ms\n  health_check 50ms\n  max_fails 1\n }}\n}}",
        dead.address, alive.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = dead.asked();
    let began = Instant::now();
    assert_eq!(ask(&instance, "b.example.org.").await, "NOERROR 192.0.2.1");
    assert!(
        began.elapsed() < Duration::from_millis(90),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(dead.asked(), before, "it is known to be down");
    dead.set(Manner::Answers);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(ask(&instance, "c.example.org.").await, "NOERROR 192.0.2.1");
    assert_eq!(dead.asked(), before + 1, "it is known to be up");
}

#[tokio::test]
async fn all_dead_costs_bounded_time() {
    let dead = upstream(Manner::Silent).await;
    let instance = build(&format!(
        ". {{\n errors\n forward . {} {{\n  read_timeout 100ms\n }}\n}}",
        dead.address
    ));
    let began = Instant::now();
    assert_eq!(ask(&instance, "a.example.org.").await, "SERVFAIL");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_question_that_got_lost_is_asked_again() {
    let server = upstream(Manner::Loses).await;
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  read_timeout 200ms\n  max_fails 0\n }}\n}}",
        server.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    assert_eq!(server.asked(), 2);
    // Not for ever, and not more often than is allowed.
    for (option, asked) in [("", 3), ("max_connect_attempts 2", 2)] {
        let server = upstream(Manner::Silent).await;
        let instance = build(&format!(
            ". {{\n forward . {} {{\n  read_timeout 100ms\n  max_fails 0\n  {option}\n }}\n}}",
            server.address
        ));
        assert_eq!(ask(&instance, "a.example.org.").await, "SERVFAIL");
        assert_eq!(server.asked(), asked, "{option}");
    }
}

/// The port is closed, and the kernel says so at once.
#[tokio::test]
async fn a_refused_datagram_is_not_waited_for() {
    let alive = upstream(Manner::Answers).await;
    let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let instance = build(&format!(
        ". {{\n forward . {address} {} {{\n  policy sequential\n  read_timeout 1h\n }}\n}}",
        alive.address
    ));
    let asked = ask(&instance, "a.example.org.");
    // All attempts together end after five seconds.
    assert_eq!(asked.await, "NOERROR 192.0.2.1");
}

#[tokio::test]
async fn failover_and_next() {
    let (fails, answers) = (
        upstream(Manner::Fails).await,
        upstream(Manner::Answers).await,
    );
    let denies = upstream(Manner::Denies).await;
    let instance = build(&format!(
        ". {{\n forward . {} {} {{\n  policy sequential\n  failover SERVFAIL\n }}\n}}",
        fails.address, answers.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  next NXDOMAIN\n }}\n forward . {}\n}}",
        denies.address, answers.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    // Where no other line serves the name, what was said stands.
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  next NXDOMAIN\n }}\n forward example.net {}\n whoami\n}}",
        denies.address, answers.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NXDOMAIN");
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  except example.org\n }}\n}}",
        answers.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "SERVFAIL");
}

#[tokio::test]
async fn equal_questions_travel_as_one_and_others_are_bounded() {
    let slow = upstream(Manner::Slow).await;
    let instance = build(&format!(
        ". {{\n forward . {} {{\n  max_concurrent 2\n }}\n}}",
        slow.address
    ));
    let same = (0..50).map(|index| {
        let instance = Arc::clone(&instance);
        let name = if index % 2 == 0 {
            "a.example.org."
        } else {
            "A.Example.Org."
        };
        tokio::spawn(async move { ask(&instance, name).await })
    });
    for answer in futures_util::future::join_all(same).await {
        assert_eq!(answer.unwrap(), "NOERROR 192.0.2.1");
    }
    assert_eq!(slow.asked(), 1);
    let different = (0..10).map(|index| {
        let instance = Arc::clone(&instance);
        tokio::spawn(async move { ask(&instance, &format!("{index}.example.org.")).await })
    });
    let mut counts = std::collections::BTreeMap::new();
    for answer in futures_util::future::join_all(different).await {
        *counts.entry(answer.unwrap()).or_insert(0) += 1;
    }
    assert_eq!(counts.get("NOERROR 192.0.2.1"), Some(&2), "{counts:?}");
    assert_eq!(counts.get("REFUSED"), Some(&8), "{counts:?}");
    let metrics = instance.environment().metrics.render();
    assert!(
        metrics.contains("coredns_forward_max_concurrent_rejects_total 8"),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_answer_that_is_kept_is_told_as_it_is_kept() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(
        ". {{\n cache 30\n forward . {}\n}}",
        server.address
    ));
    for asked in 0..2 {
        let outcome = ask_by(&instance, "a.example.org.", Transport::Udp).await;
        let message = outcome.message().unwrap();
        assert!(message.answers[0].ttl <= 30, "{asked}");
        // Who asked says neither DO nor AD.
        assert!(!message.metadata.authentic_data, "{asked}");
    }
    assert_eq!(server.asked(), 1);
    let bare = build(&format!(". {{\n forward . {}\n}}", server.address));
    let outcome = ask_by(&bare, "a.example.org.", Transport::Udp).await;
    let message = outcome.message().unwrap();
    assert!(message.metadata.authentic_data);
    assert_eq!(message.answers[0].ttl, 300);
}

#[tokio::test]
async fn kept_answers() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(
        ". {{\n cache 30 {{\n  disable denial other.example\n }}\n forward . {}\n}}",
        server.address
    ));
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    assert_eq!(ask(&instance, "A.example.org.").await, "NOERROR 192.0.2.1");
    assert_eq!(server.asked(), 1);
    let outcome = ask_by(&instance, "a.example.org.", Transport::Udp).await;
    assert!(outcome.message().unwrap().answers[0].ttl <= 30);
    server.set(Manner::Denies);
    assert_eq!(ask(&instance, "no.example.org.").await, "NXDOMAIN");
    assert_eq!(ask(&instance, "no.example.org.").await, "NXDOMAIN");
    assert_eq!(server.asked(), 2);
    assert_eq!(ask(&instance, "no.other.example.").await, "NXDOMAIN");
    assert_eq!(ask(&instance, "no.other.example.").await, "NXDOMAIN");
    assert_eq!(server.asked(), 4, "denials of other.example are not kept");
    let metrics = instance.environment().metrics.render();
    for line in [
        "coredns_cache_hits_total{server=\"dns://:53\",type=\"success\",zones=\".\",view=\"\"} 2",
        "coredns_cache_hits_total{server=\"dns://:53\",type=\"denial\",zones=\".\",view=\"\"} 1",
        "coredns_cache_requests_total{server=\"dns://:53\",zones=\".\",view=\"\"} 7",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

/// Times to live that are kept are those that the answer had when it was put away.
#[tokio::test]
async fn kept_times_are_capped() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(
        ". {{\n cache 30 {{\n  success 100 5\n  keepttl\n }}\n forward . {}\n}}",
        server.address
    ));
    for _ in 0..2 {
        let outcome = ask_by(&instance, "a.example.org.", Transport::Udp).await;
        assert_eq!(outcome.message().unwrap().answers[0].ttl, 5);
    }
    assert_eq!(server.asked(), 1);
}

/// A client's wish to know the server ends here; one of the configuration is of the upstream.
#[tokio::test]
async fn an_upstream_names_itself_where_a_rule_says_so() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    for (rule, expected) in [("", false), ("rewrite edns0 nsid set", true)] {
        let instance = build(&format!(". {{\n {rule}\n forward . {address}\n}}"));
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("a.").unwrap(), RecordType::A));
        let mut edns = Edns::new();
        edns.options_mut()
            .insert(EdnsOption::Unknown(3, Vec::new()));
        message.set_edns(edns);
        let raw = Bytes::from(message.to_vec().unwrap());
        let here = "127.0.0.1:53".parse().unwrap();
        let mut request = Request::new(message, raw, here, here, Transport::Udp);
        let listen = Listen {
            scheme: Scheme::Dns,
            address: "[::]:53".parse().unwrap(),
        };
        let mut buffer = [0; 512];
        let length = tokio::select! {
            _ = instance.serve(&listen, &mut request) => panic!("nobody has answered"),
            received = socket.recv(&mut buffer) => received.unwrap(),
        };
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        let edns = asked.edns.expect("EDNS");
        assert_eq!(edns.option(EdnsCode::NSID).is_some(), expected, "{rule}");
    }
}

#[tokio::test]
async fn stale_answers_when_nothing_better_can_be_had() {
    let server = upstream(Manner::Answers).await;
    let corefile = |mode: &str| {
        format!(
            ". {{\n cache 1 {{\n  success 100 1 0\n  serve_stale 1h {mode}\n }}\n forward . {} {{\n  read_timeout 100ms\n }}\n}}",
            server.address
        )
    };
    for mode in ["verify 50ms", "immediate"] {
        server.set(Manner::Answers);
        let instance = build(&corefile(mode));
        assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
        server.set(Manner::Silent);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let began = Instant::now();
        let outcome = ask_by(&instance, "a.example.org.", Transport::Udp).await;
        assert!(
            began.elapsed() < Duration::from_millis(95),
            "{mode}: {:?}",
            began.elapsed()
        );
        assert_eq!(outcome.message().unwrap().answers[0].ttl, 0, "{mode}");
        // A fresh answer takes the stale one's place once there is one.
        server.set(Manner::Denies);
        tokio::time::sleep(Duration::from_millis(200)).await;
        let first = ask(&instance, "a.example.org.").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let then = ask(&instance, "a.example.org.").await;
        assert_eq!(then, "NXDOMAIN", "{mode}: {first}");
    }
}

#[tokio::test]
async fn a_failure_does_not_hide_what_is_known() {
    let server = upstream(Manner::Answers).await;
    for mode in ["verify", "immediate"] {
        server.set(Manner::Answers);
        let instance = build(&format!(
            ". {{\n cache 1 {{\n  success 100 1 0\n  serve_stale 1h {mode}\n }}\n forward . {}\n}}",
            server.address
        ));
        assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
        server.set(Manner::Fails);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        for _ in 0..4 {
            let again = ask(&instance, "a.example.org.").await;
            assert_eq!(again, "NOERROR 192.0.2.1", "{mode}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_search_does_not_deny_what_nobody_could_say() {
    let server = upstream(Manner::Fails).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "search t1.test\n").unwrap();
    let instance = build(&format!(
        ". {{\n autopath {}\n template IN A t1.test {{\n  rcode NXDOMAIN\n }}\n forward . {}\n}}",
        file.display(),
        server.address
    ));
    let said = ask(&instance, "a.t1.test.").await;
    assert!(said.starts_with("SERVFAIL"), "{said}");
    server.set(Manner::Denies);
    assert_eq!(ask(&instance, "a.t1.test.").await, "NXDOMAIN");
}

#[tokio::test]
async fn names_asked_often_are_fetched_before_they_expire() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(
        ". {{\n cache 2 {{\n  success 100 2 0\n  prefetch 2 1m 90%\n }}\n forward . {}\n}}",
        server.address
    ));
    for _ in 0..4 {
        assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert!(server.asked() >= 2, "{}", server.asked());
}

#[tokio::test]
async fn a_loop_is_refused_and_told() {
    let server = upstream(Manner::Answers).await;
    let instance = build(&format!(". {{\n loop\n forward . {}\n}}", server.address));
    assert!(instance.unready().is_empty());
    assert_eq!(ask(&instance, "a.example.org.").await, "NOERROR 192.0.2.1");
    // A server that forwards to itself.
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let instance = build(&format!(
        ". {{\n loop\n hosts /nonexistent {{\n  192.0.2.9 known.example\n  fallthrough\n }}\n forward . {} {{\n  read_timeout 500ms\n }}\n}}",
        socket.local_addr().unwrap()
    ));
    let (served, here) = (Arc::clone(&instance), Arc::clone(&socket));
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = here.recv_from(&mut buffer).await.unwrap();
            let raw = Bytes::copy_from_slice(&buffer[..length]);
            let (served, here) = (Arc::clone(&served), Arc::clone(&here));
            tokio::spawn(async move {
                let message = Message::from_vec(&raw).unwrap();
                let local = "127.0.0.1:53".parse().unwrap();
                let mut request = Request::new(message, raw, client, local, Transport::Udp);
                let listen = Listen {
                    scheme: Scheme::Dns,
                    address: "[::]:53".parse().unwrap(),
                };
                if let Some(message) = served.serve(&listen, &mut request).await.message() {
                    here.send_to(&message.to_vec().unwrap(), client)
                        .await
                        .unwrap();
                }
            });
        }
    });
    let began = Instant::now();
    while instance.unready().is_empty() && began.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(instance.unready(), ["loop"]);
    assert_eq!(ask(&instance, "a.example.org.").await, "SERVFAIL");
    assert_eq!(ask(&instance, "known.example.").await, "NOERROR 192.0.2.9");
}

#[tokio::test]
async fn a_question_for_ds_goes_to_a_parent_that_is_not_the_root() {
    let instance = build(
        "cluster.local {\n whoami\n}\nchild.example {\n whoami\n}\nexample {\n whoami\n}\n. {\n forward . 127.0.0.1:9\n}",
    );
    let listen = Listen {
        scheme: Scheme::Dns,
        address: "[::]:53".parse().unwrap(),
    };
    for (name, kind, zone) in [
        ("cluster.local.", RecordType::DS, "cluster.local."),
        ("child.example.", RecordType::A, "child.example."),
        ("child.example.", RecordType::DS, "example."),
        ("www.child.example.", RecordType::DS, "child.example."),
        ("example.", RecordType::DS, "example."),
        ("elsewhere.", RecordType::DS, "."),
        (".", RecordType::DS, "."),
    ] {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let here = "127.0.0.1:53".parse().unwrap();
        let mut request = Request::new(message, Bytes::new(), here, here, Transport::Udp);
        let (_, found) = instance.block(&listen, &mut request).unwrap();
        assert_eq!(found.to_ascii(), zone, "{name} {kind}");
    }
}
