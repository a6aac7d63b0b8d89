//! SCTP on every packet path, spoken over raw sockets: the kernel may have no such sockets itself. The ends check
//! checksums as an SCTP stack does.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use abi::protocol::SCTP;
use anyhow::{Context as _, Result, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketType, ipproto, recvfrom,
    sendto, socket,
};
use testbed::balancer::Service;
use testbed::packet::{Packet, Transport, crc32c};
use testbed::{Netns, Pod};

use crate::paths::{Path, Stage};

const PORT: u16 = 3860;
const INIT_ACK: u8 = 2;
const INIT: u8 = 1;
const DATA: u8 = 0;

/// A raw socket of a protocol.
struct Raw {
    fd: OwnedFd,
    v6: bool,
}

impl Raw {
    fn open(netns: &Netns, v6: bool, protocol: Protocol, wait: Duration) -> Result<Raw> {
        let family = if v6 {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let fd = netns.run(|| Ok(socket(family, SocketType::RAW, Some(protocol))?))?;
        set_socket_timeout(&fd, Timeout::Recv, Some(wait))?;
        Ok(Raw { fd, v6 })
    }

    /// What comes next behind IP, and from whom; `None` where nothing comes in time.
    fn receive(&self) -> Result<Option<(IpAddr, Vec<u8>)>> {
        let mut buffer = [MaybeUninit::uninit(); 2048];
        let received = recvfrom(&self.fd, &mut buffer, RecvFlags::empty());
        let ((bytes, _), _, from) = match received {
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            received => received?,
        };
        let from = SocketAddr::try_from(from.context("from somewhere")?)?.ip();
        let header = if self.v6 {
            0
        } else {
            usize::from(bytes[0] & 0xf) * 4
        };
        Ok(Some((from, bytes[header..].to_vec())))
    }

    fn send(&self, to: IpAddr, bytes: &[u8]) -> Result<()> {
        let to = SocketAddrAny::from(SocketAddr::new(to, 0));
        sendto(&self.fd, bytes, SendFlags::empty(), &to)?;
        Ok(())
    }
}

/// An SCTP packet with one chunk, from its common header on.
fn segment(from: SocketAddr, to: SocketAddr, chunk: u8, payload: &[u8]) -> Vec<u8> {
    let tag = if chunk == INIT { 0 } else { 0x1122_3344 };
    let packet = Packet {
        payload: payload.to_vec(),
        ..Packet::new(from, to, Transport::Sctp { tag, chunk })
    };
    let header = 14 + if from.is_ipv4() { 20 } else { 40 };
    packet.bytes()[header..].to_vec()
}

fn port(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Whether the checksum is that of the packet.
fn checks_out(bytes: &[u8]) -> bool {
    let mut zeroed = bytes.to_vec();
    zeroed[8..12].fill(0);
    crc32c(&zeroed).to_le_bytes() == bytes[8..12]
}

/// A pod's end.
fn listen(pod: &Pod, v6: bool) -> Result<Raw> {
    Raw::open(pod.netns(), v6, ipproto::SCTP, Duration::from_millis(50))
}

/// Answers every packet with its own name until it is to stop; returns whom it heard.
fn serve(raw: &Raw, pod: &Pod, stop: &AtomicBool) -> Result<BTreeSet<IpAddr>> {
    let v6 = raw.v6;
    let mut heard = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        let Some((from, bytes)) = raw.receive()? else {
            continue;
        };
        // The node's own packets are of no interest, nor are damaged ones answered.
        ensure!(checks_out(&bytes), "a damaged packet from {from}");
        ensure!(
            port(&bytes, 2) == PORT,
            "for port {}, not the backend's",
            port(&bytes, 2)
        );
        heard.insert(from);
        let here = SocketAddr::new(pod.address(v6), PORT);
        let answer = segment(
            here,
            SocketAddr::new(from, port(&bytes, 0)),
            INIT_ACK,
            pod.name().as_bytes(),
        );
        raw.send(from, &answer)?;
    }
    Ok(heard)
}

/// Sends one packet from a port to a service and waits for its answer: who gave it.
fn ask(raw: &Raw, from: SocketAddr, to: SocketAddr, chunk: u8, len: usize) -> Result<String> {
    raw.send(to.ip(), &segment(from, to, chunk, &vec![b'x'; len]))?;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        let Some((answered, bytes)) = raw.receive()? else {
            break;
        };
        if port(&bytes, 2) != from.port() {
            continue;
        }
        ensure!(checks_out(&bytes), "a damaged answer");
        ensure!(
            (answered, port(&bytes, 0)) == (to.ip(), to.port()),
            "{answered}:{} answered for {to}",
            port(&bytes, 0)
        );
        let len = usize::from(port(&bytes, 14));
        return Ok(String::from_utf8_lossy(&bytes[16..12 + len]).into_owned());
    }
    anyhow::bail!("no answer from {to} for {from}")
}

