//! Bounds on the flows of Services, and of the Services of a namespace together.

use std::net::SocketAddr;

use abi::quotas::GROUP;
use abi::{AffinityKey, Counter, Frontend, frontends};
use anyhow::Result;
use bpf::{Quotas, Trial, keep_quotas};
use plan::{Step, Store as _};
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, Net, TCP, backend, key, nets};

const OWN: u32 = GROUP | 1;
const NAMESPACE: u32 = GROUP | 2;

fn at(net: &Net, id: u32) -> SocketAddr {
    SocketAddr::new(net.service.ip(), 79 + id as u16)
}

/// Three services with a backend of this node each.
fn kernel(net: &Net) -> Result<Kernel> {
    let mut kernel = Kernel::new()?;
    for id in 1..=3 {
        let frontend = Frontend {
            service: id,
            ring_offset: id,
            ring_len: 1,
            affinity_secs: 0,
            flags: frontends::flags::LIMITED,
        };
        kernel.datapath.apply(&[
            Step::PutBackend(id, backend(id, net.backend, true)),
            Step::PutRing {
                offset: id,
                backends: vec![id],
            },
            Step::PutFrontend(key(at(net, id), TCP), frontend),
        ])?;
    }
    Ok(kernel)
}

/// How many of new conversations with a service begin; the others are dropped, and counted.
fn begun(
    kernel: &Kernel,
    program: &str,
    net: &Net,
    id: u32,
    sports: std::ops::Range<u16>,
) -> Result<u32> {
    let mut begun = 0;
    for sport in sports {
        // Answers of one backend are told apart by the client's port.
        let client = SocketAddr::new(net.client.ip(), 1_000 * id as u16 + sport);
        let packet = Packet::tcp(client, at(net, id), tcp::SYN).bytes();
        let counted = kernel.run(program, &packet)?.counted;
        match *counted {
            [(Counter::DropQuota, 1)] => {}
            [(Counter::TcNewFlow | Counter::XdpNewFlow, 1)] => begun += 1,
            _ => panic!("{program}: {counted:?}"),
        }
    }
    Ok(begun)
}

#[test]
fn what_is_more_than_may_be_is_refused_and_the_rest_goes_on() -> Result<()> {
    for net in nets() {
        for program in ["pod_ingress", "device_ingress", "device_xdp"] {
            let kernel = kernel(&net)?;
            let root = kernel.root();
            let mut wanted = Quotas {
                groups: [(OWN, 3), (NAMESPACE, 5)].into(),
                services: [(1, [OWN, NAMESPACE]), (2, [0, NAMESPACE])].into(),
            };
            assert_eq!(keep_quotas(&root, &wanted)?, [].into());
            assert_eq!(
                begun(&kernel, program, &net, 1, 1..6)?,
                3,
                "{program}: its own bound"
            );
            assert_eq!(
                begun(&kernel, program, &net, 2, 1..6)?,
                2,
                "{program}: the namespace's"
            );
            assert_eq!(
                begun(&kernel, program, &net, 3, 1..6)?,
                5,
                "{program}: nobody's"
            );
            // What began goes on.
            let client = SocketAddr::new(net.client.ip(), 1_002);
            let known = Packet::tcp(client, at(&net, 1), tcp::ACK).bytes();
            let counted = kernel.run(program, &known)?.counted;
            assert!(
                matches!(*counted, [(Counter::TcForward | Counter::XdpForward, 1)]),
                "{program}: {counted:?}"
            );

            // What began is what is there: a count changes nothing, and says who was refused.
            assert_eq!(
                keep_quotas(&root, &wanted)?,
                [(OWN, 2), (NAMESPACE, 3)].into(),
                "{program}"
            );
            assert_eq!(begun(&kernel, program, &net, 1, 6..8)?, 0, "{program}");
            wanted.groups = [(OWN, 4), (NAMESPACE, 7)].into();
            keep_quotas(&root, &wanted)?;
            assert_eq!(
                begun(&kernel, program, &net, 1, 6..8)?,
                1,
                "{program}: of a higher bound"
            );
            assert_eq!(
                begun(&kernel, program, &net, 2, 6..9)?,
                1,
                "{program}: what is left"
            );
            // A bound that is gone.
            assert_eq!(
                keep_quotas(&root, &Quotas::default())?,
                [(OWN, 1), (NAMESPACE, 2)].into(),
                "{program}"
            );
            assert_eq!(begun(&kernel, program, &net, 1, 10..20)?, 10, "{program}");
        }
    }
    Ok(())
}

