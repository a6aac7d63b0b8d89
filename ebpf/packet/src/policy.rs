//! Whether a pod may send or receive a packet: NetworkPolicy and its kin, see [`abi::policy`].
//!
//! What is judged is a conversation: who began it, with whom, at which port of the server. Its packets in both
//! directions pass once it was let begin, at each of its ends by the policies of that end, until those change. A
//! packet is judged between its real ends, behind the translation of a service's address and before an answer's.
//!
//! A packet of TCP's that begins no connection, and is of none that is known, is its server's whose port is the lower
//! one: so connections go on that are older than their pod's policies, or that were forgotten for want of room. One
//! that comes from outside and is not known is taken so only for a while after the policies came, see
//! [`PolicyLink::adopt_until_secs`]; later it is its sender's, and judged as if it began.

use abi::policy::{
    ACCEPT, ADDRESS_BITS, CLOSED, EPOCH_BITS, IDLE_SECS, NODE, PORT_AT, REFUSE, flags,
};
use abi::protocol::{SCTP, TCP, UDP};
use abi::{
    Conversation, Counter, PolicyAnswer, PolicyControl, PolicyLink, PolicyLinkKey, PolicyPeerKey,
    PolicyPortKey, PolicyVerdictKey,
};
use zerocopy::network_endian::U16;

use crate::parse::tcp;
use crate::{Address as _, Bytes, Family, Flow as _, Headers, Transport};

/// The tables of policies. The kernel's maps implement this in `programs`, plain maps in tests.
pub trait Policies<F: Family> {
    /// What holds.
    fn control(&self) -> Option<&PolicyControl>;
    /// A pod's link.
    fn link(&self, key: &PolicyLinkKey) -> Option<&PolicyLink>;
    /// Identity of an address, [`NODE`] included.
    fn peer(&self, key: &PolicyPeerKey) -> u32;
    /// Profile of an identity in a set.
    fn verdict(&self, key: &PolicyVerdictKey) -> Option<u32>;
    /// Whether a profile has a port.
    fn port(&self, key: &PolicyPortKey) -> bool;
    /// A conversation.
    fn conversation(&self, key: &F::Flow) -> Option<Conversation>;
    /// Remembers a conversation. Where there is no room, its next packet is judged as this one was.
    fn keep_conversation(&self, key: &F::Flow, conversation: &Conversation);
    /// Seconds of `CLOCK_MONOTONIC`.
    fn policy_secs(&self) -> u32;
    /// Whether the conversation of a packet is remembered to have passed at a link a moment ago; where the packet
    /// [`opens`] one, that is forgotten. To remember nothing is right.
    fn has_passed(&self, tuple: &F::Flow, seen: &Seen, tcp_flags: u8) -> bool;
    /// Remembers that for a moment, or nothing.
    fn remember_passed(&self, tuple: &F::Flow, seen: &Seen);
    /// [`lets_pass`].
    fn lets_pass(&self, asked: &PolicyAnswer, epoch: u32, side: Side, remembers: bool) -> bool;
    /// Whether it is remembered that this passes. To remember nothing is right.
    fn is_answered(&self, asked: &PolicyAnswer) -> bool;
    /// Remembers that, or nothing.
    fn remember_answer(&self, answer: &PolicyAnswer);
}

/// Where a packet is seen, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Index of the link.
    pub link: u32,
    /// The way that it goes there.
    pub side: Side,
    /// The generation of what holds.
    pub generation: u32,
}

/// Where a packet is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Leaving the pod.
    Egress,
    /// On its way to the pod.
    Ingress,
}

/// What lets a packet pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// Its conversation was judged before, or no policy says anything of it.
    Unasked,
    /// Nothing is known of the link.
    Unknown,
    /// The policies of the link's pod were asked about what the pod begins.
    Egress,
    /// The policies of the link's pod were asked about what begins with the pod.
    Ingress,
}

