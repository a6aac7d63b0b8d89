//! From kube-proxy's nftables rules to our tables and back, under connections of TCP and UDP that notice nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use net::Netns;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::{Api, Ground, in_namespace, ip, path, slice, start, until};

/// What kube-proxy writes in mode nftables (KEP-3866) for one Service of two endpoints: a map from its address to a
/// chain, a choice there, a translation behind that. kube-proxy chooses at random; the first is enough to notice whom a
/// connection is with.
const RULES: &str = "table ip kube-proxy {
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading {
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  chain endpoint-tcp { ip saddr 10.244.2.2 jump mark-for-masquerade; meta l4proto tcp dnat to 10.244.2.2:8080; }
  chain endpoint-udp { ip saddr 10.244.2.2 jump mark-for-masquerade; meta l4proto udp dnat to 10.244.2.2:5353; }
  chain service-tcp { numgen random mod 1 vmap { 0 : goto endpoint-tcp }; }
  chain service-udp { numgen random mod 1 vmap { 0 : goto endpoint-udp }; }
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.10 . tcp . 80 : goto service-tcp, 10.96.0.10 . udp . 53 : goto service-udp }
  }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain filter-forward { type filter hook forward priority -110; ct state invalid drop; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

#[test]
fn connections_outlive_the_change_of_proxies() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let pods = [(); 3].map(|()| Netns::create().unwrap());
    in_namespace(&netns, story(&ground, &pods));
}

