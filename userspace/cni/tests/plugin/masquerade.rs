//! Pods that speak with a host outside of the cluster, which knows no way to pods.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use abi::masquerade::{FAMILY_BITS, families, flags::PODS_HERE};
use abi::{Counter, InsideKey, Masquerade, NodeConfig};
use net::{Address, Netns, Route, Rtnl};
use rustix::net::{AddressFamily, SocketType, ipproto};

use crate::stage::{Node, addresses, talk};

const NODE: [&str; 2] = ["198.51.100.1", "2001:db8:5::1"];
const OUTSIDE: [&str; 2] = ["198.51.100.9", "2001:db8:5::9"];

fn address(netns: &Netns, device: &str, addr: &str) {
    let rtnl = netns.run(Rtnl::open).unwrap().unwrap();
    let ifindex = rtnl.device(device).unwrap().unwrap().ifindex;
    let addr: IpAddr = addr.parse().unwrap();
    let prefix_len = if addr.is_ipv4() { 24 } else { 64 };
    rtnl.add_address(ifindex, Address { addr, prefix_len })
        .unwrap();
    rtnl.set_up(ifindex).unwrap();
    let subnet = ipnet::IpNet::new(addr, prefix_len).unwrap().network();
    let to = Address {
        addr: subnet,
        prefix_len,
    };
    rtnl.replace_route(&Route::over(to, ifindex)).unwrap();
}

fn range(addr: IpAddr, bits: u32, flags: u32) -> (InsideKey, u32) {
    let mut padded = [0; 16];
    let family = match addr {
        IpAddr::V4(addr) => {
            padded[..4].copy_from_slice(&addr.octets());
            abi::family::V4
        }
        IpAddr::V6(addr) => {
            padded = addr.octets();
            abi::family::V6
        }
    };
    let key = InsideKey {
        prefix_len: FAMILY_BITS + bits,
        family: family.into(),
        addr: padded,
    };
    (key, flags)
}

/// A node with a device `up0`, behind which a host is; masquerading is on.
fn stage() -> (Node, Netns) {
    let mut node = Node::new();
    let outside = Netns::create().unwrap();
    let rtnl = node.netns.run(Rtnl::open).unwrap().unwrap();
    let ends = [("up0", [2, 0, 0, 0, 9, 1]), ("other", [2, 0, 0, 0, 9, 2])];
    rtnl.add_veth(ends[0], ends[1], 1500).unwrap();
    let other = rtnl.device("other").unwrap().unwrap().ifindex;
    rtnl.move_device(other, &outside, "eth0").unwrap();
    for (mine, theirs) in NODE.into_iter().zip(OUTSIDE) {
        address(&node.netns, "up0", mine);
        address(&outside, "eth0", theirs);
    }
    for far in OUTSIDE {
        until_there(&node.netns, &outside, far.parse().unwrap());
    }
    for v6 in [false, true] {
        node.netns.run(|| net::forward(v6)).unwrap().unwrap();
    }
    let lo = outside.run(Rtnl::open).unwrap().unwrap();
    lo.set_up(lo.device("lo").unwrap().unwrap().ifindex)
        .unwrap();
    let [IpAddr::V4(addr4), IpAddr::V6(addr6)] = NODE.map(|addr| addr.parse().unwrap()) else {
        panic!("an address of each family");
    };
    let config = NodeConfig {
        addr4: addr4.octets(),
        addr6: addr6.octets(),
        snat_port_min: 61_000.into(),
        snat_port_max: 65_535.into(),
    };
    node.with_datapath(|datapath| {
        datapath.attach_device("up0", bpf::XdpMode::Off).unwrap();
        datapath.set_node(&config).unwrap();
    });
    let ranges = BTreeMap::from([
        range([10, 244, 0, 0].into(), 24, PODS_HERE),
        range("fd10:244::".parse().unwrap(), 64, PODS_HERE),
    ]);
    let how = Masquerade {
        families: families::V4 | families::V6,
    };
    let table = bpf::Masquerading::open(&node.bpffs_root()).unwrap();
    table.set(&ranges, how).unwrap();
    (node, outside)
}

