//! Queries of this node's pods go to its own instance of the cluster's DNS while that answers, where that is asked for, and
//! past it while it does not: at the socket, and on the pod's link for sockets that are not hooked or were connected before.
//! Past it they go too where it had the programs answer names and is gone: it is known before its endpoint is taken away.

use abi::{Backend, DnsControl, Frontend, Scope};
use zerocopy::network_endian::U16;

use crate::{Address, Family, Flow as _, Shared, Tables, V4};

/// Which way a call or packet to a service goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way<A> {
    /// To any of its backends.
    Usual,
    /// To this node's instance.
    Here(A, U16),
    /// To another backend than this node's instance, which does not answer.
    Past(A, U16),
}

/// Decides for the destination of a call or packet that leaves a pod.
#[inline(always)]
pub fn way<F: Family, T: Shared>(tables: &T, addr: F::Address, port: U16) -> Way<F::Address> {
    let Some(control) = tables.local_dns() else {
        return Way::Usual;
    };
    if !is_service::<F>(control, addr, port) && !is_local::<F>(control, addr, port) {
        return Way::Usual;
    }
    match local::<F>(control) {
        None => Way::Usual,
        Some((addr, port)) if !tables.dns_answers(control) => Way::Past(addr, port),
        Some((addr, port)) if control.local_until_secs != 0 => Way::Here(addr, port),
        Some(_) => Way::Usual,
    }
}

/// Whether a backend is another one than that at an address and port.
#[inline(always)]
pub fn is_other<F: Family>(backend: &Backend, addr: F::Address, port: U16) -> bool {
    backend.port != port || !F::Address::from_padded(&backend.addr).is(addr)
}

/// The DNS Service, for queries to this node's instance of it while that does not answer: sockets that were connected
/// to it go on asking there.
#[inline(always)]
pub fn bereft<'a, F: Family, T: Tables<F>>(tables: &'a T, tuple: &F::Flow) -> Option<&'a Frontend> {
    let control = tables.local_dns()?;
    if !is_local::<F>(control, tuple.daddr(), tuple.dport()) || tables.dns_answers(control) {
        return None;
    }
    tables.frontend(&service_key::<F>(control, tuple.proto()))
}

/// Whether an address and port are the DNS Service's.
#[inline(always)]
pub fn is_service<F: Family>(control: &DnsControl, addr: F::Address, port: U16) -> bool {
    port == control.service_port && addr.words() == words::<F>(control.service4, &control.service6)
}

/// Whether they are those of this node's instance.
#[inline(always)]
pub fn is_local<F: Family>(control: &DnsControl, addr: F::Address, port: U16) -> bool {
    port == control.local_port && addr.words() == words::<F>(control.local4, &control.local6)
}

/// Address and port of this node's instance, where it has one of the family.
#[inline(always)]
fn local<F: Family>(control: &DnsControl) -> Option<(F::Address, U16)> {
    let words = words::<F>(control.local4, &control.local6);
    (words != [0; 4]).then(|| {
        let padded: [u8; 16] = zerocopy::transmute!(words);
        (F::Address::from_padded(&padded), control.local_port)
    })
}

/// The key of the frontend that the DNS Service has for a protocol.
#[inline(always)]
fn service_key<F: Family>(control: &DnsControl, proto: u8) -> F::FrontendKey {
    let padded: [u8; 16] = zerocopy::transmute!(words::<F>(control.service4, &control.service6));
    let addr = F::Address::from_padded(&padded);
    F::frontend_key(addr, control.service_port, proto, Scope::Any)
}

/// The family's address of two as words, zeros behind.
#[inline(always)]
fn words<F: Family>(four: [u8; 4], six: &[u8; 16]) -> [u32; 4] {
    if F::NUMBER == V4::NUMBER {
        [u32::from_ne_bytes(four), 0, 0, 0]
    } else {
        zerocopy::transmute!(*six)
    }
}

#[cfg(test)]
mod tests {
    use abi::protocol::UDP;
    use abi::{Flow4, backends};
    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::balance::{Kind, balance};
    use crate::model::Model;
    use crate::parse::FragmentId;
    use crate::{Decision, Fault, Fragment, Headers, Place, Transport};

    const SERVICE: [u8; 4] = [10, 96, 0, 10];
    const LOCAL: [u8; 4] = [192, 0, 2, 1];
    const POD: [u8; 4] = [10, 244, 0, 7];