fn nft(args: &[&str], rules: &str) -> String {
    let mut nft = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("nft of nftables");
    nft.stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    let output = nft.wait_with_output().unwrap();
    assert!(output.status.success(), "nft {args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A pod `n` with the address 10.244.n.2.
fn link(pod: &Netns, n: u8) {
    ip(&format!(
        "link add veth{n} type veth peer name eth0 netns {}",
        path(pod)
    ));
    ip(&format!("link set veth{n} up"));
    ip(&format!("addr add 10.244.{n}.1/24 dev veth{n}"));
    let inside = pod.run(|| {
        ip("link set lo up");
        ip("link set eth0 up");
        ip(&format!("addr add 10.244.{n}.2/24 dev eth0"));
        ip(&format!("route add default via 10.244.{n}.1"));
    });
    inside.unwrap();
}

/// Says its name to every TCP connection and datagram, again for each octet and datagram that comes.
fn serve(pod: &Netns, name: &'static str) {
    let (listener, datagrams) = pod
        .run(|| {
            let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
            (listener, UdpSocket::bind("0.0.0.0:5353").unwrap())
        })
        .unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            thread::spawn(move || {
                let mut octet = [0];
                while matches!(connection.read(&mut octet), Ok(1)) {
                    if connection.write_all(name.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    thread::spawn(move || {
        let mut datagram = [0; 16];
        while let Ok((_, from)) = datagrams.recv_from(&mut datagram) {
            let _ = datagrams.send_to(name.as_bytes(), from);
        }
    });
}

/// A pod's connection and its flow, both of them long.
struct Client {
    tcp: TcpStream,
    udp: UdpSocket,
}

impl Client {
    fn connect(pod: &Netns) -> Client {
        let (tcp, udp) = pod
            .run(|| {
                let service: SocketAddr = "10.96.0.10:80".parse().unwrap();
                let tcp = TcpStream::connect_timeout(&service, Duration::from_secs(5)).unwrap();
                let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
                udp.connect("10.96.0.10:53").unwrap();
                (tcp, udp)
            })
            .unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        udp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Client { tcp, udp }
    }

    /// Who answers: on the connection, and to a datagram.
    fn ask(&mut self) -> [String; 2] {
        self.tcp.write_all(&[1]).unwrap();
        let mut by_tcp = [0; 3];
        self.tcp
            .read_exact(&mut by_tcp)
            .expect("the connection lives");
        self.udp.send(&[1]).unwrap();
        let mut by_udp = [0; 3];
        self.udp.recv(&mut by_udp).expect("the flow lives");
        [by_tcp, by_udp].map(|name| String::from_utf8(name.to_vec()).unwrap())
    }
}

fn objects(api: &Api, endpoints: &[&str]) {
    let port = |name: &str, protocol: &str, port: u16| json!({"name": name, "protocol": protocol, "port": port});
    api.put(
        "services",
        json!({
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.10", "ports": [port("web", "TCP", 80), port("dns", "UDP", 53)]},
        }),
    );
    let mut slice: Value = slice("web", endpoints);
    slice["ports"] = json!([port("web", "TCP", 8080), port("dns", "UDP", 5353)]);
    api.put("endpointslices", slice);
    api.put(
        "nodes",
        json!({"kind": "Node", "metadata": {"name": "node-a"}}),
    );
}

async fn story(ground: &Ground, [client, old, new]: &[Netns; 3]) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    for (pod, n) in [(client, 1), (old, 2), (new, 3)] {
        link(pod, n);
    }
    serve(old, "old");
    serve(new, "new");
    nft(&["-f", "-"], RULES);
    let mut long = Client::connect(client);
    assert_eq!(long.ask(), ["old", "old"]);

    // Ours choose among both, so that somebody who was chosen for anew would notice sooner or later; and new ones do.
    let api = Api::default();
    objects(&api, &["10.244.2.2", "10.244.3.2"]);
    let mut settings = ground.settings();
    settings.take_over_kube_proxy = true;
    settings.datapath.cgroup_root = None;
    // Of so many connections none gives way to another.
    settings.datapath.capacities.flows = 4096;
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    // Meanwhile it speaks on.
    let (told, mut speaking) = tokio::sync::mpsc::unbounded_channel();
    let speaker = thread::spawn(move || {
        while told.send(long.ask()).is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
        long
    });
    until(&mut status, |status| status.ready).await;
    assert!(status.borrow().kube_proxy_rules.is_empty());
    let ruleset = nft(&["list", "tables"], "");
    assert!(!ruleset.contains("kube-proxy"), "{ruleset}");
    for _ in 0..100 {
        let answers = speaking.recv().await.expect("the connections live");
        assert_eq!(answers, ["old", "old"]);
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        seen.extend(Client::connect(client).ask());
    }
    assert_eq!(seen.len(), 2, "new connections are spread: {seen:?}");
    while let Ok(answers) = speaking.try_recv() {
        assert_eq!(answers, ["old", "old"]);
    }
    drop(speaking);
    drop(speaker.join().expect("no connection was lost"));

    // And back: kube-proxy's rules take what is new, and long connections stay with whom they have.
    let mut long: Vec<(Client, [String; 2])> = (0..16)
        .map(|_| {
            let mut client = Client::connect(client);
            let answers = client.ask();
            (client, answers)
        })
        .collect();
    let with_new = |at: usize| long.iter().filter(|(_, by)| by[at] == "new").count();
    assert!(
        with_new(0) > 0 && with_new(1) > 0,
        "some are with whom the rules never choose"
    );
    stop.send_replace(true);
    daemon.await.unwrap();
    assert_eq!(
        proxy::hand_back(&ground.root()).unwrap(),
        [0; 2],
        "to whom?"
    );
    nft(&["-f", "-"], RULES);
    let [given, refused] = proxy::hand_back(&ground.root()).unwrap();
    assert!(given >= 32 && refused == 0, "{given} {refused}");
    bpf::Datapath::uninstall(&ground.root()).unwrap();
    for _ in 0..20 {
        for (client, answers) in &mut long {
            assert_eq!(client.ask(), *answers);
        }
    }
    for _ in 0..8 {
        assert_eq!(Client::connect(client).ask(), ["old", "old"]);
    }
    drop(long);

    // Nothing of ours is left.
    nft(&["delete", "table", "ip", "kube-proxy"], "");
    assert!(net::release_translations().unwrap() > 0);
    assert_eq!(net::release_translations().unwrap(), 0);
    assert_eq!(nft(&["list", "ruleset"], ""), "");
}

/// The shape of kube-proxy's rules in mode iptables: its chains go, with what leads there, and nobody else's.
#[test]
fn chains_of_iptables_go_and_others_stay() {
    let netns = Netns::create().expect("root may make network namespaces");
    let outcome = netns.run(|| {
        let run = |program: &str, args: &str| {
            let output = Command::new(program).args(args.split(' ')).output();
            let output = output.expect("iptables is installed");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {args}: {said}");
            String::from_utf8(output.stdout).unwrap()
        };
        for args in [
            "-t nat -N KUBE-SERVICES",
            "-t nat -N KUBE-SVC-AAAA",
            "-t nat -N KUBE-KUBELET-CANARY",
            "-t nat -N MINE",
            "-t nat -A KUBE-SVC-AAAA -p tcp -j DNAT --to-destination 10.244.0.2:80",
            "-t nat -A KUBE-SERVICES -d 10.96.0.10/32 -j KUBE-SVC-AAAA",
            "-t nat -A PREROUTING -j KUBE-SERVICES",
            "-t nat -A OUTPUT -j KUBE-SERVICES",
            "-t nat -A PREROUTING -j MINE",
            "-N KUBE-FORWARD",
            "-A FORWARD -j KUBE-FORWARD",
        ] {
            run("iptables", args);
        }
        assert_eq!(net::remove_kube_proxy_chains().unwrap(), 3);
        assert!(
            net::release_translations().unwrap() > 0,
            "translations were kept"
        );
        let saved = run("iptables-save", "-c");
        let left: Vec<&str> = saved
            .lines()
            .filter(|line| line.contains("KUBE-"))
            .collect();
        assert_eq!(left, [":KUBE-KUBELET-CANARY - [0:0]"], "{saved}");
        assert!(saved.contains("-A PREROUTING -j MINE"), "{saved}");
        assert_eq!(net::remove_kube_proxy_chains().unwrap(), 0);
    });
    outcome.unwrap();
}
