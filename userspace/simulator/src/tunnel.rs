//! Packets in packets: what goes to another node as it came, and what comes so.

use abi::Counter;
use packet::balance::{Kind, tunnel};
use packet::parse::{ETHERNET_LEN, VLAN_LEN};
use packet::refuse;
use packet::{Bytes as _, Decision, Family, Headers, Tables};

use crate::Memory;
use crate::carry::{Program, Run, Verdict};

impl Run<'_> {
    /// Sends a packet to the node of its backend. XDP leaves that to TC: it sends nothing itself.
    pub(crate) fn tunnel<F: Family>(
        &mut self,
        program: Program,
        headers: &Headers<F>,
        to: &F::Flow,
        kind: Kind,
    ) -> Result<Verdict, Counter>
    where
        Memory: Tables<F>,
    {
        if program == Program::Xdp {
            if kind == Kind::TunnelNew {
                self.counted.push(Counter::XdpNewFlow);
            }
            return Ok(Verdict::Next);
        }
        let node = F::node_address(&self.memory.start().node);
        let node = node.ok_or(Counter::DropNoNodeAddress)?;
        if packet::Address::is(packet::Flow::daddr(to), node) {
            return Err(Counter::DropNoRoute);
        }
        self.decrement_ttl(headers)?;
        let l3 = headers.l3;
        let first = self.frame.as_slice().words::<1>(l3);
        let [first] = first.ok_or(Counter::DropRewrite)?;
        let tags = (l3 - ETHERNET_LEN) / VLAN_LEN;
        self.frame.drain(12..12 + (tags * VLAN_LEN) as usize);
        let at = ETHERNET_LEN as usize;
        let room = tunnel::outer_len::<F>() as usize;
        self.frame.splice(at..at, std::iter::repeat_n(0, room));
        let header = tunnel::header::<F>(node, to, headers.bytes, first);
        self.store_header::<F>(ETHERNET_LEN, &header);
        self.counted.push(Counter::TcTunnelled);
        self.counted.push(if kind == Kind::TunnelNew {
            Counter::TcNewFlow
        } else {
            Counter::TcForward
        });
        Ok(Verdict::Sent)
    }

    /// Takes the outer header off what another node sent. Headers and `to` are those of the packet inside then, and what
    /// is returned the decision on it; of anything else they stay as they are.
    pub(crate) fn take_off<F: Family>(
        &mut self,
        program: Program,
        headers: &mut Headers<F>,
        to: &mut F::Flow,
    ) -> Decision
    where
        Memory: Tables<F>,
    {
        let frame = self.frame.as_slice();
        let (mut inner, mut told) = (*headers, *to);
        if headers.l3 != ETHERNET_LEN
            || !tunnel::told(frame, headers, &mut told)
            || !tunnel::inner(frame, &mut inner)
        {
            return Decision::Pass;
        }
        let decision = tunnel::arrive(self.memory, self.ifindex, &mut inner, &mut told);
        if let Decision::Rewrite(_) = decision {
            let (at, len) = (ETHERNET_LEN, refuse::header_len::<F>());
            self.frame.drain(at as usize..(at + len) as usize);
            inner.l3 = at;
            inner.l4 -= len;
            self.counted.push(if program == Program::Xdp {
                Counter::XdpUntunnelled
            } else {
                Counter::TcUntunnelled
            });
        }
        if decision != Decision::Pass {
            (*headers, *to) = (inner, told);
        }
        decision
    }

    /// Of an ICMP error about a packet that went in another one; `None` for any other.
    pub(crate) fn relay<F: Family>(
        &mut self,
        headers: &Headers<F>,
    ) -> Option<Result<Verdict, Counter>>
    where
        Memory: Tables<F>,
    {
        if headers.l3 != ETHERNET_LEN {
            return None;
        }
        let frame = self.frame.as_slice();
        let relayed = tunnel::error::relay::<F, _, _>(frame, self.memory, headers)?;
        let (at, len) = (ETHERNET_LEN, refuse::header_len::<F>());
        self.frame.drain(at as usize..(at + len) as usize);
        self.store_header::<F>(at, &relayed.ip());
        self.store_words(at + len, &relayed.icmp);
        let sent = self.forward::<F>(at, packet::Flow::daddr(&relayed.flow));
        if sent.is_ok() {
            self.counted.push(Counter::TcIcmpError);
        }
        Some(sent)
    }
}
