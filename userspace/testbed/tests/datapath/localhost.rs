//! NodePorts at the loopback addresses, for the node's own sockets.

use std::net::{IpAddr, SocketAddr};

use abi::protocol::{TCP, UDP as UDP_PROTOCOL};
use anyhow::Result;
use testbed::balancer::Service;
use testbed::probe::How;

use crate::paths::{HTTP, Path, Stage, UDP};

#[test]
fn every_address_that_is_this_host_leads_to_its_node_ports() -> Result<()> {
    let mut stage = Stage::set(Path::Socket)?;
    for (v6, localhost, named) in [
        (
            false,
            "127.0.0.1",
            &["127.0.0.1", "127.0.0.5", "0.0.0.0"][..],
        ),
        (true, "::1", &["::1", "::"]),
    ] {
        let localhost: IpAddr = localhost.parse()?;
        let backend = stage.pods(v6)[0];
        let services = [(TCP, HTTP), (UDP_PROTOCOL, UDP)].map(|(protocol, port)| Service {
            frontends: vec![SocketAddr::new(localhost, 30_000 + port)],
            protocol,
            backends: vec![SocketAddr::new(backend, port)],
            affinity_secs: 0,
        });
        stage.balancer()?.put(&services)?;
        for named in named {
            for (how, port) in [
                (How::Tcp, HTTP),
                (How::UdpConnected, UDP),
                (How::UdpUnconnected, UDP),
            ] {
                let target = SocketAddr::new(named.parse()?, 30_000 + port);
                let seen = stage.node.place()?.probe(how, target)?;
                assert_eq!(seen.error, None, "{how:?} {target}");
                // As without us: who connects to no address in particular is connected to the loopback address.
                let peer = if target.ip().is_unspecified() {
                    SocketAddr::new(localhost, target.port())
                } else {
                    target
                };
                assert_eq!(seen.peer, Some(peer), "{how:?} {target}");
            }
            let target = SocketAddr::new(named.parse()?, 30_000 + HTTP);
            let seen = stage.client().probe(How::Tcp, target)?;
            let refused = Some("connection refused");
            assert_eq!(seen.error.as_deref(), refused, "{target} in a pod");
        }
    }
    Ok(())
}
