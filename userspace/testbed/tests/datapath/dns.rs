//! Real resolvers' queries through every path: names that the tables hold are answered before any server is asked, and
//! no server runs.

use std::net::{IpAddr, SocketAddr};

use abi::protocol::UDP as UDP_PROTOCOL;
use abi::{Counter, DnsAnswer, DnsControl, DnsName, dns};
use anyhow::{Context as _, Result};
use bpf::{DnsTable, XdpPass};
use testbed::balancer::Service;
use testbed::topology::{NODE4, NODE6, UPLINK};

use crate::paths::{Path, Stage};

const NAME: &str = "web.default.svc.cluster.local";
const WIRE: &[u8] = b"\x03web\x07default\x03svc\x07cluster\x05local\x00";
const SERVICE4: [u8; 4] = [10, 96, 0, 10];
const SERVICE6: [u8; 16] = [0xfd, 0x10, 0, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa];
/// Where this node's instance would listen.
const LOCAL_PORT: u16 = 10_053;

fn table(stage: &Stage) -> Result<DnsTable> {
    table_until(stage, u32::MAX)
}

/// Names are answered; queries are sent to this node's instance until then.
fn table_until(stage: &Stage, local_until_secs: u32) -> Result<DnsTable> {
    let mut table = DnsTable::open(&stage.node.bpffs().join("fairlead"))?;
    let answer = DnsAnswer {
        addr4: [10, 96, 0, 1],
        ttl: 30.into(),
        zone_at: u8::try_from(WIRE.len() - b"\x07cluster\x05local\x00".len())?,
        flags: dns::flags::A,
        ..DnsAnswer::default()
    };
    table.write(&[], &[(DnsName::new(WIRE).context("a name")?, answer)])?;
    table.set_control(&DnsControl {
        service4: SERVICE4,
        service6: SERVICE6,
        local4: NODE4.octets(),
        local6: NODE6.octets(),
        service_port: 53.into(),
        local_port: LOCAL_PORT.into(),
        serial: 7.into(),
        answers_until_secs: u32::MAX,
        local_until_secs,
        ..DnsControl::default()
    })?;
    Ok(table)
}

