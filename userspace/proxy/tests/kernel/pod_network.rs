//! Three nodes: the first two on one link, the third behind the second. Pods stand for by addresses of the nodes
//! themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use client::Client;
use net::{Address, Netns, Route, Rtnl};
use proxy::Status;
use proxy::pod_network::{Keeper, Overlay, Settings};
use serde_json::{Value, json};
use tokio::sync::watch;
use view::NodeRanges;

use crate::support::{Api, in_namespace};

struct Node {
    netns: Netns,
    rtnl: Rtnl,
}

impl Node {
    fn new() -> Node {
        let netns = Netns::create().expect("root may make a namespace");
        let rtnl = netns.run(Rtnl::open).unwrap().unwrap();
        let node = Node { netns, rtnl };
        node.rtnl.set_up(node.index("lo")).unwrap();
        for v6 in [false, true] {
            node.netns.run(|| net::forward(v6)).unwrap().unwrap();
        }
        node
    }

    fn index(&self, name: &str) -> u32 {
        self.rtnl.device(name).unwrap().unwrap().ifindex
    }

    /// Gives a link an address, and a route to its subnet.
    fn address(&self, device: &str, addr: &str, prefix_len: u8) {
        let addr: IpAddr = addr.parse().unwrap();
        let ifindex = self.index(device);
        self.rtnl
            .add_address(ifindex, Address { addr, prefix_len })
            .unwrap();
        if device != "lo" {
            self.rtnl.set_up(ifindex).unwrap();
            let subnet = ipnet::IpNet::new(addr, prefix_len).unwrap().network();
            let to = Address {
                addr: subnet,
                prefix_len,
            };
            self.rtnl.add_route(&Route::over(to, ifindex)).unwrap();
        }
    }

    fn route(&self, to: &str, prefix_len: u8, via: &str, device: &str) {
        let to = Address {
            addr: to.parse().unwrap(),
            prefix_len,
        };
        let route = Route {
            via: Some(via.parse().unwrap()),
            protocol: 4, // somebody's, not ours
            ..Route::over(to, self.index(device))
        };
        self.rtnl.add_route(&route).unwrap();
    }

    fn keep(&self, keeper: &mut Keeper, nodes: &BTreeMap<String, NodeRanges>) -> bool {
        self.netns.run(|| keeper.keep(nodes)).unwrap().unwrap()
    }

    /// The next hop and the device to a range; none where there is no such route.
    fn way(&self, range: &str) -> Option<(IpAddr, String)> {
        let addr: IpAddr = range.parse().unwrap();
        let route = self
            .rtnl
            .routes()
            .unwrap()
            .into_iter()
            .find(|route| route.to.addr == addr)?;
        let device = self.rtnl.device_at(route.ifindex).unwrap()?;
        Some((route.via?, device.name))
    }
}

fn link(one: (&Node, &str), other: (&Node, &str)) {
    one.0
        .rtnl
        .add_veth(
            (one.1, [2, 0, 0, 0, 0, 1]),
            ("other", [2, 0, 0, 0, 0, 2]),
            1500,
        )
        .unwrap();
    let end = one.0.index("other");
    one.0
        .rtnl
        .move_device(end, &other.0.netns, other.1)
        .unwrap();
}

