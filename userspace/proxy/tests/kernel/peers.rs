//! Who is whose peer. A UDP socket shows whom it speaks to now: a Service, or somebody it was sent to by one before. A pod
//! is one client to session affinity, whether its sockets are hooked or its packets balanced, and may be its own peer.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use abi::affinity::client;
use abi::{AffinityKey, family};
use bpf::{Datapath, PodLinks};
use net::Netns;
use tokio::sync::watch;

use super::host_pods::within;
use super::support::{Api, Ground, dns_service, dns_slice, in_namespace, ip, path, start, until};

const SERVICE: &str = "10.96.0.10:53";
const BACKEND: &str = "10.244.0.3:5353";

#[test]
fn a_udp_socket_shows_no_service_that_it_has_left() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, story(&ground));
}

async fn story(ground: &Ground) {
    ip("link set lo up");
    ip("addr add 10.244.0.3/32 dev lo");
    let api = Api::default();
    api.put("services", dns_service());
    api.put("endpointslices", dns_slice(&["10.244.0.3"]));
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| status.ready).await;

    let [service, backend]: [SocketAddr; 2] = [SERVICE, BACKEND].map(|text| text.parse().unwrap());
    let server = UdpSocket::bind(backend).unwrap();
    let client = || within(ground.cgroup(), || UdpSocket::bind("0.0.0.0:0").unwrap());
    let patience = Some(Duration::from_secs(5));
    server.set_read_timeout(patience).unwrap();

    let connected = client();
    let unconnected = client();
    unconnected.set_read_timeout(patience).unwrap();
    for asked in [service, backend, service, backend] {
        connected.connect(asked).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), asked, "getpeername");

        unconnected.send_to(b"?", asked).unwrap();
        let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
        server.send_to(b"!", from).unwrap();
        let (_, shown) = unconnected.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(shown, asked, "recvfrom");
    }
    stop.send_replace(true);
    daemon.await.unwrap();
}

#[test]
fn a_connected_udp_socket_that_names_its_service_stays_with_its_backend() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, named_again(&ground));
}

async fn named_again(ground: &Ground) {
    const BACKENDS: [&str; 4] = ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5"];
    ip("link set lo up");
    let servers = BACKENDS.map(|address| {
        ip(&format!("addr add {address}/32 dev lo"));
        let server = UdpSocket::bind((address, 5353)).unwrap();
        std::thread::spawn(move || {
            while let Ok((1, from)) = server.recv_from(&mut [0; 8]) {
                server.send_to(b"!", from).unwrap();
            }
        })
    });
    let api = Api::default();
    api.put("services", dns_service());
    api.put("endpointslices", dns_slice(&BACKENDS));
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| status.ready).await;

    for (any, service) in [("0.0.0.0:0", SERVICE), ("[::]:0", "[::ffff:10.96.0.10]:53")] {
        let service: SocketAddr = service.parse().unwrap();
        for _ in 0..16 {
            let client = within(ground.cgroup(), || UdpSocket::bind(any).unwrap());
            let patience = Some(Duration::from_secs(5));
            client.set_read_timeout(patience).unwrap();
            client.connect(service).unwrap();
            for named in [false, true, true, false] {
                let sent = if named {
                    client.send_to(b"?", service)
                } else {
                    client.send(b"?")
                };
                sent.unwrap();
                let (_, shown) = client.recv_from(&mut [0; 8]).expect("an answer arrives");
                assert_eq!(shown, service, "recvfrom");
                assert_eq!(client.peer_addr().unwrap(), service, "getpeername");
            }
        }
    }
    for (server, address) in servers.into_iter().zip(BACKENDS) {
        let last = UdpSocket::bind("0.0.0.0:0").unwrap();
        last.send_to(b"end", (address, 5353)).unwrap();
        server.join().unwrap();
    }
    stop.send_replace(true);
    daemon.await.unwrap();
}

#[test]
fn a_pod_is_one_client_to_its_sockets_and_to_its_link() {
    let ground = Ground::new();
    let netns = Netns::create().expect("root may make network namespaces");
    in_namespace(&netns, affinity(&ground));
}

