//! The testbed itself: what the other privileged tests stand on.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use testbed::probe::How;
use testbed::topology::{CLIENT4, CLIENT6, NODE4, NODE6};
use testbed::{Load, Mode, Node};

#[test]
fn pods_node_and_outside_reach_each_other_in_both_families() -> Result<()> {
    let node = Node::create()?;
    let (server, client) = (node.add_pod("web")?, node.add_pod("client")?);
    let _http = server.place().serve_http("web", "[::]:8080".parse()?)?;
    let _udp = server.place().serve_udp("web", "[::]:5353".parse()?)?;
    for v6 in [false, true] {
        let outside: IpAddr = if v6 { CLIENT6.into() } else { CLIENT4.into() };
        let own: IpAddr = if v6 { NODE6.into() } else { NODE4.into() };
        let places = [
            (client.place(), client.address(v6)),
            (node.outside().place(), outside),
            (node.place()?, own),
        ];
        for (place, source) in places {
            for (how, port) in [
                (How::Tcp, 8080),
                (How::UdpUnconnected, 5353),
                (How::UdpConnected, 5353),
            ] {
                let target = SocketAddr::new(server.address(v6), port);
                let seen = place.probe(how, target)?;
                assert_eq!(seen.error, None, "{how:?} {target} from {source}");
                assert_eq!(seen.backend.as_deref(), Some("web"));
                assert_eq!(
                    seen.client.map(|client| client.ip()),
                    Some(source),
                    "{how:?} {target}"
                );
                assert_eq!(seen.peer, Some(target), "{how:?}");
            }
        }
    }
    let target = SocketAddr::new(server.address(false), 8080);
    let report = client.place().load(&Load::requests(target, 200))?;
    assert_eq!((report.ok, report.failed), (200, 0), "{:?}", report.errors);
    let running = client.place().start_load(&Load::lasting(
        target,
        Mode::Keep,
        2,
        Duration::from_secs(60),
    ))?;
    let report = running.stop()?;
    assert_eq!(report.failed, 0, "{:?}", report.errors);
    Ok(())
}

#[test]
fn what_a_node_makes_is_gone_after_it() -> Result<()> {
    let node = Node::create()?;
    let pod = node.add_pod("web")?;
    let server = pod.place().serve_http("web", "[::]:8080".parse()?)?;
    let made = [
        node.netns().path(),
        pod.netns().path(),
        node.cgroup().into(),
        node.bpffs().into(),
        node.folder().into(),
    ];
    assert!(made.iter().all(|path| path.exists()));
    let process = format!("/proc/{}", server.id());
    assert!(Path::new(&process).exists());
    // In the worst order: what is stood on goes first.
    drop(node);
    drop(pod);
    drop(server);
    for path in made {
        assert!(!path.exists(), "{} is still there", path.display());
    }
    assert!(!Path::new(&process).exists());
    Ok(())
}

#[test]
fn no_namespace_has_a_way_out_of_the_machine() -> Result<()> {
    let node = Node::create()?;
    let pod = node.add_pod("client")?;
    let places = [pod.place(), node.place()?, node.outside().place()];
    for place in places {
        for target in ["192.0.2.1:80", "[2001:db8::1]:80"] {
            let seen = place.probe(How::Tcp, target.parse()?)?;
            let error = seen.error.as_deref().unwrap_or("nothing");
            assert!(error.contains("unreachable"), "{target}: {error}");
        }
    }
    Ok(())
}