fn ranges(addresses: &[&str], pod_cidrs: &[&str]) -> NodeRanges {
    NodeRanges {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        pod_cidrs: pod_cidrs.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn settings(name: &str, overlay: Overlay, folder: &Path) -> Settings {
    Settings {
        node_name: name.to_owned(),
        overlay,
        conf_dir: folder.join(format!("{name}/net.d")),
        node_file: folder.join(format!("{name}/run/node.json")),
        bpffs_root: "/sys/fs/bpf/fairlead".into(),
        host_ports: name == "a",
        masquerade: false,
        non_masquerade_cidrs: Vec::new(),
    }
}

/// A datagram there and back; the source that the other side saw.
fn exchange(from: (&Node, &str), to: (&Node, &str)) -> IpAddr {
    let bind = |(node, addr): (&Node, &str)| {
        let addr = SocketAddr::new(addr.parse().unwrap(), 0);
        let socket = node.netns.run(|| UdpSocket::bind(addr)).unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        socket
    };
    let (client, server) = (bind(from), bind(to));
    let target = server.local_addr().unwrap();
    let mut word = [0; 8];
    for _ in 0..50 {
        client.send_to(b"word", target).unwrap();
        let Ok((len, source)) = server.recv_from(&mut word) else {
            continue;
        };
        server.send_to(&word[..len], source).unwrap();
        if client.recv_from(&mut word).is_ok() {
            return source.ip();
        }
    }
    panic!("no word from {} to {target}", from.1);
}

#[test]
fn the_network_waits_for_the_programs() {
    let netns = Netns::create().expect("root may make a namespace");
    in_namespace(&netns, async {
        let api = Api::default();
        api.put(
            "nodes",
            json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {"podCIDR": "10.244.1.0/24"}}),
        );
        let folder = tempfile::tempdir().unwrap();
        let settings = settings("a", Overlay::Off, folder.path());
        let file = settings.node_file.clone();
        let (proxy, status) = watch::channel(Status::default());
        let (stop, stopping) = watch::channel(false);
        let client = Client::in_process(api.router(), "");
        let network = proxy::pod_network::run(client, settings, status, stopping);
        let network = tokio::spawn(network);
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!file.exists(), "the plugin would find no programs");
        proxy.send_modify(|status| status.loaded = true);
        for _ in 0..500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if file.exists() {
                break;
            }
        }
        assert!(file.exists());
        stop.send(true).unwrap();
        network.await.unwrap().unwrap();
    });
}

