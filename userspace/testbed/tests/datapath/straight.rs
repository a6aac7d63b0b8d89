//! Past the host's stack: every path again with packets that go straight to pods, and what only the stack can do.

use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use abi::Counter;
use abi::protocol::UDP as UDP_PROTOCOL;
use anyhow::{Context as _, Result};
use rustix::net::sockopt::{Timeout, set_ipv6_unicast_hops, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, recv, socket};
use testbed::probe::How;
use testbed::wait::wait_for;
use testbed::{Load, Mode};

use crate::paths::{HTTP, Path, Stage, UDP};

fn straight(stage: &Stage) -> Result<u64> {
    stage.counted(Counter::TcHostRouted)
}

fn answered(stage: &Stage, load: &Load) -> Result<()> {
    let report = stage.client().load(load)?;
    assert_eq!(report.failed, 0, "{load:?}: {:?}", report.errors);
    assert!(report.ok > 0, "{load:?}");
    Ok(())
}

#[test]
fn every_path_leads_straight_to_pods() -> Result<()> {
    for path in Path::ALL {
        let mut stage = Stage::set(path)?;
        stage.go_straight()?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 0)?;
            let (service, pod) = (
                stage.target(v6, HTTP),
                SocketAddr::new(stage.pods(v6)[0], HTTP),
            );
            for target in [service, pod] {
                let before = straight(&stage)?;
                answered(&stage, &Load::requests(target, 100))?;
                assert!(
                    straight(&stage)? >= before + 600,
                    "{path:?} {target}: a request has three packets each way at least"
                );
                // Segments larger than any link, and datagrams.
                let bulk = Load::lasting(target, Mode::Bulk, 2, Duration::from_millis(200));
                answered(&stage, &bulk)?;
            }
            for how in [How::UdpConnected, How::UdpUnconnected] {
                let target = stage.target(v6, UDP);
                let seen = stage.client().probe(how, target)?;
                assert_eq!(
                    (seen.error, seen.peer),
                    (None, Some(target)),
                    "{path:?} {how:?}"
                );
                let client = seen.client.context("the backend saw somebody")?;
                assert_eq!(client.ip(), stage.client_address(v6), "{path:?} {how:?}");
            }
        }
        stage.assert_used()?;
    }
    Ok(())
}

#[test]
fn a_way_that_changes_under_traffic_loses_nothing() -> Result<()> {
    for path in [Path::PodLink, Path::XdpNodePort] {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 0)?;
            let load = Load {
                pause_micros: 200,
                ..Load::lasting(
                    stage.target(v6, HTTP),
                    Mode::Close,
                    2,
                    Duration::from_secs(60),
                )
            };
            let running = stage.client().start_load(&load)?;
            for turn in 0..20 {
                if turn % 2 == 0 {
                    stage.go_straight()?;
                } else {
                    stage.balancer()?.route_straight(false)?;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let report = running.stop()?;
            assert_eq!(report.failed, 0, "{path:?} v6={v6}: {:?}", report.errors);
            assert!(report.ok > 0);
        }
    }
    Ok(())
}

#[test]
fn what_is_too_big_for_a_pod_s_link_hears_so() -> Result<()> {
    for path in [
        Path::Socket,
        Path::PodLink,
        Path::TcNodePort,
        Path::XdpNodePort,
    ] {
        let mut stage = Stage::set(path)?;
        stage.go_straight()?;
        let device = stage.backends[0].device().to_owned();
        stage
            .node
            .netns()
            .ip(&format!("link set {device} mtu 1300\n"))?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6)[..1], 0)?;
            let pod = SocketAddr::new(stage.pods(v6)[0], HTTP);
            // The error is about what the client sent, whoever translated it; and learned once, it is known.
            for target in [stage.target(v6, HTTP), pod] {
                let bulk = Load::lasting(target, Mode::Bulk, 1, Duration::from_millis(500));
                let report = stage.client().load(&bulk)?;
                assert_eq!(report.failed, 0, "{path:?} {target}: {:?}", report.errors);
                assert!(report.ok >= 16, "{path:?} {target}: {} blocks", report.ok);
            }
        }
    }
    Ok(())
}

