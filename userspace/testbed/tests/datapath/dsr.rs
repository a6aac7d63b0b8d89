//! Two nodes and a client on one link: the client asks one node, a pod of the other one answers straight.
//!
//! ```text
//!   client 172.31.0.2  fd31::2 ──┐
//!   entry  172.31.0.1  fd31::1 ──┼── switch
//!   other  172.31.0.3  fd31::3 ──┘
//!     pod 10.244.1.10  fd10:244:1::10
//! ```

mod cluster;

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use abi::Counter;
use anyhow::{Context as _, Result};
use bpf::XdpMode;
use testbed::probe::How;
use testbed::{Load, Mode};

use self::cluster::{Cluster, addr, asked};
use crate::paths::{HTTP, UDP};

#[test]
fn answers_go_straight_to_the_client() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            for how in [How::Tcp, How::UdpConnected, How::UdpUnconnected] {
                let port = if how == How::Tcp { HTTP } else { UDP };
                for target in asked(v6, port) {
                    let seen = client.probe(how, target)?;
                    assert_eq!(seen.error, None, "{xdp} {how:?} {target}");
                    assert_eq!(seen.peer, Some(target), "{xdp} {how:?} {target}");
                    let who = seen.client.context("the backend saw somebody")?;
                    assert_eq!(who.ip(), addr(v6, 2), "{xdp} {how:?} {target}");
                }
            }
            let [target, _] = asked(v6, HTTP);
            let before = (cluster.passed("client")?, cluster.passed("entry")?);
            let report = client.load(&Load::requests(target, 300))?;
            assert_eq!((report.ok, report.failed), (300, 0), "{:?}", report.errors);
            let after = (cluster.passed("client")?, cluster.passed("entry")?);
            let asked = after.0.0 - before.0.0;
            let answered = after.0.1 - before.0.1;
            let entered = after.1.1 - before.1.1;
            assert!(answered > 900, "{xdp}: {answered} packets for the client");
            assert!(
                entered <= asked + 60,
                "{xdp} v6={v6}: of {answered} answers some passed the node that was asked: {entered} packets for it, \
                 {asked} from the client"
            );
        }
        for counter in [Counter::TcReply, Counter::XdpReply, Counter::SnatInstead] {
            assert_eq!(cluster.entry.counted(counter)?, 0, "{}", counter.label());
        }
        let (sent, taken) = if xdp == XdpMode::Off {
            (Counter::TcTunnelled, Counter::TcUntunnelled)
        } else {
            (Counter::XdpTunnelled, Counter::XdpUntunnelled)
        };
        assert!(cluster.entry.counted(sent)? > 1_000, "{xdp}");
        assert!(cluster.other.counted(taken)? > 1_000, "{xdp}");
    }
    Ok(())
}

#[test]
fn long_packets_find_their_length() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            let [target, _] = asked(v6, HTTP);
            let load = Load::lasting(target, Mode::Bulk, 2, Duration::from_millis(500));
            let report = client.load(&load)?;
            assert_eq!(report.failed, 0, "{xdp} v6={v6}: {:?}", report.errors);
            assert!(
                report.gbit_per_second() > 0.05,
                "{xdp} v6={v6}: {:.3} Gbit/s",
                report.gbit_per_second()
            );
            // A datagram in fragments, the first of which may be too long at first.
            let [target, _] = asked(v6, UDP);
            let answer = cluster.client.run(|| {
                let any: IpAddr = if v6 {
                    Ipv6Addr::UNSPECIFIED.into()
                } else {
                    [0; 4].into()
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_read_timeout(Some(Duration::from_millis(500)))?;
                let mut buffer = [0; 64];
                for _ in 0..10 {
                    socket.send_to(&[7; 5_000], target)?;
                    if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                        return Ok(Some((buffer[..len].to_vec(), from)));
                    }
                }
                Ok(None)
            })?;
            let (text, from) = answer.with_context(|| format!("{xdp} v6={v6}: no answer"))?;
            assert!(text.starts_with(b"web "), "{xdp} v6={v6}");
            assert_eq!(from, target);
        }
    }
    Ok(())
}

#[test]
fn an_error_of_the_backend_s_is_the_service_s() -> Result<()> {
    let cluster = Cluster::new(XdpMode::Off)?;
    for v6 in [false, true] {
        let [target, _] = asked(v6, UDP);
        let refused = cluster.client.run(|| {
            let any: IpAddr = if v6 {
                Ipv6Addr::UNSPECIFIED.into()
            } else {
                [0; 4].into()
            };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(target)?;
            socket.set_read_timeout(Some(Duration::from_secs(3)))?;
            socket.send(b"who?")?;
            Ok(socket.recv(&mut [0; 64]).map_err(|error| error.kind()))
        })?;
        assert_eq!(
            refused,
            Err(std::io::ErrorKind::ConnectionRefused),
            "v6={v6}"
        );
        let seen = Cluster::place(&cluster.client).probe(How::Tcp, asked(v6, HTTP)[0])?;
        assert_eq!(seen.error.as_deref(), Some("connection refused"));
    }
    Ok(())
}

#[test]
fn connections_live_on_without_either_agent_and_through_an_upgrade() -> Result<()> {
    for xdp in [XdpMode::Off, XdpMode::Native] {
        let mut cluster = Cluster::new(xdp)?;
        let _servers = cluster.servers()?;
        let client = Cluster::place(&cluster.client);
        for v6 in [false, true] {
            let [target, _] = asked(v6, HTTP);
            let minute = Duration::from_secs(60);
            let kept = client.start_load(&Load {
                pause_micros: 500,
                ..Load::lasting(target, Mode::Keep, 3, minute)
            })?;
            for side in [true, false] {
                let side = if side {
                    &mut cluster.entry
                } else {
                    &mut cluster.other
                };
                // What a process leaves that is killed: pins, and nobody who holds their lock.
                side.datapath = None;
                if v6 {
                    side.is_upgraded()?;
                }
                let report = client.load(&Load::requests(target, 50))?;
                assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.errors);
                side.agent_comes()?;
                let report = client.load(&Load::requests(target, 50))?;
                assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.errors);
            }
            let kept = kept.stop()?;
            assert_eq!(kept.failed, 0, "kept connections: {:?}", kept.errors);
            assert!(kept.ok > 0);
        }
    }
    Ok(())
}
