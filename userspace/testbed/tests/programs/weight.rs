//! What the programs cost: instructions that the verifier walks, and time on packets of known flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use abi::events::kinds;
use anyhow::{Context as _, Result};
use bpf::{Watch, Watched};
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, LOOPBACK, TCP, VETH, nets};
use crate::policy;

/// What the verifier may walk.
const VERIFIED: &str = include_str!("verified_instructions.txt");

#[test]
fn programs_stay_within_their_bounds() -> Result<()> {
    let mut kernel = Kernel::new()?;
    let mut columns = Vec::new();
    for (id, net) in (1..).zip(nets()) {
        // The kernel runs the program on one buffer again and again, so the service is its own backend: a packet
        // that becomes what it was finds its flow the next time, too.
        kernel.service(id, net.backend, TCP, Some(net.backend), true)?;
        let first = Packet::tcp(net.client, net.backend, tcp::SYN);
        kernel.run("pod_ingress", &first.bytes())?;
        let accepted = Packet::tcp(net.backend, net.client, tcp::SYN | tcp::ACK);
        kernel.run("pod_egress", &accepted.bytes())?;
        let forward = Packet::tcp(net.client, net.backend, tcp::ACK).bytes();
        let reply = Packet::tcp(net.backend, net.client, tcp::ACK).bytes();
        let other = Packet::tcp(net.client, net.node_socket(), tcp::ACK).bytes();
        columns.push((forward, reply));
        columns.push((other.clone(), other));
    }
    let mut arp = columns[0].0.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    columns.push((arp.clone(), arp));

    let status = kernel.datapath.status()?;
    println!(
        "{:<16}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "program", "verified", "flow v4", "other v4", "flow v6", "other v6", "ARP"
    );
    let mut heavier = Vec::new();
    let bounds: BTreeMap<&str, u32> = VERIFIED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, bound) = line.split_once(' ').context("a program and a number")?;
            Ok((name, bound.trim().parse()?))
        })
        .collect::<Result<_>>()?;
    let loaded: BTreeSet<&str> = status.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(loaded, bounds.keys().copied().collect());
    for (name, bound) in bounds {
        let program = status
            .programs
            .iter()
            .find(|program| program.name == name)
            .with_context(|| format!("{name} is not loaded"))?;
        let verified = program.verified_instructions;
        let mut row = format!("{name:<16}{verified:>10}");
        if name.starts_with("pod") || name.starts_with("device") {
            for (forward, reply) in &columns {
                let packet = if name.ends_with("egress") {
                    reply
                } else {
                    forward
                };
                row += &format!("{:>7} ns", kernel.time(name, packet)?);
            }
        }
        println!("{row}");
        if verified > bound {
            heavier.push(format!("{name}: {verified}, not {bound} at most"));
        }
    }
    assert!(heavier.is_empty(), "verified instructions: {heavier:?}");
    Ok(())
}

/// What is told of costs nothing worth a name while nobody watches: an event that is told costs many times more.
#[test]
fn a_drop_costs_little_more_than_before_while_nobody_watches() -> Result<()> {
    let net = &nets()[0];
    let kernel = policy::client_judged(net)?;
    let closed = SocketAddr::new(net.backend.ip(), 1);
    let dropped = Packet::tcp(net.client, closed, tcp::SYN).bytes();
    let unwatched_ns = kernel.time("pod_ingress", &dropped)?;
    let watch = |kinds, one_in| Watch::start(&kernel.root(), Watched { kinds, one_in });
    let rare = watch(kinds::DROP, 1_000)?;
    let sampled_ns = kernel.time("pod_ingress", &dropped)?;
    drop(rare);
    let others = watch(kinds::NEW, 1)?;
    let others_ns = kernel.time("pod_ingress", &dropped)?;
    drop(others);
    let mut all = watch(kinds::DROP, 1)?;
    let all_ns = kernel.time("pod_ingress", &dropped)?;
    println!(
        "a drop by policy: {unwatched_ns} ns, {others_ns} where other things are watched, {sampled_ns} where one of 1000 \
         is told, {all_ns} where all are"
    );
    let (told, lost) = (std::iter::from_fn(|| all.take()).count(), all.lost()?);
    assert!(told > 1_000 && lost > 10_000, "{told} told, {lost} lost");
    Ok(())
}

/// Policies at both ends of what goes straight, on a packet of a known conversation.
#[test]
fn a_known_conversation_costs_little_more_where_it_is_judged() -> Result<()> {
    for net in nets() {
        let mut kernel = policy::both_judged(&net)?;
        kernel.pod(net.client.ip(), LOOPBACK)?;
        kernel.pod(net.backend.ip(), VETH)?;
        // Not for this device: it is judged as if it went straight, and stays what it is.
        let opens = Packet::tcp(net.client, net.backend, tcp::SYN).bytes();
        let goes_on = Packet::tcp(net.client, net.backend, tcp::ACK).bytes();
        kernel.run("pod_ingress", &opens)?;
        let least = |packet| -> Result<u32> {
            let times = (0..5).map(|_| kernel.time("pod_ingress", packet));
            Ok(times
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .min()
                .unwrap_or(0))
        };
        let (judged_ns, opens_ns) = (least(&goes_on)?, least(&opens)?);
        policy::set(&kernel, &[policy::control(0, 2)])?;
        let free_ns = least(&goes_on)?;
        println!("{free_ns} ns, judged {judged_ns} ns, opening again {opens_ns} ns");
        // What opens is looked up each time.
        let [judged, opens] = [judged_ns, opens_ns].map(|ns| ns.saturating_sub(free_ns));
        assert!(judged * 3 < opens * 2, "{judged} ns, {opens} ns");
    }
    Ok(())
}
