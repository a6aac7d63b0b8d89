//! Past the host's stack: straight to a pod of this node, where the packet appears at the pod's end of its link. From a
//! pod straight to the next hop: [`super::next_hops`].
//!
//! The stack would have looked up a route, checked the source, queued the packet on the pod's link and run
//! `pod_egress` there. The route is in ENDPOINTS; the source must be what a strict reverse-path check takes, or the
//! stack decides; and of `pod_egress` the caller has done the part.

use core::ffi::c_void;

use abi::{Counter, Endpoint};
use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect_peer};
use packet::{Family, Flow as _, Headers, Place, hop};

use super::count::count;
use super::frame::Frame;
use super::next_hops;
use super::policy;
use super::route::{self, Route};
use super::skb::Skb;
use super::tables::{endpoint, routes_here};

/// Whose source a packet has that would go straight.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Its sender's: to be checked.
    Senders,
    /// Its sender's, checked when the packet's flow began.
    Checked,
    /// This node's or a service's, put there by us.
    Ours,
}

/// The pod that the tuple `to` leads to, if the packet may go straight there.
#[inline(always)]
pub(crate) fn pod<'a, F: Family>(
    skb: &Skb,
    place: Place,
    headers: &Headers<F>,
    to: &F::Flow,
    source: Source,
) -> Option<&'a Endpoint> {
    if !hop::is_plain(headers) || !skb.is_for_this_device() {
        return None;
    }
    let pod = endpoint::<F>(to.daddr())?;
    let may = hop::is_direct(pod, skb.ifindex())
        && routes_here::<F>()
        && (source != Source::Senders || is_from_there::<F>(skb, place, &headers.tuple))
        && skb.fits(pod.ifindex);
    may.then_some(pod)
}

/// As [`pod`], of a frame whose sender was checked. Policies are judged by TC.
#[inline(always)]
pub(crate) fn pod_behind<'a, F: Family>(
    frame: &Frame,
    headers: &Headers<F>,
    to: &F::Flow,
) -> Option<&'a Endpoint> {
    if !hop::is_plain(headers) || policy::is_on() {
        return None;
    }
    let pod = endpoint::<F>(to.daddr())?;
    (hop::is_direct(pod, frame.ifindex()) && frame.fits(headers, pod.ifindex)).then_some(pod)
}

/// Sends a packet to a pod that [`pod`] found.
#[inline(always)]
pub(crate) fn deliver<F: Family>(
    skb: &Skb,
    headers: &Headers<F>,
    pod: &Endpoint,
) -> Result<i32, Counter> {
    skb.hop::<F>(headers.l3, pod.host_link, pod.pod_link)?;
    count(Counter::TcHostRouted, headers.bytes);
    // SAFETY: the helper takes numbers. Kernel 5.10 (9aa1206e8f48).
    Ok(unsafe { bpf_redirect_peer(pod.ifindex, 0) } as i32)
}

/// Whether the way back to the packet's source is the way it came.
#[inline(always)]
fn is_from_there<F: Family>(skb: &Skb, place: Place, tuple: &F::Flow) -> bool {
    match place {
        Place::Pod => hop::is_own_source(endpoint::<F>(tuple.saddr()), skb.ifindex()),
        Place::Device | Place::Wire => is_from_outside::<F>(skb.ctx().cast(), skb.ifindex(), tuple),
    }
}

/// Whether the way back to the source of a packet that arrived at a node device is the way it came. `ctx` is the
/// hook's context.
#[inline(always)]
pub(crate) fn is_from_outside<F: Family>(ctx: *mut c_void, ifindex: u32, tuple: &F::Flow) -> bool {
    hop::is_routable::<F>(tuple.saddr()) && is_routed_back::<F>(ctx, ifindex, &tuple.reversed())
}

/// A function of its own: the question has 64 bytes.
#[inline(never)]
fn is_routed_back<F: Family>(ctx: *mut c_void, ifindex: u32, back: &F::Flow) -> bool {
    if next_hops::leads_back::<F>(ifindex, back.daddr()) {
        return true;
    }
    let mut query = route::query::<F>(back, ifindex);
    // SAFETY: the helper takes this hook's context and the query with its size.
    let answer = unsafe { fib_lookup(ctx, &raw mut query, size_of::<bpf_fib_lookup>() as i32, 0) };
    let leads_back = match route::answer(answer) {
        Route::Known | Route::NoNeighbour => query.ifindex == ifindex,
        Route::None => false,
    };
    if leads_back {
        next_hops::remember_back::<F>(ifindex, back.daddr());
    }
    leads_back
}
