//! What becomes of a frame: the programs' decisions, carried out on bytes.
//!
//! The kernel's part is that of a host which has one way out for every address but its own, and knows no pod's address:
//! nothing goes straight to a pod, no name is answered, and XDP sends nothing itself. Packets are short enough for every
//! way.

use abi::Counter;
use abi::masquerade::families;
use abi::protocol::TCP;
use packet::balance::masquerade::{self, Echo};
use packet::balance::{self, Kind, bounces, source_changes, tunnel};
use packet::checksum::{self, difference, kernel_difference};
use packet::parse::{ETHERNET_LEN, TCP_LEN, VLAN_LEN};
use packet::policy::{self, Policies, Side};
use packet::quote::Way;
use packet::refuse::{self, Undelivered};
use packet::{
    Address as _, Bytes as _, Decision, Family, Flow as _, Fragment, Headers, Link, Place, Tables,
    Transport, V4, V6, parse, quote, reply,
};

use crate::Memory;

/// What a program returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The frame goes on.
    Next,
    /// It is dropped.
    Dropped,
    /// It is sent away from here.
    Sent,
}

/// One of the packet programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// `pod_ingress`.
    PodIngress,
    /// `device_ingress`.
    DeviceIngress,
    /// `pod_egress`, with the index of the device where the packet arrived at the host; zero where the host sent it.
    PodEgress(u32),
    /// `device_egress`, with the same.
    DeviceEgress(u32),
    /// `device_xdp`.
    Xdp,
    /// `cgroup_ingress`: a packet of another device than the loopback, from its IP header on. In the index of the device
    /// stands the number of the pod whose cgroup it is.
    CgroupIngress,
    /// `cgroup_egress`, as that.
    CgroupEgress,
}

/// What became of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ran {
    /// The verdict.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// What was counted.
    pub counted: Vec<Counter>,
}

impl Memory {
    /// Runs a program on a frame that is seen at the device of an index.
    #[must_use]
    pub fn run(&mut self, program: Program, frame: &[u8], ifindex: u32) -> Ran {
        self.settle();
        let mut run = Run {
            memory: self,
            ifindex,
            frame: frame.to_vec(),
            counted: Vec::new(),
        };
        let side = match program {
            Program::CgroupIngress => Some(Side::Ingress),
            Program::CgroupEgress => Some(Side::Egress),
            _ => None,
        };
        let verdict = match (parse::link(frame), side) {
            (Link::V4(ETHERNET_LEN), Some(side)) => run.at_cgroup::<V4>(side),
            (Link::V6(ETHERNET_LEN), Some(side)) => run.at_cgroup::<V6>(side),
            (Link::V4(l3), None) => run.at::<V4>(program, l3),
            (Link::V6(l3), None) => run.at::<V6>(program, l3),
            (_, Some(_)) | (Link::Other, None) => Ok(Verdict::Next),
        };
        let verdict = verdict.unwrap_or_else(|counter| {
            run.counted.push(counter);
            Verdict::Dropped
        });
        Ran {
            verdict,
            frame: run.frame,
            counted: run.counted,
        }
    }
}

pub(crate) struct Run<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) ifindex: u32,
    pub(crate) frame: Vec<u8>,
    pub(crate) counted: Vec<Counter>,
}

