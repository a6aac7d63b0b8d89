//! Endpoints that do not say on which node they are, as hand-written EndpointSlices often do not.

use std::net::SocketAddr;

use anyhow::Result;
use testbed::Load;
use testbed::probe::How;

use crate::paths::{HTTP, Path, Stage, UDP};

#[test]
fn a_backend_of_this_node_answers_though_nobody_said_that_it_is_here() -> Result<()> {
    for path in Path::ALL {
        let mut stage = Stage::set(path)?;
        for v6 in [false, true] {
            let pods = stage.pods(v6);
            stage.serve(v6, &pods[..1], 0)?;
            stage.balancer()?.forget_places()?;
            for (how, port) in [
                (How::Tcp, HTTP),
                (How::UdpConnected, UDP),
                (How::UdpUnconnected, UDP),
            ] {
                let target: SocketAddr = stage.target(v6, port);
                let seen = stage.client().probe(how, target)?;
                assert_eq!(seen.error, None, "{path:?} {how:?} {target}");
                assert_eq!(seen.peer, Some(target), "{path:?} {how:?}");
            }
            let report = stage
                .client()
                .load(&Load::requests(stage.target(v6, HTTP), 100))?;
            assert_eq!(
                (report.ok, report.failed),
                (100, 0),
                "{path:?}: {:?}",
                report.errors
            );
        }
    }
    Ok(())
}
