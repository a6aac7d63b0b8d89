//! Packets of pods judged by the policies of those, where there are any.

use abi::events::kinds;
use abi::policy::flags::ENFORCED;
use abi::{
    Conversation, Counter, Flow4, Flow6, Judged, PolicyAnswer, PolicyControl, PolicyLink,
    PolicyLinkKey, PolicyPeerKey, PolicyPortKey, PolicyVerdictKey,
};
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::btf_maps::lpm_trie::Key;
use packet::balance::bounces;
use packet::policy::{self, Passed, Policies, Seen, Side};
use packet::{Bytes, Family, Flow as _, Fragment, Tables, Transport, V4, V6, hop};

use super::clock;
use super::events;
use super::maps::{
    POLICY_CONTROL, POLICY_FLOWS4, POLICY_FLOWS6, POLICY_LINKS, POLICY_PEERS, POLICY_PORTS,
    POLICY_VERDICTS,
};
use super::outlined::{Plan, Told};
use super::passed;
use super::tables::{Maps, endpoint};

/// How a packet is to be judged, as a number: the side, and whether it is judged by what it becomes.
pub(crate) mod how {
    use packet::balance::code;

    /// Leaving the pod, rather than on its way there.
    pub(crate) const EGRESS: u32 = 1 << 0;
    /// By what it becomes, rather than by what it is: a client's packet for a service.
    pub(crate) const TRANSLATED: u32 = 1 << 1;

    /// What a packet is judged by, after a decision on it.
    #[inline(always)]
    pub(crate) const fn after(decision: u32) -> u32 {
        match decision {
            code::NEW | code::FORWARD | code::CHECKED => TRANSLATED,
            _ => 0,
        }
    }

    /// The same where it goes straight to a pod: an answer may be one from outside of the cluster, to a pod that has
    /// asked with this node's address.
    #[inline(always)]
    pub(crate) const fn straight(decision: u32) -> u32 {
        match decision {
            code::REPLY => TRANSLATED,
            decision => after(decision),
        }
    }
}

/// Whether there is anything to judge by.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    match POLICY_CONTROL.get(0) {
        Some(control) => control.flags & ENFORCED != 0,
        None => false,
    }
}

/// Whether what a pod asks for must be judged behind translation, so that nothing may be answered before.
#[inline(always)]
pub(crate) fn limits_egress<F: Family>(ifindex: u32) -> bool
where
    Maps: Policies<F>,
{
    is_on() && policy::limits_egress::<F, _>(&Maps, ifindex)
}

/// The link of the pod that a packet may go straight to, having become this; zero where there is none.
#[inline(always)]
pub(crate) fn straight_to<F: Family>(to: &F::Flow, ifindex: u32) -> u32 {
    match endpoint::<F>(to.daddr()) {
        Some(pod) if hop::is_direct(pod, ifindex) => pod.ifindex,
        Some(_) | None => 0,
    }
}

/// Judges a packet at a pod's link: zero, or its counter and one. Where a packet may be seen in the middle of what is
/// done about another one, it neither `remembers` nor is remembered.
#[inline(always)]
pub(crate) fn judge<F: Told, B: Bytes>(
    bytes: &B,
    plan: &Plan<F>,
    ifindex: u32,
    how: u32,
    remembers: bool,
) -> u32
where
    Maps: Policies<F> + Tables<F>,
{
    let headers = &plan.headers;
    // A pod may always speak with itself.
    if bounces::<F>(&headers.tuple, &plan.to) || policy::is_exempt(bytes, headers) {
        return 0;
    }
    let side = if how & how::EGRESS != 0 {
        Side::Egress
    } else {
        Side::Ingress
    };
    let tuple = if how & how::TRANSLATED != 0 {
        &plan.to
    } else {
        &headers.tuple
    };
    match policy::judge::<F, _>(&Maps, side, ifindex, tuple, headers.tcp_flags, remembers) {
        Ok(passed) => {
            tell_passed(plan, passed, ifindex);
            if headers.fragment == Fragment::First {
                Maps.keep_first(headers);
            }
            0
        }
        // Without its first fragment, which was judged, it is nobody's.
        Err(_) if headers.transport == Transport::Elsewhere && headers.tuple.proto() == 0 => {
            Counter::DropFragment as u32 + 1
        }
        Err(counter) => counter as u32 + 1,
    }
}

