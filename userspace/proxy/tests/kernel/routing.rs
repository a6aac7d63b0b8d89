//! The way to pods follows the host: its routes, links and neighbours, and what hangs in its stack.

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use abi::{Endpoint, endpoints};
use bpf::Datapath;
use client::Client;
use net::Netns;
use tokio::sync::watch;

use crate::support::{Api, Ground, in_namespace, ip, path, until};

#[test]
fn the_way_to_pods_follows_the_host() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    let pods = [Netns::create().unwrap(), Netns::create().unwrap()];
    in_namespace(&netns, story(&ground, &pods));
}

async fn story(ground: &Ground, pods: &[Netns; 2]) {
    for (name, value) in [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")] {
        std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap();
    }
    let addresses: [IpAddr; 2] = [
        "10.244.0.9".parse().unwrap(),
        "fd00:244::9".parse().unwrap(),
    ];
    let mac = |number: u8| [2, 0, 0, 0, 9, number];
    let add = |index: usize| {
        ip(&format!(
            "link add pod{index} type veth peer name eth0 netns {}",
            path(&pods[index])
        ));
        ip(&format!("link set pod{index} up"));
    };
    let meet = |index: usize, verb: &str| {
        for addr in addresses {
            let number = index + 1;
            ip(&format!("route {verb} {addr} dev pod{index}"));
            ip(&format!(
                "neigh replace {addr} lladdr 02:00:00:00:09:0{number} dev pod{index}"
            ));
        }
    };
    // One pod is there before the agent.
    add(0);
    meet(0, "add");
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let client = Client::in_process(Api::default().router(), "");
    let daemon = tokio::spawn(proxy::run(client, settings, stopping));
    until(&mut status, |status| status.ready).await;
    let is_at = |device: &str, number: u8| {
        let index = ifindex(device);
        move |_: IpAddr, endpoint: Option<Endpoint>| {
            endpoint.is_some_and(|endpoint| {
                endpoint.ifindex == index
                    && endpoint.pod_link == mac(number)
                    && endpoint.flags == endpoints::flags::DIRECT
            })
        }
    };
    let nowhere = |_: IpAddr, endpoint: Option<Endpoint>| endpoint.is_none();
    endpoints_once(ground, &addresses, "there before", is_at("pod0", 1)).await;
    mode_once(ground, ["bpf", "bpf"]).await;

    // Another pod takes the addresses, over another link.
    add(1);
    meet(1, "replace");
    endpoints_once(ground, &addresses, "replaced", is_at("pod1", 2)).await;
    // Somebody's queue is not passed by.
    run(
        "tc",
        "qdisc add dev pod1 root tbf rate 1gbit burst 1mb latency 10ms",
    );
    let queued = |_: IpAddr, endpoint: Option<Endpoint>| endpoint.is_some_and(|e| e.flags == 0);
    endpoints_once(ground, &addresses, "queued", queued).await;
    run("tc", "qdisc del dev pod1 root");
    endpoints_once(ground, &addresses, "no longer queued", is_at("pod1", 2)).await;
    // A pod goes at once, with its link and without.
    ip("link set pod1 down");
    endpoints_once(ground, &addresses, "down", nowhere).await;
    ip("link set pod1 up");
    meet(1, "replace");
    endpoints_once(ground, &addresses, "up", is_at("pod1", 2)).await;
    for addr in addresses {
        ip(&format!("route del {addr}"));
    }
    endpoints_once(ground, &addresses, "route gone", nowhere).await;
    meet(1, "replace");
    endpoints_once(ground, &addresses, "route back", is_at("pod1", 2)).await;
    ip("link del pod1");
    endpoints_once(ground, &addresses, "link gone", nowhere).await;

    // A firewall comes, for both families and for one, and goes.
    for (family, modes) in [
        ("inet", ["kernel", "kernel"]),
        ("ip", ["kernel", "bpf"]),
        ("ip6", ["bpf", "kernel"]),
        ("netdev", ["kernel", "kernel"]),
    ] {
        run("nft", &format!("add table {family} t"));
        let hook = if family == "netdev" {
            "ingress device up0"
        } else {
            "forward"
        };
        let chain = format!(
            "add chain {family} t c {{ type filter hook {hook} priority 0; policy accept; }}"
        );
        let added = Instant::now();
        run("nft", &chain);
        mode_once(ground, modes).await;
        let took = added.elapsed();
        assert!(took < Duration::from_secs(1), "{family}: {took:?}");
        run("nft", &format!("delete table {family} t"));
        mode_once(ground, ["bpf", "bpf"]).await;
    }
    run("nft", "add table inet t");
    run(
        "nft",
        "add chain inet t c { type filter hook input priority 0; policy accept; }",
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    mode_once(ground, ["bpf", "bpf"]).await; // nothing that is forwarded comes there
    ip("rule add from 10.9.9.0/24 lookup 99");
    mode_once(ground, ["kernel", "bpf"]).await;
    ip("rule del from 10.9.9.0/24 lookup 99");
    mode_once(ground, ["bpf", "bpf"]).await;
    // What a look at the routing tables does not tell, or nobody may be sent past.
    for (program, add, del, modes) in [
        (
            "ip",
            "route add 203.0.113.0/24 dev up0 mtu 1400",
            "route del 203.0.113.0/24",
            ["kernel", "bpf"],
        ),
        (
            "ip",
            "xfrm policy add src 10.9.0.0/16 dst 10.8.0.0/16 dir fwd action block",
            "xfrm policy del src 10.9.0.0/16 dst 10.8.0.0/16 dir fwd",
            ["kernel", "kernel"],
        ),
        (
            "tc",
            "qdisc add dev up0 clsact",
            "qdisc del dev up0 clsact",
            ["kernel", "kernel"],
        ),
    ] {
        run(program, add);
        mode_once(ground, modes).await;
        run(program, del);
        mode_once(ground, ["bpf", "bpf"]).await;
    }
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    mode_once(ground, ["kernel", "bpf"]).await;
    stop.send_replace(true);
    daemon.await.unwrap().unwrap();
}

fn ifindex(device: &str) -> u32 {
    let output = Command::new("ip")
        .args(["-o", "link", "show", device])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split(':').next().unwrap().trim().parse().unwrap()
}

fn run(program: &str, args: &str) {
    let output = Command::new(program)
        .args(args.split(' '))
        .output()
        .expect("it is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {error}");
}

/// Waits until that holds for what the kernel was told of every address.
async fn endpoints_once(
    ground: &Ground,
    addresses: &[IpAddr],
    what: &str,
    is: impl Fn(IpAddr, Option<Endpoint>) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let told = Datapath::inspect(&ground.root())
            .unwrap()
            .endpoints()
            .unwrap();
        if addresses
            .iter()
            .all(|addr| is(*addr, told.get(addr).copied()))
        {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: {told:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until packets of IPv4 and IPv6 take these ways.
async fn mode_once(ground: &Ground, modes: [&str; 2]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let status = Datapath::inspect(&ground.root()).unwrap().status().unwrap();
        let routing = status.host_routing;
        if [routing.ipv4.mode, routing.ipv6.mode] == modes {
            return;
        }
        assert!(Instant::now() < deadline, "not {modes:?} but {routing:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