/// Waits for a new link to carry packets: the kernel lets it a while after both ends are up, and who looks for a
/// neighbour before that finds none.
fn until_there(from: &Netns, to: &Netns, addr: IpAddr) {
    let to = to.run(|| UdpSocket::bind(SocketAddr::new(addr, 0)));
    let to = to.unwrap().unwrap();
    to.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut anywhere = to.local_addr().unwrap();
    anywhere.set_ip(match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let from = from.run(|| UdpSocket::bind(anywhere)).unwrap().unwrap();
    let came = (0..300).any(|_| {
        let sent = from.send_to(b"word", to.local_addr().unwrap());
        sent.is_ok() && to.recv(&mut [0; 4]).is_ok()
    });
    assert!(came, "{addr} is not there after half a minute");
}

/// A datagram there and back; whom the other side saw, and whether the answer came.
fn exchange(from: &Netns, to: &Netns, addr: IpAddr) -> (IpAddr, bool) {
    let bind = |netns: &Netns, addr: IpAddr| {
        let socket = netns
            .run(|| UdpSocket::bind(SocketAddr::new(addr, 0)))
            .unwrap()
            .unwrap();
        let wait = Some(Duration::from_secs(5));
        socket.set_read_timeout(wait).unwrap();
        socket
    };
    let anywhere = match addr {
        IpAddr::V4(_) => "0.0.0.0",
        IpAddr::V6(_) => "::",
    };
    let server = bind(to, addr);
    let client = bind(from, anywhere.parse().unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    client.send(b"word").unwrap();
    let mut word = [0; 8];
    let (len, peer) = server.recv_from(&mut word).unwrap();
    server.send_to(&word[..len], peer).unwrap();
    (peer.ip(), client.recv(&mut word).is_ok())
}

/// Whether an echo request is answered. The kernel answers for the other side.
fn echoes(from: &Netns, addr: IpAddr, len: usize) -> bool {
    from.run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0"))
        .unwrap()
        .unwrap();
    let (family, protocol, kind) = match addr {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, 8),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, 128),
    };
    let socket: OwnedFd = from
        .run(|| rustix::net::socket(family, SocketType::DGRAM, Some(protocol)))
        .unwrap()
        .unwrap();
    // What a datagram socket of std's does is all that is needed.
    let socket = UdpSocket::from(socket);
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut request = vec![0x55; len];
    request[..8].copy_from_slice(&[kind, 0, 0, 0, 0, 0, 0, 1]);
    socket.send_to(&request, SocketAddr::new(addr, 0)).unwrap();
    let mut answer = vec![0; len + 1];
    socket
        .recv(&mut answer)
        .is_ok_and(|got| got == len && answer[8..got] == request[8..])
}

