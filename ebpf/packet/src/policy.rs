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
    Conversation, Counter, PolicyControl, PolicyLink, PolicyLinkKey, PolicyPeerKey, PolicyPortKey,
    PolicyVerdictKey,
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

/// Judges a packet with the tuple `tuple` at the link of a pod.
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
) -> Result<Passed, Counter> {
    let Some(control) = policies.control() else {
        return Ok(Passed::Unasked);
    };
    let PolicyControl {
        flags: how,
        epoch,
        generation,
        ..
    } = *control;
    if how & flags::ENFORCED == 0 {
        return Ok(Passed::Unasked);
    }
    let peer = |addr: F::Address| policies.peer(&peer_key::<F>(epoch, addr));
    let Some(link) = policies.link(&PolicyLinkKey { ifindex, epoch }) else {
        let answers_node = side == Side::Egress && peer(tuple.daddr()) & NODE != 0;
        return if how & flags::UNKNOWN_CLOSED == 0 || answers_node {
            Ok(Passed::Unasked)
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
    let opens = is_tcp && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
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
            let identity = peer(remote);
            let answers_node = side == Side::Egress && identity & NODE != 0;
            let identity = identity & !NODE;
            let passes = answers_node
                || set != CLOSED
                    && match policies
                        .verdict(&PolicyVerdictKey { set, identity })
                        .unwrap_or(usual)
                    {
                        REFUSE => false,
                        ACCEPT => true,
                        profile => policies.port(&port_key(profile, tuple.proto(), port)),
                    };
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
fn peer_key<F: Family>(epoch: u32, addr: F::Address) -> PolicyPeerKey {
    let [a, b, c, d] = addr.words();
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
