//! Real sockets through every path: at the socket, on a pod's link, on the node's device with XDP and
//! without; both families, TCP, UDP and SCTP.

mod dns;
mod dsr;
mod localhost;
mod paths;
mod policy;
mod sctp;
mod straight;
mod unplaced;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::balancer::Service;
use testbed::probe::{How, Seen};
use testbed::topology::{NODE4, NODE6, REMOTE4, REMOTE6};
use testbed::{Load, Mode};

use paths::{HTTP, Path, Stage, UDP};

/// A test function for each path.
macro_rules! for_each_path {
    ($($property:ident),*) => {
        $(mod $property {
            use super::Path;

            #[test]
            fn at_the_socket() -> anyhow::Result<()> {
                super::check::$property(Path::Socket)
            }

            #[test]
            fn on_the_pod_link() -> anyhow::Result<()> {
                super::check::$property(Path::PodLink)
            }

            #[test]
            fn node_port_by_xdp() -> anyhow::Result<()> {
                super::check::$property(Path::XdpNodePort)
            }

            #[test]
            fn cluster_ip_by_xdp() -> anyhow::Result<()> {
                super::check::$property(Path::XdpClusterIp)
            }

            #[test]
            fn node_port_by_tc() -> anyhow::Result<()> {
                super::check::$property(Path::TcNodePort)
            }

            #[test]
            fn cluster_ip_by_tc() -> anyhow::Result<()> {
                super::check::$property(Path::TcClusterIp)
            }
        })*
    };
}

for_each_path!(
    spreads_and_keeps_addresses,
    refuses_without_endpoints,
    keeps_a_client_on_its_backend,
    outlives_the_agent
);

mod check {
    use super::*;

    /// Each backend gets its share, sees the client's own address, and its answer comes from the service.
    pub(super) fn spreads_and_keeps_addresses(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 0)?;
            let target = stage.target(v6, HTTP);
            let report = stage.client().load(&Load::requests(target, 300))?;
            assert_eq!(
                (report.ok, report.failed),
                (300, 0),
                "{target}: {:?}",
                report.errors
            );
            assert_even(&report.backends, 300);
            let datagrams = Load {
                mode: Mode::Udp,
                ..Load::requests(stage.target(v6, UDP), 300)
            };
            let report = stage.client().load(&datagrams)?;
            assert_eq!(
                (report.ok, report.failed),
                (300, 0),
                "udp {target}: {:?}",
                report.errors
            );
            assert_even(&report.backends, 300);
            for (how, port) in [
                (How::Tcp, HTTP),
                (How::UdpConnected, UDP),
                (How::UdpUnconnected, UDP),
            ] {
                let target = stage.target(v6, port);
                let seen = stage.client().probe(how, target)?;
                assert_eq!(seen.error, None, "{how:?} {target}");
                assert_eq!(
                    seen.peer,
                    Some(target),
                    "{how:?}: the client talks to the service and to nobody else"
                );
                let client = seen.client.context("the backend saw somebody")?;
                assert_eq!(
                    client.ip(),
                    stage.client_address(v6),
                    "{how:?} {target}: the backend sees the client"
                );
            }
        }
        stage.assert_used()
    }

    /// At once, with what a closed port would answer.
    pub(super) fn refuses_without_endpoints(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &[], 0)?;
            for (how, port) in [(How::Tcp, HTTP), (How::UdpConnected, UDP)] {
                let target = stage.target(v6, port);
                let seen = stage.client().probe(how, target)?;
                assert_eq!(
                    seen.error.as_deref(),
                    Some("connection refused"),
                    "{how:?} {target}"
                );
            }
            // And answers again as soon as there is one.
            stage.serve(v6, &stage.pods(v6)[..1], 0)?;
            let seen = stage.client().probe(How::Tcp, stage.target(v6, HTTP))?;
            assert_eq!(seen.backend.as_deref(), Some("web-0"), "{:?}", seen.error);
        }
        Ok(())
    }

    /// `sessionAffinity: ClientIP`.
    pub(super) fn keeps_a_client_on_its_backend(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 3600)?;
            for (mode, port) in [(Mode::Close, HTTP), (Mode::Udp, UDP)] {
                let load = Load {
                    mode,
                    ..Load::requests(stage.target(v6, port), 60)
                };
                let report = stage.client().load(&load)?;
                assert_eq!(
                    (report.ok, report.failed),
                    (60, 0),
                    "{mode:?}: {:?}",
                    report.errors
                );
                assert_eq!(report.backends.len(), 1, "{mode:?}: {}", report.spread());
            }
        }
        Ok(())
    }

    /// The agent is gone: connections go on and new ones are balanced. It comes back: the same.
    pub(super) fn outlives_the_agent(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 0)?;
            let target = stage.target(v6, HTTP);
            let minute = Duration::from_secs(60);
            let kept = stage.client().start_load(&Load {
                pause_micros: 500,
                ..Load::lasting(target, Mode::Keep, 3, minute)
            })?;
            let new = stage.client().start_load(&Load {
                pause_micros: 500,
                ..Load::lasting(target, Mode::Close, 2, minute)
            })?;
            stage.agent_goes();
            let report = stage.client().load(&Load::requests(target, 100))?;
            assert_eq!(
                (report.ok, report.failed),
                (100, 0),
                "without an agent: {:?}",
                report.errors
            );
            assert_even(&report.backends, 100);
            stage.agent_comes()?;
            let report = stage.client().load(&Load::requests(target, 100))?;
            assert_eq!(
                (report.ok, report.failed),
                (100, 0),
                "with the next agent: {:?}",
                report.errors
            );
            let (kept, new) = (kept.stop()?, new.stop()?);
            assert_eq!(kept.failed, 0, "kept connections: {:?}", kept.errors);
            assert_eq!(new.failed, 0, "new connections: {:?}", new.errors);
            assert!(kept.ok > 0 && new.ok > 0);
        }
        Ok(())
    }
}

