//! Flows that have been silent for long enough end. The least recently used would give way to new ones anyhow; until then
//! their ports of this node are taken, and they are listed as if they lived.

use std::collections::HashSet;
use std::path::Path;

use abi::flows::flags::{CLOSING, GOES_ON, RESET};
use abi::protocol::UDP;
use abi::{Flow4, Flow6, FlowState4, FlowState6};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use crate::pins::Pins;
use crate::table::Hash;
use crate::{Error, Fill, spec};

/// Seconds of silence in both directions after which a flow is over.
pub mod timeout {
    /// Of TCP and SCTP, as kube-proxy sets connection tracking (`conntrack.tcpEstablishedTimeout`).
    pub const ESTABLISHED_SECS: u32 = 24 * 60 * 60;
    /// Where nothing but what began it was ever seen, as connection tracking has it for a SYN that nobody answered. Of a flow
    /// that began before its node's programs noted that, nothing is known, and it is taken for one that goes on.
    pub const OPENING_SECS: u32 = 120;
    /// Where one side has ended it (`conntrack.tcpCloseWaitTimeout`).
    pub const CLOSE_WAIT_SECS: u32 = 60 * 60;
    /// Where both have, or one has with a reset: twice the longest time that a segment lives (RFC 9293 section 3.4.2 has two minutes for one; systems
    /// take less).
    pub const CLOSED_SECS: u32 = 120;
    /// The same where the table is crowded: as connection tracking has it for what was reset.
    pub const CLOSED_CROWDED_SECS: u32 = 10;
    /// Of UDP, which has no end (RFC 4787 section 4.3: two minutes at least).
    pub const DATAGRAMS_SECS: u32 = 180;
    /// Of echo requests (RFC 5508 section 3.2: a minute at least).
    pub const ECHOES_SECS: u32 = 60;
}

/// Tables of flows after a look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Entries that were forgotten.
    pub forgotten: usize,
    /// What is left.
    pub fills: Vec<Fill>,
}

/// Forgets flows that are over at `now_secs`, both directions of each at once; the sooner where a table is crowded
/// ([`Fill::is_crowded`]).
///
/// # Errors
///
/// [`Error::NotLoaded`] where nothing is pinned below `bpffs_root`, [`Error::Table`] if the kernel refuses.
pub fn expire_flows(bpffs_root: &Path, now_secs: u32) -> Result<Looked, Error> {
    let pins = Pins::new(bpffs_root);
    let mut looked = Looked {
        forgotten: 0,
        fills: Vec::new(),
    };
    macro_rules! family {
        ($spec:ident, $openings:ident, $flow:ident, $state:ty) => {{
            let table: Hash<$flow, $state> = Hash::open(&pins, spec::$spec, false)?;
            let seen = |state: &$state| Seen {
                silent_secs: now_secs.saturating_sub(state.last_seen_secs),
                closing: state.flags & CLOSING != 0,
                reset: state.flags & RESET != 0,
                goes_on: state.flags & GOES_ON != 0,
            };
            let mut fill = Fill {
                table: spec::$spec.name,
                used: 0,
                capacity: table.capacity(),
                flag: spec::$spec.flag,
            };
            let mut silent: Vec<($flow, $state)> = Vec::new();
            table.walk(|keys, states| {
                fill.used += keys.len() as u32;
                let all = keys.iter().zip(states);
                let may_be = all.filter(|(key, state)| {
                    let seen = seen(state);
                    // At least as long as the shortest time that can be its own.
                    is_over(key.proto, seen, Seen { closing: true, ..seen }, true)
                        || is_over(key.proto, seen, seen, true)
                });
                silent.extend(may_be.map(|(key, state)| (*key, *state)));
                true
            })?;
            let is_crowded = fill.is_crowded();
            // Of these alone it is known that they would have been seen going on.
            let mut begun: HashSet<$flow> = HashSet::new();
            if silent.iter().any(|(key, state)| is_open(key.proto, seen(state))) {
                let openings: Hash<u32, $flow> = Hash::open(&pins, spec::$openings, false)?;
                openings.walk(|_, flows| {
                    begun.extend(flows);
                    true
                })?;
            }
            let mut over = HashSet::new();
            for (key, state) in &silent {
                let (this, answers) = (seen(state), table.get(&state.answer())?);
                // The other direction may belong to a later flow: then this one has nobody to answer it.
                let answers = answers.filter(|answers| answers.answer() == *key);
                let is_paired = answers.is_some();
                let answers = answers.as_ref().map_or(this, seen);
                let known = Seen {
                    goes_on: this.goes_on
                        || !begun.contains(key) && !begun.contains(&state.answer()),
                    ..this
                };
                if is_over(key.proto, known, answers, is_crowded) {
                    over.insert(*key);
                    if is_paired {
                        over.insert(state.answer());
                    }
                }
            }
            let over: Vec<$flow> = over.into_iter().collect();
            table.remove(&over).map_err(|(_, error)| error)?;
            fill.used -= (over.len() as u32).min(fill.used);
            looked.forgotten += over.len();
            looked.fills.push(fill);
        }};
    }
    family!(FLOWS4, OPENINGS4, Flow4, FlowState4);
    family!(FLOWS6, OPENINGS6, Flow6, FlowState6);
    Ok(looked)
}