    /// A DNS Service whose backends are this node's instance and those of two others.
    fn model() -> Model {
        let mut model = Model {
            dns: Some(DnsControl {
                service4: SERVICE,
                service_port: 53.into(),
                local4: LOCAL,
                local_port: 10_053.into(),
                local_until_secs: 1,
                ..DnsControl::default()
            }),
            ..Model::default()
        };
        let key = V4::frontend_key(SERVICE, 53.into(), UDP, Scope::Any);
        let frontend = Frontend {
            service: 5,
            ring_offset: 0,
            ring_len: 3,
            ..Frontend::default()
        };
        model.frontends.insert(key.as_bytes().to_vec(), frontend);
        for n in 0..3_u8 {
            let mut addr = [0; 16];
            addr[..4].copy_from_slice(&[192, 0, 2, n + 1]);
            let backend = Backend {
                addr,
                port: 10_053.into(),
                family: abi::family::V4,
                flags: if n == 0 { backends::flags::LOCAL } else { 0 },
                service: 5,
            };
            model.slots.insert(n.into(), u32::from(n) + 1);
            model.backends.insert(u32::from(n) + 1, backend);
        }
        model
    }

    fn ask(model: &Model, place: Place, sport: u16, to: [u8; 4], port: u16) -> (Decision, [u8; 4]) {
        let tuple = Flow4::new(POD, to, sport.into(), port.into(), UDP);
        let mut headers = Headers {
            fault: Fault::None,
            l3: 14,
            l4: 34,
            bytes: 60,
            tuple,
            transport: Transport::Udp,
            tcp_flags: 0,
            ttl: 64,
            fragment: Fragment::Whole,
            fragment_id: FragmentId {
                id: [0; 4],
                proto: UDP,
            },
        };
        let mut shown = tuple;
        let decision = balance(model, place, 2, &mut headers, &mut shown);
        (decision, shown.daddr)
    }

    #[test]
    fn a_pod_asks_here_while_here_answers() {
        let model = model();
        for seed in 0..20 {
            model.seed.set(seed * 77_777_777);
            let sport = 1000 + seed as u16;
            model.dns_answers.set(true);
            let (new, to) = ask(&model, Place::Pod, sport, SERVICE, 53);
            assert_eq!((new, to), (Decision::Rewrite(Kind::New), LOCAL));
            let (known, to) = ask(&model, Place::Pod, sport, SERVICE, 53);
            assert_eq!((known, to), (Decision::Rewrite(Kind::Forward), LOCAL));
            // The flow moves with the very next query.
            model.dns_answers.set(false);
            let (new, to) = ask(&model, Place::Pod, sport, SERVICE, 53);
            assert_eq!(new, Decision::Rewrite(Kind::New));
            assert_ne!(to, LOCAL);
            let (known, still) = ask(&model, Place::Pod, sport, SERVICE, 53);
            assert_eq!((known, still), (Decision::Rewrite(Kind::Forward), to));
        }
    }

    #[test]
    fn a_socket_that_was_connected_here_goes_on_elsewhere() {
        let model = model();
        model.dns_answers.set(true);
        let (decision, _) = ask(&model, Place::Pod, 2000, LOCAL, 10_053);
        assert_eq!(decision, Decision::Pass);
        model.dns_answers.set(false);
        let (decision, to) = ask(&model, Place::Pod, 2000, LOCAL, 10_053);
        assert_eq!(decision, Decision::Rewrite(Kind::New));
        assert_ne!(to, LOCAL);
        for (place, port) in [(Place::Pod, 10_054), (Place::Device, 10_053)] {
            let (decision, _) = ask(&model, place, 2001, LOCAL, port);
            assert_eq!(decision, Decision::Pass, "{place:?} {port}");
        }
    }

    /// It answers names by the programs and is an endpoint like the others, until it is gone.
    #[test]
    fn an_instance_that_is_gone_is_passed_by() {
        let mut model = model();
        if let Some(control) = &mut model.dns {
            control.local_until_secs = 0;
            control.answers_until_secs = 1;
        }
        for answers in [true, false] {
            model.dns_answers.set(answers);
            let mut here = false;
            for seed in 0..64_u32 {
                model.seed.set(seed.wrapping_mul(0x9e37_79b9));
                let sport = if answers { 4000 } else { 5000 } + seed as u16;
                let (decision, to) = ask(&model, Place::Pod, sport, SERVICE, 53);
                assert_eq!(decision, Decision::Rewrite(Kind::New));
                here |= to == LOCAL;
            }
            assert_eq!(here, answers);
        }
        // So do sockets that were connected to it.
        let (decision, to) = ask(&model, Place::Pod, 6000, LOCAL, 10_053);
        assert_eq!(decision, Decision::Rewrite(Kind::New));
        assert_ne!(to, LOCAL);
    }

    #[test]
    fn without_a_say_every_backend_has_its_share() {
        let mut model = model();
        model.dns = None;
        let mut seen = [false; 3];
        for seed in 0..64_u32 {
            model.seed.set(seed.wrapping_mul(0x9e37_79b9));
            let (_, to) = ask(&model, Place::Pod, 3000 + seed as u16, SERVICE, 53);
            seen[usize::from(to[3] - 1)] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