impl Run<'_> {
    fn at<F: Family>(&mut self, program: Program, l3: u32) -> Result<Verdict, Counter>
    where
        Memory: Tables<F> + Policies<F>,
    {
        let mut headers = F::headers(self.frame.as_slice(), l3);
        let mut to = headers.tuple;
        let is_icmp = headers.transport == Transport::Icmp;
        let place = match program {
            Program::PodIngress => Place::Pod,
            Program::DeviceIngress => Place::Device,
            Program::Xdp => Place::Wire,
            Program::PodEgress(_) | Program::DeviceEgress(_) => {
                return self.leave(program, headers);
            }
            Program::CgroupIngress | Program::CgroupEgress => return Ok(Verdict::Next),
        };
        if is_icmp
            && program != Program::Xdp
            && let Some(verdict) = self.mend(&headers, Way::Arriving)
        {
            return verdict;
        }
        if is_icmp
            && place == Place::Device
            && self.masquerades::<F>()
            && (self.answer_echo(headers, &mut to) || self.mend_echo(&headers))
        {
            return Ok(Verdict::Next);
        }
        if is_icmp
            && program == Program::DeviceIngress
            && let Some(verdict) = self.relay(&headers)
        {
            return verdict;
        }
        let decision = if place != Place::Pod && tunnel::may_be(&headers) {
            self.take_off(program, &mut headers, &mut to)
        } else {
            balance::balance(self.memory, place, self.ifindex, &mut headers, &mut to)
        };
        self.counted.append(&mut self.memory.counted.borrow_mut());
        let passes = match decision {
            Decision::Pass | Decision::Answer | Decision::Rewrite(_) => true,
            Decision::Refuse | Decision::Drop(_) => false,
        };
        if place == Place::Pod && passes {
            let translated = matches!(
                decision,
                Decision::Rewrite(Kind::New | Kind::Forward | Kind::Checked)
            );
            let tuple = if translated { &to } else { &headers.tuple };
            self.judge(Side::Egress, &headers, &to, tuple)?;
        }
        if place == Place::Device && decision == Decision::Pass && self.masquerades::<F>() {
            masquerade::note_asked(self.memory, &headers);
        }
        match decision {
            Decision::Pass | Decision::Answer => Ok(Verdict::Next),
            Decision::Drop(counter) => Err(counter),
            Decision::Refuse if program == Program::Xdp => {
                self.counted.push(Counter::XdpNoEndpoint);
                Ok(Verdict::Next)
            }
            Decision::Refuse => Ok(self.refuse(&headers)),
            Decision::Rewrite(kind @ (Kind::Tunnel | Kind::TunnelNew)) => {
                self.tunnel(program, &headers, &to, kind)
            }
            Decision::Rewrite(kind) if program == Program::Xdp => {
                Ok(self.rewrite_frame(&headers, &to, kind))
            }
            Decision::Rewrite(kind) => self.carry(place, &headers, &to, kind),
        }
    }

    /// Of a packet at the cgroup of a pod.
    fn at_cgroup<F: Family>(&mut self, side: Side) -> Result<Verdict, Counter>
    where
        Memory: Tables<F> + Policies<F>,
    {
        // What is in front of the IP header is not there for its programs.
        let link = self
            .frame
            .drain(..ETHERNET_LEN as usize)
            .collect::<Vec<u8>>();
        let headers = F::headers(self.frame.as_slice(), 0);
        let judged = self.judge(side, &headers, &headers.tuple, &headers.tuple);
        self.frame.splice(..0, link);
        judged.map(|()| Verdict::Next)
    }

    /// Of a packet that leaves.
    fn leave<F: Family>(
        &mut self,
        program: Program,
        mut headers: Headers<F>,
    ) -> Result<Verdict, Counter>
    where
        Memory: Tables<F> + Policies<F>,
    {
        let mut to = headers.tuple;
        let decision = if headers.transport == Transport::Icmp {
            if let Some(verdict) = self.mend(&headers, Way::Leaving) {
                return verdict;
            }
            Decision::Pass
        } else {
            reply(self.memory, &mut headers, &mut to)
        };
        if let Program::PodEgress(arrived) = program
            && arrived != 0
            && arrived != self.ifindex
        {
            self.judge(Side::Ingress, &headers, &to, &headers.tuple)?;
        }
        if decision == Decision::Rewrite(Kind::Reply) {
            self.rewrite(&headers, &to);
            self.counted.push(Counter::TcReply);
            return Ok(Verdict::Next);
        }
        if let Program::DeviceEgress(arrived) = program
            && (decision == Decision::Rewrite(Kind::Forward)
                || arrived != 0 && self.masquerades::<F>())
        {
            return self.masquerade(headers, &mut to, decision);
        }
        Ok(Verdict::Next)
    }

    /// Whether pods' packets to the outside get this node's address.
    fn masquerades<F: Family>(&self) -> bool {
        let family = if F::NUMBER == abi::family::V4 {
            families::V4
        } else {
            families::V6
        };
        self.memory.start().masquerade.families & family != 0
    }

    /// Of a packet that leaves by a node device: this node's address, if it is a pod's for the outside.
    fn masquerade<F: Family>(
        &mut self,
        mut headers: Headers<F>,
        to: &mut F::Flow,
        known: Decision,
    ) -> Result<Verdict, Counter>
    where
        Memory: Tables<F>,
    {
        let is_icmp = headers.transport == Transport::Icmp;
        let decision = if known == Decision::Rewrite(Kind::Forward) {
            known
        } else {
            let frame = self.frame.as_slice();
            if is_icmp && masquerade::echo(frame, &mut headers) != Some(Echo::Request) {
                return Ok(Verdict::Next);
            }
            masquerade::leave(self.memory, &headers, to)
        };
        match decision {
            Decision::Rewrite(_) if is_icmp => self.rewrite_echo(&headers, to),
            Decision::Rewrite(_) => self.rewrite(&headers, to),
            Decision::Drop(counter) => return Err(counter),
            Decision::Pass | Decision::Answer | Decision::Refuse => return Ok(Verdict::Next),
        }
        self.counted.push(Counter::TcMasquerade);
        Ok(Verdict::Next)
    }

    /// Of an ICMP error about an echo request: whether it is for a pod, which gets it.
    fn mend_echo<F: Family>(&mut self, headers: &Headers<F>) -> bool
    where
        Memory: Tables<F>,
    {
        let quote = quote::echo_request(self.frame.as_slice(), headers);
        let mended = quote.and_then(|quote| {
            let mended = quote::mend(self.memory, Way::Arriving, headers, &quote.tuple)?;
            Some((quote, mended))
        });
        let Some((quote, mended)) = mended else {
            return false;
        };
        self.mend_bytes(headers, &quote, &mended);
        self.counted.push(Counter::TcIcmpError);
        true
    }

    /// Of an echo reply that arrives at a node device: whether it is for a pod, which gets it.
    fn answer_echo<F: Family>(&mut self, mut headers: Headers<F>, to: &mut F::Flow) -> bool
    where
        Memory: Tables<F>,
    {
        let found = masquerade::echo(self.frame.as_slice(), &mut headers) == Some(Echo::Reply)
            && masquerade::arrive(self.memory, &headers, to) == Decision::Rewrite(Kind::Reply);
        if found {
            self.rewrite_echo(&headers, to);
            self.counted.push(Counter::TcMasquerade);
        }
        found
    }

    /// By the policies of the pod at the link where the packet is seen.
    fn judge<F: Family>(
        &self,
        side: Side,
        headers: &Headers<F>,
        to: &F::Flow,
        tuple: &F::Flow,
    ) -> Result<(), Counter>
    where
        Memory: Tables<F> + Policies<F>,
    {
        if !self.memory.enforces()
            || bounces::<F>(&headers.tuple, to)
            || policy::is_exempt(self.frame.as_slice(), headers)
        {
            return Ok(());
        }
        let judged = policy::judge::<F, _>(
            self.memory,
            side,
            self.ifindex,
            tuple,
            headers.tcp_flags,
            false,
        );
        match judged {
            Ok(_) => {
                if headers.fragment == Fragment::First {
                    balance::keep_fragment::<F, _>(self.memory, headers);
                }
                Ok(())
            }
            Err(_) if headers.transport == Transport::Elsewhere && headers.tuple.proto() == 0 => {
                Err(Counter::DropFragment)
            }
            Err(counter) => Err(counter),
        }
    }

    /// At a classifier.
    fn carry<F: Family>(
        &mut self,
        place: Place,
        headers: &Headers<F>,
        to: &F::Flow,
        kind: Kind,
    ) -> Result<Verdict, Counter> {
        let counter = match kind {
            Kind::New | Kind::TunnelNew => Counter::TcNewFlow,
            Kind::Reply | Kind::Nested => Counter::TcReply,
            Kind::Forward | Kind::Checked | Kind::Tunnel => Counter::TcForward,
        };
        let ours = source_changes::<F>(&headers.tuple, to);
        if ours && place == Place::Pod && bounces::<F>(&headers.tuple, to) {
            self.rewrite(headers, to);
            self.counted.push(counter);
            return Ok(self.bounce());
        }
        if ours {
            self.decrement_ttl(headers)?;
        }
        self.rewrite(headers, to);
        let verdict = if ours {
            self.forward::<F>(headers.l3, to.daddr())?
        } else {
            Verdict::Next
        };
        self.counted.push(counter);
        Ok(verdict)
    }

    /// Sends a packet on by the host's routes.
    pub(crate) fn forward<F: Family>(
        &mut self,
        l3: u32,
        daddr: F::Address,
    ) -> Result<Verdict, Counter> {
        let tags = (l3 - ETHERNET_LEN) / VLAN_LEN;
        self.frame.drain(12..12 + (tags * VLAN_LEN) as usize);
        let own = F::node_address(&self.memory.start().node);
        if own.is_some_and(|own| own.is(daddr)) {
            return Err(Counter::DropNoRoute);
        }
        Ok(Verdict::Sent)
    }

    /// The same in a frame of XDP, where a checksum is updated once. What changes its source is left to TC.
    fn rewrite_frame<F: Family>(
        &mut self,
        headers: &Headers<F>,
        to: &F::Flow,
        kind: Kind,
    ) -> Verdict {
        let from = &headers.tuple;
        if source_changes::<F>(from, to) {
            if kind == Kind::New {
                self.counted.push(Counter::XdpNewFlow);
            }
            return Verdict::Next;
        }
        let addresses = difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        );
        if let Some(offset) = F::CHECK_OFFSET {
            let at = headers.l3 + offset;
            let check = checksum::updated(self.half(at), addresses);
            self.store(at, &check.to_ne_bytes());
        }
        let (old, new) = (from.ports(), to.ports());
        let change = addresses + difference(old.into(), new.into());
        let check_at = match headers.transport {
            Transport::Tcp => Some(headers.l4 + 16),
            Transport::Udp => Some(headers.l4 + 6),
            Transport::Sctp => {
                self.rewrite_sctp(headers, to);
                None
            }
            Transport::Elsewhere | Transport::Icmp | Transport::Other => None,
        };
        if let Some(at) = check_at {
            self.store(headers.l4, &new.to_ne_bytes());
            let check = if headers.transport == Transport::Udp {
                checksum::updated_udp(self.half(at), change)
            } else {
                checksum::updated(self.half(at), change)
            };
            self.store(at, &check.to_ne_bytes());
        }
        self.store_addresses::<F>(headers.l3, to.saddr(), to.daddr());
        self.counted.push(match kind {
            Kind::New | Kind::TunnelNew => Counter::XdpNewFlow,
            Kind::Reply | Kind::Nested => Counter::XdpReply,
            Kind::Forward | Kind::Checked | Kind::Tunnel => Counter::XdpForward,
        });
        Verdict::Next
    }

    pub(crate) fn decrement_ttl<F: Family>(&mut self, headers: &Headers<F>) -> Result<(), Counter> {
        if headers.ttl <= 1 {
            return Err(Counter::DropTtlExceeded);
        }
        let left = headers.ttl - 1;
        if let Some(offset) = F::CHECK_OFFSET {
            let half = |ttl| u64::from(u16::from_ne_bytes([ttl, 0]));
            let change = kernel_difference(difference(half(headers.ttl), half(left)));
            self.replace(headers.l3 + offset, change, false);
        }
        self.store(headers.l3 + F::TTL_OFFSET, &[left]);
        Ok(())
    }

    /// Answers that nobody listens; what cannot be answered is dropped.
    fn refuse<F: Family>(&mut self, headers: &Headers<F>) -> Verdict {
        self.counted.push(Counter::TcNoEndpoint);
        let answered = match headers.transport {
            Transport::Tcp => self.reset(headers),
            Transport::Udp | Transport::Sctp => self.undelivered(headers),
            Transport::Icmp | Transport::Elsewhere | Transport::Other => None,
        };
        answered.unwrap_or(Verdict::Dropped)
    }

    fn reset<F: Family>(&mut self, headers: &Headers<F>) -> Option<Verdict> {
        let segment = self.frame.as_slice().words::<5>(headers.l4)?;
        let answer = refuse::reset(headers, &segment)?;
        let l4 = headers.l3 + refuse::header_len::<F>();
        self.frame.resize((l4 + TCP_LEN) as usize, 0);
        let flow = headers.tuple.reversed();
        self.store_header::<F>(headers.l3, &refuse::header::<F>(&flow, TCP, TCP_LEN));
        self.store_words(l4, &answer);
        Some(self.bounce())
    }

    fn undelivered<F: Family>(&mut self, headers: &Headers<F>) -> Option<Verdict> {
        let own_len = refuse::header_len::<F>();
        let bytes = self.frame.as_slice();
        let mut quoted = match refuse::quoted_transport_len(headers) {
            TCP_LEN => checksum::sum(&bytes.words::<5>(headers.l4)?),
            _ => checksum::sum(&bytes.words::<2>(headers.l4)?),
        };
        if F::CHECK_OFFSET.is_none() {
            if headers.l4 - headers.l3 != own_len {
                return None;
            }
            let ip = self.frame.as_slice().words::<10>(headers.l3)?;
            quoted += checksum::sum(&ip);
        }
        let icmp = refuse::undelivered(headers, Undelivered::NoPort, quoted);
        let quoted_len = refuse::quoted_len(headers);
        self.frame.truncate((headers.l3 + quoted_len) as usize);
        if headers.l3 != ETHERNET_LEN {
            // The kernel makes no room in a tagged frame.
            return None;
        }
        let room = (own_len + refuse::ICMP_LEN) as usize;
        let at = ETHERNET_LEN as usize;
        self.frame.splice(at..at, std::iter::repeat_n(0, room));
        let flow = headers.tuple.reversed();
        let len = refuse::ICMP_LEN + quoted_len;
        self.store_header::<F>(headers.l3, &refuse::header::<F>(&flow, F::ICMP, len));
        self.store_words(headers.l3 + own_len, &icmp);
        Some(self.bounce())
    }

    /// Of an ICMP error about a flow's packet; `None` for what is none.
    fn mend<F: Family>(
        &mut self,
        headers: &Headers<F>,
        way: Way,
    ) -> Option<Result<Verdict, Counter>>
    where
        Memory: Tables<F>,
    {
        let quote = quote::quote(self.frame.as_slice(), headers)?;
        match quote::mend(self.memory, way, headers, &quote.tuple) {
            None if way == Way::Arriving => Some(Ok(Verdict::Next)),
            None => None,
            Some(mended) => {
                let ours = way == Way::Arriving && !mended.saddr.is(headers.tuple.saddr());
                if ours && let Err(counter) = self.decrement_ttl(headers) {
                    return Some(Err(counter));
                }
                self.mend_bytes(headers, &quote, &mended);
                let sent = if ours {
                    self.forward::<F>(headers.l3, mended.daddr)
                } else {
                    Ok(Verdict::Next)
                };
                if sent.is_ok() {
                    self.counted.push(Counter::TcIcmpError);
                }
                Some(sent)
            }
        }
    }
}