/// Whether a packet is no conversation's: an ICMP error, whose receiver knows what it is about, or one of the messages
/// by which neighbours on a link find each other (RFC 4443, RFC 4861, RFC 2710, RFC 3810).
#[inline(always)]
pub fn is_exempt<F: Family, B: Bytes + ?Sized>(bytes: &B, headers: &Headers<F>) -> bool {
    if headers.transport != Transport::Icmp {
        return false;
    }
    let Some([word]) = bytes.words::<1>(headers.l4) else {
        return false;
    };
    let kind = word.to_ne_bytes()[0];
    if F::NUMBER == abi::family::V4 {
        matches!(kind, 3 | 4 | 11 | 12)
    } else {
        matches!(kind, 1..=4 | 130..=137 | 143)
    }
}

/// Judges a packet with the tuple `tuple` at the link of a pod. What passes there is remembered, if it `remembers`.
///
/// # Errors
///
/// It does not pass, and is counted under this name.
#[inline(always)]
pub fn judge<F: Family, P: Policies<F>>(
    policies: &P,
    side: Side,
    ifindex: u32,
    tuple: &F::Flow,
    tcp_flags: u8,
    remembers: bool,
) -> Result<Passed, Counter> {
    let Some(control) = policies.control() else {
        return Ok(Passed::Unasked);
    };
    if control.flags & flags::ENFORCED == 0 {
        return Ok(Passed::Unasked);
    }
    let seen = Seen {
        link: ifindex,
        side,
        generation: control.generation,
    };
    if remembers && policies.has_passed(tuple, &seen, tcp_flags) {
        return Ok(Passed::Unasked);
    }
    let passed = look_up::<F, P>(policies, control, &seen, tuple, tcp_flags, remembers)?;
    if remembers && passed != Passed::Unknown {
        policies.remember_passed(tuple, &seen);
    }
    Ok(passed)
}

/// Judges a packet of which nothing is remembered.
#[inline(always)]
fn look_up<F: Family, P: Policies<F>>(
    policies: &P,
    &PolicyControl {
        flags: how, epoch, ..
    }: &PolicyControl,
    &Seen {
        link: ifindex,
        side,
        generation,
    }: &Seen,
    tuple: &F::Flow,
    tcp_flags: u8,
    remembers: bool,
) -> Result<Passed, Counter> {
    let Some(link) = policies.link(&PolicyLinkKey { ifindex, epoch }) else {
        let is_node =
            |addr: F::Address| policies.peer(&peer_key::<F>(epoch, addr.words())) & NODE != 0;
        let answers_node = side == Side::Egress && is_node(tuple.daddr());
        return if how & flags::UNKNOWN_CLOSED == 0 || answers_node {
            Ok(Passed::Unknown)
        } else {
            Err(Counter::DropPolicyUnknown)
        };
    };
    if link.ingress | link.egress == 0 || tuple.saddr().is(tuple.daddr()) {
        return Ok(Passed::Unasked);
    }
    let now_secs = policies.policy_secs();
    let (key, sender_second) = ordered::<F>(tuple);
    let is_tcp = tuple.proto() == TCP;
    let opens = opens::<F>(tuple, tcp_flags);
    let known = match policies.conversation(&key) {
        // Whoever opens a connection begins it, whatever was before.
        Some(known) if opens && known.second_began != sender_second => None,
        Some(known) if !is_tcp && now_secs.wrapping_sub(known.last_seen_secs) > IDLE_SECS => None,
        known => known,
    };
    let second_began = match &known {
        Some(known) => known.second_began,
        None => {
            let adopted = now_secs < link.adopt_until_secs;
            // Of other protocols than TCP every packet may begin a conversation.
            let guessed = is_tcp && !opens && (adopted || side == Side::Egress);
            // The sender serves if its port is the lower one.
            let serves = guessed && tuple.sport().get() < tuple.dport().get();
            sender_second ^ u32::from(serves)
        }
    };
    let sender_began = second_began == sender_second;
    let pod_began = sender_began == (side == Side::Egress);
    let mut now = known.unwrap_or(Conversation {
        second_began,
        ..Conversation::default()
    });
    let said = if pod_began { now.egress } else { now.ingress };
    let mut passed = Passed::Unasked;
    if said != generation {
        let (set, usual) = if pod_began {
            (link.egress, link.egress_default)
        } else {
            (link.ingress, link.ingress_default)
        };
        if set != 0 {
            let remote = if side == Side::Egress {
                tuple.daddr()
            } else {
                tuple.saddr()
            };
            let port = if sender_began {
                tuple.dport()
            } else {
                tuple.sport()
            };
            let asked = PolicyAnswer {
                remote: remote.words(),
                set,
                usual,
                proto: tuple.proto(),
                family: F::NUMBER,
                port,
                generation,
            };
            let passes = policies.lets_pass(&asked, epoch, side, remembers);
            if !passes {
                return Err(if pod_began {
                    Counter::DropPolicyEgress
                } else {
                    Counter::DropPolicyIngress
                });
            }
            passed = if pod_began {
                Passed::Egress
            } else {
                Passed::Ingress
            };
        }
        if pod_began {
            now.egress = generation;
        } else {
            now.ingress = generation;
        }
    } else if now.last_seen_secs == now_secs {
        return Ok(Passed::Unasked);
    }
    now.last_seen_secs = now_secs;
    policies.keep_conversation(&key, &now);
    Ok(passed)
}