#[test]
fn a_backend_elsewhere_answers_through_the_node() -> Result<()> {
    for path in [
        Path::XdpNodePort,
        Path::TcNodePort,
        Path::XdpClusterIp,
        Path::TcClusterIp,
    ] {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            let remote: IpAddr = if v6 { REMOTE6.into() } else { REMOTE4.into() };
            let place = stage.node.outside().place();
            let _http = place.serve_http("remote", SocketAddr::new(remote, HTTP))?;
            let _udp = place.serve_udp("remote", SocketAddr::new(remote, UDP))?;
            stage.serve(v6, &[remote], 0)?;
            for (how, port) in [
                (How::Tcp, HTTP),
                (How::UdpConnected, UDP),
                (How::UdpUnconnected, UDP),
            ] {
                let target = stage.target(v6, port);
                let seen = stage.client().probe(how, target)?;
                assert_eq!(seen.error, None, "{path:?} {how:?} {target}");
                assert_eq!(seen.backend.as_deref(), Some("remote"));
                assert_eq!(seen.peer, Some(target));
                let client = seen.client.context("the backend saw somebody")?;
                let node: IpAddr = if v6 { NODE6.into() } else { NODE4.into() };
                assert_eq!(
                    client.ip(),
                    node,
                    "{path:?} {how:?}: the answer must come back through the node"
                );
                assert!(
                    abi::config::SNAT_PORTS.contains(&client.port()),
                    "{path:?}: port {}",
                    client.port()
                );
            }
            let report = stage
                .client()
                .load(&Load::requests(stage.target(v6, HTTP), 200))?;
            assert_eq!(
                (report.ok, report.failed),
                (200, 0),
                "{path:?}: {:?}",
                report.errors
            );
        }
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_through_its_own_service() -> Result<()> {
    for path in [Path::Socket, Path::PodLink] {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6)[..1], 0)?;
            let mut place = stage.backends[0].place();
            if path == Path::PodLink {
                place = place.without_cgroup();
            }
            for (how, port) in [(How::Tcp, HTTP), (How::UdpConnected, UDP)] {
                let seen = place.probe(how, stage.target(v6, port))?;
                assert_eq!(
                    (seen.error, seen.backend.as_deref()),
                    (None, Some("web-0")),
                    "{path:?} {how:?} v6={v6}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn large_answers_and_uploads_pass_every_path() -> Result<()> {
    for path in Path::ALL {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            stage.serve(v6, &stage.pods(v6), 0)?;
            let load = Load::lasting(
                stage.target(v6, HTTP),
                Mode::Bulk,
                2,
                Duration::from_millis(300),
            );
            let report = stage.client().load(&load)?;
            assert_eq!(report.failed, 0, "{path:?} v6={v6}: {:?}", report.errors);
            assert!(
                report.gbit_per_second() > 0.1,
                "{path:?} v6={v6}: {:.3} Gbit/s",
                report.gbit_per_second()
            );
        }
    }
    Ok(())
}

#[test]
fn a_datagram_flow_moves_when_its_backend_goes() -> Result<()> {
    for path in [Path::PodLink, Path::XdpNodePort, Path::TcNodePort] {
        let mut stage = Stage::set(path)?;
        let pods = stage.pods(false);
        stage.serve(false, &pods[..1], 0)?;
        let target = stage.target(false, UDP);
        let names = |stage: &Stage, moved: &mut dyn FnMut() -> Result<()>| -> Result<Vec<String>> {
            let client = stage.client_netns();
            client
                .run(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?))
                .and_then(|socket| {
                    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
                    let mut names = Vec::new();
                    for round in 0..2 {
                        if round == 1 {
                            moved()?;
                        }
                        socket.send_to(b"who?", target)?;
                        let mut buffer = [0; 256];
                        let read = socket.recv(&mut buffer)?;
                        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                        names.push(text.split(' ').next().unwrap_or_default().to_owned());
                    }
                    Ok(names)
                })
        };
        let mut balancer = stage.take_balancer();
        let service = Service {
            frontends: vec![target],
            protocol: abi::protocol::UDP,
            backends: vec![SocketAddr::new(pods[1], UDP)],
            affinity_secs: 0,
        };
        let old = balancer.datapath().observe()?;
        let mut moved = || {
            balancer.put(std::slice::from_ref(&service))?;
            balancer.remove_backends(old.backends.keys().copied())
        };
        assert_eq!(names(&stage, &mut moved)?, ["web-0", "web-1"], "{path:?}");
    }
    Ok(())
}

