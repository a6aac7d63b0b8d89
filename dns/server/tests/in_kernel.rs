//! What the BPF programs answer, compiled natively, beside what the server sends for the same octets; and the table that
//! they answer from, after any history of the cluster.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use abi::dns::Reason;
use abi::{DnsAnswer, DnsControl, DnsName};
use bytes::Bytes;
use client::Client;
use dns_server::cluster::{Clusters, Follower as _};
use dns_server::instance::{Environment, Instance};
use dns_server::kernel::mirror::Mirror;
use dns_server::kernel::plan::Plan;
use dns_server::kernel::{Failure, Kernel, Settings, Table};
use dns_server::reload::Reloader;
use dns_server::transport::Server;
use http_body_util::{BodyExt as _, Full};
use packet::dns::{MESSAGE_AT, Scratch, fold_name, header, name_len, question, records};
use proptest::prelude::*;
use serde_json::{Value, json};
use view::Event;
use zone::{Options, Snapshot, Store};

/// The kernel's tables, in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    names: HashMap<DnsName, DnsAnswer>,
    control: DnsControl,
    room: Option<usize>,
}

impl Table for Memory {
    fn entries(&self) -> Result<Vec<(DnsName, DnsAnswer)>, Failure> {
        let state = self.0.lock().unwrap();
        Ok(state.names.iter().map(|(n, a)| (*n, *a)).collect())
    }

    fn write(
        &mut self,
        remove: &[DnsName],
        put: &[(DnsName, DnsAnswer)],
    ) -> Result<Vec<usize>, Failure> {
        let mut state = self.0.lock().unwrap();
        for name in remove {
            state.names.remove(name);
        }
        let mut left_out = Vec::new();
        for (at, (name, answer)) in put.iter().enumerate() {
            let full = state.room.is_some_and(|room| state.names.len() >= room);
            if full && !state.names.contains_key(name) {
                left_out.push(at);
            } else {
                state.names.insert(*name, *answer);
            }
        }
        Ok(left_out)
    }

    fn set_control(&mut self, control: &DnsControl) -> Result<(), Failure> {
        self.0.lock().unwrap().control = *control;
        Ok(())
    }

    fn now_secs(&self) -> u32 {
        1000
    }

    fn answered(&self) -> Result<u64, Failure> {
        Ok(0)
    }

    fn is_current(&self) -> bool {
        true
    }
}

impl Memory {
    /// What the programs would answer.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        let length = u32::try_from(message.len()).ok()?;
        if !(packet::dns::MESSAGE_MIN..=packet::dns::MESSAGE_MAX).contains(&length) {
            return None;
        }
        // What other messages left there.
        let mut scratch = Scratch::new();
        scratch.message.fill(0xa5);
        scratch.tail.fill(0xa5);
        scratch.message[MESSAGE_AT..MESSAGE_AT + message.len()].copy_from_slice(message);
        let name_len = name_len(&scratch);
        if !question(&mut scratch, length, name_len) {
            return None;
        }
        let name = &message[packet::dns::HEADER as usize..][..name_len as usize];
        scratch.name = DnsName::new(name)?;
        fold_name(&mut scratch.name);
        let found = state.names.get(&scratch.name)?;
        records(&mut scratch, found, &state.control);
        header(&mut scratch);
        let mut said = scratch.message[MESSAGE_AT..][..scratch.head_len as usize].to_vec();
        said.extend_from_slice(&scratch.tail[..scratch.tail_len as usize]);
        let change = packet::checksum::difference(sum(message), sum(&said));
        let (is, should) = (
            packet::checksum::updated(0x1234, scratch.change),
            packet::checksum::updated(0x1234, change),
        );
        assert!(
            is == should || is ^ should == 0xffff,
            "checksum of {message:02x?}"
        );
        Some(said)
    }
}

fn sum(octets: &[u8]) -> u64 {
    let pairs = octets.chunks(2).map(|pair| match pair {
        [a, b] => u16::from_ne_bytes([*a, *b]),
        _ => u16::from_ne_bytes([pair[0], 0]),
    });
    pairs.map(u64::from).sum()
}