#[test]
fn flows_that_have_ended_do_not_count() -> Result<()> {
    for net in nets() {
        let kernel = kernel(&net)?;
        let root = kernel.root();
        let wanted = Quotas {
            groups: [(OWN, 2)].into(),
            services: [(1, [OWN, 0])].into(),
        };
        keep_quotas(&root, &wanted)?;
        // What the client and the backend send of the flow from a port.
        let sends = |sport: u16, client: Option<u8>, backend: Option<u8>| -> Result<()> {
            let end = SocketAddr::new(net.client.ip(), 1_000 + sport);
            if let Some(flags) = client {
                let packet = Packet::tcp(end, at(&net, 1), flags);
                kernel.run("pod_ingress", &packet.bytes())?;
            }
            if let Some(flags) = backend {
                let packet = Packet::tcp(net.backend, end, flags);
                kernel.run("pod_egress", &packet.bytes())?;
            }
            Ok(())
        };
        let (fin, rst) = (tcp::FIN | tcp::ACK, tcp::RST);
        for (sport, client, backend, counted) in [
            (1, Some(tcp::SYN), Some(tcp::SYN | tcp::ACK), 1),
            (1, Some(fin), None, 1),
            (1, None, Some(fin), 0),
            (2, Some(tcp::SYN), Some(rst), 0),
            (3, Some(tcp::SYN), Some(tcp::SYN | tcp::ACK), 1),
            (3, Some(rst), None, 0),
        ] {
            sends(sport, client, backend)?;
            keep_quotas(&root, &wanted)?;
            let [own, _] = kernel.datapath.bounds(1)?;
            let flows = own.map(|it| it.flows);
            assert_eq!(flows, Some(counted), "{sport} {client:?} {backend:?}");
        }
    }
    Ok(())
}

#[test]
fn a_trial_is_refused_as_the_next_flow_would_be() -> Result<()> {
    let net = &nets()[0];
    let kernel = kernel(net)?;
    let wanted = Quotas {
        groups: [(OWN, 2), (NAMESPACE, 9)].into(),
        services: [(1, [OWN, NAMESPACE]), (2, [0, NAMESPACE])].into(),
    };
    keep_quotas(&kernel.root(), &wanted)?;
    let tried = |id: u32| -> Result<Vec<Counter>> {
        let trial = Trial::over(&kernel.root())?;
        let client = AffinityKey {
            client: [0; 16],
            service: id,
            client_kind: 0,
        };
        trial.copy_from(&kernel.datapath, &[], &client)?;
        let from = SocketAddr::new(net.client.ip(), 50_000);
        let packet = Packet::tcp(from, at(net, id), tcp::SYN).bytes();
        let ran = kernel
            .netns()
            .run(|| Ok(trial.run("pod_ingress", &packet, &[])?))?;
        Ok(ran.1)
    };
    assert_eq!(begun(&kernel, "pod_ingress", net, 1, 1..2)?, 1);
    assert_eq!(tried(1)?, [Counter::TcNewFlow]);
    assert_eq!(begun(&kernel, "pod_ingress", net, 1, 2..3)?, 1);
    // It was tried, and nothing was counted for it.
    assert_eq!(tried(1)?, [Counter::DropQuota]);
    assert_eq!(tried(2)?, [Counter::TcNewFlow]);
    let bounds = kernel.datapath.bounds(1)?;
    let said = bounds.map(|bound| bound.map(|it| (it.flows, it.flows_max)));
    assert_eq!(said, [Some((2, 2)), Some((2, 9))]);
    assert_eq!(kernel.datapath.bounds(3)?, [None, None]);
    Ok(())
}
