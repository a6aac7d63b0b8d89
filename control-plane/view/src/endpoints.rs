//! Which endpoints answer a port: those that the traffic policies of its Service leave, in the words of KEP-2086
//! (internalTrafficPolicy), KEP-1669 (endpoints that terminate), KEP-2433 (hints of zones) and KEP-3015 (hints of
//! nodes).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Backend, Protocol};

use crate::annotations::Weights;
use crate::slice::{Endpoint, Hint, Slice};

/// What answers a port of a Service in one address family, by traffic policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answering {
    /// Under the policy `Cluster`.
    pub(crate) cluster: Vec<Backend>,
    /// Under the policy `Local`.
    pub(crate) local: Vec<Backend>,
    /// Whether any node has an endpoint that could answer.
    pub(crate) anywhere: bool,
}

/// An endpoint that is named by one slice or several.
#[derive(Debug, Default)]
struct State<'a> {
    local: bool,
    on_node: bool,
    ready: bool,
    serving_terminating: bool,
    weight: u16,
    /// The slice's that says the most for it.
    endpoint: Option<&'a Endpoint>,
}

type States<'a> = BTreeMap<(IpAddr, u16), State<'a>>;

/// Finds what answers the port `name` of all `slices` of a Service, for clients of a node in `zone`.
pub(crate) fn answering(
    slices: &[(Arc<str>, Slice)],
    name: &str,
    protocol: Protocol,
    ipv4: bool,
    zone: &str,
    weights: &Weights,
) -> Answering {
    let mut states = states(slices, name, protocol, ipv4);
    if !weights.is_empty() {
        for ((addr, _), state) in &mut states {
            let pod = state.endpoint.and_then(|endpoint| endpoint.pod.as_deref());
            let of_pod = pod.and_then(|pod| weights.get(pod));
            if let Some(weight) = of_pod.or_else(|| weights.get(&addr.to_string())) {
                state.weight = *weight;
            }
        }
    }
    let hinted = Hinted::of(&states, zone);
    let ready = |state: &State<'_>| state.ready && hinted.admits(state, zone);
    let terminating = |state: &State<'_>| state.serving_terminating;
    let local = |is: fn(&State<'_>) -> bool| move |state: &State<'_>| state.local && is(state);
    Answering {
        cluster: first_of(&states, ready, terminating),
        local: first_of(
            &states,
            local(|state| state.ready),
            local(|state| state.serving_terminating),
        ),
        anywhere: states.values().any(|s| s.ready || s.serving_terminating),
    }
}

/// How many endpoints of this node are ready, by address: what a load balancer asks for.
pub(crate) fn ready_here(slices: &[(Arc<str>, Slice)]) -> usize {
    let count = |ipv4: bool| {
        let slices = slices.iter().filter(|(_, slice)| slice.ipv4 == ipv4);
        let endpoints = slices.flat_map(|(_, slice)| &slice.endpoints);
        let here = endpoints.filter(|endpoint| endpoint.local && endpoint.ready);
        here.map(|endpoint| endpoint.addr)
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    // The two families of one Service name the same pods.
    count(true).max(count(false))
}

/// An endpoint that two slices name counts once, at its best.
fn states<'a>(
    slices: &'a [(Arc<str>, Slice)],
    name: &str,
    protocol: Protocol,
    ipv4: bool,
) -> States<'a> {
    let mut states = States::new();
    let slices = slices.iter().map(|(_, slice)| slice);
    for slice in slices.filter(|slice| slice.ipv4 == ipv4) {
        let answers = |p: &&crate::slice::Port| *p.name == *name && p.protocol == protocol;
        let Some(port) = slice.ports.iter().find(answers) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let state = states.entry((endpoint.addr, port.port)).or_default();
            if state.endpoint.is_none() || endpoint.ready && !state.ready {
                state.endpoint = Some(endpoint);
                state.weight = slice.weight;
            }
            state.local |= endpoint.local;
            state.on_node |= endpoint.on_node;
            state.ready |= endpoint.ready;
            state.serving_terminating |= endpoint.serving_terminating;
        }
    }
    states
}

/// Those that `first` takes or, where it takes none, those that `second` takes.
fn first_of(
    states: &States<'_>,
    first: impl Fn(&State<'_>) -> bool,
    second: impl Fn(&State<'_>) -> bool,
) -> Vec<Backend> {
    let any = states.values().any(&first);
    let taken = states
        .iter()
        .filter(|(_, state)| if any { first(state) } else { second(state) });
    let backend = |((addr, port), state): (&(IpAddr, u16), &State<'_>)| Backend {
        addr: *addr,
        port: *port,
        local: state.local,
        on_node: state.on_node,
        weight: state.weight,
    };
    taken.map(backend).collect()
}

/// Which hints are followed. Only those that every ready endpoint carries are, and only where one of them names
/// this node or its zone: otherwise some client would have no endpoint, or one endpoint every client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hinted {
    Nobody,
    Node,
    Zone,
}

impl Hinted {
    fn of(states: &States<'_>, zone: &str) -> Hinted {
        let ready = || {
            let ready = states.values().filter(|state| state.ready);
            ready.filter_map(|state| state.endpoint)
        };
        let of_node = |endpoint: &Endpoint| endpoint.node_hint == Hint::Here;
        if ready().all(|e| e.node_hint != Hint::None) && ready().any(of_node) {
            return Hinted::Node;
        }
        let all_zones = ready().all(|endpoint| !endpoint.zone_hints.is_empty());
        if !zone.is_empty() && all_zones && ready().any(|endpoint| endpoint.is_meant_for(zone)) {
            return Hinted::Zone;
        }
        Hinted::Nobody
    }

    fn admits(self, state: &State<'_>, zone: &str) -> bool {
        state.endpoint.is_some_and(|endpoint| match self {
            Hinted::Nobody => true,
            Hinted::Node => endpoint.node_hint == Hint::Here,
            Hinted::Zone => endpoint.is_meant_for(zone),
        })
    }
}