/// What dig says, a blank between any two words.
fn dig(stage: &Stage, v6: bool, arguments: &[&str]) -> Result<String> {
    let server: IpAddr = if v6 { SERVICE6.into() } else { SERVICE4.into() };
    let mut command = stage.client().command("dig".as_ref())?;
    command.args(["+nocookie", "+tries=1", "+time=2", "+nosearch"]);
    let output = command.arg(format!("@{server}")).args(arguments).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn answered_by(stage: &mut Stage) -> Result<Vec<(Counter, u64)>> {
    let counters = stage.balancer()?.datapath().counters()?;
    let answers = counters
        .into_iter()
        .filter(|(counter, _)| matches!(counter, Counter::TcDnsAnswer | Counter::XdpDnsAnswer));
    Ok(answers
        .map(|(counter, value)| (counter, value.packets))
        .filter(|(_, packets)| *packets > 0)
        .collect())
}

/// A Service without endpoints, or with one on the node where nobody listens: what is not answered is refused.
fn names_are_answered(path: Path, endpoint: bool, counter: Counter) -> Result<()> {
    let mut stage = Stage::set(path)?;
    for (service, node) in [
        (IpAddr::from(SERVICE4), IpAddr::from(NODE4)),
        (IpAddr::from(SERVICE6), IpAddr::from(NODE6)),
    ] {
        let at = SocketAddr::new(node, LOCAL_PORT);
        stage.balancer()?.put(&[Service {
            frontends: vec![SocketAddr::new(service, 53)],
            protocol: UDP_PROTOCOL,
            backends: if endpoint { vec![at] } else { Vec::new() },
            affinity_secs: 0,
        }])?;
    }
    let mut woken = None;
    if counter == Counter::XdpDnsAnswer {
        let node = &stage.node;
        let balancer = stage.balancer.as_mut().context("the agent runs")?;
        balancer.let_xdp_transmit(node)?;
        // veth wakes the receiver of a frame that XDP sent back only where a program runs there.
        let outside = stage.node.outside().netns();
        woken = Some(outside.run(|| Ok(XdpPass::attach(UPLINK)?))?);
    }
    let table = table(&stage)?;
    let mut asked = 0;
    for v6 in [false, true] {
        let whole = dig(
            &stage,
            v6,
            &["+noedns", "WeB.default.svc.cluster.local", "A"],
        )?;
        assert!(
            whole.contains("status: NOERROR"),
            "{whole}, after {:?}",
            stage.balancer()?.datapath().counters()?
        );
        assert!(whole.contains("flags: qr aa rd;"), "{whole}");
        assert!(
            whole.contains(";WeB.default.svc.cluster.local. IN A"),
            "{whole}"
        );
        assert!(whole.contains("30 IN A 10.96.0.1"), "{whole}");
        let edns = dig(&stage, v6, &["+dnssec", NAME, "A"])?;
        assert!(edns.contains("flags: do; udp: 1232"), "{edns}");
        let none = dig(&stage, v6, &[NAME, "AAAA"])?;
        assert!(
            none.contains("status: NOERROR") && none.contains("ANSWER: 0"),
            "{none}"
        );
        assert!(
            none.contains("ns.dns.cluster.local. hostmaster.cluster.local. 7 "),
            "{none}"
        );
        asked += 3;
        let other = dig(&stage, v6, &["none.default.svc.cluster.local", "A"])?;
        assert!(!other.contains("status:"), "nobody answers: {other}");
    }
    let answered = answered_by(&mut stage)?;
    // XDP too: what has no room behind for its answer has it before.
    assert_eq!(answered, [(counter, asked)]);
    // The process that holds the zone ends: no answer of its outlives it.
    drop(table);
    let ended = dig(&stage, false, &[NAME, "A"])?;
    assert!(!ended.contains("status:"), "{ended}");
    assert_eq!(answered_by(&mut stage)?, answered);
    drop(woken);
    Ok(())
}

/// The socket hook sends the query to this node's instance; TC answers it on its way there.
#[test]
fn at_the_socket() -> Result<()> {
    names_are_answered(Path::Socket, false, Counter::TcDnsAnswer)
}

#[test]
fn on_the_pod_link() -> Result<()> {
    names_are_answered(Path::PodLink, false, Counter::TcDnsAnswer)
}

#[test]
fn cluster_ip_by_xdp() -> Result<()> {
    names_are_answered(Path::XdpClusterIp, false, Counter::XdpDnsAnswer)
}

#[test]
fn cluster_ip_by_tc() -> Result<()> {
    names_are_answered(Path::TcClusterIp, false, Counter::TcDnsAnswer)
}

/// From a veth XDP does not send: it leaves a query to TC as it is, also where it could carry it to an endpoint.
#[test]
fn cluster_ip_by_tc_behind_xdp() -> Result<()> {
    names_are_answered(Path::XdpClusterIp, true, Counter::TcDnsAnswer)
}

/// Queries of a pod go to this node's instance while it answers, to the Service's others when it does not; a socket that
/// was connected to it goes on, too.
mod local {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::process::{Child, ChildStdin, ChildStdout, Stdio};

    use testbed::probe::How;
    use testbed::topology::{REMOTE4, REMOTE6};

    use super::*;

    /// A client with one connected UDP socket.
    struct Connected {
        child: Child,
        stdin: ChildStdin,
        stdout: BufReader<ChildStdout>,
    }

    impl Connected {
        fn new(stage: &Stage, target: SocketAddr) -> Result<Self> {
            let script = format!(
                "exec 3<>/dev/udp/{}/{}; while read -r _; do printf query >&3; timeout 2 dd bs=64 count=1 <&3 2>/dev/null || echo; done",
                target.ip(),
                target.port()
            );
            let mut command = stage.client().command("bash".as_ref())?;
            command.args(["-c", &script]);
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdin = child.stdin.take().context("stdin")?;
            let stdout = BufReader::new(child.stdout.take().context("stdout")?);
            Ok(Self {
                child,
                stdin,
                stdout,
            })
        }

        fn ask(&mut self) -> Result<String> {
            self.stdin.write_all(b"\n")?;
            let mut line = String::new();
            self.stdout.read_line(&mut line)?;
            Ok(line
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned())
        }
    }

    impl Drop for Connected {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn goes_to_the_instance_that_answers(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        let mut servers = Vec::new();
        for (v6, service) in [
            (false, IpAddr::from(SERVICE4)),
            (true, IpAddr::from(SERVICE6)),
        ] {
            let (node, remote): (IpAddr, IpAddr) = if v6 {
                (NODE6.into(), REMOTE6.into())
            } else {
                (NODE4.into(), REMOTE4.into())
            };
            let at = |addr| SocketAddr::new(addr, LOCAL_PORT);
            servers.push(stage.node.place()?.serve_udp("local", at(node))?);
            servers.push(
                stage
                    .node
                    .outside()
                    .place()
                    .serve_udp("other", at(remote))?,
            );
            let target = SocketAddr::new(service, 53);
            stage.balancer()?.put(&[Service {
                frontends: vec![target],
                protocol: UDP_PROTOCOL,
                backends: vec![at(node), at(remote)],
                affinity_secs: 0,
            }])?;
            let who = |stage: &Stage, how| {
                let seen = stage.client().probe(how, target)?;
                assert_eq!(seen.peer, Some(target), "{how:?} {seen:?}");
                seen.backend
                    .with_context(|| format!("{how:?} {:?}", seen.error))
            };
            let table = table(&stage)?;
            for how in [How::UdpConnected, How::UdpUnconnected] {
                for _ in 0..6 {
                    assert_eq!(who(&stage, how)?, "local", "{how:?}");
                }
            }
            let mut connected = Connected::new(&stage, target)?;
            assert_eq!(connected.ask()?, "local");
            // The zone's holder ends: the very next query goes elsewhere, on a socket that was connected as well.
            drop(table);
            for how in [How::UdpConnected, How::UdpUnconnected] {
                for _ in 0..6 {
                    assert_eq!(who(&stage, how)?, "other", "{how:?}");
                }
            }
            assert_eq!(connected.ask()?, "other", "the connected socket");
            let table = self::table(&stage)?;
            assert_eq!(who(&stage, How::UdpConnected)?, "local");
            // A flow that was begun stays with its backend.
            assert_eq!(connected.ask()?, "other", "the connected socket, again");
            drop(table);
        }
        Ok(())
    }

    /// The instance had names answered by the programs, and is an endpoint like the others until its process is killed:
    /// nothing is sent to it then, though its endpoint is still there.
    fn passes_by_what_is_gone(path: Path) -> Result<()> {
        let mut stage = Stage::set(path)?;
        let at = |addr: IpAddr| SocketAddr::new(addr, LOCAL_PORT);
        let (here, there) = (at(NODE4.into()), at(REMOTE4.into()));
        let _here = stage.node.place()?.serve_udp("local", here)?;
        let _there = stage.node.outside().place().serve_udp("other", there)?;
        let target = SocketAddr::new(SERVICE4.into(), 53);
        stage.balancer()?.put(&[Service {
            frontends: vec![target],
            protocol: UDP_PROTOCOL,
            backends: vec![here, there],
            affinity_secs: 0,
        }])?;
        let ask = |stage: &Stage| -> Result<std::collections::BTreeSet<String>> {
            (0..24)
                .map(|_| {
                    let seen = stage.client().probe(How::UdpConnected, target)?;
                    seen.backend.with_context(|| format!("{:?}", seen.error))
                })
                .collect()
        };
        let table = table_until(&stage, 0)?;
        assert_eq!(ask(&stage)?.len(), 2, "both have their share");
        drop(table);
        assert_eq!(ask(&stage)?, ["other".to_owned()].into());
        Ok(())
    }

    #[test]
    fn what_is_gone_at_the_socket() -> Result<()> {
        passes_by_what_is_gone(Path::Socket)
    }

    #[test]
    fn what_is_gone_on_the_pod_link() -> Result<()> {
        passes_by_what_is_gone(Path::PodLink)
    }

    #[test]
    fn at_the_socket() -> Result<()> {
        goes_to_the_instance_that_answers(Path::Socket)
    }

    #[test]
    fn on_the_pod_link() -> Result<()> {
        goes_to_the_instance_that_answers(Path::PodLink)
    }
}
