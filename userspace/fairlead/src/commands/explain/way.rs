//! The way of a connection, decision by decision.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use abi::affinity::client;
use abi::frontends::flags::{LEAST, SPREAD};
use abi::{
    AffinityKey, BackendId, Counter, Flow4, Flow6, FlowState4, FlowState6, Quota, ServiceId,
};
use bpf::{Flow, Trial, View};
use net::{Link, Netns};
use packet::socket::{self, Sent};
use packet::{Address as _, Family, Shared as _, V4, V6};
use plan::Tables;
use simulator::{Memory, Start};
use zerocopy::FromZeros as _;
use zerocopy::network_endian::U16;

use super::super::cluster::Names;
use super::ends::{At, Client};
use super::frame::{self, Ends};
use super::{End, Explanation, Step, named};

/// Verdicts of linux/pkt_cls.h and linux/bpf.h.
const TC_SHOT: u32 = 2;
const TC_REDIRECT: u32 = 7;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// A port that a client might take.
const CLIENT_PORT: u16 = 49_152;

/// What is needed to go along.
pub(super) struct Way<'a> {
    pub(super) view: &'a View,
    pub(super) trial: Trial,
    pub(super) tables: &'a Tables,
    pub(super) names: &'a Names,
    pub(super) links: &'a [Link],
    pub(super) client: &'a Client,
    pub(super) to: SocketAddr,
    pub(super) protocol: u8,
}

/// How it ended.
struct Ended {
    end: End,
    backend: Option<SocketAddr>,
    reason: String,
}