fn service(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

fn cluster_ips(ips: &[&str]) -> Value {
    json!({"clusterIP": ips[0], "clusterIPs": ips, "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]})
}

fn services() -> Vec<Value> {
    vec![
        service("kube-system", "kube-dns", &cluster_ips(&["10.96.0.10"])),
        service("default", "web", &cluster_ips(&["10.96.0.1", "fd00::1"])),
        service("default", "four", &cluster_ips(&["10.96.0.2"])),
        service("default", "six", &cluster_ips(&["fd00::3"])),
        service("n2", "web", &cluster_ips(&["10.96.0.4"])),
        service("default", "hidden", &cluster_ips(&["10.96.0.5"])),
        service(
            "default",
            "headless",
            &json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        ),
        service(
            "default",
            "alias",
            &json!({"type": "ExternalName", "externalName": "example.org"}),
        ),
        service(
            "default",
            &"l".repeat(63),
            &cluster_ips(&["10.96.0.6", "fd00::6"]),
        ),
    ]
}

/// Lists the Services above; watches that never say anything.
fn api() -> Client {
    let service = tower::service_fn(|request: http::Request<Full<Bytes>>| async move {
        let watch = request
            .uri()
            .query()
            .unwrap_or_default()
            .contains("watch=true");
        let items = match request.uri().path() {
            "/api/v1/services" => services(),
            "/api/v1/namespaces" => ["default", "kube-system", "n2"]
                .map(|name| json!({"metadata": {"name": name}}))
                .to_vec(),
            _ => Vec::new(),
        };
        let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
        let body = if watch {
            let silence =
                futures_util::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
            http_body_util::StreamBody::new(silence).boxed_unsync()
        } else {
            Full::new(Bytes::from(list.to_string())).boxed_unsync()
        };
        Ok::<_, Infallible>(http::Response::new(body))
    });
    Client::in_process(service, "")
}

/// `hidden` has a block of its own, which takes its queries from `kubernetes`.
const COREFILE: &str = "cluster.local example.test in-addr.arpa {
    bind 127.0.0.1
    errors
    cancel
    kubernetes cluster.local example.test in-addr.arpa {
        ttl 17
    }
    loadbalance
    whoami
}
hidden.default.svc.cluster.local {
    bind 127.0.0.1
    whoami
}
";

fn settings() -> Settings {
    Settings {
        answers: true,
        local: false,
        service: ("kube-system".to_owned(), "kube-dns".to_owned()),
        addresses: Vec::new(),
    }
}

fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut wire: Vec<u8> = labels
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat())
        .collect();
    wire.push(0);
    wire
}

fn message(flags: [u8; 2], name: &str, kind: u16, opt: Option<(u16, u8)>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0];
    message.push(u8::from(opt.is_some()));
    message.extend_from_slice(&wire(name));
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    if let Some((size, flags)) = opt {
        message.extend_from_slice(&[0, 0, 41]);
        message.extend_from_slice(&size.to_be_bytes());
        message.extend_from_slice(&[0, 0, flags, 0, 0, 0]);
    }
    message
}

fn ask(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket.connect(server).unwrap();
    socket.send(message).unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    buffer[..length].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_answer_octet_for_octet_what_the_server_answers() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Corefile");
    std::fs::write(&file, COREFILE).unwrap();
    let mut environment = Environment::new(0);
    environment.clusters = Clusters::new(Some(api()));
    let reloader = Reloader::start(Arc::new(environment), Some(file)).unwrap();
    let server = Server::open(Arc::clone(&reloader)).unwrap();
    let local = server.local_addresses()[0].1;
    let memory = Memory::default();
    let table = memory.clone();
    let open = Box::new(move || Ok(Box::new(table.clone()) as Box<dyn Table>));
    let kernel = Kernel::new(settings(), open, &reloader, server.addresses());
    let running = tokio::spawn(Arc::clone(&kernel).run());
    while memory.0.lock().unwrap().control.answers_until_secs == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let control = memory.0.lock().unwrap().control;
    assert_eq!(control.service4, [10, 96, 0, 10]);
    assert_eq!(control.service_port.get(), 53);
    let asked = memory.clone();
    tokio::task::spawn_blocking(move || compare(&asked, local))
        .await
        .unwrap();
    kernel.end();
    let control = memory.0.lock().unwrap().control;
    // A lease that is over, rather than none: pods' queries pass the instance by.
    assert_eq!(control.answers_until_secs, 1, "its end is said");
    assert_eq!(control.answers_reason, Reason::Ended as u8);
    running.abort();
}

