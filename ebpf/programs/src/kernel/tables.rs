//! The maps as the tables that [`packet`] decides on.

use abi::{
    Affinity, AffinityKey, Backend, BackendId, DnsControl, Endpoint, Flow4, Flow6, FlowState4,
    FlowState6, FragmentKey, FragmentPorts, Frontend, FrontendKey4, FrontendKey6, InsideKey,
    Member, MemberKey, NodeConfig, ServiceId, SourceKey, SpreadWord, devices,
};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::bpf_get_prandom_u32;
use packet::balance::{Beginning, code};
use packet::{Address as _, Decision, Family, Headers, Inserted, Shared, Tables, V4, V6};

use super::maps::{
    AFFINITY, BACKENDS, CONFIG, DEVICES, ENDPOINTS4, ENDPOINTS6, FLOWS4, FLOWS6, FRAGMENTS,
    FRONTENDS4, FRONTENDS6, HOST, HOST_ROUTING, INSIDE, LOADS, MEMBERS, NAMESPACES, QUOTAS, RINGS,
    SOURCES, SPREADS,
};
use super::{clock, dns, openings, outlined};

/// The kernel's maps.
pub(crate) struct Maps;

const EEXIST: i32 = -17;

impl Shared for Maps {
    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<BackendId> {
        RINGS.get(slot).map(|slot| slot.backend)
    }

    #[inline(always)]
    fn spread(&self, index: u32) -> Option<SpreadWord> {
        SPREADS.get(index).copied()
    }

    #[inline(always)]
    fn connections(&self, id: BackendId) -> u64 {
        match LOADS.get(id) {
            Some(load) => load.connections,
            None => 0,
        }
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: the entry is copied out before anything else touches the map.
        unsafe { AFFINITY.get(key) }.copied()
    }