impl Way<'_> {
    pub(super) fn explain(&self) -> anyhow::Result<Explanation> {
        let mut steps = Vec::new();
        let mut notes = Vec::new();
        let ended = self.walk(&mut steps, &mut notes)?;
        let service = self.service_of(self.to);
        if let Some(service) = service {
            let whose = ["the Service", "its namespace"];
            for (whose, bound) in whose.into_iter().zip(self.view.bounds(service)?) {
                notes.extend(bound.map(|bound| bound_note(whose, &bound)));
            }
        }
        Ok(Explanation {
            client: named(self.from(), self.names),
            to: self.to,
            protocol: frame::protocol_name(self.protocol),
            service: service.map(|id| self.service_name(id)),
            steps,
            outcome: ended.end,
            node: match ended.end {
                End::Sent => ended.backend,
                End::Unchanged => Some(self.to).filter(|to| !self.is_here(to.ip())),
                _ => None,
            }
            .and_then(|addr| self.names.node_of(addr.ip()))
            .map(str::to_owned),
            backend: ended.backend.map(|addr| named(addr, self.names)),
            reason: ended.reason,
            notes,
        })
    }

    fn walk(&self, steps: &mut Vec<Step>, notes: &mut Vec<String>) -> anyhow::Result<Ended> {
        let mut to = self.to;
        let mut chosen = None;
        let local = !matches!(self.client.at, At::Outside(_));
        if local && self.has_socket_hook()? {
            let called = if self.to.is_ipv4() {
                self.call::<V4>(addr4(self.to.ip()), steps, notes)?
            } else {
                self.call::<V6>(addr6(self.to.ip()), steps, notes)?
            };
            match called {
                Called::Ends(ended) => return Ok(ended),
                Called::GoesTo(backend) => {
                    to = backend;
                    chosen = Some(backend);
                }
                Called::AsItIs => {}
            }
        } else if local {
            notes.push(
                "no cgroup has the socket hooks: connections are balanced packet by packet"
                    .to_owned(),
            );
        }
        match self.client.at {
            At::Node => Ok(match chosen {
                Some(backend) => {
                    self.reaches(backend, "the socket was sent there before any packet")
                }
                None => Ended {
                    end: End::Unchanged,
                    backend: None,
                    reason:
                        "the host's own packets pass no program of Fairlead's before they leave"
                            .to_owned(),
                },
            }),
            At::Pod(ifindex) => self.packet(ifindex, "pod_ingress", to, chosen, steps, notes),
            At::Outside(ifindex) => {
                let frame = if self.has_xdp(ifindex)? {
                    match self.xdp(ifindex, to, steps, notes)? {
                        Arrived::Ends(ended) => return Ok(ended),
                        Arrived::Goes(frame) => Some(frame),
                    }
                } else {
                    None
                };
                self.classified(ifindex, "device_ingress", frame, to, None, steps, notes)
            }
        }
    }

    fn packet(
        &self,
        ifindex: u32,
        program: &'static str,
        to: SocketAddr,
        chosen: Option<SocketAddr>,
        steps: &mut Vec<Step>,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Ended> {
        self.classified(ifindex, program, None, to, chosen, steps, notes)
    }

    fn from(&self) -> SocketAddr {
        SocketAddr::new(self.client.addr, CLIENT_PORT)
    }

    /// A backend of this node gets it, or it is sent to one elsewhere.
    fn reaches(&self, backend: SocketAddr, reason: &str) -> Ended {
        let is_here = self.is_here(backend.ip());
        Ended {
            end: if is_here { End::Backend } else { End::Sent },
            backend: Some(backend),
            reason: reason.to_owned(),
        }
    }

    /// Whether an address is of this node or of a pod behind one of its links, whose policies the programs here judge.
    fn is_here(&self, addr: IpAddr) -> bool {
        let own = self.links.iter().flat_map(|link| &link.addresses);
        addr.is_loopback()
            || own.into_iter().any(|address| address.addr == addr)
            || (self.view.endpoints()).is_ok_and(|endpoints| endpoints.contains_key(&addr))
    }

    // The socket hook.

    fn call<F: Family>(
        &self,
        addr: F::Address,
        steps: &mut Vec<Step>,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Called>
    where
        Memory: packet::Tables<F>,
    {
        let hook = if self.protocol == abi::protocol::UDP {
            "connect or sendmsg"
        } else {
            "connect"
        };
        let memory = self.memory(notes)?;
        let caller = Caller {
            memory: &memory,
            is_host: self.client.at == At::Node,
            known: self.known_as(notes)?,
        };
        let sent = socket::decide::<F, _>(
            &memory,
            &caller,
            self.protocol,
            addr.reached(),
            U16::new(self.to.port()),
        );
        let (called, decision, why) = match sent {
            Sent::NotOurs => (
                Called::AsItIs,
                "the call goes on as it is".to_owned(),
                format!(
                    "no Service that this caller may use has {}/{}",
                    self.to,
                    frame::protocol_name(self.protocol)
                ),
            ),
            Sent::To(service, addr, port) => {
                let backend = SocketAddr::new(ip::<F>(addr), port.get());
                (
                    Called::GoesTo(backend),
                    format!("the socket is sent to {}", self.show(backend)),
                    self.choice(service, &memory, &caller),
                )
            }
            Sent::NotAdmitted(service) => self.call_ends(service, Counter::DropSource),
            Sent::NoEndpoint(service) => self.call_ends(service, Counter::SocketNoEndpoint),
            Sent::NoPort => {
                let reason = format!(
                    "{} is a Service's address, and has no port {}/{}",
                    self.to.ip(),
                    self.to.port(),
                    frame::protocol_name(self.protocol)
                );
                let ended = Ended {
                    end: End::Refused,
                    backend: None,
                    reason: reason.clone(),
                };
                (
                    Called::Ends(ended),
                    "the call fails with ECONNREFUSED".to_owned(),
                    reason,
                )
            }
            Sent::NoBackend(service) => self.call_ends(service, Counter::DropNoBackend),
        };
        steps.push(Step {
            at: format!("{hook}(2), at the socket"),
            by: "the logic of the programs, compiled natively, over the live tables".to_owned(),
            decision,
            why,
        });
        Ok(called)
    }

    fn call_ends(&self, service: ServiceId, counter: Counter) -> (Called, String, String) {
        let why = format!("{} (counter {})", counter.meaning(), counter.label());
        let ended = Ended {
            end: End::Refused,
            backend: None,
            reason: format!("{}: {}", self.service_name(service), counter.meaning()),
        };
        (
            Called::Ends(ended),
            "the call fails with ECONNREFUSED".to_owned(),
            why,
        )
    }

    /// Why a backend was chosen.
    fn choice(&self, service: ServiceId, memory: &Memory, caller: &Caller<'_>) -> String {
        let frontends = self.tables.frontends.iter();
        let found = frontends
            .filter(|(_, frontend)| frontend.service == service)
            .find(|(key, _)| key.socket_addr() == self.to);
        let Some((_, frontend)) = found else {
            return format!("it is {}'s", self.service_name(service));
        };
        let count = match frontend.ring_len {
            1 => "1 backend".to_owned(),
            count => format!("{count}"),
        };
        let name = self.service_name(service);
        if frontend.affinity_secs == 0 {
            let chance = if frontend.flags & LEAST != 0 {
                "of two that chance picked, the one with fewer of this node's connections"
            } else if frontend.flags & SPREAD != 0 {
                "this one by chance and weight"
            } else {
                "this one by chance"
            };
            return format!("{name} has {count}; {chance}, and another connection may get another");
        }
        let key = caller.key(service);
        match self.view_affinity(&key, memory) {
            Some(age) => format!(
                "session affinity: this client was sent there {age} s ago, and stays for {} s",
                frontend.affinity_secs
            ),
            None => format!(
                "{name} has {count} and session affinity; nothing binds this client yet, so by chance"
            ),
        }
    }

    fn view_affinity(&self, key: &AffinityKey, memory: &Memory) -> Option<u32> {
        let known = self.view.affinity(key).ok().flatten()?;
        Some(memory.now_secs().saturating_sub(known.last_used_secs))
    }

    /// The live tables in memory, with what binds this client.
    fn memory(&self, notes: &mut Vec<String>) -> anyhow::Result<Memory> {
        let now_secs = bpf::now_secs();
        let control = self.view.dns();
        let start = Start {
            tables: self.tables.clone(),
            connections: self.connections(),
            node: self.view.node()?,
            members: self.view.members()?,
            dns: (control.local_until_secs != 0)
                .then_some((control, now_secs < control.local_until_secs)),
            now_secs,
            ..Start::default()
        };
        let mut memory = Memory::new(start, fastrand::u64(..));
        if let (Some(known), Some(service)) = (self.known_as(notes)?, self.service_of(self.to)) {
            let key = AffinityKey { service, ..known };
            if let Some(affinity) = self.view.affinity(&key)? {
                memory.affinities().insert(key, affinity);
            }
        }
        Ok(memory)
    }

    /// What each backend of this service has to do, where that decides.
    fn connections(&self) -> HashMap<BackendId, u64> {
        let service = self.service_of(self.to);
        let backends = self.tables.backends.iter();
        let of_service = backends.filter(|(_, backend)| Some(backend.service) == service);
        of_service
            .map(|(id, _)| (*id, self.view.connections(*id)))
            .collect()
    }

    /// As whom the socket hook knows the client, whatever the service, where session affinity asks for it.
    fn known_as(&self, notes: &mut Vec<String>) -> anyhow::Result<Option<AffinityKey>> {
        let Some(cookie) = self.netns_cookie(notes) else {
            return Ok(None);
        };
        let pod = self.view.namespace(cookie)?;
        let addr = pod.map(|pod| match self.to {
            SocketAddr::V4(_) => pod.addr4,
            SocketAddr::V6(_) => pod.addr6,
        });
        Ok(Some(match addr.filter(|addr| *addr != [0; 16]) {
            Some(client) => AffinityKey {
                client,
                service: 0,
                client_kind: client::ADDRESS,
            },
            None => netns_client(cookie),
        }))
    }

    /// By which the socket hook knows the client's network namespace, where session affinity asks for it.
    fn netns_cookie(&self, notes: &mut Vec<String>) -> Option<u64> {
        let frontends = self.tables.frontends.iter();
        let mut bound =
            frontends.filter(|(key, it)| key.socket_addr() == self.to && it.affinity_secs != 0);
        bound.next()?;
        if self.client.at == At::Node {
            return Netns::current_cookie().ok();
        }
        let addr = self.client.addr;
        let has = |netns: &Netns| {
            // An address of the namespace can be bound to there, and no other.
            let asked = netns.run(|| {
                let bound = std::net::UdpSocket::bind((addr, 0)).is_ok();
                bound.then(Netns::current_cookie)
            });
            asked.ok().flatten()?.ok()
        };
        let found = Netns::all().iter().find_map(has);
        let note = "the client's network namespace was not found: session affinity is not taken into account";
        if found.is_none() && !notes.iter().any(|it| it == note) {
            notes.push(note.to_owned());
        }
        found
    }

    // Packets.

    fn xdp(
        &self,
        ifindex: u32,
        to: SocketAddr,
        steps: &mut Vec<Step>,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Arrived> {
        const PROGRAM: &str = "device_xdp";
        let frame = self.frame(ifindex, to);
        self.copy(self.from(), to)?;
        let context = frame::xdp(ifindex, frame.len());
        let (ran, counters) = match self.trial.run(PROGRAM, &frame, &context) {
            Ok(ran) => ran,
            // The kernel tries frames at a device only where its queues are ready for XDP.
            Err(_) => {
                notes.push(format!(
                    "device_xdp was tried as if the packet came over the loopback device, as {} cannot be tried",
                    self.device_name(ifindex)
                ));
                self.trial
                    .run(PROGRAM, &frame, &frame::xdp(0, frame.len()))?
            }
        };
        let left = frame::behind_hint(ran.packet, &ran.context);
        self.note_program(PROGRAM, notes)?;
        let why = reasons(&counters);
        let (decision, arrived) = match ran.verdict {
            XDP_DROP => ("dropped".to_owned(), Arrived::Ends(self.drops(&counters))),
            XDP_TX | XDP_REDIRECT => {
                let backend = frame::ends(&left).map(|(_, to)| to);
                let decision = backend.map_or("sent on".to_owned(), |to| {
                    format!("sent on to {}", self.show(to))
                });
                (
                    decision,
                    Arrived::Ends(Ended {
                        end: End::Sent,
                        backend,
                        reason: "XDP sends it on without the host's stack".to_owned(),
                    }),
                )
            }
            XDP_PASS => {
                let decision = match frame::ends(&left) {
                    Some((_, becomes)) if becomes != to => {
                        format!("becomes a packet for {}", self.show(becomes))
                    }
                    _ => "left to TC as it is".to_owned(),
                };
                (decision, Arrived::Goes(left))
            }
            other => (format!("XDP verdict {other}"), Arrived::Goes(left)),
        };
        steps.push(Step {
            at: format!("device_xdp on {}", self.device_name(ifindex)),
            by: "the program, run by the kernel over the live tables and copies of those that it writes".to_owned(),
            decision,
            why,
        });
        Ok(arrived)
    }

    #[expect(clippy::too_many_arguments, reason = "one place where all of it meets")]
    fn classified(
        &self,
        ifindex: u32,
        program: &'static str,
        frame: Option<Vec<u8>>,
        to: SocketAddr,
        chosen: Option<SocketAddr>,
        steps: &mut Vec<Step>,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Ended> {
        let before_xdp = frame.is_none();
        let frame = frame.unwrap_or_else(|| self.frame(ifindex, to));
        let (from, to) = frame::ends(&frame).unwrap_or((self.from(), to));
        if before_xdp {
            self.copy(from, to)?;
        }
        let (ran, counters) = self.trial.run(program, &frame, &frame::skb(ifindex))?;
        self.note_program(program, notes)?;
        let becomes = frame::ends(&ran.packet);
        let translated = becomes.is_some_and(|ends| ends != (from, to));
        let refused = [Counter::TcNoEndpoint, Counter::TcTooBig]
            .iter()
            .any(|it| counters.contains(it));
        let backend = becomes.map_or(to, |(_, to)| to);
        let earlier = !before_xdp && to != self.to;
        let (decision, ended) = match ran.verdict {
            TC_SHOT => ("dropped".to_owned(), self.drops(&counters)),
            _ if refused => (
                "answered with an error, and sent back".to_owned(),
                Ended {
                    end: End::Refused,
                    backend: None,
                    reason: reasons(&counters),
                },
            ),
            _ if counters.contains(&Counter::TcTunnelled) => (
                format!(
                    "goes to the node of {} as it came, in another packet",
                    self.show(backend)
                ),
                self.reaches(
                    backend,
                    "a backend of another node was chosen where the packet arrived (dsr)",
                ),
            ),
            verdict if translated => {
                let way = if verdict == TC_REDIRECT {
                    "past the stack"
                } else {
                    "by the stack's routing"
                };
                let (source, _) = becomes.unwrap_or((from, to));
                let snat = if source.ip() == from.ip() {
                    String::new()
                } else {
                    format!(", with {source} as its source")
                };
                (
                    format!(
                        "becomes a packet for {}{snat}, and goes there {way}",
                        self.show(backend)
                    ),
                    self.reaches(backend, "a backend was chosen where the packet arrived"),
                )
            }
            verdict => {
                let way = if verdict == TC_REDIRECT {
                    "sent on past the stack as it is"
                } else {
                    "goes on as it is, by the stack's routing"
                };
                let ended = match chosen {
                    Some(backend) => {
                        self.reaches(backend, "the socket was sent there before any packet")
                    }
                    None if earlier => self.reaches(to, "XDP chose the backend"),
                    None => Ended {
                        end: End::Unchanged,
                        backend: None,
                        reason: format!(
                            "no Service has {}/{}",
                            self.to,
                            frame::protocol_name(self.protocol)
                        ),
                    },
                };
                (way.to_owned(), ended)
            }
        };
        steps.push(Step {
            at: format!("{program} on {}", self.device_name(ifindex)),
            by: "the program, run by the kernel over the live tables and copies of those that it writes".to_owned(),
            decision,
            why: if counters.is_empty() && earlier {
                "nothing was counted: XDP has balanced it".to_owned()
            } else {
                reasons(&counters)
            },
        });
        Ok(ended)
    }

    /// What a packet of this way looks like where it is seen first.
    fn frame(&self, ifindex: u32, to: SocketAddr) -> Vec<u8> {
        let link = self.links.iter().find(|link| link.ifindex == ifindex);
        let own = link.and_then(|link| link.hardware_address.as_slice().try_into().ok());
        let endpoints = self.view.endpoints().unwrap_or_default();
        let pod = endpoints
            .get(&self.client.addr)
            .map(|endpoint| endpoint.pod_link);
        frame::opening(&Ends {
            from: self.from(),
            to,
            from_link: pod.unwrap_or([2, 0, 0, 0, 0, 1]),
            to_link: own.unwrap_or([0; 6]),
            protocol: self.protocol,
        })
    }

    /// Gives the trial what the live tables know of this conversation.
    fn copy(&self, from: SocketAddr, to: SocketAddr) -> anyhow::Result<()> {
        let tuples = [
            tuple(from, to, self.protocol),
            tuple(to, from, self.protocol),
        ];
        let client = AffinityKey {
            client: padded(self.client.addr),
            service: self.service_of(self.to).unwrap_or(0),
            client_kind: client::ADDRESS,
        };
        Ok(self.trial.copy_from(self.view, &tuples, &client)?)
    }

    fn drops(&self, counters: &[Counter]) -> Ended {
        Ended {
            end: End::Dropped,
            backend: None,
            reason: reasons(counters),
        }
    }

    // What is attached.

    fn has_socket_hook(&self) -> anyhow::Result<bool> {
        let links = self.view.status()?.links;
        Ok(links.iter().any(|link| link.program.starts_with("connect")))
    }

    fn has_xdp(&self, ifindex: u32) -> anyhow::Result<bool> {
        let links = self.view.status()?.links;
        Ok(links.iter().any(|link| {
            link.program == "device_xdp"
                && matches!(&link.on, bpf::Place::Device { ifindex: at, .. } if *at == ifindex)
        }))
    }

    fn note_program(&self, program: &'static str, notes: &mut Vec<String>) -> anyhow::Result<()> {
        if !self.trial.is_attached_one(program)? {
            notes.push(format!(
                "the attached {program} is of another build than this binary's, which was run: restart the agent, or use its binary"
            ));
        }
        Ok(())
    }

    // Words.

    fn service_of(&self, at: SocketAddr) -> Option<ServiceId> {
        let mut frontends = self.tables.frontends.iter();
        let found =
            frontends.find(|(key, _)| key.socket_addr() == at && key.proto() == self.protocol);
        found.map(|(_, frontend)| frontend.service)
    }

    fn service_name(&self, id: ServiceId) -> String {
        let name = self.names.service(id);
        name.map_or_else(|| format!("service {id}"), str::to_owned)
    }

    fn show(&self, end: SocketAddr) -> String {
        super::show(&named(end, self.names))
    }

    fn device_name(&self, ifindex: u32) -> String {
        let link = self.links.iter().find(|link| link.ifindex == ifindex);
        link.map_or_else(|| format!("device {ifindex}"), |link| link.name.clone())
    }
}

/// What a bound on flows says, and how near it is.
fn bound_note(whose: &str, bound: &Quota) -> String {
    let Quota {
        flows, flows_max, ..
    } = *bound;
    let room = if flows < flows_max {
        ""
    } else {
        "; another one that packets begin is dropped"
    };
    format!(
        "{whose} may have {flows_max} flows that packets begin on this node, and has {flows}{room}"
    )
}

/// What became of a call.
enum Called {
    Ends(Ended),
    GoesTo(SocketAddr),
    AsItIs,
}

/// What became of a frame.
enum Arrived {
    Ends(Ended),
    Goes(Vec<u8>),
}

/// Who calls.
struct Caller<'a> {
    memory: &'a Memory,
    is_host: bool,
    /// As whom session affinity knows the client, whatever the service.
    known: Option<AffinityKey>,
}

impl Caller<'_> {
    fn key(&self, service: ServiceId) -> AffinityKey {
        AffinityKey {
            service,
            ..self.known.unwrap_or_else(|| netns_client(0))
        }
    }
}

impl socket::Caller for Caller<'_> {
    fn is_host(&self) -> bool {
        self.is_host
    }

    fn client<F: Family>(&self, service: ServiceId) -> AffinityKey {
        self.key(service)
    }

    fn random<F: Family>(&self, _addr: F::Address, _port: U16) -> u32 {
        self.memory.random()
    }

    fn stays(&self) -> bool {
        false
    }

    fn counted(&self, _backend: BackendId, _service: ServiceId) {}
}