fn compare(memory: &Memory, server: SocketAddr) {
    let long = "l".repeat(63);
    let answered = [
        "web.default",
        "wEb.DEFAULT",
        "four.default",
        "six.default",
        "web.n2",
        "kube-dns.kube-system",
        &format!("{long}.default"),
    ];
    let others = [
        "headless.default",
        "alias.default",
        "none.default",
        "default",
        "",
    ];
    let mut said = 0;
    for (names, whole) in [(&answered[..], true), (&others[..], false)] {
        for name in names {
            for zone in ["svc.cluster.local", "SVC.example.TEST", "svc.other.test"] {
                let name = format!("{name}.{zone}");
                for kind in [1, 28, 33, 16, 255, 65] {
                    for flags in [[1, 0], [0, 0], [1, 0x10], [1, 0x20], [3, 0x80]] {
                        for opt in [None, Some((1232, 0)), Some((512, 0x80)), Some((0, 0x7f))] {
                            let message = message(flags, &name, kind, opt);
                            let Some(octets) = memory.answer(&message) else {
                                let must = whole && kind != 33 && (kind == 1 || kind == 28);
                                assert!(!must || zone.contains("other"), "{name} {kind} goes on");
                                continue;
                            };
                            assert!(whole, "{name} {kind}");
                            assert_eq!(
                                octets,
                                ask(server, &message),
                                "{name} {kind} {flags:?} {opt:?}"
                            );
                            said += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(said, answered.len() * 2 * 2 * 5 * 4);
    let hidden = |zone: &str| message([1, 0], &format!("hidden.default.svc.{zone}"), 1, None);
    let octets = memory.answer(&hidden("example.test"));
    assert_eq!(octets, Some(ask(server, &hidden("example.test"))));
    assert_eq!(
        memory.answer(&hidden("cluster.local")),
        None,
        "another block answers"
    );
    // Any octets changed, cut or added: the same, or nothing.
    let mut random = fastrand::Rng::with_seed(7);
    let mut same = 0;
    for _ in 0..20_000 {
        let name = format!(
            "{}.svc.cluster.local",
            answered[random.usize(..answered.len())]
        );
        let opt = random.bool().then(|| (random.u16(..), random.u8(..)));
        let mut message = message([1, 0], &name, random.u16(..3) * 27 + 1, opt);
        for _ in 0..random.usize(..3) {
            let at = random.usize(..message.len());
            match random.u8(..4) {
                0 => message.truncate(at),
                1 => message.insert(at, random.u8(..)),
                _ => message[at] = random.u8(..),
            }
            if message.is_empty() {
                break;
            }
        }
        if let Some(octets) = memory.answer(&message) {
            same += 1;
            // Each costs a socket; one in eight will do.
            if same % 8 == 0 {
                assert_eq!(octets, ask(server, &message), "{message:02x?}");
            }
        }
    }
    assert!(same > 2000, "only {same} were answered");
}

fn instance(corefile: &str) -> Instance {
    let mut environment = Environment::new(53);
    environment.clusters = Clusters::new(Some(api()));
    Instance::build(&Arc::new(environment), Path::new("Corefile"), corefile).unwrap()
}

fn plan(corefile: &str) -> Result<Plan, String> {
    let instance = instance(corefile);
    let listening: Vec<_> = instance
        .listens()
        .into_iter()
        .map(|listen| {
            let address = listen.address;
            (listen, address)
        })
        .collect();
    Plan::of(&instance, &listening)
}

#[tokio::test]
async fn what_may_change_answers_switches_it_off_and_is_named() {
    let block = |lines: &str| format!(". {{\n{lines}\nkubernetes cluster.local\nwhoami\n}}\n");
    let cases = [
        (block(""), None),
        (
            block("errors\ncancel\nloadbalance\nprometheus 127.0.0.1:0\ncache 30"),
            None,
        ),
        (block("bufsize 1232"), None),
        (block("acl {\n block net 10.0.0.0/8\n}"), Some("`acl`")),
        (block("rewrite name a.test b.test"), Some("`rewrite`")),
        (block("log"), Some("`log`")),
        (block("header {\n response set ra\n}"), Some("`header`")),
        (block("minimal"), Some("`minimal`")),
        (
            block("hosts {\n 10.0.0.1 web.default.svc.cluster.local\n}"),
            Some("`hosts`"),
        ),
        (
            "example.org {\nwhoami\n}\n".to_owned(),
            Some("`kubernetes`"),
        ),
        (
            format!("{}example.org:54 {{\nwhoami\n}}\n", block("")),
            Some("several addresses"),
        ),
        (
            format!(
                "tls://.:853 {{\nkubernetes cluster.local\ntls {0} {0}\n}}\n",
                "missing"
            ),
            None,
        ),
    ];
    for (corefile, why) in cases.iter().take(11) {
        match (plan(corefile), why) {
            (Ok(_), None) => {}
            (Err(said), Some(word)) => assert!(said.contains(word), "{corefile}: {said}"),
            (Ok(_), Some(word)) => panic!("{corefile} is not refused for {word}"),
            (Err(said), None) => panic!("{corefile} is refused: {said}"),
        }
    }
}

/// A store that has listed nothing yet of what it will be told.
fn store() -> Store {
    let mut store = Store::new(Options::default());
    store.service(Event::Restarted);
    store.slice(Event::Restarted);
    store.namespace(Event::Restarted);
    for name in ["default", "n2", "kube-system"] {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        store.namespace(Event::Applied(namespace));
    }
    store.service(Event::Synced);
    store.slice(Event::Synced);
    store.namespace(Event::Synced);
    store
}

fn mirror(room: Option<usize>) -> (Mirror, Memory, Arc<Plan>) {
    let memory = Memory::default();
    memory.0.lock().unwrap().room = room;
    let mirror = Mirror::new(true, ("kube-system".to_owned(), "kube-dns".to_owned()));
    mirror.set_table(Box::new(memory.clone()));
    let plan = Arc::new(plan(COREFILE).unwrap());
    mirror.set_plan(Some(Arc::clone(&plan)));
    (mirror, memory, plan)
}

fn from_scratch(snapshot: &Snapshot) -> HashMap<DnsName, DnsAnswer> {
    let (mirror, memory, _plan) = mirror(None);
    mirror.all(snapshot);
    memory.0.lock().unwrap().names.clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// The table follows; a full one lacks names and has no wrong one.
    #[test]
    fn the_table_says_what_the_snapshot_says(
        changes in prop::collection::vec((0..3_u8, 0..4_u8, 0..6_u8), 1..40),
        room in prop::option::of(0..5_usize),
    ) {
        let (mirror, memory, plan) = mirror(room);
        let mut store = store();
        store.take_rendered();
        mirror.all(&store.publish(1));
        for (namespace, name, kind) in changes {
            let namespace = ["default", "n2", "kube-system"][usize::from(namespace)];
            let name = ["web", "four", "hidden", "kube-dns"][usize::from(name)];
            let four = format!("10.96.1.{kind}");
            let spec = match kind {
                0 => None,
                1 => Some(json!({"clusterIP": "None", "clusterIPs": ["None"]})),
                2 => Some(json!({"type": "ExternalName", "externalName": "example.org"})),
                3 => Some(cluster_ips(&[&four, "fd00::9"])),
                _ => Some(cluster_ips(&[&four])),
            };
            store.service(match spec {
                None => Event::Deleted { namespace: namespace.to_owned(), name: name.to_owned() },
                Some(spec) => {
                    Event::Applied(serde_json::from_value(service(namespace, name, &spec)).unwrap())
                }
            });
            let rendered = store.take_rendered();
            let snapshot = store.publish(1);
            mirror.changed(&snapshot, &rendered);
            plan.cluster().replace(snapshot.clone());
            mirror.renew(&[], Err(Reason::NotAsked));
            let should = from_scratch(&snapshot);
            let state = memory.0.lock().unwrap();
            prop_assert_eq!(state.control.serial.get(), snapshot.serial());
            match room {
                None => prop_assert_eq!(&state.names, &should),
                Some(room) => {
                    prop_assert!(state.names.iter().all(|(n, a)| should.get(n) == Some(a)));
                    prop_assert!(state.names.len() <= room);
                    let left_out = state.control.left_out > 0;
                    prop_assert_eq!(left_out, state.names.len() < should.len());
                }
            }
        }
    }
}