#[test]
fn pods_of_three_nodes_reach_each_other_straight_and_in_a_tunnel() {
    let [a, b, c] = [(); 3].map(|()| Node::new());
    link((&a, "up0"), (&b, "up0"));
    link((&b, "up1"), (&c, "up0"));
    for (node, device, four, six) in [
        (&a, "up0", "192.0.2.1", "2001:db8::1"),
        (&b, "up0", "192.0.2.2", "2001:db8::2"),
        (&b, "up1", "198.51.100.2", "2001:db8:3::2"),
        (&c, "up0", "198.51.100.3", "2001:db8:3::3"),
    ] {
        node.address(device, four, 24);
        node.address(device, six, 64);
    }
    a.route("198.51.100.0", 24, "192.0.2.2", "up0");
    a.route("2001:db8:3::", 64, "2001:db8::2", "up0");
    c.route("192.0.2.0", 24, "198.51.100.2", "up0");
    c.route("2001:db8::", 64, "2001:db8:3::2", "up0");
    let pods = [
        [(&a, "10.244.1.5"), (&b, "10.244.2.5"), (&c, "10.244.3.5")],
        [
            (&a, "fd10:244:1::5"),
            (&b, "fd10:244:2::5"),
            (&c, "fd10:244:3::5"),
        ],
    ];
    for (node, addr) in pods.concat() {
        node.address("lo", addr, if addr.contains(':') { 128 } else { 32 });
    }
    let all = BTreeMap::from([
        (
            "a".to_owned(),
            ranges(
                &["192.0.2.1", "2001:db8::1"],
                &["10.244.1.0/24", "fd10:244:1::/64"],
            ),
        ),
        (
            "b".to_owned(),
            ranges(
                &["192.0.2.2", "2001:db8::2"],
                &["10.244.2.0/24", "fd10:244:2::/64"],
            ),
        ),
        (
            "c".to_owned(),
            ranges(
                &["198.51.100.3", "2001:db8:3::3"],
                &["10.244.3.0/24", "fd10:244:3::/64"],
            ),
        ),
    ]);
    let folder = tempfile::tempdir().unwrap();
    for overlay in [Overlay::Auto, Overlay::Vxlan] {
        let mut keepers =
            ["a", "b", "c"].map(|name| Keeper::new(settings(name, overlay, folder.path())));
        for (node, keeper) in [&a, &b, &c].into_iter().zip(&mut keepers) {
            assert!(node.keep(keeper, &all));
            assert!(!node.keep(keeper, &all), "nothing new");
        }
        let straight = Some(("192.0.2.2".parse().unwrap(), "up0".to_owned()));
        let tunnel = |range: &str| Some((range.parse().unwrap(), "fairlead.vxlan".to_owned()));
        let near = if overlay == Overlay::Auto {
            straight
        } else {
            tunnel("10.244.2.0")
        };
        assert_eq!(a.way("10.244.2.0"), near);
        assert_eq!(a.way("10.244.3.0"), tunnel("10.244.3.0"));
        assert_eq!(a.way("fd10:244:3::").unwrap().1, "fairlead.vxlan");
        for [one, two, three] in pods {
            for (from, to) in [
                (one, two),
                (one, three),
                (three, one),
                (two, three),
                (three, two),
            ] {
                assert_eq!(
                    exchange(from, to).to_string(),
                    from.1,
                    "{overlay:?}: {} to {}",
                    from.1,
                    to.1
                );
            }
        }
        let told: Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("a/run/node.json")).unwrap())
                .unwrap();
        assert_eq!(told["mtu"], 1450);
        assert_eq!(told["podCIDRs"][1], "fd10:244:1::/64");
        let conf = std::fs::read(folder.path().join("a/net.d/10-fairlead.conflist")).unwrap();
        let conf: Value = serde_json::from_slice(&conf).unwrap();
        assert_eq!(conf["plugins"][0]["type"], "fairlead-cni");
        let serves = &conf["plugins"][0]["capabilities"]["portMappings"];
        assert_eq!((serves, &told["hostPorts"]), (&Value::Bool(true), serves));

        // Somebody removes a route; a node goes.
        let lost = a
            .rtnl
            .routes()
            .unwrap()
            .into_iter()
            .find(|route| route.to.addr == "10.244.3.0".parse::<IpAddr>().unwrap());
        a.rtnl.remove_route(&lost.unwrap()).unwrap();
        a.keep(&mut keepers[0], &all);
        assert_eq!(a.way("10.244.3.0"), tunnel("10.244.3.0"));
        let mut fewer = all.clone();
        fewer.remove("c");
        assert!(a.keep(&mut keepers[0], &fewer));
        assert_eq!((a.way("10.244.3.0"), a.way("fd10:244:3::")), (None, None));
        assert!(a.way("198.51.100.0").is_some(), "other routes are others'");
        // Nothing of it is left where the agent is taken away; somebody's own configuration is.
        let told = settings("b", overlay, folder.path());
        let theirs = told.conf_dir.join("20-theirs.conf");
        std::fs::write(&theirs, "{}").unwrap();
        for _ in 0..2 {
            let removed = || proxy::pod_network::remove(&told.conf_dir, &told.node_file);
            b.netns.run(removed).unwrap().unwrap();
        }
        assert_eq!((b.way("10.244.1.0"), b.way("10.244.3.0")), (None, None));
        assert!(b.rtnl.device("fairlead.vxlan").unwrap().is_none());
        assert!(!told.node_file.exists());
        let left = std::fs::read_dir(&told.conf_dir).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [theirs.clone()]);
        std::fs::remove_file(theirs).unwrap();
    }
}

#[test]
fn without_a_node_object_or_ranges_no_network_is_announced() {
    let node = Node::new();
    let folder = tempfile::tempdir().unwrap();
    let mut keeper = Keeper::new(settings("a", Overlay::Off, folder.path()));
    assert!(!node.keep(&mut keeper, &BTreeMap::new()));
    assert!(!folder.path().join("a").exists());
    let bare = BTreeMap::from([("a".to_owned(), ranges(&["192.0.2.1"], &[]))]);
    node.keep(&mut keeper, &bare);
    assert!(folder.path().join("a/run/node.json").exists());
    assert!(!folder.path().join("a/net.d").exists());
}