    #[inline(always)]
    fn keep_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        // Refused only when no entry can be evicted at this moment; the client is balanced all the same.
        let _ = AFFINITY.insert(key, affinity, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn admits(&self, key: &SourceKey) -> bool {
        let words: [u32; 6] = zerocopy::transmute!(*key);
        let [prefix_len, data @ ..] = words;
        SOURCES.get(&Key::new(prefix_len, data)).is_some()
    }

    #[inline(always)]
    fn inside(&self, key: &InsideKey) -> Option<u32> {
        let words: [u32; 6] = zerocopy::transmute!(*key);
        let [prefix_len, data @ ..] = words;
        INSIDE.get(&Key::new(prefix_len, data)).copied()
    }

    #[inline(always)]
    fn takes_flow(&self, service: ServiceId) -> bool {
        // SAFETY: the entry is copied out before anything else touches the map.
        let Some(groups) = unsafe { QUOTAS.get(service) }.map(|quota| quota.groups) else {
            return true;
        };
        has_room(groups[0]) && has_room(groups[1])
    }

    #[inline(always)]
    fn member(&self, key: &MemberKey) -> Option<Member> {
        let words: [u32; 5] = zerocopy::transmute!(*key);
        let [prefix_len, data @ ..] = words;
        MEMBERS.get(&Key::new(prefix_len, data)).copied()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: the entry is copied out before anything else touches the map.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn keep_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // Refused only when no entry can be evicted at this moment; the later fragments are dropped and counted.
        let _ = FRAGMENTS.insert(key, ports, u64::from(BPF_ANY));
    }

    #[inline(always)]
    fn node(&self) -> Option<&NodeConfig> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn runs_xdp(&self, ifindex: u32) -> bool {
        device_has(ifindex, devices::flags::XDP_RUNS)
    }

    #[inline(always)]
    fn local_dns(&self) -> Option<&DnsControl> {
        dns::local()
    }

    #[inline(always)]
    fn dns_answers(&self, control: &DnsControl) -> bool {
        dns::answers(control)
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn now_secs(&self) -> u32 {
        clock::secs()
    }
}

/// Counts a new flow of a group; false where that has as many as it may have.
#[inline(always)]
fn has_room(group: u32) -> bool {
    if group == 0 {
        return true;
    }
    let Some(quota) = QUOTAS.get_ptr_mut(group) else {
        return true;
    };
    // SAFETY: the pointer comes from the kernel and its element stays mapped until the program ends. Each word is aligned
    // and written whole; two CPUs that count at once may lose one.
    unsafe {
        let takes = (*quota).flows < (*quota).flows_max;
        if takes {
            (*quota).flows += 1;
        } else {
            (*quota).refused += 1;
        }
        takes
    }
}

/// Whether a device has one of [`devices::flags`].
#[inline(always)]
pub(crate) fn device_has(ifindex: u32, flag: u32) -> bool {
    // SAFETY: programs never change the map; the flags are read before anything else touches it.
    match unsafe { DEVICES.get(ifindex) } {
        Some(device) => device.flags & flag != 0,
        None => false,
    }
}

/// Whether a cookie is that of the host's own network namespace.
#[inline(always)]
pub(crate) fn is_host(netns_cookie: u64) -> bool {
    match HOST.get(0) {
        Some(host) => host.netns_cookie != 0 && host.netns_cookie == netns_cookie,
        None => false,
    }
}

/// The address of the pod that has a network namespace, by the namespace's cookie.
#[inline(always)]
pub(crate) fn pod_address<F: Family>(netns_cookie: u64) -> Option<[u8; 16]> {
    // SAFETY: an entry is replaced whole, and read before anything else touches the table.
    let pod = unsafe { NAMESPACES.get(netns_cookie) }?;
    let addr = if F::NUMBER == abi::family::V4 {
        pod.addr4
    } else {
        pod.addr6
    };
    (addr != [0; 16]).then_some(addr)
}

/// A number of this node's that other ones on the machine do not have; zero where it is not known.
#[inline(always)]
pub(crate) fn host() -> u32 {
    match HOST.get(0) {
        Some(host) => host.netns_cookie as u32,
        None => 0,
    }
}

/// The pod of this node that has an address.
#[inline(always)]
pub(crate) fn endpoint<'a, F: Family>(addr: F::Address) -> Option<&'a Endpoint> {
    let words = addr.words();
    // SAFETY: programs never change the maps, and an element's memory stays an element of its map until the
    // program ends.
    unsafe {
        if F::NUMBER == abi::family::V4 {
            ENDPOINTS4.get([words[0]])
        } else {
            ENDPOINTS6.get(words)
        }
    }
}

/// Whether packets of a family go straight to pods at this moment.
#[inline(always)]
pub(crate) fn routes_here<F: Family>() -> bool {
    let until_secs = match HOST_ROUTING.get(0) {
        Some(lease) if F::NUMBER == abi::family::V4 => lease.until_secs4,
        Some(lease) => lease.until_secs6,
        None => 0,
    };
    until_secs != 0 && clock::secs() < until_secs
}

macro_rules! tables {
    ($family:ty, $frontends:ident, $flows:ident, $key:ty, $flow:ty, $state:ty, $choose:path, $claim:path, $begin:path, $take_place:path, $keep_first:path, $hears:path) => {
        impl Tables<$family> for Maps {
            #[inline(always)]
            fn frontend(&self, key: &$key) -> Option<&Frontend> {
                // SAFETY: programs never change the map, and an element's memory stays an element of this map
                // until the program ends, even where the agent replaces it meanwhile.
                unsafe { $frontends.get(key) }
            }

            #[inline(always)]
            fn has_pod(&self, addr: <$family as Family>::Address) -> bool {
                endpoint::<$family>(addr).is_some()
            }

            #[inline(always)]
            fn flow(&self, key: &$flow, marks: u32) -> Option<&$state> {
                let state = $flows.get_ptr_mut(key)?;
                let now_secs = self.now_secs();
                // SAFETY: the pointer comes from the kernel and its element stays mapped until the program ends.
                // The two words are changed in place by any CPU; each is aligned and written whole, and a lost
                // update costs a second of age at most.
                unsafe {
                    if (*state).last_seen_secs != now_secs {
                        (*state).last_seen_secs = now_secs;
                    }
                    if marks & !(*state).flags != 0 {
                        (*state).flags |= marks;
                    }
                    Some(&*state)
                }
            }

            #[inline(always)]
            fn known(&self, key: &$flow) -> Option<&$state> {
                // SAFETY: as above.
                unsafe { $flows.get(key) }
            }

            #[inline(always)]
            fn take_place(&self, tuple: &$flow) {
                $take_place(tuple);
            }

            #[inline(always)]
            fn mark_flow(&self, key: &$flow, flags: u32) {
                if let Some(state) = $flows.get_ptr_mut(key) {
                    // SAFETY: as above.
                    unsafe { (*state).flags |= flags };
                }
            }

            #[inline(always)]
            fn claim_flow(&self, key: &$flow, state: &$state) -> Inserted {
                match $flows.insert(key, state, u64::from(BPF_NOEXIST)) {
                    Ok(()) => Inserted::Done,
                    Err(EEXIST) => Inserted::Taken,
                    Err(_) => Inserted::Full,
                }
            }

            #[inline(always)]
            fn choose(
                &self,
                frontend: &Frontend,
                tuple: &$flow,
                beginning: &mut Beginning,
                to: &mut $flow,
            ) -> Decision {
                code::beginning($choose(frontend, tuple, beginning, to))
            }

            #[inline(always)]
            fn keep_first(&self, headers: &Headers<$family>) {
                $keep_first(headers);
            }

            #[inline(always)]
            fn hears(&self, tuple: &$flow, state: &$state) -> bool {
                $hears(tuple, state) != 0
            }

            #[inline(always)]
            fn claim(&self, answer: &$flow, state: &$state) -> Inserted {
                const DONE: u32 = Inserted::Done as u32;
                const TAKEN: u32 = Inserted::Taken as u32;
                match $claim(answer, state) {
                    DONE => Inserted::Done,
                    TAKEN => Inserted::Taken,
                    _ => Inserted::Full,
                }
            }

            #[inline(always)]
            fn begin(&self, tuple: &$flow, beginning: &Beginning, to: &mut $flow) -> Decision {
                $take_place(tuple);
                code::beginning($begin(tuple, beginning, to))
            }

            #[inline(always)]
            fn put_flow(&self, key: &$flow, state: &$state) -> Inserted {
                match $flows.insert(key, state, u64::from(BPF_ANY)) {
                    Ok(()) => Inserted::Done,
                    Err(_) => Inserted::Full,
                }
            }
        }
    };
}

tables!(
    V4,
    FRONTENDS4,
    FLOWS4,
    FrontendKey4,
    Flow4,
    FlowState4,
    outlined::choose4,
    outlined::claim4,
    outlined::begin4,
    openings::take_place4,
    outlined::keep_first4,
    outlined::hears4
);
tables!(
    V6,
    FRONTENDS6,
    FLOWS6,
    FrontendKey6,
    Flow6,
    FlowState6,
    outlined::choose6,
    outlined::claim6,
    outlined::begin6,
    openings::take_place6,
    outlined::keep_first6,
    outlined::hears6
);