/// Hops that are left to a UDP packet that comes to a port, if this frame is one.
fn hops_left(frame: &[u8], v6: bool, port: u16) -> Option<u8> {
    let (len, protocol, hops) = if v6 { (40, 6, 7) } else { (20, 9, 8) };
    let (header, udp) = (frame.get(14..14 + len)?, frame.get(14 + len..)?);
    let udp_to_port = header[protocol] == UDP_PROTOCOL && udp.get(2..4)? == port.to_be_bytes();
    (header[0] >> 4 == if v6 { 6 } else { 4 } && udp_to_port).then_some(header[hops])
}

#[test]
fn the_way_through_a_node_is_one_hop() -> Result<()> {
    const EVERYTHING: u16 = 3; // ETH_P_ALL
    for path in [
        Path::PodLink,
        Path::XdpNodePort,
        Path::XdpClusterIp,
        Path::TcNodePort,
        Path::TcClusterIp,
    ] {
        let mut stage = Stage::set(path)?;
        stage.go_straight()?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6)[..1], 0)?;
            let protocol = Protocol::from_raw(u32::from(EVERYTHING.to_be()).try_into()?);
            let tap = stage.backends[0].netns().run(|| {
                let tap = socket(AddressFamily::PACKET, SocketType::RAW, Some(protocol))?;
                set_socket_timeout(&tap, Timeout::Recv, Some(Duration::from_secs(5)))?;
                Ok(tap)
            })?;
            let target = stage.target(v6, UDP);
            let client = stage.client_netns().run(|| {
                let any: SocketAddr = if v6 {
                    ([0u16; 8], 0).into()
                } else {
                    ([0u8; 4], 0).into()
                };
                let client = UdpSocket::bind(any)?;
                if v6 {
                    set_ipv6_unicast_hops(&client, Some(7))?;
                } else {
                    client.set_ttl(7)?;
                }
                client.connect(target)?;
                Ok(client)
            })?;
            let before = straight(&stage)?;
            // The first packet of a flow, and later ones, short and long.
            for len in [1, 1, 900] {
                client.send(&vec![b'x'; len])?;
                let mut frame = [MaybeUninit::uninit(); 2048];
                let seen = loop {
                    let ((frame, _), _) = recv(&tap, &mut frame, RecvFlags::empty())
                        .with_context(|| format!("{path:?} v6={v6}: no packet came"))?;
                    if let Some(seen) = hops_left(frame, v6, UDP) {
                        break seen;
                    }
                };
                assert_eq!(seen, 6, "{path:?} v6={v6} {len}");
            }
            assert!(straight(&stage)? >= before + 3, "{path:?} v6={v6}");
        }
    }
    Ok(())
}

#[test]
fn the_way_back_to_an_outside_client_is_asked_for_once() -> Result<()> {
    const LATER: u64 = 10;
    for path in [Path::TcNodePort, Path::XdpNodePort, Path::XdpClusterIp] {
        let mut stage = Stage::set(path)?;
        stage.go_straight()?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6)[..1], 0)?;
            let target = stage.target(v6, UDP);
            let socket = || {
                stage.client_netns().run(|| {
                    let any: SocketAddr = if v6 {
                        ([0u16; 8], 0).into()
                    } else {
                        ([0u8; 4], 0).into()
                    };
                    let socket = UdpSocket::bind(any)?;
                    socket.connect(target)?;
                    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
                    Ok(socket)
                })
            };
            let (known, other) = (socket()?, socket()?);
            known.send(b"first")?;
            known.recv(&mut [0; 512]).context("an answer")?;
            let client = stage.client_address(v6);
            let node = stage.node.netns();
            node.ip(&format!("route add blackhole {client}\n"))?;
            // What the routing table said before is used for a moment, and a tick of the clock that it is read from.
            let lasts = Duration::from_nanos(u64::from(abi::next_hops::LASTS_MS) << 20);
            std::thread::sleep(lasts + Duration::from_millis(20));
            let before = straight(&stage)?;
            for _ in 0..LATER {
                known.send(b"later")?;
            }
            wait_for("packets of a known flow", Duration::from_secs(5), || {
                straight(&stage)
                    .is_ok_and(|now| now == before + LATER)
                    .then_some(())
            })
            .with_context(|| format!("{path:?} v6={v6}"))?;
            // A new flow's client is not where its packets come from any more.
            let begun = stage.begun()?;
            other.send(b"first")?;
            wait_for("a new flow", Duration::from_secs(5), || {
                stage.begun().is_ok_and(|now| now > begun).then_some(())
            })?;
            assert_eq!(straight(&stage)?, before + LATER, "{path:?} v6={v6}");
        }
    }
    Ok(())
}