fn netns_client(cookie: u64) -> AffinityKey {
    let mut client = [0; 16];
    client[..8].copy_from_slice(&cookie.to_ne_bytes());
    AffinityKey {
        client,
        service: 0,
        client_kind: client::NETNS,
    }
}

/// What the programs counted, in words.
fn reasons(counters: &[Counter]) -> String {
    if counters.is_empty() {
        return "nothing was counted: it is no Service's".to_owned();
    }
    let words: Vec<String> = counters
        .iter()
        .map(|counter| format!("{} (counter {})", counter.meaning(), counter.label()))
        .collect();
    words.join(" ")
}

fn tuple(from: SocketAddr, to: SocketAddr, proto: u8) -> Flow {
    match (from.ip(), to.ip()) {
        (IpAddr::V4(saddr), IpAddr::V4(daddr)) => Flow::V4(
            Flow4 {
                saddr: saddr.octets(),
                daddr: daddr.octets(),
                sport: from.port().into(),
                dport: to.port().into(),
                proto,
                _pad: [0; 3],
            },
            FlowState4::new_zeroed(),
        ),
        _ => Flow::V6(
            Flow6 {
                saddr: addr6(from.ip()),
                daddr: addr6(to.ip()),
                sport: from.port().into(),
                dport: to.port().into(),
                proto,
                _pad: [0; 3],
            },
            FlowState6::new_zeroed(),
        ),
    }
}

fn padded(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.octets().padded(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn addr4(addr: IpAddr) -> [u8; 4] {
    match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

fn addr6(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn ip<F: Family>(addr: F::Address) -> IpAddr {
    let padded = addr.padded();
    let [a, b, c, d, ..] = padded;
    if F::NUMBER == abi::family::V4 {
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(padded)
    }
}