/// Whether a set lets this pass at a link, in an epoch.
#[inline(always)]
pub fn lets_pass<F: Family, P: Policies<F>>(
    policies: &P,
    asked: &PolicyAnswer,
    epoch: u32,
    side: Side,
    remembers: bool,
) -> bool {
    if remembers && policies.is_answered(asked) {
        return true;
    }
    let identity = policies.peer(&peer_key::<F>(epoch, asked.remote));
    if side == Side::Egress && identity & NODE != 0 {
        return true;
    }
    let key = PolicyVerdictKey {
        set: asked.set,
        identity: identity & !NODE,
    };
    let passes = asked.set != CLOSED
        && match policies.verdict(&key).unwrap_or(asked.usual) {
            REFUSE => false,
            ACCEPT => true,
            profile => policies.port(&port_key(profile, asked.proto, asked.port)),
        };
    if remembers && passes {
        policies.remember_answer(asked);
    }
    passes
}

/// Whether a pod's policies say what it may begin.
#[inline(always)]
pub fn limits_egress<F: Family, P: Policies<F>>(policies: &P, ifindex: u32) -> bool {
    let Some(control) = policies.control() else {
        return false;
    };
    let epoch = control.epoch;
    control.flags & flags::ENFORCED != 0
        && match policies.link(&PolicyLinkKey { ifindex, epoch }) {
            Some(link) => link.egress != 0,
            None => control.flags & flags::UNKNOWN_CLOSED != 0,
        }
}

/// Whether a packet opens a connection of TCP's.
#[inline(always)]
pub fn opens<F: Family>(tuple: &F::Flow, tcp_flags: u8) -> bool {
    tuple.proto() == TCP && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
}

/// The tuple that both directions of a conversation have, with the lower end first, and whether (one or zero) the
/// sender of this packet stands second there. Any order will do that is one.
#[inline(always)]
fn ordered<F: Family>(tuple: &F::Flow) -> (F::Flow, u32) {
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (tuple.saddr().words(), tuple.daddr().words());
    let high = |x: u32, y: u32| u64::from(x) << 32 | u64::from(y);
    let (a_high, b_high) = (high(a0, a1), high(b0, b1));
    let (a_low, b_low) = (high(a2, a3), high(b2, b3));
    let swap = if a_high != b_high {
        a_high > b_high
    } else if a_low != b_low {
        a_low > b_low
    } else {
        tuple.sport().get() > tuple.dport().get()
    };
    if swap {
        (tuple.reversed(), 1)
    } else {
        (*tuple, 0)
    }
}

#[inline(always)]
fn peer_key<F: Family>(epoch: u32, [a, b, c, d]: [u32; 4]) -> PolicyPeerKey {
    let words = if F::NUMBER == abi::family::V4 {
        [0, 0, u32::from_be(0xffff), a]
    } else {
        [a, b, c, d]
    };
    PolicyPeerKey {
        prefix_len: EPOCH_BITS + ADDRESS_BITS,
        epoch,
        addr: zerocopy::transmute!(words),
    }
}

#[inline(always)]
fn port_key(profile: u32, proto: u8, port: U16) -> PolicyPortKey {
    PolicyPortKey {
        prefix_len: PORT_AT + 16,
        profile,
        proto: match proto {
            TCP | UDP | SCTP => proto,
            _ => 0,
        },
        _pad: 0,
        port,
    }
}

#[cfg(test)]
mod tests;
