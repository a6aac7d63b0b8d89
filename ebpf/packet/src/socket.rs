//! What the socket hooks decide: where a call goes that names an address. IPv4 inside of IPv6 sockets, and a choice that
//! stays with a socket.

use abi::frontends::flags::{CHECK_SOURCE, EXACT, HOST_ONLY, LEAST};
use abi::protocol::UDP;
use abi::{AffinityKey, BackendId, Frontend, Scope, ServiceId};
use zerocopy::network_endian::U16;

use crate::balance::claims;
use crate::choose::{Refused, choose, other};
use crate::local_dns::{self, Way};
use crate::{Address, Family, Tables};

/// Who makes a call.
pub trait Caller {
    /// Whether the socket is one of the host's own network namespace.
    fn is_host(&self) -> bool;
    /// The client that session affinity binds.
    fn client<F: Family>(&self, service: ServiceId) -> AffinityKey;
    /// The number that stands in for chance, towards a frontend.
    fn random<F: Family>(&self, addr: F::Address, port: U16) -> u32;
    /// Whether calls on one socket are to reach the same backend for as long as the ring is the same.
    fn stays(&self) -> bool;
    /// The socket goes to this backend, of a service that is balanced by connections.
    fn counted(&self, backend: BackendId, service: ServiceId);
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent<A> {
    /// The address is no frontend's, or not for this caller: the call goes on as it is.
    NotOurs,
    /// It goes to a backend of the service.
    To(ServiceId, A, U16),
    /// The service does not admit this client.
    NotAdmitted(ServiceId),
    /// The service has no endpoint.
    NoEndpoint(ServiceId),
    /// The address is a service's alone, which has no such port.
    NoPort,
    /// The tables are not whole.
    NoBackend(ServiceId),
}

/// Decides on a call that names an address, as [`Address::reached`] gives it, and a port.
#[inline(always)]
pub fn decide<F: Family, T: Tables<F>>(
    tables: &T,
    caller: &impl Caller,
    proto: u8,
    addr: F::Address,
    port: U16,
) -> Sent<F::Address> {
    let Some(frontend) = frontend::<F, T>(tables, proto, addr, port) else {
        // A pod that answers itself over a service sends to the service's address and its own port. Its link knows
        // that flow, and refuses a port that is nobody's.
        let seen = proto == UDP && !caller.is_host();
        return if !seen && claims::<F, T>(tables, addr) {
            Sent::NoPort
        } else {
            Sent::NotOurs
        };
    };
    let service = frontend.service;
    if frontend.flags & (CHECK_SOURCE | HOST_ONLY) != 0 {
        // A pod's loopback address is its own; and which source address it will have, its link shows.
        if !caller.is_host() {
            return Sent::NotOurs;
        }
        if frontend.flags & CHECK_SOURCE != 0 && !admits_this_node::<F, T>(tables, service) {
            return Sent::NotAdmitted(service);
        }
    }
    let random = caller.random::<F>(addr, port);
    let steady;
    let frontend = if caller.stays() {
        // What changes with each connection of others is no choice for datagrams that belong together.
        steady = Frontend {
            flags: frontend.flags & !LEAST,
            ..*frontend
        };
        &steady
    } else {
        frontend
    };
    match target::<F, T>(tables, caller, frontend, addr, port, random) {
        Ok((addr, port)) => Sent::To(service, addr, port),
        Err(Refused::NoEndpoint) => Sent::NoEndpoint(service),
        Err(Refused::NoBackend) => Sent::NoBackend(service),
    }
}

/// The frontend of an address, which may be that of the loopback address.
#[inline(always)]
fn frontend<F: Family, T: Tables<F>>(
    tables: &T,
    proto: u8,
    addr: F::Address,
    port: U16,
) -> Option<&Frontend> {
    let at = |addr| tables.frontend(&F::frontend_key(addr, port, proto, Scope::Any));
    if let Some(frontend) = at(addr) {
        return Some(frontend);
    }
    let frontend = at(addr.loopback()?)?;
    (frontend.flags & (HOST_ONLY | EXACT) == HOST_ONLY).then_some(frontend)
}

/// Where a call to a service goes: to this node's instance of DNS while that answers, else to a backend.
#[inline(always)]
fn target<F: Family, T: Tables<F>>(
    tables: &T,
    caller: &impl Caller,
    frontend: &Frontend,
    addr: F::Address,
    port: U16,
    random: u32,
) -> Result<(F::Address, U16), Refused> {
    let client = || caller.client::<F>(frontend.service);
    let chosen = match local_dns::way::<F, T>(tables, addr, port) {
        Way::Here(addr, port) => return Ok((addr, port)),
        Way::Past(addr, port) => other(tables, frontend, random, |backend| {
            local_dns::is_other::<F>(backend, addr, port)
        }),
        Way::Usual => choose(tables, frontend, client, random, tables.now_secs()),
    };
    let (id, backend) = chosen?;
    if frontend.flags & LEAST != 0 {
        caller.counted(id, frontend.service);
    }
    Ok((F::Address::from_padded(&backend.addr), backend.port))
}

/// Whether a service admits what comes from this node's own address.
#[inline(always)]
fn admits_this_node<F: Family, T: Tables<F>>(tables: &T, service: ServiceId) -> bool {
    match tables.node().and_then(F::node_address) {
        Some(addr) => tables.admits(&F::source_key(service, addr)),
        None => false,
    }
}

/// The IPv4 address inside of an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), which is how an IPv6
/// socket speaks to an IPv4 peer.
#[inline(always)]
#[must_use]
pub fn mapped(words: [u32; 4]) -> Option<[u8; 4]> {
    let [a, b, c, d] = words;
    (a == 0 && b == 0 && c == PREFIX).then(|| d.to_ne_bytes())
}

/// The words of the IPv4-mapped IPv6 address of an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn map(addr: [u8; 4]) -> [u32; 4] {
    [0, 0, PREFIX, u32::from_ne_bytes(addr)]
}

