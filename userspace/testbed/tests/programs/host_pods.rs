//! Packets of pods that use the node's network, judged at their cgroups: the test's own process is in one, as a test run
//! takes its socket from whoever asks for it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use abi::policy::CGROUP_LINK;
use abi::{Counter, PolicyVerdictKey, policy};
use anyhow::Result;
use bpf::CgroupAt;
use plan::policy::PolicyStep;
use testbed::cgroup::{self, Cgroup};
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, LOOPBACK, Net, VETH, nets};
use crate::policy::{CLIENTS, SERVER, SERVERS, control, counts, link, rules, set};

/// The number that stands for the pod's link.
pub(crate) const HOST_POD: u32 = CGROUP_LINK | 7;

/// What the programs return.
const PASS: u32 = 1;
const DROP: u32 = 0;

/// A pod's cgroup, with this process below it; the process leaves when dropped.
pub(crate) struct InCgroup {
    cgroup: Cgroup,
}

impl InCgroup {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let cgroup = Cgroup::create(&format!("fl-prog-{}-{count}", std::process::id()))?;
        let inside = Self { cgroup };
        cgroup::join(&inside.cgroup.below("container")?)?;
        Ok(inside)
    }

    /// One whose packets are judged by what holds for [`HOST_POD`].
    pub(crate) fn held(kernel: &Kernel) -> Result<Self> {
        let inside = Self::new()?;
        let at = CgroupAt::open(inside.path())?;
        let table = kernel.datapath.policy_table()?;
        table.cgroups().hold(HOST_POD, "a-pod", &at)?;
        Ok(inside)
    }

    fn path(&self) -> &Path {
        self.cgroup.path()
    }
}

impl Drop for InCgroup {
    fn drop(&mut self) {
        if let Ok(root) = cgroup::mount() {
            let _ = cgroup::join(&root);
        }
    }
}

/// A context in which a packet is seen at a device.
pub(crate) fn seen_at(ifindex: u32) -> Vec<u8> {
    let mut context = vec![0; 44];
    context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
    context
}

/// A kernel that holds the pod to these sets.
fn judged(net: &Net, ingress: u32, egress: u32) -> Result<(Kernel, InCgroup)> {
    let kernel = Kernel::new()?;
    set(&kernel, &[link(HOST_POD, ingress, egress)])?;
    set(&kernel, &rules(net))?;
    let inside = InCgroup::held(&kernel)?;
    Ok((kernel, inside))
}

#[test]
fn what_a_pod_of_the_nodes_network_gets_is_judged_at_its_cgroup() -> Result<()> {
    for net in nets() {
        let (kernel, inside) = judged(&net, SERVERS, 0)?;
        let port = |port| std::net::SocketAddr::new(net.backend.ip(), port);
        let opens = Packet::tcp(net.client, net.backend, tcp::SYN);
        let closed = Packet::tcp(net.client, port(81), tcp::SYN);
        let stranger = std::net::SocketAddr::new(net.service.ip(), 40_000);
        let no = Some(Counter::DropPolicyIngress);
        for (what, program, packet, at, refused) in [
            ("the client", "cgroup_ingress", &opens, VETH, None),
            (
                "its answer",
                "cgroup_egress",
                &Packet::tcp(net.backend, net.client, tcp::SYN | tcp::ACK),
                VETH,
                None,
            ),
            ("another port", "cgroup_ingress", &closed, VETH, no),
            (
                "another port by loopback",
                "cgroup_ingress",
                &closed,
                LOOPBACK,
                None,
            ),
            (
                "by UDP",
                "cgroup_ingress",
                &Packet::udp(net.client, net.backend),
                VETH,
                None,
            ),
            (
                "a stranger",
                "cgroup_ingress",
                &Packet::tcp(stranger, net.backend, tcp::SYN),
                VETH,
                no,
            ),
            (
                "what the pod begins",
                "cgroup_egress",
                &Packet::tcp(port(50_000), stranger, tcp::SYN),
                VETH,
                None,
            ),
            (
                "the answer to that",
                "cgroup_ingress",
                &Packet::tcp(stranger, port(50_000), tcp::SYN | tcp::ACK),
                VETH,
                None,
            ),
        ] {
            let ran = kernel.run_in(program, &packet.bytes(), &seen_at(at))?;
            let verdict = if refused.is_some() { DROP } else { PASS };
            assert_eq!(ran.verdict, verdict, "{what}: {ran:?}");
            let counted: Vec<_> = refused.into_iter().map(|counter| (counter, 1)).collect();
            assert_eq!(ran.counted, counted, "{what}");
        }
        // Another pod, or none.
        kernel
            .datapath
            .policy_table()?
            .cgroups()
            .release(HOST_POD)?;
        let ran = kernel.run_in("cgroup_ingress", &closed.bytes(), &seen_at(VETH))?;
        assert_eq!(ran.verdict, PASS, "{ran:?}");
        drop(inside);
    }
    Ok(())
}

#[test]
fn a_change_meets_connections_of_the_nodes_network_that_stand() -> Result<()> {
    for net in nets() {
        let (kernel, _inside) = judged(&net, 0, CLIENTS)?;
        let run = |flags| {
            let packet = Packet::tcp(net.client, net.backend, flags);
            kernel.run_in("cgroup_egress", &packet.bytes(), &seen_at(VETH))
        };
        assert_eq!(run(tcp::SYN)?.verdict, PASS);
        assert_eq!(run(tcp::ACK)?.verdict, PASS);
        let key = PolicyVerdictKey {
            set: CLIENTS,
            identity: SERVER,
        };
        let closed = PolicyStep::PutVerdict(key, policy::REFUSE);
        let on = policy::flags::ENFORCED | policy::flags::UNKNOWN_CLOSED;
        set(&kernel, &[closed, control(on, 2)])?;
        let ran = run(tcp::ACK)?;
        assert_eq!(ran.verdict, DROP);
        assert!(counts(&ran.counted, Counter::DropPolicyEgress), "{ran:?}");
        set(&kernel, &[control(0, 3)])?;
        assert_eq!(run(tcp::ACK)?.verdict, PASS, "off");
        let known = kernel.time(
            "cgroup_egress",
            &Packet::tcp(net.client, net.backend, tcp::ACK).bytes(),
        )?;
        println!("off: {known} ns");
    }
    Ok(())
}
