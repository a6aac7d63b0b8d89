//! What a decision costs where a cluster has a thousand bindings beyond those that it began with.
#![expect(clippy::disallowed_methods, reason = "a bench looks at the clock")]

use std::hint::black_box;
use std::time::Instant;

use authorization::{Attributes, Rbac, ResourceTarget, Target, User, bootstrap};
use serde_json::json;

/// Nanoseconds that a decision may take on average.
const LIMIT_NANOS: f64 = 5_000.0;

fn main() {
    let mut rbac = Rbac::default();
    for object in bootstrap::objects() {
        if object.get("roleRef").is_some() {
            rbac.put_binding(&object);
        } else {
            rbac.put_role(&object);
        }
    }
    for n in 0..1_000 {
        let namespace = (n % 2 == 0).then(|| format!("ns-{}", n / 20));
        rbac.put_binding(&json!({
            "metadata": {"name": format!("b-{n}"), "namespace": namespace},
            "roleRef": {"kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "User", "name": format!("user-{}", n / 4)}],
        }));
    }
    let mut groups = vec!["system:authenticated".to_owned()];
    groups.extend((0..10).map(|n| format!("team-{n}")));
    let user = |name: &str| User {
        groups: groups.clone(),
        ..User::new(name, &[])
    };
    let at = |namespace, resource| {
        Target::Resource(ResourceTarget {
            version: "v1",
            namespace,
            resource,
            name: "x",
            ..ResourceTarget::default()
        })
    };
    let mut missed = false;
    for (case, user, target) in [
        ("allowed", user("user-5"), at("ns-1", "pods")),
        ("refused", user("user-5"), at("ns-1", "nodes")),
        ("unknown", user("nobody"), at("ns-7", "pods")),
    ] {
        let attributes = Attributes {
            user: &user,
            verb: "create",
            target,
        };
        // The median of rounds: one that the system interrupted says nothing about the index.
        let (rounds, decisions) = (201, 1_000);
        let mut spent: Vec<f64> = (0..rounds)
            .map(|_| {
                let begun = Instant::now();
                for _ in 0..decisions {
                    black_box(rbac.decide(black_box(&attributes)));
                }
                begun.elapsed().as_secs_f64() * 1e9 / f64::from(decisions)
            })
            .collect();
        spent.sort_by(f64::total_cmp);
        let nanos = spent[rounds / 2];
        let allowed = rbac.decide(&attributes).is_allowed();
        missed |= nanos > LIMIT_NANOS;
        println!(
            "{{\"bench\": \"authorization\", \"case\": \"{case}\", \"metric\": \"ns_per_decision\", \
             \"value\": {nanos:.0}, \"unit\": \"ns\", \"allowed\": {allowed}}}"
        );
    }
    if missed {
        eprintln!("a decision takes more than {LIMIT_NANOS} ns");
        std::process::exit(1);
    }
}