/// How far the rings of flows that began are ([`abi::openings`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    places: [u64; 2],
    ring: u64,
}

impl Begun {
    /// Looks at the rings below a root of pins.
    ///
    /// # Errors
    ///
    /// As [`expire_flows`].
    pub fn look(bpffs_root: &Path) -> Result<Begun, Error> {
        let pins = Pins::new(bpffs_root);
        macro_rules! count {
            ($spec:ident, $flow:ident) => {{
                let ring: Hash<u32, $flow> = Hash::open(&pins, spec::$spec, false)?;
                let first = ring.get(&0)?.unwrap_or_else($flow::new_zeroed);
                let (count, _) = u64::read_from_prefix(first.as_bytes()).unwrap_or_default();
                (count, ring.capacity())
            }};
        }
        let (first, ring) = count!(OPENINGS4, Flow4);
        let (second, _) = count!(OPENINGS6, Flow6);
        Ok(Begun {
            places: [first, second],
            ring: u64::from(ring),
        })
    }

    /// Whether so many flows began since an earlier look that the table may be crowded by now: an eighth of what it holds.
    #[must_use]
    pub fn is_far_from(&self, earlier: &Begun) -> bool {
        let far = |(now, then): (u64, u64)| {
            // The count begins anew with the ring.
            (now + self.ring).wrapping_sub(then) % self.ring.max(1) >= self.ring / 4
        };
        self.places.into_iter().zip(earlier.places).any(far)
    }
}

/// Protocol numbers of the two families' ICMP.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What is known of one direction.
#[derive(Clone, Copy)]
struct Seen {
    silent_secs: u32,
    closing: bool,
    /// It ended both.
    reset: bool,
    /// It was seen doing more than beginning.
    goes_on: bool,
}

/// Whether nothing but what began a connection may have been seen of it.
fn is_open(proto: u8, seen: Seen) -> bool {
    !matches!(proto, UDP | ICMP | ICMPV6) && !seen.closing && !seen.goes_on
}

fn is_over(proto: u8, one: Seen, other: Seen, is_crowded: bool) -> bool {
    let is_reset = one.reset || other.reset;
    let secs = match (proto, one.closing || is_reset, other.closing || is_reset) {
        (UDP, ..) => timeout::DATAGRAMS_SECS,
        (ICMP | ICMPV6, ..) => timeout::ECHOES_SECS,
        (_, true, true) if is_crowded => timeout::CLOSED_CROWDED_SECS,
        (_, true, true) => timeout::CLOSED_SECS,
        (_, true, false) | (_, false, true) => timeout::CLOSE_WAIT_SECS,
        (_, false, false) if !one.goes_on && !other.goes_on => timeout::OPENING_SECS,
        (_, false, false) => timeout::ESTABLISHED_SECS,
    };
    one.silent_secs.min(other.silent_secs) >= secs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_flows_are_an_eighth_of_the_table() {
        let begun = |place| Begun {
            places: [0, place],
            ring: 512,
        };
        for (then, now, far) in [
            (0, 0, false),
            (0, 127, false),
            (0, 128, true),
            (400, 100, true),
            (500, 100, false),
        ] {
            assert_eq!(begun(now).is_far_from(&begun(then)), far, "{then} {now}");
        }
    }
}
