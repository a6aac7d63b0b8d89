//! One logic twice: packets through the programs in the kernel and through the simulator, over the same tables.
//! Verdict, bytes, counters and flows must be the same.
//!
//! A few seconds here; `FAIRLEAD_DIFFERENTIAL_CASES=N` runs N random packets, `FAIRLEAD_DIFFERENTIAL_SEED=N` begins
//! elsewhere. What fails names the seed of its history.

mod frames;
mod pair;
mod worlds;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use abi::Counter;
use anyhow::Result;
use simulator::Program;
use testbed::packet::{Packet, Transport, tcp};

use self::pair::Pair;
use crate::kernel::{VETH, nets};

/// Packets of a run as part of the tests.
const CASES: u64 = 9_600;
/// Packets of a history, over tables that stay as they are.
const HISTORY: u64 = 200;
/// Histories over one kernel's flows: more of those would fill its table, and the least recently used give way.
const HISTORIES: u64 = 6;

const PROGRAMS: [(&str, Program); 9] = [
    ("pod_ingress", Program::PodIngress),
    ("device_ingress", Program::DeviceIngress),
    ("pod_egress", Program::PodEgress(VETH)),
    ("pod_egress", Program::PodEgress(0)),
    ("device_egress", Program::DeviceEgress(VETH)),
    ("device_egress", Program::DeviceEgress(0)),
    ("device_xdp", Program::Xdp),
    ("cgroup_ingress", Program::CgroupIngress),
    ("cgroup_egress", Program::CgroupEgress),
];

fn variable(name: &str, default: u64) -> u64 {
    let asked = std::env::var(name).ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn kernel_and_simulator_agree_on_random_packets() -> Result<()> {
    let cases = variable("FAIRLEAD_DIFFERENTIAL_CASES", CASES);
    let first = variable("FAIRLEAD_DIFFERENTIAL_SEED", 1);
    let mut done = 0;
    let mut seen = BTreeMap::new();
    let mut seed = first;
    while done < cases {
        let mut pair = Pair::new()?;
        for _ in 0..HISTORIES {
            let mut random = fastrand::Rng::with_seed(seed);
            pair.tables(&mut random)?;
            pair.inside(|pair| {
                for at in 0..HISTORY {
                    let frame = frames::random(&mut random);
                    let (name, program) = PROGRAMS[random.usize(0..PROGRAMS.len())];
                    let what = format!("seed {seed}, packet {at}");
                    pair.packet(&what, name, program, &frame, &mut seen)?;
                }
                Ok(())
            })?;
            pair.assert_counters(seed)?;
            pair.assert_quotas(seed)?;
            done += HISTORY;
            seed += 1;
        }
        pair.assert_flows(seed)?;
    }
    println!("{done} packets, from seed {first} on: {seen:?}");
    // Every way was taken: a run that tried nothing would agree, too.
    for counter in [
        Counter::TcNewFlow,
        Counter::TcForward,
        Counter::TcReply,
        Counter::TcNoEndpoint,
        Counter::TcIcmpError,
        Counter::TcTunnelled,
        Counter::TcUntunnelled,
        Counter::XdpUntunnelled,
        Counter::SnatInstead,
        Counter::XdpNewFlow,
        Counter::XdpForward,
        Counter::TcMasquerade,
        Counter::DropTruncated,
        Counter::DropMalformed,
        Counter::DropFragment,
        Counter::DropSource,
        Counter::DropQuota,
        Counter::DropTtlExceeded,
        Counter::DropPolicyEgress,
        Counter::DropPolicyIngress,
        Counter::DropPolicyUnknown,
    ] {
        let label = counter.label();
        assert!(seen.contains_key(label), "no {label} in {seen:?}");
    }
    Ok(())
}

#[test]
fn kernel_and_simulator_agree_on_packets_cut_at_every_byte() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.tables(&mut fastrand::Rng::with_seed(7))?;
    let mut seen = BTreeMap::new();
    let mut whole = Vec::new();
    for net in nets() {
        let mut options = Packet::tcp(net.client, net.service, tcp::SYN);
        options.tags = vec![(0x8100, 7)];
        if net.node.is_ipv4() {
            options.options = vec![1; 12];
        } else {
            options.extensions = vec![(0, vec![0; 6]), (60, vec![0; 14]), (43, vec![0; 6])];
        }
        let mut first = Packet::udp(net.client, net.service);
        first.payload = vec![7; 48];
        first.fragment = Some((0, 24, 9));
        let mut overlapping = first.clone();
        overlapping.fragment = Some((8, 24, 9));
        let unchecked = Transport::Udp { checked: false };
        let error = frames::error(net.node, &Packet::tcp(net.backend, net.client, tcp::ACK), 0);
        let (proto, kind) = if net.node.is_ipv4() {
            (1, 8)
        } else {
            (58, 128)
        };
        let node = SocketAddr::new(net.node, 0);
        let mut asked = Packet::new(node, net.client, Transport::Raw(proto));
        asked.payload = vec![kind, 0, 0, 0, 0xee, 0x48, 0, 7];
        whole.extend(
            [
                Packet::tcp(net.client, net.service, tcp::SYN),
                options,
                first,
                overlapping,
                Packet::new(net.client, net.service, unchecked),
                Packet::sctp(net.client, net.service, false),
                error,
                frames::error(net.client.ip(), &asked, 0),
            ]
            .map(|packet| packet.bytes()),
        );
    }
    pair.inside(|pair| {
        for (number, whole) in whole.iter().enumerate() {
            for len in 14..=whole.len() {
                for (name, program) in PROGRAMS {
                    let what = format!("packet {number} cut to {len}");
                    pair.packet(&what, name, program, &whole[..len], &mut seen)?;
                }
            }
        }
        Ok(())
    })?;
    pair.assert_counters(7)?;
    pair.assert_flows(7)
}