const PREFIX: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// A number that stands in for chance and is the same whenever this socket speaks to this frontend, so that an
/// unconnected UDP socket stays with its backend while the ring stays as it is. `addr_sum` and `port` are the
/// frontend's.
#[inline(always)]
#[must_use]
pub const fn steady(cookie: u64, addr_sum: u64, port: u16) -> u32 {
    // splitmix64's finisher: every input bit reaches every output bit.
    let mut z = cookie
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(addr_sum.rotate_left(32))
        .wrapping_add(port as u64);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 32) as u32
}

#[cfg(test)]
mod tests {
    use abi::protocol::TCP;
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::V4;
    use crate::model::Model;

    #[test]
    fn only_mapped_addresses_hold_an_ipv4_address() {
        let words = |text: &str| -> [u32; 4] {
            let addr: std::net::Ipv6Addr = text.parse().expect("an address");
            zerocopy::transmute!(addr.octets())
        };
        assert_eq!(mapped(words("::ffff:10.96.0.1")), Some([10, 96, 0, 1]));
        assert_eq!(map([10, 96, 0, 1]), words("::ffff:10.96.0.1"));
        for other in [
            "::10.96.0.1",
            "fd00::1",
            "::1",
            "::fffe:10.96.0.1",
            "1::ffff:0:1",
        ] {
            assert_eq!(mapped(words(other)), None, "{other}");
        }
    }

    /// The host, or a pod.
    struct By(bool);

    impl Caller for By {
        fn is_host(&self) -> bool {
            self.0
        }
        fn client<F: Family>(&self, _: ServiceId) -> AffinityKey {
            unreachable!("nobody asks for affinity")
        }
        fn random<F: Family>(&self, _: F::Address, _: U16) -> u32 {
            0
        }
        fn stays(&self) -> bool {
            false
        }
        fn counted(&self, _: BackendId, _: ServiceId) {}
    }

    #[test]
    fn the_loopback_address_stands_for_its_network_and_for_the_host() {
        let port = U16::new(30080);
        let node_port = |flags| {
            let mut model = Model::default();
            let key = V4::frontend_key([127, 0, 0, 1], port, TCP, Scope::Any);
            let frontend = Frontend {
                service: 7,
                flags,
                ..Frontend::default()
            };
            model.frontends.insert(key.as_bytes().to_vec(), frontend);
            model
        };
        let decide = |model: &Model, host, addr: [u8; 4]| {
            decide::<V4, _>(model, &By(host), TCP, addr.reached(), port)
        };
        // What is found has no endpoint.
        let (found, other) = (Sent::NoEndpoint(7), Sent::NotOurs);
        for (addr, whole, exact) in [
            ([127, 0, 0, 1], found, found),
            ([0, 0, 0, 0], found, found),
            ([127, 0, 0, 5], found, other),
            ([127, 255, 255, 254], found, other),
            ([126, 0, 0, 1], other, other),
            ([10, 0, 0, 1], other, other),
        ] {
            let model = node_port(HOST_ONLY);
            assert_eq!(decide(&model, true, addr), whole, "{addr:?}");
            assert_eq!(decide(&model, false, addr), other, "{addr:?} in a pod");
            let model = node_port(HOST_ONLY | EXACT);
            assert_eq!(decide(&model, true, addr), exact, "{addr:?} exactly");
        }
        let unspecified: [u8; 16] = [0; 16];
        assert_eq!(unspecified.reached()[15], 1);
        assert_eq!([7; 16].reached(), [7; 16]);
    }

    #[test]
    fn sockets_spread_and_each_stays() {
        let mut count = [0u32; 4];
        for cookie in 0..4000 {
            let random = steady(cookie, 0x0a60_0001, 53);
            assert_eq!(random, steady(cookie, 0x0a60_0001, 53));
            count[crate::choose::slot(0, 4, random) as usize] += 1;
        }
        assert!(
            count.iter().all(|count| (900..1100).contains(count)),
            "{count:?}"
        );
    }
}
