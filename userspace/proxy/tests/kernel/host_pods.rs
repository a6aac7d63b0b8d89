//! Pods that use the node's network are held to policies at their cgroups: real sockets, which belong to the cgroup that
//! their process was in when it made them.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bpf::Datapath;
use net::Netns;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::support::{Api, Ground, in_namespace, ip, path, start, until};

const UID: &str = "0b5bf7e1-6a1f-4d0c-9c2a-3a1f6e0d7c11";
/// How long is waited for what never comes.
const NEVER: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(5);
/// Ports of the pod, open and closed, and of a server elsewhere.
const OPEN: u16 = 5432;
const CLOSED: u16 = 5433;
const FRIEND: u16 = 7000;
const STRANGER: u16 = 7001;

#[test]
fn pods_of_the_nodes_network_are_held_to_policies() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let elsewhere = Netns::create().unwrap();
    in_namespace(&netns, story(&ground, &elsewhere));
    remove(ground.cgroup());
}

/// Makes something as a process in a cgroup would.
pub(crate) fn within<T>(cgroup: &Path, make: impl FnOnce() -> T) -> T {
    let join = |cgroup: &Path| std::fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
    join(cgroup);
    let made = make();
    join(&net::cgroup2_mount().unwrap());
    made
}

/// The cgroup of the pod's container, made as kubelet does.
fn make_cgroup(root: &Path) -> PathBuf {
    let pod = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let path = root
        .join("kubepods.slice/kubepods-burstable.slice")
        .join(pod)
        .join("container");
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn remove(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

fn policy(ingress: Value, egress: Value) -> Value {
    json!({
        "kind": "NetworkPolicy",
        "metadata": {"name": "db", "namespace": "default", "uid": "db"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    })
}

/// From elsewhere to the port that has a name, and back to one of theirs.
fn some() -> Value {
    let blocks =
        json!([{"ipBlock": {"cidr": "192.0.2.9/32"}}, {"ipBlock": {"cidr": "fd00:2::9/128"}}]);
    policy(
        json!([{"from": blocks, "ports": [{"port": "db"}, {"port": OPEN, "protocol": "UDP"}]}]),
        json!([{"to": blocks, "ports": [{"port": FRIEND}, {"port": FRIEND, "protocol": "UDP"}]}]),
    )
}

async fn story(ground: &Ground, elsewhere: &Netns) {
    ip("addr add fd00:2::1/64 dev up0 nodad");
    ip(&format!("link set up1 netns {}", path(elsewhere)));
    elsewhere
        .run(|| {
            ip("link set lo up");
            ip("addr add 192.0.2.9/24 dev up1");
            ip("addr add fd00:2::9/64 dev up1 nodad");
            ip("link set up1 up");
        })
        .unwrap();
    let api = Api::default();
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
    api.put(
        "namespaces",
        json!({"kind": "Namespace", "metadata": {"name": "default"}}),
    );
    api.put(
        "pods",
        json!({
            "kind": "Pod",
            "metadata": {"name": "db", "namespace": "default", "uid": UID, "labels": {"app": "db"}},
            "spec": {
                "nodeName": "node-a", "hostNetwork": true,
                "containers": [{"name": "db", "ports": [{"name": "db", "containerPort": OPEN}]}],
            },
            "status": {"phase": "Running", "podIP": "192.0.2.1"},
        }),
    );
    api.put("networkpolicies", some());
    let mut settings = ground.settings();
    settings.network_policy = true;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let first = start(&api, settings, stopping);

    // Its cgroup is not there yet, and that is said.
    let is_open = |status: &proxy::Status| status.policies.unheld_pods.contains_key("default/db");
    let said = until(&mut status, is_open).await;
    let trouble = &said.policies.troubles["default/db"][0];
    assert!(
        trouble.contains("default/db (no cgroup of a pod 0b5bf7e1"),
        "{trouble}"
    );
    let rows = |ground: &Ground| {
        let view = Datapath::inspect(&ground.root()).unwrap();
        let endpoints = view.endpoints().unwrap();
        let host_pods = view.policy_pods().unwrap();
        proxy::listing::policies(&view.policies().unwrap(), &endpoints, &host_pods)
    };
    let row = &rows(ground)[0];
    assert_eq!((row.uid.as_deref(), row.open), (Some(UID), true));

    let cgroup = make_cgroup(ground.cgroup());
    let said = until(&mut status, |status| !is_open(status)).await;
    assert_eq!(said.policies.troubles.len(), 0);
    assert!(!rows(ground)[0].open);

    let mut standing = Vec::new();
    for v6 in [false, true] {
        let of = |host: u16| -> IpAddr {
            if v6 {
                [0xfd00, 2, 0, 0, 0, 0, 0, host].into()
            } else {
                [192, 0, 2, host as u8].into()
            }
        };
        let (node, peer) = (of(1), of(9));
        let what = format!("v6: {v6}");
        let listen = |port| TcpListener::bind((node, port)).unwrap();
        let bind = |port| UdpSocket::bind((node, port)).unwrap();
        let pod = within(&cgroup, || {
            ([OPEN, CLOSED].map(listen), [OPEN, CLOSED].map(bind))
        });
        let nodes_own = listen(9000);
        let theirs = |port| {
            elsewhere
                .run(move || {
                    let udp = UdpSocket::bind((peer, port)).unwrap();
                    (TcpListener::bind((peer, port)).unwrap(), udp)
                })
                .unwrap()
        };
        let servers = [FRIEND, STRANGER].map(theirs);

        // What others begin.
        let asks = |port| {
            elsewhere
                .run(move || connects((node, port).into()))
                .unwrap()
        };
        let client = asks(OPEN).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(asks(CLOSED).is_err(), "{what}");
        assert!(
            asks(9000).is_ok(),
            "{what}: what is no pod's is nobody's business"
        );
        assert!(connects((node, CLOSED).into()).is_ok(), "{what}: its node");
        for (socket, passes) in pod.1.iter().zip([true, false]) {
            let to = socket.local_addr().unwrap();
            let sent = elsewhere
                .run(move || {
                    let socket = UdpSocket::bind((peer, 0)).unwrap();
                    socket.send_to(b"hello", to).unwrap();
                    socket
                })
                .unwrap();
            let heard = hears(socket, if passes { SOON } else { NEVER });
            assert_eq!(heard.is_some(), passes, "{what} {to}");
            // The answer passes, though the pod may begin nothing with that port.
            if let Some(from) = heard {
                socket.send_to(b"answer", from).unwrap();
                assert!(hears(&sent, SOON).is_some(), "{what}: the answer");
            }
        }

        // What the pod begins.
        let socket = within(&cgroup, || bind(0));
        for ((listener, udp), passes) in servers.iter().zip([true, false]) {
            let to = listener.local_addr().unwrap();
            let connected = within(&cgroup, || connects(to));
            assert_eq!(connected.is_ok(), passes, "{what}: to {to}: {connected:?}");
            let sent = socket.send_to(b"hello", to);
            assert_eq!(sent.is_ok(), passes, "{what}: to {to}: {sent:?}");
            let heard = hears(udp, if passes { SOON } else { NEVER });
            assert_eq!(heard.is_some(), passes, "{what}: by UDP to {to}");
            assert!(connects(to).is_ok(), "{what}: the node to {to}");
        }
        let (server, _) = pod.0[0].accept().unwrap();
        assert!(goes(&client, &server, SOON), "{what}");
        standing.push((client, server, pod, nodes_own));
    }

    // A change meets what stands, and so does the next one.
    let changes = |status: &proxy::Status| status.policies.changes;
    let before = changes(&status.borrow());
    api.put("networkpolicies", policy(json!([]), json!([])));
    until(&mut status, |status| changes(status) > before).await;
    for (client, server, ..) in &standing {
        assert!(!goes(client, server, NEVER), "closed");
    }
    let before = changes(&status.borrow());
    api.put("networkpolicies", some());
    until(&mut status, |status| changes(status) > before).await;
    for (client, server, ..) in &standing {
        assert!(goes(client, server, SOON), "open again");
    }

    // The process ends, and what it held stays held; the next one keeps the pod's number.
    stop.send_replace(true);
    first.await.unwrap();
    let closed: SocketAddr = ([192, 0, 2, 1], CLOSED).into();
    let asks = || elsewhere.run(move || connects(closed)).unwrap();
    assert!(asks().is_err());
    let numbers = || {
        Datapath::inspect(&ground.root())
            .unwrap()
            .policy_pods()
            .unwrap()
    };
    let held = numbers();
    let mut settings = ground.settings();
    settings.network_policy = true;
    settings.status = Default::default();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let second = start(&api, settings, stopping);
    until(&mut status, |status| status.policies.ready).await;
    assert_eq!(numbers(), held);
    assert!(asks().is_err());

    // Its cgroup goes, and another comes.
    drop(standing);
    remove(ground.cgroup());
    until(&mut status, is_open).await;
    let cgroup = make_cgroup(ground.cgroup());
    until(&mut status, |status| !is_open(status)).await;
    let _listener = within(&cgroup, || TcpListener::bind(closed).unwrap());
    assert!(asks().is_err());
    // The pod ends, and nothing is left of it.
    api.put("networkpolicies", {
        let mut other = some();
        other["spec"]["podSelector"]["matchLabels"]["app"] = json!("other");
        other
    });
    until(&mut status, |status| status.policies.pods == 0).await;
    assert!(numbers().is_empty());
    let left = std::fs::read_dir(ground.root().join("v1/links")).unwrap();
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    let of_pods = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.starts_with("cgroup_")
    };
    assert!(!left.iter().any(of_pods), "{left:?}");
    assert!(asks().is_ok(), "no policy selects it");
    stop.send_replace(true);
    second.await.unwrap();
}

fn connects(to: SocketAddr) -> std::io::Result<TcpStream> {
    // What passes may take its time on a busy machine.
    let closed = [CLOSED, STRANGER].contains(&to.port());
    TcpStream::connect_timeout(&to, if closed { NEVER } else { SOON })
}

/// Who sent a datagram.
fn hears(socket: &UdpSocket, limit: Duration) -> Option<SocketAddr> {
    socket.set_read_timeout(Some(limit)).unwrap();
    match socket.recv_from(&mut [0; 16]) {
        Ok((_, from)) => Some(from),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Whether an octet comes over a connection. One that did not may come later, and is read then.
fn goes(mut from: &TcpStream, mut to: &TcpStream, limit: Duration) -> bool {
    from.write_all(b"x").unwrap();
    to.set_read_timeout(Some(limit)).unwrap();
    to.read(&mut [0; 16]).is_ok_and(|len| len > 0)
}