/// Sends much in both directions at once, so that it goes in large segments.
fn much(from: &Netns, to: &Netns, addr: IpAddr) {
    const LEN: usize = 4 << 20;
    let listener = to
        .run(|| TcpListener::bind(SocketAddr::new(addr, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    let mut client = from.run(|| TcpStream::connect(target)).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let pattern: Vec<u8> = (0..LEN).map(|n| (n % 251) as u8).collect();
    let (sent, back) = (pattern.clone(), pattern.clone());
    let server = std::thread::spawn(move || {
        let mut got = vec![0; LEN];
        server.read_exact(&mut got).unwrap();
        server.write_all(&back).unwrap();
        got == back
    });
    client.write_all(&sent).unwrap();
    let mut got = vec![0; LEN];
    client.read_exact(&mut got).unwrap();
    assert!(got == pattern && server.join().unwrap(), "to {target}");
}

#[test]
fn pods_reach_a_host_that_knows_no_way_to_them() {
    let (mut node, outside) = stage();
    let (pod, result) = node.add("first");
    // By the stack's routing, and past it.
    for until_secs in [0, u32::MAX] {
        node.lease(until_secs);
        for (far, near) in OUTSIDE.into_iter().zip(NODE) {
            let (far, near): (IpAddr, IpAddr) = (far.parse().unwrap(), near.parse().unwrap());
            assert_eq!(talk(&pod.netns, &outside, far), near);
            assert_eq!(exchange(&pod.netns, &outside, far), (near, true));
            for len in [8, 64, 4_000] {
                assert!(echoes(&pod.netns, far, len), "{far}, {len} bytes");
            }
            much(&pod.netns, &outside, far);
            // What the node itself sends is its own already.
            assert_eq!(talk(&node.netns, &outside, far), near);
            assert!(echoes(&node.netns, far, 64), "the node and {far}");
        }
    }
    let counters = node.datapath().counters().unwrap();
    let of = |counter| counters.iter().find(|(it, _)| *it == counter).unwrap().1;
    assert!(of(Counter::TcMasquerade).packets > 50);
    assert_eq!(of(Counter::DropRewrite).packets, 0);

    // Somebody who knows the way to a pod is answered by the pod.
    let rtnl = outside.run(Rtnl::open).unwrap().unwrap();
    let ifindex = rtnl.device("eth0").unwrap().unwrap().ifindex;
    for (addr, via) in addresses(&result).into_iter().zip(NODE) {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        let to = Address { addr, prefix_len };
        let route = Route {
            via: Some(via.parse().unwrap()),
            ..Route::over(to, ifindex)
        };
        rtnl.add_route(&route).unwrap();
        let seen = talk(&outside, &pod.netns, addr);
        assert!(OUTSIDE.contains(&seen.to_string().as_str()), "{seen}");
        for until_secs in [0, u32::MAX] {
            node.lease(until_secs);
            let (seen, answered) = exchange(&outside, &pod.netns, addr);
            assert!(OUTSIDE.contains(&seen.to_string().as_str()), "{seen}");
            assert!(answered, "{addr} answers from another address");
        }
    }
}

/// A connection to the outside lives on while nobody holds the programs, and when they are loaded anew.
#[test]
fn conversations_outlive_the_agent() {
    let (mut node, outside) = stage();
    let (pod, _) = node.add("first");
    let mut standing = Vec::new();
    for far in OUTSIDE {
        let addr = SocketAddr::new(far.parse().unwrap(), 0);
        let listener = outside.run(|| TcpListener::bind(addr)).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let client = pod
            .netns
            .run(|| TcpStream::connect(target))
            .unwrap()
            .unwrap();
        let wait = Some(Duration::from_secs(5));
        client.set_read_timeout(wait).unwrap();
        standing.push((client, listener.accept().unwrap().0));
    }
    let mut talk_on = |what: &str| {
        for (client, server) in &mut standing {
            let mut word = [0; 4];
            client.write_all(b"word").unwrap();
            server.read_exact(&mut word).unwrap();
            server.write_all(&word).unwrap();
            let answered = client.read_exact(&mut word);
            assert!(answered.is_ok(), "{what}: {answered:?}");
        }
    };
    talk_on("at first");
    node.let_go();
    talk_on("without an agent");
    let far: IpAddr = OUTSIDE[0].parse().unwrap();
    assert_eq!(talk(&pod.netns, &outside, far).to_string(), NODE[0]);
    node.take_hold();
    talk_on("with the next one");
    // Switched off, what is translated stays so, and nothing new is.
    let table = bpf::Masquerading::open(&node.bpffs_root()).unwrap();
    table.set(&BTreeMap::new(), Masquerade::default()).unwrap();
    talk_on("switched off");
    let lost = pod.netns.run(|| {
        let target = SocketAddr::new(far, 9);
        TcpStream::connect_timeout(&target, Duration::from_millis(300))
    });
    let error = lost.unwrap().unwrap_err();
    assert_eq!(
        error.kind(),
        std::io::ErrorKind::TimedOut,
        "nobody answers a pod"
    );
}