/// An outside or inside client's associations spread over the pods and stay there; each end sees checksums that are
/// right, and who asks a service without endpoints hears that nobody listens.
fn associations(path: Path) -> Result<()> {
    let mut stage = Stage::set(path)?;
    for v6 in [false, true] {
        let target = stage.target(v6, PORT);
        let service = |backends: Vec<SocketAddr>| Service {
            frontends: vec![target],
            protocol: SCTP,
            backends,
            affinity_secs: 0,
        };
        let backends = stage.pods(v6);
        let backends = backends.iter().map(|pod| SocketAddr::new(*pod, PORT));
        let some = service(backends.collect());
        stage.balancer()?.put(&[some])?;
        let stop = AtomicBool::new(false);
        let listening: Vec<(Raw, &Pod)> = stage
            .backends
            .iter()
            .map(|pod| Ok((listen(pod, v6)?, pod)))
            .collect::<Result<_>>()?;
        let heard = thread::scope(|scope| -> Result<Vec<BTreeSet<IpAddr>>> {
            let (stage, stop) = (&stage, &stop);
            let servers: Vec<_> = listening
                .iter()
                .map(|(raw, pod)| scope.spawn(move || serve(raw, pod, stop)))
                .collect();
            let asked = || -> Result<()> {
                let wait = Duration::from_millis(500);
                let raw = Raw::open(stage.client_netns(), v6, ipproto::SCTP, wait)?;
                let mut served = BTreeSet::new();
                for sport in 40_000..40_040 {
                    let from = SocketAddr::new(stage.client_address(v6), sport);
                    let first = ask(&raw, from, target, INIT, 16)?;
                    for len in [1, 3, 700] {
                        ensure!(ask(&raw, from, target, DATA, len)? == first, "it moved");
                    }
                    served.insert(first);
                }
                assert_eq!(served.len(), stage.backends.len(), "{served:?}");
                Ok(())
            };
            let asked = asked();
            stop.store(true, Ordering::Relaxed);
            let heard = servers
                .into_iter()
                .map(|server| {
                    server
                        .join()
                        .map_err(|_| anyhow::anyhow!("a server panicked"))?
                })
                .collect::<Result<_>>()?;
            asked.map(|()| heard)
        })?;
        let client = stage.client_address(v6);
        assert!(
            heard.iter().all(|heard| *heard == BTreeSet::from([client])),
            "{heard:?}"
        );

        let none = service(Vec::new());
        stage.balancer()?.put(&[none])?;
        let (icmp, unreachable) = if v6 {
            (ipproto::ICMPV6, [1, 4])
        } else {
            (ipproto::ICMP, [3, 3])
        };
        let wait = Duration::from_millis(500);
        let errors = Raw::open(stage.client_netns(), v6, icmp, wait)?;
        let raw = Raw::open(stage.client_netns(), v6, ipproto::SCTP, wait)?;
        let from = SocketAddr::new(client, 41_000);
        let sent = segment(from, target, INIT, &[0; 16]);
        raw.send(target.ip(), &sent)?;
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            ensure!(Instant::now() < until, "nobody says that nobody listens");
            let Some((_, bytes)) = errors.receive()? else {
                continue;
            };
            if bytes[..2] == unreachable {
                let quoted = &bytes[8 + if v6 { 40 } else { 20 }..];
                // As much as tells its sender which INIT it was (RFC 9260 section 10.1).
                assert_eq!(quoted, &sent[..20]);
                break;
            }
        }
    }
    stage.assert_used()
}

#[test]
fn on_the_pod_link() -> Result<()> {
    associations(Path::PodLink)
}

#[test]
fn node_port_by_xdp() -> Result<()> {
    associations(Path::XdpNodePort)
}

#[test]
fn cluster_ip_by_xdp() -> Result<()> {
    associations(Path::XdpClusterIp)
}

#[test]
fn node_port_by_tc() -> Result<()> {
    associations(Path::TcNodePort)
}

#[test]
fn cluster_ip_by_tc() -> Result<()> {
    associations(Path::TcClusterIp)
}
