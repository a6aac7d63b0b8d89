//! The plugin over its protocol, with real sockets between the pods that it links. Needs root.
#![forbid(unsafe_code)]

mod masquerade;
mod stage;

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use net::{Address, Rtnl};
use serde_json::{Value, json};
use stage::{Node, Pod, addresses, distinct, talk};

#[test]
fn pods_of_a_node_reach_each_other_and_leave_nothing() {
    let node = Node::new();
    let (first, one) = node.add("first");
    let (second, two) = node.add("second");
    let expected: Vec<IpAddr> = vec![
        "10.244.0.1".parse().unwrap(),
        "fd10:244::1".parse().unwrap(),
    ];
    assert_eq!(addresses(&one), expected);
    assert_eq!(one["interfaces"][1]["name"], "eth0");
    assert_eq!(one["interfaces"][1]["sandbox"], first.path());
    assert_eq!(one["interfaces"][1]["mtu"], 1500);
    assert_eq!(
        one["routes"][0],
        json!({"dst": "0.0.0.0/0", "gw": "169.254.1.1"})
    );
    assert_eq!(one["ips"][1]["interface"], 1);

    for (to, from) in addresses(&two).into_iter().zip(addresses(&one)) {
        assert_eq!(talk(&first.netns, &second.netns, to), from);
    }
    for (to, from) in addresses(&one).into_iter().zip(addresses(&two)) {
        assert_eq!(talk(&second.netns, &first.netns, to), from);
    }
    // The programs hang there: both sides of both links are pinned.
    assert_eq!(
        node.traces()
            .iter()
            .filter(|trace| trace.contains("tcx_"))
            .count(),
        4
    );

    for (pod, result) in [(&first, &one), (&second, &two)] {
        let mut config = node.config();
        config["prevResult"] = result.clone();
        node.run("CHECK", pod, &config).result();
    }
    // The runtime may say DEL as often as it likes, with or without the namespace.
    for _ in 0..2 {
        node.run("DEL", &first, &node.config()).result();
    }
    assert_eq!(node.links().len(), 1);
    let container = second.container.clone();
    drop(second);
    let gone = [
        ("CNI_CONTAINERID", container.as_str()),
        ("CNI_IFNAME", "eth0"),
    ];
    for netns in [&[("CNI_NETNS", "/run/netns/none-of-that-name")][..], &[]] {
        let more: Vec<(&str, &str)> = gone.iter().chain(netns).copied().collect();
        assert!(node.run_with("DEL", None, &node.config(), &more).success);
    }
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[test]
fn fifty_at_once_have_fifty_addresses() {
    let node = Node::new();
    let pods: Vec<Pod> = (0..50).map(|n| Pod::new(&format!("c{n}"))).collect();
    let all = |operation: &str| -> Vec<Value> {
        let started: Vec<_> = pods
            .iter()
            .map(|pod| node.start(operation, Some(pod), &node.config(), &[]))
            .collect();
        started
            .into_iter()
            .map(|child| {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
                serde_json::from_slice(&output.stdout).unwrap_or_default()
            })
            .collect()
    };
    for _ in 0..2 {
        let results = all("ADD");
        assert_eq!(distinct(results.iter().flat_map(addresses)), 100);
        assert_eq!(node.links().len(), 50);
        let to = addresses(&results[49]);
        talk(&pods[0].netns, &pods[49].netns, to[0]);
        talk(&pods[0].netns, &pods[49].netns, to[1]);
        all("DEL");
        assert_eq!(node.traces(), Vec::<String>::new());
    }
}

#[test]
fn what_is_killed_in_the_middle_is_freed_by_the_next_del_or_gc() {
    let node = Node::new();
    let config = node.config();
    // How long one takes at most, so that kills meet every part of it; known better with each that ends by itself.
    let before = std::time::Instant::now();
    let (pod, _) = node.add("whole");
    let mut whole = before.elapsed();
    node.run("DEL", &pod, &config).result();
    let (mut left, mut done) = (0, 0);
    const KILLS: u32 = 30;
    for n in 0..KILLS {
        let pod = Pod::new(&format!("killed{n}"));
        let mut child = node.start("ADD", Some(&pod), &config, &[]);
        let (started, after) = (std::time::Instant::now(), whole * n / KILLS);
        while started.elapsed() < after {
            if child.try_wait().unwrap().is_some() {
                whole = whole.min(started.elapsed());
                break;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        done += u32::from(ended.success());
        left += u32::from(!node.traces().is_empty());
        match n % 3 {
            0 => drop(node.run("DEL", &pod, &config).result()),
            1 => {
                let mut config = config.clone();
                config["cni.dev/valid-attachments"] = json!([]);
                node.run_with("GC", None, &config, &[]).result();
            }
            // The runtime heard nothing and says it again, where the interface did not get as far as the pod.
            _ => {
                let inside = pod.netns.run(Rtnl::open).unwrap().unwrap();
                let furnished = inside.device("eth0").unwrap().is_some();
                let again = node.run("ADD", &pod, &config);
                assert_eq!(again.success, !furnished, "{again:?}");
                node.run("DEL", &pod, &config).result();
            }
        }
        assert_eq!(
            node.traces(),
            Vec::<String>::new(),
            "killed after {after:?}"
        );
    }
    assert!(left > 5, "only {left} kills left anything to free");
    assert!(
        done < KILLS * 4 / 5,
        "{done} of {KILLS} were done before they were killed"
    );
}

#[test]
fn gc_keeps_those_who_are_named() {
    let node = Node::new();
    let pods: Vec<(Pod, Value)> = ["a", "b", "c"].map(|name| node.add(name)).into();
    let mut config = node.config();
    assert_eq!(
        node.run_with("GC", None, &config, &[]).code(),
        7,
        "nobody says who is valid"
    );
    config["cni.dev/valid-attachments"] =
        json!([{"containerID": "b", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth1"}]);
    for _ in 0..2 {
        node.run_with("GC", None, &config, &[]).result();
        assert_eq!(node.links().len(), 1);
    }
    let mut check = node.config();
    for (n, (pod, result)) in pods.iter().enumerate() {
        check["prevResult"] = result.clone();
        let answer = node.run("CHECK", pod, &check);
        assert_eq!(answer.success, n == 1, "{answer:?}");
    }
    config["cniVersion"] = json!("1.0.0");
    assert_eq!(node.run_with("GC", None, &config, &[]).code(), 1);
}

#[test]
fn check_names_what_is_not_as_it_was_made() {
    let node = Node::new();
    let (pod, result) = node.add("a");
    let mut config = node.config();
    assert_eq!(
        node.run("CHECK", &pod, &config).code(),
        7,
        "there is no prevResult"
    );
    config["prevResult"] = result;
    let words = |expected: &str| {
        let answer = node.run("CHECK", &pod, &config);
        assert_eq!(answer.code(), 101);
        let msg = answer.json["msg"].as_str().unwrap().to_owned();
        assert!(msg.contains(expected), "{msg}");
    };
    let host = node.netns.run(Rtnl::open).unwrap().unwrap();
    let inside = pod.netns.run(Rtnl::open).unwrap().unwrap();
    let route = |rtnl: &Rtnl, to: &str| {
        let to: IpAddr = to.parse().unwrap();
        rtnl.routes()
            .unwrap()
            .into_iter()
            .find(|route| route.to.addr == to)
            .unwrap()
    };
    let lost = route(&host, "10.244.0.1");
    host.remove_route(&lost).unwrap();
    words("the host's route to 10.244.0.1");
    host.add_route(&lost).unwrap();
    let lost = route(&inside, "0.0.0.0");
    inside.remove_route(&lost).unwrap();
    words("default route via 169.254.1.1");
    inside.add_route(&lost).unwrap();
    node.run("CHECK", &pod, &config).result();
    let eth0 = inside.device("eth0").unwrap().unwrap();
    inside.remove_device(eth0.ifindex).unwrap();
    words("is gone");
    node.run("DEL", &pod, &config).result();
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[test]
fn a_second_plugin_attaches_the_programs_and_passes_the_result_on() {
    let node = Node::new();
    let pod = Pod::new("chained");
    let host = node.netns.run(Rtnl::open).unwrap().unwrap();
    host.add_veth(
        ("veth0", [2, 0, 0, 0, 0, 1]),
        ("veth1", [2, 0, 0, 0, 0, 2]),
        1500,
    )
    .unwrap();
    let other = host.device("veth1").unwrap().unwrap();
    host.move_device(other.ifindex, &pod.netns, "eth0").unwrap();
    let mut config = node.config();
    let before = json!({
        "cniVersion": "1.1.0", "interfaces": [{"name": "eth0"}], "ips": [{"address": "10.9.9.9/24"}],
        "somebody": {"else": ["s", 5]},
    });
    config["prevResult"] = before.clone();
    assert_eq!(node.run("CHECK", &pod, &config).code(), 101);
    for _ in 0..2 {
        assert_eq!(node.run("ADD", &pod, &config).result(), before);
    }
    node.run("CHECK", &pod, &config).result();
    assert_eq!(node.traces().len(), 2, "a pin for each direction");
    node.run("DEL", &pod, &config).result();
    assert!(
        host.device("veth0").unwrap().is_some(),
        "the first plugin's link is the first plugin's"
    );

    let alone = Pod::new("no-veth");
    let answer = node.run("ADD", &alone, &config);
    assert_eq!(answer.code(), 2, "{answer:?}");
}

/// Debian's plugins make the link and give the address; ours comes after them in the chain.
#[test]
fn behind_bridge_and_host_local_the_programs_see_everything() {
    let node = Node::new();
    let bridge = json!({
        "cniVersion": "1.0.0",
        "name": "bridged",
        "type": "bridge",
        "bridge": "br0",
        "isGateway": true,
        "ipam": {
            "type": "host-local",
            "dataDir": node.folder().join("host-local"),
            "ranges": [[{"subnet": "10.245.0.0/24"}], [{"subnet": "fd10:245::/64"}]],
        },
    });
    let mut ours = node.config();
    ours["cniVersion"] = json!("1.0.0");
    ours["name"] = json!("bridged");
    let pods = ["one", "two"].map(|name| {
        let pod = Pod::new(name);
        let made = node.run_peer("bridge", "ADD", &pod, &bridge);
        ours["prevResult"] = made.clone();
        assert_eq!(node.run("ADD", &pod, &ours).result(), made);
        let mut config = ours.clone();
        config["prevResult"] = made.clone();
        node.run("CHECK", &pod, &config).result();
        (pod, addresses(&made), config)
    });
    assert_eq!(
        node.traces().len(),
        4,
        "a pin for each direction of each link"
    );
    let [(one, at_one, _), (two, at_two, _)] = &pods;
    for (to, from) in at_two.iter().zip(at_one) {
        assert_eq!(talk(&one.netns, &two.netns, *to), *from);
    }
    for (pod, _, config) in &pods {
        // From the last to the first.
        node.run("DEL", pod, config).result();
        node.run_peer("bridge", "DEL", pod, &bridge);
    }
    let rtnl = node.netns.run(Rtnl::open).unwrap().unwrap();
    let left = rtnl.devices().unwrap().into_iter();
    let left: Vec<String> = left
        .map(|device| device.name)
        .filter(|name| name.starts_with("veth"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
}

/// Debian's `tuning` gives the pod's end another Ethernet address, and the kernel forgets the pod's next hop.
#[test]
fn a_pod_whose_link_gets_another_address_keeps_its_network() {
    let node = Node::new();
    let pod = Pod::new("tuned");
    let mut config = node.config();
    config["cniVersion"] = json!("1.0.0");
    let result = node.run("ADD", &pod, &config).result();
    let tuning = json!({
        "cniVersion": "1.0.0", "name": "net", "type": "tuning", "mac": "02:11:22:33:44:55",
        "dataDir": node.folder().join("tuning"), "prevResult": result,
    });
    let tuned = node.run_peer("tuning", "ADD", &pod, &tuning);
    assert_eq!(tuned["interfaces"][1]["mac"], "02:11:22:33:44:55");
    for (near, addr) in ["10.99.0.1", "fd99::1"].into_iter().zip(addresses(&result)) {
        let near: IpAddr = near.parse().unwrap();
        let host = node.netns.run(Rtnl::open).unwrap().unwrap();
        let lo = host.device("lo").unwrap().unwrap().ifindex;
        host.set_up(lo).unwrap();
        let prefix_len = if near.is_ipv4() { 32 } else { 128 };
        let address = Address {
            addr: near,
            prefix_len,
        };
        host.add_address(lo, address).unwrap();
        assert_eq!(talk(&pod.netns, &node.netns, near), addr);
        let seen = talk(&node.netns, &pod.netns, addr);
        assert!(!seen.to_string().starts_with("169.254."), "{seen}");
    }
    config["prevResult"] = tuned;
    node.run("CHECK", &pod, &config).result();
    // An address that nobody told of.
    config["prevResult"] = result;
    let answer = node.run("CHECK", &pod, &config);
    assert_eq!(answer.code(), 101);
    let msg = answer.json["msg"].as_str().unwrap();
    assert!(
        msg.contains("eth0 has the Ethernet address 02:11:22:33:44:55"),
        "{msg}"
    );
}

#[test]
fn each_version_is_answered_in_its_form() {
    let node = Node::new();
    let answer = node
        .run_with("VERSION", None, &json!({"cniVersion": "1.0.0"}), &[])
        .result();
    assert_eq!(answer["cniVersion"], "1.0.0");
    let versions = answer["supportedVersions"].as_array().unwrap();
    assert_eq!(versions.len(), 5);
    for version in versions {
        let pod = Pod::new("versions");
        let mut config = node.config();
        config["cniVersion"] = version.clone();
        let result = node.run("ADD", &pod, &config).result();
        assert_eq!(&result["cniVersion"], version);
        let old = version.as_str().unwrap().starts_with("0.");
        assert_eq!(result["ips"][1]["version"] == "6", old, "{version}");
        config["prevResult"] = result;
        let check = node.run("CHECK", &pod, &config);
        assert_eq!(
            check.success,
            !version.as_str().unwrap().starts_with("0.3"),
            "{check:?}"
        );
        node.run("DEL", &pod, &config).result();
    }
    let mut config = node.config();
    config["cniVersion"] = json!("2.0.0");
    assert_eq!(node.run("ADD", &Pod::new("x"), &config).code(), 1);
    assert_eq!(node.traces(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let (pod, _) = node.add("there");
    let config = node.config();
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config
    };
    let here = format!("/proc/{}/ns/net", std::process::id());
    let fresh = Pod::new("fresh");
    let cases: [(&str, &[(&str, &str)], Value, u64); 13] = [
        (
            "no namespace",
            &[("CNI_NETNS", "/run/netns/none-of-that-name")],
            config.clone(),
            3,
        ),
        (
            "no namespace's file",
            &[("CNI_NETNS", "/dev/null")],
            config.clone(),
            5,
        ),
        (
            "a name that leads away",
            &[("CNI_IFNAME", "../x")],
            config.clone(),
            4,
        ),
        ("a bad MTU", &[], with("mtu", json!(40)), 7),
        ("too small for IPv6", &[], with("mtu", json!(1000)), 7),
        (
            "somebody else's addresses",
            &[],
            with("ipam", json!({"type": "dhcp"})),
            2,
        ),
        ("no range", &[], with("ipam", json!({})), 11),
        (
            "no programs",
            &[],
            with("bpffsRoot", json!("/sys/fs/bpf/none-of-that-name")),
            11,
        ),
        (
            "bandwidth",
            &[],
            with("runtimeConfig", json!({"bandwidth": {"ingressRate": "x"}})),
            6,
        ),
        (
            "host ports that nobody serves",
            &[],
            with("runtimeConfig", json!({"portMappings": [{"hostPort": 80}]})),
            2,
        ),
        (
            "an address of another node",
            &[],
            with("runtimeConfig", json!({"ips": ["10.9.9.9/24"]})),
            7,
        ),
        (
            "an address that is taken",
            &[],
            with("runtimeConfig", json!({"ips": ["10.244.0.1"]})),
            100,
        ),
        (
            "a range used up",
            &[],
            with("ipam", json!({"ranges": [[{"subnet": "10.244.0.1/32"}]]})),
            100,
        ),
    ];
    let before = node.traces();
    for (what, more, config, code) in cases {
        let answer = node.run_with("ADD", Some(&fresh), &config, more);
        assert_eq!(answer.code(), code, "{what}: {answer:?}");
        assert_eq!(node.traces(), before, "{what}");
    }
    // The host's own namespace is the one that the plugin runs in.
    let answer = node.run_with(
        "ADD",
        Some(&fresh),
        &config,
        &[("CNI_NETNS", "/proc/self/ns/net")],
    );
    assert_eq!(answer.code(), 4, "{here}");
    // An interface of that name, of whomsoever.
    let twice = Pod {
        netns: pod.netns,
        container: "another".to_owned(),
    };
    assert_eq!(node.run("ADD", &twice, &config).code(), 4);
    assert_eq!(node.traces(), before);
}

#[test]
fn asked_for_addresses_are_given_and_the_nodes_file_is_read() {
    let node = Node::new();
    let mut config = node.config();
    config["ipam"] = json!({});
    assert_eq!(node.run_with("STATUS", None, &config, &[]).code(), 50);
    let file = json!({"podCIDRs": ["fd10:244:0:5::/64", "10.244.5.0/30"], "mtu": 1450});
    std::fs::write(node.folder().join("node.json"), file.to_string()).unwrap();
    node.run_with("STATUS", None, &config, &[]).result();
    config["runtimeConfig"] = json!({"ips": ["10.244.5.2/30"], "mac": "0a:00:00:00:00:07"});
    let pod = Pod::new("a");
    let result = node.run("ADD", &pod, &config).result();
    let expected: Vec<IpAddr> = vec![
        "10.244.5.2".parse().unwrap(),
        "fd10:244:0:5::1".parse().unwrap(),
    ];
    assert_eq!(addresses(&result), expected);
    let inside = pod.netns.run(Rtnl::open).unwrap().unwrap();
    let eth0 = inside.device("eth0").unwrap().unwrap();
    assert_eq!(
        (eth0.mtu, eth0.hardware_address),
        (1450, vec![0x0a, 0, 0, 0, 0, 7])
    );
    talk(&node.netns, &pod.netns, expected[0]);

    config["runtimeConfig"] = json!({});
    node.run("ADD", &Pod::new("b"), &config).result();
    let answer = node.run("ADD", &Pod::new("c"), &config);
    assert_eq!(answer.code(), 100);
    assert_eq!(
        answer.json["msg"],
        "no address is free in 10.244.5.0/30: all 2 are taken"
    );
    assert_eq!(node.run_with("STATUS", None, &config, &[]).code(), 50);
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let node = Node::new();
    let (one, _) = node.add("one");
    let (two, result) = node.add("two");
    let inside = one.netns.run(Rtnl::open).unwrap().unwrap();
    let eth0 = inside.device("eth0").unwrap().unwrap().ifindex;
    for (to, (own, foreign)) in addresses(&result)
        .into_iter()
        .zip([("10.244.0.1", "10.9.9.9"), ("fd10:244::1", "fd99::9")])
    {
        let server = bind(&two, to);
        let target = server.local_addr().unwrap();
        let addr: IpAddr = foreign.parse().unwrap();
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        inside
            .add_address(eth0, Address { addr, prefix_len })
            .unwrap();
        bind(&one, addr).send_to(b"forged", target).unwrap();
        bind(&one, own.parse().unwrap())
            .send_to(b"own", target)
            .unwrap();
        let mut word = [0; 8];
        let (len, from) = server.recv_from(&mut word).unwrap();
        assert_eq!(
            (&word[..len], from.ip().to_string().as_str()),
            (&b"own"[..], own)
        );
    }
    let counters = node.datapath().counters().unwrap();
    let forged = counters
        .iter()
        .find(|(counter, _)| *counter == abi::Counter::DropForged)
        .unwrap();
    assert_eq!(forged.1.packets, 2, "one of each family");
}

fn bind(pod: &Pod, addr: IpAddr) -> UdpSocket {
    let socket = pod
        .netns
        .run(|| UdpSocket::bind((addr, 0)))
        .unwrap()
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    socket
}

#[test]
fn a_pod_is_made_in_milliseconds() {
    let node = Node::new();
    let pod = Pod::new("quick");
    // The best of a few: others may use the machine.
    let best = (0..10).map(|_| {
        let before = std::time::Instant::now();
        node.run("ADD", &pod, &node.config()).result();
        node.run("DEL", &pod, &node.config()).result();
        before.elapsed()
    });
    let best = best.min().unwrap();
    eprintln!("ADD and DEL take {best:?}");
    assert!(best < Duration::from_secs(1), "ADD and DEL take {best:?}");
}

/// What a container runtime asks for holds in both directions, and goes with the pod.
#[test]
fn a_pod_s_bandwidth_is_kept() {
    let mut node = Node::new();
    let (free, made) = node.add("free");
    let pod = Pod::new("limited");
    let mut config = node.config();
    // 8 Mbit/s out of the pod, 16 Mbit/s into it, and what 50 ms of that are at once.
    config["runtimeConfig"]["bandwidth"] = json!({
        "egressRate": 8_000_000, "egressBurst": 400_000, "ingressRate": 16_000_000, "ingressBurst": 800_000,
    });
    let result = node.run("ADD", &pod, &config).result();
    let at_pod = addresses(&result);
    // Also where packets go straight to pods.
    node.lease(u32::MAX);
    for addr in at_pod {
        let got = stage::flood(&free.netns, &pod.netns, addr);
        assert!(
            (0.5..1.4).contains(&(got / 2_000_000.0)),
            "into the pod: {got} octets/s"
        );
    }
    let target = addresses(&made)[0];
    let sent = stage::flood(&pod.netns, &free.netns, target);
    assert!(
        (0.5..1.4).contains(&(sent / 1_000_000.0)),
        "out of the pod: {sent} octets/s"
    );
    node.run("DEL", &pod, &config).result();
    let table = node.datapath().fill().unwrap();
    let limits = table.iter().find(|fill| fill.table == "LIMITS").unwrap();
    assert_eq!(limits.used, 0);

    // Session affinity knows a pod's sockets by its addresses, and forgets a pod that is gone.
    let cookie = |netns: &net::Netns| netns.run(net::Netns::current_cookie).unwrap().unwrap();
    let known = |netns| node.datapath().namespace(cookie(netns)).unwrap();
    let pods_own = known(&free.netns).expect("a pod of ours");
    for addr in addresses(&made) {
        match addr {
            IpAddr::V4(addr) => assert_eq!(pods_own.addr4[..4], addr.octets()),
            IpAddr::V6(addr) => assert_eq!(pods_own.addr6, addr.octets()),
        }
    }
    assert_eq!(known(&pod.netns), None);
}
