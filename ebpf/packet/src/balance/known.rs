//! What one look at the tables says of most packets that arrive at a device: they are of a flow that goes on, or none of
//! ours. [`balance`](super::balance) says the same of these, and looks closer at all others.

use abi::flows::flags::{self, CHECKED_AT, TUNNELLED};

use super::{DIRECT, Decision, Kind, Place, begins, claims, frontend, mixes, opens, passing};
use crate::{Family, Flow as _, Headers, State as _, Tables, Transport};

/// Decides on a packet that arrived at the device with index `ifindex`, whose headers are plain, before any other program
/// saw it ([`Place::Wire`]). `None` where it takes a closer look; then nothing has changed but what every packet leaves in
/// its flow. `to` is written where the packet shall be rewritten.
#[inline(always)]
pub fn decide<F: Family, T: Tables<F>>(
    tables: &T,
    ifindex: u32,
    headers: &Headers<F>,
    to: &mut F::Flow,
) -> Option<Decision> {
    let Some(state) = tables.flow(&headers.tuple, passing(headers)) else {
        return is_not_ours(tables, headers).then_some(Decision::Pass);
    };
    let seen = state.flags();
    if seen & flags::REPLY != 0 {
        // What the first answer is takes a look of its own.
        if seen & (flags::OPENING | flags::ANSWERED) == flags::OPENING {
            return None;
        }
        *to = *state.to();
        return Some(if seen & flags::SNAT == 0 {
            Decision::Answer
        } else if seen & flags::NESTED == 0 {
            Decision::Rewrite(Kind::Reply)
        } else {
            Decision::Rewrite(Kind::Nested)
        });
    }
    if seen & TUNNELLED != 0 || state.service() == DIRECT || !goes_on(tables, headers, state) {
        return None;
    }
    *to = *state.to();
    let checked = flags::checked_at(ifindex);
    Some(Decision::Rewrite(
        if seen & CHECKED_AT == checked && checked != 0 {
            Kind::Checked
        } else {
            Kind::Forward
        },
    ))
}

/// Whether nothing of ours has to do with a packet that no flow is known for.
#[inline(always)]
fn is_not_ours<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>) -> bool {
    let tuple = &headers.tuple;
    frontend(tables, Place::Wire, tuple).is_none()
        && !(begins(headers) && (mixes(tables, headers) || claims(tables, tuple.daddr())))
}

/// Whether a packet goes on to its flow's backend without a question.
#[inline(always)]
fn goes_on<F: Family, T: Tables<F>>(tables: &T, headers: &Headers<F>, state: &F::State) -> bool {
    match headers.transport {
        Transport::Tcp => !opens(headers),
        // Without a connection to keep, it leaves a backend that is its service's no more.
        Transport::Udp => match tables.backend(state.backend()) {
            Some(backend) => backend.service == state.service(),
            None => false,
        },
        _ => false,
    }
}