/// A client that spoke to the service may speak to the backend itself from the same port: what is kept of the
/// old conversation must not take the new one's answers.
#[test]
fn an_old_flow_leaves_a_direct_connection_alone() -> Result<()> {
    for path in Path::ALL.into_iter().filter(|path| *path != Path::Socket) {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            let backend = stage.pods(v6)[0];
            stage.serve(v6, &[backend], 0)?;
            for how in [How::Tcp, How::UdpConnected] {
                let port = if how == How::Tcp { HTTP } else { UDP };
                for target in [stage.target(v6, port), SocketAddr::new(backend, port)] {
                    let seen = stage.client_netns().run(|| ask_from(40_000, how, target))?;
                    assert_eq!(seen.error, None, "{path:?} {how:?} {target}");
                    assert_eq!(
                        seen.backend.as_deref(),
                        Some("web-0"),
                        "{path:?} {how:?} {target}"
                    );
                }
            }
        }
    }
    Ok(())
}

/// And the other way round: a connection with the backend itself goes on when the client speaks to the service from the
/// same port, and so does that one, although the backend must tell them apart first.
#[test]
fn a_new_flow_leaves_a_direct_connection_alone() -> Result<()> {
    for path in Path::ALL.into_iter().filter(|path| *path != Path::Socket) {
        let mut stage = Stage::set(path)?;
        stage.go_straight()?;
        for v6 in [false, true] {
            let backend = stage.pods(v6)[0];
            stage.serve(v6, &[backend], 0)?;
            let direct = SocketAddr::new(backend, HTTP);
            let limit = Duration::from_secs(3);
            let mut kept = stage
                .client_netns()
                .run(|| Ok(testbed::probe::connect_from(40_001, direct, limit)?))?;
            assert_eq!(asked(&mut kept)?, "web-0", "{path:?}");
            let target = stage.target(v6, HTTP);
            let seen = stage
                .client_netns()
                .run(|| ask_from(40_001, How::Tcp, target))?;
            assert_eq!(seen.error, None, "{path:?} {target}");
            assert_eq!(asked(&mut kept)?, "web-0", "{path:?}");
        }
    }
    Ok(())
}

/// The first word of the answer to another request on a connection.
fn asked(connection: &mut TcpStream) -> Result<String> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: testbed\r\n\r\n")?;
    let mut response = Vec::new();
    loop {
        let mut part = [0; 1024];
        let read = connection.read(&mut part)?;
        ensure!(read > 0, "the connection ended");
        response.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&response);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && body.ends_with('\n')
        {
            return Ok(body
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned());
        }
    }
}

/// Asks from one port. A process that another test starts at this moment may hold the last socket there until it
/// has become its program: then again.
fn ask_from(port: u16, how: How, target: SocketAddr) -> Result<Seen> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let seen = testbed::probe::ask_from(port, how, target, Duration::from_secs(2));
        if seen.error.as_deref() != Some("address in use") || Instant::now() > deadline {
            return Ok(seen);
        }
        std::thread::yield_now();
    }
}

/// Every one of the three backends has between half and double of an even share.
fn assert_even(backends: &std::collections::BTreeMap<String, u64>, requests: u64) {
    let names: BTreeSet<&str> = backends.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["web-0", "web-1", "web-2"]));
    let share = requests / 3;
    assert!(
        backends
            .values()
            .all(|count| *count > share / 2 && *count < share * 2),
        "{backends:?}"
    );
}
