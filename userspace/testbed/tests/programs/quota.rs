//! Bounds on the flows of Services, and of the Services of a namespace together.

use std::net::SocketAddr;

use abi::quotas::GROUP;
use abi::{Counter, Frontend, frontends};
use anyhow::Result;
use bpf::{Quotas, keep_quotas};
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