/// A UDP datagram of nothing from the pod to the Service.
fn datagram(pod: [u8; 4], port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(pod);
    frame.extend([10, 96, 0, 10]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 8, 0, 0]);
    frame
}

async fn affinity(ground: &Ground) {
    const POD: [u8; 4] = [10, 244, 0, 77];
    ip("link set lo up");
    ip("route add 10.244.0.0/24 dev up0");
    let api = Api::default();
    let mut service = dns_service();
    service["spec"]["sessionAffinity"] = "ClientIP".into();
    api.put("services", service);
    let endpoints = ["10.244.0.2", "10.244.0.3", "10.244.0.4", "10.244.0.5"];
    api.put("endpointslices", dns_slice(&endpoints));
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| status.ready).await;

    let cookie = Netns::current_cookie().unwrap();
    let links = PodLinks::open(&ground.root()).unwrap();
    links.name_namespace(cookie, &[IpAddr::from(POD)]).unwrap();
    let socket = within(ground.cgroup(), || UdpSocket::bind("0.0.0.0:0").unwrap());
    socket.connect(SERVICE).unwrap();

    let view = Datapath::inspect(&ground.root()).unwrap();
    let tables = view.observe().unwrap();
    let (_, frontend) = tables.frontends.iter().next().unwrap();
    let mut client = [0; 16];
    client[..4].copy_from_slice(&POD);
    let key = AffinityKey {
        client,
        service: frontend.service,
        client_kind: client::ADDRESS,
    };
    let chosen = view.affinity(&key).unwrap().expect("known by its address");
    let backend = tables.backends[&chosen.backend];
    assert_eq!(backend.family, family::V4);
    for port in 40_000..40_010 {
        let ran = view.test_run("pod_ingress", &datagram(POD, port), &[], 1);
        assert_eq!(ran.unwrap().packet[30..34], backend.addr[..4], "the same");
    }
    stop.send_replace(true);
    daemon.await.unwrap();
}

#[test]
fn a_pod_answers_itself_over_its_service() {
    let ground = Ground::new();
    let [node, pod] = [(); 2].map(|()| Netns::create().expect("root may make network namespaces"));
    in_namespace(&node, itself(&ground, &pod));
}

async fn itself(ground: &Ground, pod: &Netns) {
    ip("link set lo up");
    net::forward(false).unwrap();
    let inside = path(pod);
    ip(&format!(
        "link add veth-pod type veth peer name eth0 netns {inside}"
    ));
    ip("addr add 169.254.1.1/32 dev veth-pod");
    ip("link set veth-pod up");
    ip("route add 10.244.0.2/32 dev veth-pod");
    let configured = pod.run(|| {
        ip("link set lo up");
        ip("addr add 10.244.0.2/32 dev eth0");
        ip("link set eth0 up");
        ip("route add 169.254.1.1 dev eth0");
        ip("route add default via 169.254.1.1");
    });
    configured.unwrap();
    let api = Api::default();
    api.put("services", dns_service());
    api.put("endpointslices", dns_slice(&["10.244.0.2"]));
    let settings = ground.settings();
    let mut status = settings.status.subscribe();
    let (stop, stopping) = watch::channel(false);
    let daemon = start(&api, settings, stopping);
    until(&mut status, |status| {
        status.ready && status.devices.len() == 2
    })
    .await;

    let socket = |bind: &str| {
        let socket = pod.run(|| UdpSocket::bind(bind).unwrap()).unwrap();
        let patience = Some(Duration::from_secs(5));
        socket.set_read_timeout(patience).unwrap();
        socket
    };
    // Of the client only the packets are balanced; the server's answer is a call of a socket that is hooked, to the
    // Service's address and the client's port.
    let server = within(ground.cgroup(), || socket("10.244.0.2:5353"));
    let client = socket("0.0.0.0:0");
    client.send_to(b"?", SERVICE).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).expect("a datagram arrives");
    assert_eq!(from.ip(), IpAddr::from([10, 96, 0, 10]));
    server.send_to(b"!", from).unwrap();
    let (_, shown) = client.recv_from(&mut [0; 8]).expect("an answer arrives");
    assert_eq!(shown.to_string(), SERVICE);

    stop.send_replace(true);
    daemon.await.unwrap();
}
