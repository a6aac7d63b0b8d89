//! Flows that have been silent for long enough end. The least recently used would give way to new ones anyhow; until then
//! their ports of this node are taken, and they are listed as if they lived.

use std::collections::HashSet;
use std::path::Path;

use abi::flows::flags::{CLOSING, GOES_ON};
use abi::protocol::UDP;
use abi::{Flow4, Flow6, FlowState4, FlowState6};

use crate::pins::Pins;
use crate::table::Hash;
use crate::{Error, spec};

/// Seconds of silence in both directions after which a flow is over.
pub mod timeout {
    /// Of TCP and SCTP, as kube-proxy sets connection tracking (`conntrack.tcpEstablishedTimeout`).
    pub const ESTABLISHED_SECS: u32 = 24 * 60 * 60;
    /// Where nothing but what began it was ever seen, as connection tracking has it for a SYN that nobody answered. Of a flow
    /// that began before its node's programs noted that, nothing is known, and it is taken for one that goes on.
    pub const OPENING_SECS: u32 = 120;
    /// Where one side has ended it (`conntrack.tcpCloseWaitTimeout`).
    pub const CLOSE_WAIT_SECS: u32 = 60 * 60;
    /// Where both have: twice the longest time that a segment lives (RFC 9293 section 3.4.2 has two minutes for one; systems
    /// take less).
    pub const CLOSED_SECS: u32 = 120;
    /// Of UDP, which has no end (RFC 4787 section 4.3: two minutes at least).
    pub const DATAGRAMS_SECS: u32 = 180;
    /// Of echo requests (RFC 5508 section 3.2: a minute at least).
    pub const ECHOES_SECS: u32 = 60;
}

/// Forgets flows that are over at `now_secs`, both directions of each at once. Gives how many entries that were.
///
/// # Errors
///
/// [`Error::NotLoaded`] where nothing is pinned below `bpffs_root`, [`Error::Table`] if the kernel refuses.
pub fn expire_flows(bpffs_root: &Path, now_secs: u32) -> Result<usize, Error> {
    let pins = Pins::new(bpffs_root);
    macro_rules! family {
        ($spec:ident, $openings:ident, $flow:ident, $state:ty) => {{
            let table: Hash<$flow, $state> = Hash::open(&pins, spec::$spec, false)?;
            let other = |state: &$state| $flow {
                saddr: state.to.daddr,
                daddr: state.to.saddr,
                sport: state.to.dport,
                dport: state.to.sport,
                ..state.to
            };
            let seen = |state: &$state| Seen {
                silent_secs: now_secs.saturating_sub(state.last_seen_secs),
                closing: state.flags & CLOSING != 0,
                goes_on: state.flags & GOES_ON != 0,
            };
            let mut silent: Vec<($flow, $state)> = Vec::new();
            table.walk(|keys, states| {
                let all = keys.iter().zip(states);
                let may_be = all.filter(|(key, state)| {
                    let seen = seen(state);
                    // At least as long as the shortest time that can be its own.
                    is_over(key.proto, seen, Seen { closing: true, ..seen })
                        || is_over(key.proto, seen, seen)
                });
                silent.extend(may_be.map(|(key, state)| (*key, *state)));
                true
            })?;
            // Of these alone it is known that they would have been seen going on.
            let mut begun: HashSet<$flow> = HashSet::new();
            if silent.iter().any(|(key, state)| is_open(key.proto, seen(state))) {
                let openings: Hash<u32, $flow> = Hash::open(&pins, spec::$openings, false)?;
                openings.walk(|_, flows| {
                    begun.extend(flows);
                    true
                })?;
            }
            let mut over = Vec::new();
            for (key, state) in &silent {
                let (this, answers) = (seen(state), table.get(&other(state))?);
                // The other direction may belong to a later flow: then this one has nobody to answer it.
                let answers = answers.filter(|answers| other(answers) == *key);
                let answers = answers.as_ref().map_or(this, seen);
                let known = Seen {
                    goes_on: this.goes_on
                        || !begun.contains(key) && !begun.contains(&other(state)),
                    ..this
                };
                if is_over(key.proto, known, answers) {
                    over.push(*key);
                }
            }
            table.remove(&over).map_err(|(_, error)| error)?;
            over.len()
        }};
    }
    Ok(family!(FLOWS4, OPENINGS4, Flow4, FlowState4)
        + family!(FLOWS6, OPENINGS6, Flow6, FlowState6))
}

/// Protocol numbers of the two families' ICMP.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What is known of one direction.
#[derive(Clone, Copy)]
struct Seen {
    silent_secs: u32,
    closing: bool,
    /// It was seen doing more than beginning.
    goes_on: bool,
}

/// Whether nothing but what began a connection may have been seen of it.
fn is_open(proto: u8, seen: Seen) -> bool {
    !matches!(proto, UDP | ICMP | ICMPV6) && !seen.closing && !seen.goes_on
}

fn is_over(proto: u8, one: Seen, other: Seen) -> bool {
    let secs = match (proto, one.closing, other.closing) {
        (UDP, ..) => timeout::DATAGRAMS_SECS,
        (ICMP | ICMPV6, ..) => timeout::ECHOES_SECS,
        (_, true, true) => timeout::CLOSED_SECS,
        (_, true, false) | (_, false, true) => timeout::CLOSE_WAIT_SECS,
        (_, false, false) if !one.goes_on && !other.goes_on => timeout::OPENING_SECS,
        (_, false, false) => timeout::ESTABLISHED_SECS,
    };
    one.silent_secs.min(other.silent_secs) >= secs
}
