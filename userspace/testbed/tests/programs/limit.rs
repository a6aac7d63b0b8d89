//! A pod's bandwidth.

use std::time::{Duration, Instant};

use abi::{Bucket, Counter, Limit};
use anyhow::Result;
use bpf::PodLinks;
use testbed::packet::{Packet, tcp};

use crate::kernel::{Kernel, LOOPBACK, NEXT, Net, SHOT, nets};

const PROGRAMS: [&str; 2] = ["pod_ingress", "pod_egress"];

fn packet(net: &Net) -> Packet {
    Packet {
        payload: vec![7; 946],
        ..Packet::tcp(net.client, net.backend, tcp::ACK)
    }
}

/// What a limit says of one of [`PROGRAMS`] alone.
fn limit(program: &str, bucket: Bucket) -> Limit {
    let mut limit = Limit::default();
    if program == "pod_ingress" {
        limit.sent = bucket;
    } else {
        limit.got = bucket;
    }
    limit
}

#[test]
fn what_is_more_than_may_be_is_dropped() -> Result<()> {
    for net in nets() {
        for program in PROGRAMS {
            let kernel = Kernel::new()?;
            let links = PodLinks::open(&kernel.root())?;
            let packet = packet(&net);
            // Ten packets at once, and another one each two seconds.
            let bucket = Bucket {
                bytes_per_sec: packet.bytes().len() as u64 / 2,
                burst_ns: 20_000_000_000,
                empty_at_ns: 0,
            };
            links.limit(LOOPBACK + 5, &limit(program, bucket))?;
            kernel.expect("another link's", program, &packet, NEXT, &packet, None);
            links.limit(LOOPBACK, &limit(program, bucket))?;
            let begun = Instant::now();
            let mut passed = 0;
            for _ in 0..30 {
                let ran = kernel.run(program, &packet.bytes())?;
                if ran.verdict == NEXT {
                    passed += 1;
                    assert_eq!(ran.counted, []);
                } else {
                    assert_eq!(ran.verdict, SHOT);
                    assert_eq!(ran.counted, [(Counter::DropBandwidth, 1)]);
                }
            }
            let waited = begun.elapsed().as_secs() as u32 / 2;
            assert!((10..=11 + waited).contains(&passed), "{program}: {passed}");
            let other = PROGRAMS[usize::from(program == PROGRAMS[0])];
            kernel.expect("the other way", other, &packet, NEXT, &packet, None);
            // Other limits hold at once.
            links.limit(LOOPBACK, &Limit::default())?;
            kernel.expect("without", program, &packet, NEXT, &packet, None);
        }
    }
    Ok(())
}

/// A rate is kept over many packets, whatever their number.
#[test]
fn a_rate_is_kept() -> Result<()> {
    let net = &nets()[0];
    let kernel = Kernel::new()?;
    let links = PodLinks::open(&kernel.root())?;
    let packet = packet(net).bytes();
    let bucket = Bucket {
        bytes_per_sec: 1_000_000,
        burst_ns: 10_000_000,
        empty_at_ns: 0,
    };
    links.limit(LOOPBACK, &limit("pod_ingress", bucket))?;
    let begun = Instant::now();
    let mut runs = 0_u64;
    while begun.elapsed() < Duration::from_millis(500) {
        let run = || kernel.datapath.test_run("pod_ingress", &packet, &[], 1_000);
        kernel.netns().run(|| Ok(run()?))?;
        runs += 1_000;
    }
    let took = begun.elapsed();
    let counters = kernel.datapath.counters()?;
    let dropped = counters
        .iter()
        .find(|(counter, _)| *counter == Counter::DropBandwidth)
        .map_or(0, |(_, value)| value.packets);
    let passed = (runs - dropped) * packet.len() as u64;
    let may = 1_000_000.0 * took.as_secs_f64();
    // The bucket leaks while nobody fills it, between two calls: less than its rate may pass.
    assert!((passed as f64) < may + 12_000.0, "{passed} of {may} octets");
    assert!(passed as f64 > may / 4.0, "{passed} of {may} octets");
    Ok(())
}
