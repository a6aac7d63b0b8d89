//! What whoever watches is told: of every new flow, drop, refusal and verdict, with the reason that was counted, and
//! nothing of packets of known flows; nothing at all when nobody watches.

use std::net::SocketAddr;

use abi::events::{WATCHERS, kinds};
use abi::{Counter, Event, Judged};
use anyhow::Result;
use bpf::{Watch, Watched};
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, LOOPBACK, TCP, UDP, nets};
use crate::policy;

const ALL: Watched = Watched {
    kinds: kinds::ALL,
    one_in: 1,
};

fn told(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.take()).collect()
}

fn reasons(events: &[Event]) -> Vec<u16> {
    events.iter().map(|event| event.what).collect()
}

#[test]
fn a_watcher_is_told_what_was_counted() -> Result<()> {
    for net in nets() {
        let mut kernel = Kernel::new()?;
        kernel.service(1, net.service, TCP, Some(net.backend), true)?;
        kernel.service(2, net.service, UDP, None, true)?;
        kernel.whole_address(net.service.ip())?;
        let syn = Packet::tcp(net.client, net.service, tcp::SYN).bytes();
        let ack = Packet::tcp(net.client, net.service, tcp::ACK).bytes();
        let lost = Packet::udp(net.client, net.service).bytes();
        let mut cut = syn.clone();
        cut.truncate(syn.len() - 30);
        let other = Packet::tcp(net.client, net.node_socket(), tcp::SYN).bytes();

        kernel.run("pod_ingress", &syn)?;
        let mut watch = Watch::start(&kernel.root(), ALL)?;
        let drops = Watched {
            kinds: kinds::DROP,
            one_in: 1,
        };
        let mut second = Watch::start(&kernel.root(), drops)?;
        assert!(told(&mut watch).is_empty(), "of what was before");
        for program in ["pod_ingress", "device_ingress"] {
            for packet in [&syn, &ack, &lost, &cut, &other] {
                kernel.run(program, packet)?;
            }
        }
        kernel.run("device_xdp", &cut)?;
        let events = told(&mut watch);
        let (none, short) = (Counter::TcNoEndpoint, Counter::DropTruncated);
        // The flow is known to both, as one SYN began it before.
        let expected = [none, short, none, short, short].map(|counter| counter as u16);
        assert_eq!(reasons(&events), expected);
        assert_eq!(reasons(&told(&mut second)), [short as u16; 3]);
        for event in &events {
            assert_eq!(event.dport.get(), net.service.port(), "{event:?}");
            assert_eq!((event.ifindex, event.pid), (LOOPBACK, 0), "{event:?}");
            assert!(event.time_ns > 0 && event.bytes > 0, "{event:?}");
        }

        // Another client's flow.
        let mut client = net.client;
        client.set_port(50_000);
        let syn = Packet::tcp(client, net.service, tcp::SYN).bytes();
        kernel.run("pod_ingress", &syn)?;
        let events = told(&mut watch);
        assert_eq!(reasons(&events), [Counter::TcNewFlow as u16]);
        assert_eq!(events[0].to_dport.get(), net.backend.port());
        assert_eq!((events[0].sport.get(), events[0].proto), (50_000, TCP));
        assert_eq!((watch.lost()?, second.lost()?), (0, 0));

        drop(watch);
        kernel.run("pod_ingress", &lost)?;
        let mut again = Watch::start(&kernel.root(), ALL)?;
        assert!(told(&mut again).is_empty(), "nobody watched");
    }
    Ok(())
}

#[test]
fn verdicts_of_policies_and_forged_sources_are_told_of() -> Result<()> {
    for net in nets() {
        let mut kernel = policy::client_judged(&net)?;
        let mut watch = Watch::start(&kernel.root(), ALL)?;
        let closed = SocketAddr::new(net.backend.ip(), 1);
        for (to, expected) in [
            (
                net.service,
                vec![Judged::Egress as u16, Counter::TcNewFlow as u16],
            ),
            (net.service, vec![]),
            (closed, vec![Counter::DropPolicyEgress as u16]),
        ] {
            kernel.run(
                "pod_ingress",
                &Packet::tcp(net.client, to, tcp::SYN).bytes(),
            )?;
            let events = told(&mut watch);
            assert_eq!(reasons(&events), expected, "{to}");
            if to == net.service && !events.is_empty() {
                assert_eq!(events[0].to_dport.get(), net.backend.port());
            }
        }

        let checked = abi::Device {
            flags: abi::devices::flags::SOURCE_CHECKED,
        };
        kernel.datapath.set_device(LOOPBACK, checked)?;
        let forged = Packet::tcp(net.client, net.service, tcp::SYN).bytes();
        kernel.run("pod_ingress", &forged)?;
        let events = told(&mut watch);
        assert_eq!(reasons(&events), [Counter::DropForged as u16]);
        let seen = (events[0].sport.get(), events[0].ifindex);
        assert_eq!(seen, (net.client.port(), LOOPBACK));
    }
    Ok(())
}

#[test]
fn a_ring_that_is_full_says_how_much_was_lost() -> Result<()> {
    const EVENTS: u64 = 4_096;
    let net = &nets()[0];
    let mut kernel = Kernel::new()?;
    kernel.service(1, net.service, UDP, None, true)?;
    let lost = Packet::udp(net.client, net.service).bytes();
    let mut watch = Watch::start(&kernel.root(), ALL)?;
    let mut rare = Watch::start(&kernel.root(), Watched { one_in: 64, ..ALL })?;
    for _ in 0..EVENTS {
        kernel.datapath.test_run("pod_ingress", &lost, &[], 1)?;
    }
    let kept = told(&mut watch).len() as u64;
    assert!(kept > 1_000 && kept < EVENTS, "{kept} of {EVENTS}");
    assert_eq!(watch.lost()?, EVENTS - kept);
    assert_eq!(watch.lost()?, 0, "said once");
    let sampled = told(&mut rare).len();
    assert!(
        (16..256).contains(&sampled),
        "{sampled} of {EVENTS}, one in 64"
    );
    Ok(())
}

#[test]
fn no_more_watch_than_there_are_rings() -> Result<()> {
    let kernel = Kernel::new()?;
    let mut watchers = Vec::new();
    for _ in 0..WATCHERS {
        watchers.push(Watch::start(&kernel.root(), ALL)?);
    }
    let refused = Watch::start(&kernel.root(), ALL).expect_err("one too many");
    assert!(
        refused.to_string().contains("fairlead monitor"),
        "{refused}"
    );
    watchers.pop();
    Watch::start(&kernel.root(), ALL)?;
    Ok(())
}
