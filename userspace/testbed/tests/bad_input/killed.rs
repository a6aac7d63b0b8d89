//! Killed and started again while pods speak with a host outside, which sees the node.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use client::{PatchKind, Path};
use serde_json::{Value, json};
use testbed::topology::{CLIENT4, CLIENT6, NODE4, NODE6, UPLINK};
use testbed::{Netns, Node, wait_for};

use crate::stage::{Api, PATIENCE, begin_up, kubeconfig};

/// What is not answered within this time is lost.
const ANSWER: Duration = Duration::from_secs(2);

/// A conversation that goes on word by word: what asks, and what answers.
enum Talk {
    Tcp(TcpStream, TcpStream),
    Udp(UdpSocket, UdpSocket),
}

impl Talk {
    /// Begins one from a pod to a host outside, and says whom that sees.
    fn begin(udp: bool, pod: &Netns, outside: &Netns, addr: IpAddr) -> Result<(Talk, IpAddr)> {
        let at = SocketAddr::new(addr, 0);
        if !udp {
            let listener = outside.run(|| Ok(TcpListener::bind(at)?))?;
            let target = listener.local_addr()?;
            let asks = pod.run(|| Ok(TcpStream::connect_timeout(&target, ANSWER)?))?;
            let (answers, peer) = listener.accept()?;
            for end in [&asks, &answers] {
                end.set_read_timeout(Some(ANSWER))?;
                end.set_nodelay(true)?;
            }
            return Ok((Talk::Tcp(asks, answers), peer.ip()));
        }
        let answers = outside.run(|| Ok(UdpSocket::bind(at)?))?;
        let any = if addr.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let asks = pod.run(|| Ok(UdpSocket::bind(any)?))?;
        asks.connect(answers.local_addr()?)?;
        for end in [&asks, &answers] {
            end.set_read_timeout(Some(ANSWER))?;
        }
        asks.send(b"word")?;
        let (_, peer) = answers.recv_from(&mut [0; 4])?;
        answers.connect(peer)?;
        Ok((Talk::Udp(asks, answers), peer.ip()))
    }

    /// A word there and back.
    fn word(&mut self) -> std::io::Result<()> {
        let mut word = [0; 4];
        match self {
            Talk::Tcp(asks, answers) => {
                asks.write_all(b"word")?;
                answers.read_exact(&mut word)?;
                answers.write_all(&word)?;
                asks.read_exact(&mut word)
            }
            Talk::Udp(asks, answers) => {
                asks.send(b"word")?;
                answers.recv(&mut word)?;
                answers.send(&word)?;
                asks.recv(&mut word).map(drop)
            }
        }
    }
}

#[test]
fn masqueraded_conversations_see_nothing_of_a_kill_and_a_restart() -> Result<()> {
    let node = Node::create()?;
    let pod = node.add_pod("client")?;
    let outside = node.outside().netns();
    let devices = format!("--devices={UPLINK}");
    let conf = format!("--cni-conf-dir={}", node.folder().join("net.d").display());
    let file = format!("--cni-node-file={}", node.folder().join("cni").display());
    let flags = ["--cni", "--cni-overlay=off", &devices, &conf, &file];
    let mut running = begin_up(&node, &flags)?;
    running.ready()?;
    let api = Api::in_node(&node, &kubeconfig(&node))?;
    api.talk(async |client| {
        let ranges = ["10.244.0.0/24", "fd10:244::/64"];
        let change = json!({"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}});
        let path = Path::raw("/api/v1/nodes/node-1");
        client
            .patch::<Value>(&path, PatchKind::Merge, &change)
            .await?;
        Ok(())
    })?;

    let ends: [(IpAddr, IpAddr); 2] = [
        (CLIENT4.into(), NODE4.into()),
        (CLIENT6.into(), NODE6.into()),
    ];
    let mut talks = Vec::new();
    for (far, near) in ends {
        for udp in [false, true] {
            let talk = wait_for("the node's address in the pod's place", PATIENCE, || {
                let (talk, seen) = Talk::begin(udp, pod.netns(), outside, far).ok()?;
                (seen == near).then_some(talk)
            });
            talks.push(talk.with_context(|| running.log())?);
        }
    }
    let (over, words) = (AtomicBool::new(false), AtomicU64::new(0));
    let lost = std::thread::scope(|scope| -> Result<Vec<String>> {
        let speakers: Vec<_> = talks
            .iter_mut()
            .map(|talk| {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        talk.word()?;
                        words.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Ok::<_, std::io::Error>(())
                })
            })
            .collect();
        let mut story = || -> Result<()> {
            std::thread::sleep(Duration::from_millis(300));
            running.process.kill()?;
            let killed = Instant::now();
            while killed.elapsed() < Duration::from_secs(1) {
                // New ones begin as well while nobody is there.
                for (far, near) in ends {
                    let (_, seen) = Talk::begin(false, pod.netns(), outside, far)?;
                    ensure!(seen == near, "{far} sees {seen}");
                }
            }
            let mut again = begin_up(&node, &flags)?;
            again.ready()?;
            std::thread::sleep(Duration::from_millis(500));
            for (far, near) in ends {
                let (_, seen) = Talk::begin(true, pod.netns(), outside, far)?;
                ensure!(seen == near, "{far} sees {seen}");
            }
            again.assert_terminates()
        };
        let told = story();
        over.store(true, Ordering::Relaxed);
        let ended = speakers.into_iter().map(|speaker| speaker.join());
        let lost = ended
            .filter_map(|ended| match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("a speaker panicked".to_owned()),
            })
            .collect();
        told.map(|()| lost)
    })?;
    assert_eq!(lost, [""; 0], "no word is lost");
    let words = words.into_inner();
    println!("{words} words, none lost");
    assert!(words > 400, "{words}");
    Ok(())
}
