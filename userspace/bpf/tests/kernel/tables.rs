//! What the tables hold, how fast, and what happens when they are full.

use std::time::Instant;

use abi::NodeConfig;
use bpf::{Capacities, Datapath, Settings};
use plan::{Step, Store, Tables};

use crate::ground::{Ground, describe};
use crate::samples::{backend, frontend, key4, key6, service};

#[test]
fn what_is_applied_is_what_is_observed() {
    let ground = Ground::new("apply");
    let mut datapath = Datapath::open(&ground.settings()).unwrap();
    assert_eq!(datapath.observe().unwrap(), Tables::default());

    let mut model = Tables::default();
    let turns: Vec<Vec<Step>> = vec![
        (1..300).flat_map(|n| service(key4(n), n, 3)).collect(),
        (1..=9)
            .map(|n| Step::PutFrontend(key6(n), frontend(n, n * 3, 3)))
            .collect(),
        // A batch with a key that is not there, and one key twice.
        [key4(7), key4(9_999), key4(8), key4(7), key4(9)]
            .map(Step::RemoveFrontend)
            .to_vec(),
        vec![
            Step::PutFrontend(key4(20), frontend(20, 0, 0)),
            Step::ClearRing { offset: 60, len: 3 },
            Step::RemoveBackend(60),
            Step::RemoveBackend(61),
            Step::PutFrontend(key4(20), frontend(20, 60, 1)),
            Step::RemoveFrontend(key6(1)),
            Step::RemoveFrontend(key6(2)),
        ],
        vec![],
    ];
    for steps in &turns {
        datapath.apply(steps).unwrap();
        model.apply(steps).unwrap();
        assert_eq!(datapath.observe().unwrap(), model);
    }

    let node = NodeConfig {
        addr4: [192, 0, 2, 1],
        snat_port_min: 61_000.into(),
        ..NodeConfig::default()
    };
    datapath.set_node(&node).unwrap();
    assert_eq!(datapath.node().unwrap(), node);
}

#[test]
fn a_full_table_names_the_step_and_the_rest_can_go_on() {
    let ground = Ground::new("full");
    let settings = Settings {
        capacities: Capacities {
            frontends: 8,
            rings: 64,
            backends: 64,
            ..ground.settings().capacities
        },
        ..ground.settings()
    };
    let mut datapath = Datapath::open(&settings).unwrap();
    let steps: Vec<Step> = (1..=12)
        .map(|n| Step::PutFrontend(key4(n), frontend(n, 0, 0)))
        .collect();
    let stopped = datapath.apply(&steps).unwrap_err();
    assert_eq!(stopped.index, 8);
    assert!(stopped.source.is_full());
    let text = describe(&stopped);
    for part in [
        "FRONTENDS4",
        "10.0.0.9:80/TCP",
        "its 8 entries",
        "--frontends-max",
    ] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    // What does not need the table still works, replacing included.
    let steps = [
        Step::PutFrontend(key4(3), frontend(3, 1, 1)),
        Step::RemoveFrontend(key4(1)),
        Step::PutFrontend(key4(9), frontend(9, 0, 0)),
    ];
    datapath.apply(&steps).unwrap();
    let observed = datapath.observe().unwrap();
    assert_eq!(observed.frontends.len(), 8);
    assert_eq!(observed.frontends[&key4(3)].ring_len, 1);

    for (step, part) in [
        (Step::PutBackend(64, backend(1, 1)), "--backends-max"),
        (
            Step::PutRing {
                offset: 62,
                backends: vec![1, 2, 3],
            },
            "--rings-max",
        ),
    ] {
        let stopped = datapath.apply(&[step]).unwrap_err();
        assert!(describe(&stopped).contains(part), "{}", describe(&stopped));
    }
    let fill = datapath.fill().unwrap();
    let frontends = fill.iter().find(|fill| fill.table == "FRONTENDS4").unwrap();
    assert_eq!((frontends.used, frontends.capacity), (8, 8));
}

/// The figure behind the demand that 50,000 Services with 5 endpoints each are programmed within a second.
#[test]
fn fifty_thousand_services_are_programmed_at_once() {
    let ground = Ground::new("cold");
    let mut settings = ground.settings();
    settings.capacities = Capacities::default();
    let opened = Instant::now();
    let mut datapath = Datapath::open(&settings).unwrap();
    let opened = opened.elapsed();
    let steps: Vec<Step> = (1..=50_000).flat_map(|n| service(key4(n), n, 5)).collect();
    let cold = Instant::now();
    datapath.apply(&steps).unwrap();
    let cold = cold.elapsed();

    let (mut backends, mut rings, mut frontends) = (Vec::new(), Vec::new(), Vec::new());
    for step in steps {
        match step {
            Step::PutBackend(..) => backends.push(step),
            Step::PutFrontend(..) => frontends.push(step),
            _ => rings.push(step),
        }
    }
    let sorted: Vec<Step> = [backends, rings, frontends].concat();
    let again = Instant::now();
    datapath.apply(&sorted).unwrap();
    let again = again.elapsed();

    let read = Instant::now();
    let observed = datapath.observe().unwrap();
    let read = read.elapsed();
    let mut single: Vec<_> = (50_001..50_021)
        .map(|n| {
            let steps = service(key4(n), n, 5);
            let started = Instant::now();
            datapath.apply(&steps).unwrap();
            started.elapsed()
        })
        .collect();
    single.sort();
    let one = single[single.len() / 2];
    println!(
        "open {opened:?}; 50,000 x 5: {cold:?} service by service, {again:?} kind by kind; observe {read:?}; one more {one:?}"
    );
    assert_eq!(observed.frontends.len(), 50_000);
    assert_eq!(observed.rings.len(), 250_000);
    assert_eq!(observed.backends.len(), 250_000);
    // The better of two, because other tests run at the same time.
    let best = cold.min(again);
    assert!(best.as_secs_f64() < 1.0, "{best:?}");
    assert!(one.as_micros() < 1_000, "{one:?}");
}
