//! Random histories of steps: the kernel's tables and the model agree after every one.

use std::cell::RefCell;

use abi::{Backend, Frontend, FrontendKey4, FrontendKey6};
use bpf::Datapath;
use plan::{FrontendKey, Step, Store, Tables};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::ground::Ground;

fn key() -> impl Strategy<Value = FrontendKey> {
    (any::<bool>(), 0_u8..6).prop_map(|(six, n)| {
        if six {
            FrontendKey::V6(FrontendKey6 {
                addr: [n; 16],
                port: 80.into(),
                proto: abi::protocol::TCP,
                scope: 0,
            })
        } else {
            FrontendKey::V4(FrontendKey4 {
                addr: [n; 4],
                port: 80.into(),
                proto: abi::protocol::UDP,
                scope: 0,
            })
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let backend = (1_u32..5, 1_u8..9).prop_map(|(service, n)| Backend {
        addr: [n; 16],
        port: u16::from(n).into(),
        family: abi::family::V4,
        flags: n & abi::backends::flags::LOCAL,
        service,
    });
    let frontend =
        (1_u32..5, 0_u32..60, 0_u32..4).prop_map(|(service, ring_offset, ring_len)| Frontend {
            service,
            ring_offset,
            ring_len,
            ..Frontend::default()
        });
    prop_oneof![
        1 => (1_u32..16, backend).prop_map(|(id, backend)| Step::PutBackend(id, backend)),
        1 => (1_u32..16).prop_map(Step::RemoveBackend),
        // Zero is no backend: the model would keep it where the kernel knows an empty slot.
        1 => (0_u32..60, vec(1_u32..16, 0..4))
            .prop_map(|(offset, backends)| Step::PutRing { offset, backends }),
        1 => (0_u32..60, 0_u32..4).prop_map(|(offset, len)| Step::ClearRing { offset, len }),
        // Often enough in a row to make batches.
        4 => (key(), frontend).prop_map(|(key, frontend)| Step::PutFrontend(key, frontend)),
        4 => key().prop_map(Step::RemoveFrontend),
    ]
}

#[test]
fn kernel_and_model_agree_on_every_history() {
    let ground = Ground::new("histories");
    let datapath = Datapath::open(&ground.settings()).unwrap();
    let both = RefCell::new((datapath, Tables::default()));
    let config = ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // Each history goes on from where the one before ended.
    proptest!(config, |(turns in vec(vec(step(), 0..40), 1..6))| {
        let (datapath, model) = &mut *both.borrow_mut();
        for steps in &turns {
            datapath.apply(steps).unwrap();
            model.apply(steps).unwrap();
            prop_assert_eq!(&datapath.observe().unwrap(), &*model);
        }
    });
}