#[inline(always)]
fn tell_passed<F: Told>(plan: &Plan<F>, passed: Passed, ifindex: u32) {
    let judged = match passed {
        Passed::Unasked | Passed::Unknown => return,
        Passed::Egress => Judged::Egress,
        Passed::Ingress => Judged::Ingress,
    };
    F::tell(
        plan,
        events::what_number(kinds::POLICY, judged as u32),
        ifindex,
    );
}

/// The time in seconds, walked by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn policy_secs() -> u32 {
    clock::secs()
}

macro_rules! policies {
    ($family:ty, $flow:ty, $flows:ident, $has_passed:path, $remember_passed:path, $lets_pass:ident) => {
        /// [`policy::lets_pass`], walked by itself.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $lets_pass(
            asked: *const PolicyAnswer,
            epoch: u32,
            egress: u32,
            remembers: u32,
        ) -> u32 {
            // SAFETY: the verifier holds callers to memory of this size, or none.
            let Some(asked) = (unsafe { asked.as_ref() }) else {
                return 0;
            };
            let side = if egress != 0 {
                Side::Egress
            } else {
                Side::Ingress
            };
            policy::lets_pass::<$family, _>(&Maps, asked, epoch, side, remembers != 0).into()
        }

        impl Policies<$family> for Maps {
            #[inline(always)]
            fn control(&self) -> Option<&PolicyControl> {
                POLICY_CONTROL.get(0)
            }

            #[inline(always)]
            fn link(&self, key: &PolicyLinkKey) -> Option<&PolicyLink> {
                // SAFETY: programs never change the map, and an element's memory stays an element of this map until
                // the program ends.
                unsafe { POLICY_LINKS.get(key) }
            }

            #[inline(always)]
            fn peer(&self, key: &PolicyPeerKey) -> u32 {
                let words: [u32; 6] = zerocopy::transmute!(*key);
                let [prefix_len, data @ ..] = words;
                match POLICY_PEERS.get(&Key::new(prefix_len, data)) {
                    Some(identity) => *identity,
                    None => abi::policy::NOBODY,
                }
            }

            #[inline(always)]
            fn verdict(&self, key: &PolicyVerdictKey) -> Option<u32> {
                // SAFETY: as above; copied out before anything else touches the map.
                unsafe { POLICY_VERDICTS.get(key) }.copied()
            }

            #[inline(always)]
            fn port(&self, key: &PolicyPortKey) -> bool {
                let words: [u32; 3] = zerocopy::transmute!(*key);
                let [prefix_len, data @ ..] = words;
                POLICY_PORTS.get(&Key::new(prefix_len, data)).is_some()
            }

            #[inline(always)]
            fn conversation(&self, key: &$flow) -> Option<Conversation> {
                // SAFETY: the entry is copied out before anything else touches the map.
                unsafe { $flows.get(key) }.copied()
            }

            #[inline(always)]
            fn keep_conversation(&self, key: &$flow, conversation: &Conversation) {
                // Refused only when no entry can be evicted at this moment; the next packet is judged then.
                let _ = $flows.insert(key, conversation, u64::from(BPF_ANY));
            }

            #[inline(always)]
            fn policy_secs(&self) -> u32 {
                policy_secs()
            }

            #[inline(always)]
            fn has_passed(&self, tuple: &$flow, seen: &Seen, tcp_flags: u8) -> bool {
                let how = passed::how(seen.side, tcp_flags);
                $has_passed(tuple, seen.link, seen.generation, how) != 0
            }

            #[inline(always)]
            fn remember_passed(&self, tuple: &$flow, seen: &Seen) {
                let how = passed::how(seen.side, 0);
                $remember_passed(tuple, seen.link, seen.generation, how);
            }

            #[inline(always)]
            fn lets_pass(
                &self,
                asked: &PolicyAnswer,
                epoch: u32,
                side: Side,
                remembers: bool,
            ) -> bool {
                let egress = side == Side::Egress;
                $lets_pass(asked, epoch, egress.into(), remembers.into()) != 0
            }

            #[inline(always)]
            fn is_answered(&self, asked: &PolicyAnswer) -> bool {
                passed::is_answered(asked)
            }

            #[inline(always)]
            fn remember_answer(&self, answer: &PolicyAnswer) {
                passed::remember_answer(answer);
            }
        }
    };
}

policies!(
    V4,
    Flow4,
    POLICY_FLOWS4,
    passed::has_passed4,
    passed::remember_passed4,
    lets_pass4
);
policies!(
    V6,
    Flow6,
    POLICY_FLOWS6,
    passed::has_passed6,
    passed::remember_passed6,
    lets_pass6
);
