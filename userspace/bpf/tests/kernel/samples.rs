//! Services to fill tables with.

use abi::{Backend, Frontend, FrontendKey4, FrontendKey6, family, protocol};
use plan::{FrontendKey, Step};

/// The frontend of service `n`.
pub(crate) fn key4(n: u32) -> FrontendKey {
    let [_, a, b, c] = n.to_be_bytes();
    FrontendKey::V4(FrontendKey4 {
        addr: [10, a, b, c],
        port: 80.into(),
        proto: protocol::TCP,
        scope: 0,
    })
}

/// The IPv6 frontend of service `n`.
pub(crate) fn key6(n: u32) -> FrontendKey {
    let mut addr = [0; 16];
    addr[12..].copy_from_slice(&n.to_be_bytes());
    FrontendKey::V6(FrontendKey6 {
        addr,
        port: 53.into(),
        proto: protocol::UDP,
        scope: 0,
    })
}

/// A backend of a service.
pub(crate) fn backend(service: u32, n: u8) -> Backend {
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[10, 244, 0, n]);
    Backend {
        addr,
        port: 8080.into(),
        family: family::V4,
        flags: 0,
        service,
    }
}

/// What a frontend leads to.
pub(crate) fn frontend(service: u32, ring_offset: u32, ring_len: u32) -> Frontend {
    Frontend {
        service,
        ring_offset,
        ring_len,
        ..Frontend::default()
    }
}

/// The steps that bring a service with `n` backends into empty tables, identifiers by its number.
pub(crate) fn service(key: FrontendKey, service: u32, n: u32) -> Vec<Step> {
    let first = service * n;
    let ids: Vec<u32> = (first..first + n).collect();
    let mut steps: Vec<Step> = ids
        .iter()
        .map(|id| Step::PutBackend(*id, backend(service, (id - first) as u8)))
        .collect();
    steps.push(Step::PutRing {
        offset: first,
        backends: ids,
    });
    steps.push(Step::PutFrontend(key, frontend(service, first, n)));
    steps
}
