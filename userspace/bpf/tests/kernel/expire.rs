//! Flows end with silence, by protocol and state.

use abi::{Counter, protocol};
use bpf::timeout::{
    CLOSE_WAIT_SECS, CLOSED_CROWDED_SECS, CLOSED_SECS, DATAGRAMS_SECS, ESTABLISHED_SECS,
    OPENING_SECS,
};
use bpf::{Begun, Datapath};
use plan::{Step, Store};

use crate::ground::{Ground, ip};
use crate::samples::{backend, frontend, key4};

const SYN: u8 = 2;
const FIN: u8 = 1;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A frame between a client's port and a port of a server, with flags of TCP or none of UDP.
fn frame(from: ([u8; 4], u16), to: ([u8; 4], u16), flags: Option<u8>) -> Vec<u8> {
    let (proto, len) = match flags {
        Some(_) => (protocol::TCP, 40_u8),
        None => (protocol::UDP, 28),
    };
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, len, 0, 0, 0x40, 0, 64, proto, 0, 0]);
    frame.extend([from.0, to.0].concat());
    frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
    match flags {
        Some(flags) => frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x10, 0, 0, 0, 0, 0]),
        None => frame.extend([0, 8, 0, 0]),
    }
    frame
}

#[test]
fn flows_end_with_silence_by_protocol_and_state() {
    let ground = Ground::new("expire");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut settings = ground.settings();
        settings.capacities.flows = 1_024;
        let mut datapath = Datapath::open(&settings).unwrap();
        let udp = match key4(1) {
            plan::FrontendKey::V4(key) => plan::FrontendKey::V4(abi::FrontendKey4 {
                proto: protocol::UDP,
                ..key
            }),
            key @ plan::FrontendKey::V6(_) => key,
        };
        let steps = [
            Step::PutBackend(1, backend(1, 9)),
            Step::PutRing {
                offset: 0,
                backends: vec![1],
            },
            Step::PutFrontend(key4(1), frontend(1, 0, 1)),
            Step::PutFrontend(udp, frontend(1, 0, 1)),
        ];
        datapath.apply(&steps).unwrap();
        let (service, pod) = (([10, 0, 0, 1], 80), ([10, 244, 0, 9], 8080));
        let run = |program: &str, frame: &[u8]| {
            datapath.test_run(program, frame, &[], 1).unwrap();
        };
        let entries = || {
            let mut count = 0;
            let walked = datapath.walk_flows(|flows| {
                count += flows.count();
                true
            });
            walked.unwrap();
            count
        };
        // Each case is a flow: how it goes on, how long it may be silent.
        let root = ground.bpffs();
        for (n, (what, flags, later, secs)) in [
            ("never answered", Some(SYN), &[][..], OPENING_SECS),
            (
                "answered by nobody that listens further",
                Some(SYN),
                &[("pod_egress", SYN | ACK)],
                OPENING_SECS,
            ),
            (
                "open",
                Some(SYN),
                &[("pod_egress", SYN | ACK), ("pod_ingress", ACK)],
                ESTABLISHED_SECS,
            ),
            (
                "ended by the client",
                Some(SYN),
                &[("pod_ingress", FIN | ACK)],
                CLOSE_WAIT_SECS,
            ),
            (
                "ended by the server",
                Some(SYN),
                &[("pod_egress", FIN | ACK)],
                CLOSE_WAIT_SECS,
            ),
            (
                "ended by both",
                Some(SYN),
                &[("pod_ingress", FIN | ACK), ("pod_egress", FIN | ACK)],
                CLOSED_SECS,
            ),
            (
                "reset by the server",
                Some(SYN),
                &[
                    ("pod_egress", SYN | ACK),
                    ("pod_ingress", ACK),
                    ("pod_egress", RST),
                ],
                CLOSED_SECS,
            ),
            (
                "reset by the client",
                Some(SYN),
                &[("pod_egress", SYN | ACK), ("pod_ingress", RST)],
                CLOSED_SECS,
            ),
            (
                "refused",
                Some(SYN),
                &[("pod_egress", RST | ACK)],
                CLOSED_SECS,
            ),
            ("datagrams", None, &[], DATAGRAMS_SECS),
        ]
        .into_iter()
        .enumerate()
        {
            let client = ([10, 244, 0, 200], 2_000 + n as u16);
            run("pod_ingress", &frame(client, service, flags));
            for (program, flags) in later {
                let frame = match *program {
                    "pod_ingress" => frame(client, service, Some(*flags)),
                    _ => frame(pod, client, Some(*flags)),
                };
                run(program, &frame);
            }
            assert_eq!(entries(), 2, "{what}");
            let now = bpf::now_secs();
            // A second less, since the clock may have moved on.
            let forgotten = |secs| bpf::expire_flows(&root, now + secs).unwrap().forgotten;
            assert_eq!(forgotten(secs - 2), 0, "{what}");
            assert_eq!(forgotten(secs), 2, "{what}");
            assert_eq!(entries(), 0, "{what}");
        }
        let dropped = datapath.counters().unwrap().into_iter();
        let dropped = dropped
            .filter(|(counter, value)| *counter == Counter::DropFlowsFull && value.packets > 0);
        assert_eq!(dropped.count(), 0);
    });
}

#[test]
fn a_crowded_table_forgets_connections_that_both_sides_ended_sooner() {
    let ground = Ground::new("crowded");
    ground.in_netns(|| {
        ip("link set lo up");
        let mut settings = ground.settings();
        settings.capacities.flows = 1_024;
        let mut datapath = Datapath::open(&settings).unwrap();
        let steps = [
            Step::PutBackend(1, backend(1, 9)),
            Step::PutRing {
                offset: 0,
                backends: vec![1],
            },
            Step::PutFrontend(key4(1), frontend(1, 0, 1)),
        ];
        datapath.apply(&steps).unwrap();
        let (service, pod) = (([10, 0, 0, 1], 80), ([10, 244, 0, 9], 8080));
        let run = |program: &str, frame: &[u8]| {
            datapath.test_run(program, frame, &[], 1).unwrap();
        };
        let connect = |port: u16, ends: bool| {
            let client = ([10, 244, 0, 200], port);
            let last = if ends { FIN | ACK } else { ACK };
            run("pod_ingress", &frame(client, service, Some(SYN)));
            run("pod_egress", &frame(pod, client, Some(SYN | ACK)));
            run("pod_ingress", &frame(client, service, Some(last)));
            run("pod_egress", &frame(pod, client, Some(last)));
        };
        let root = ground.bpffs();
        let look = || {
            let secs = CLOSED_CROWDED_SECS;
            let looked = bpf::expire_flows(&root, bpf::now_secs() + secs).unwrap();
            let of = |table| looked.fills.iter().find(|fill| fill.table == table);
            (looked.forgotten, of("FLOWS4").unwrap().clone())
        };
        let begun = Begun::look(&root).unwrap();
        for port in 1_000..1_020 {
            connect(port, false);
        }
        for port in 2_000..2_100 {
            connect(port, true);
        }
        let (forgotten, fill) = look();
        assert_eq!((forgotten, fill.used), (0, 240), "there is room");
        assert!(Begun::look(&root).unwrap().is_far_from(&begun));
        for port in 2_100..2_200 {
            connect(port, true);
        }
        for port in 3_000..3_040 {
            connect(port, false);
        }
        let (forgotten, fill) = look();
        assert_eq!((forgotten, fill.used), (400, 120));
        assert!(!fill.is_crowded());
        assert_eq!(fill.capacity, 1_024);
    });
}
