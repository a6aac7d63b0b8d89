//! Lease: who leads, who is alive.

use serde_json::Value;

use crate::duration::age;
use crate::field::FieldError;
use crate::table::{AGE, BASE, NAME, Resource, column};
use crate::value::{self, at, number, text};

/// Leases.
pub(crate) static LEASES: Resource = Resource {
    group: "coordination.k8s.io",
    kind: "Lease",
    list_kind: "LeaseList",
    plural: "leases",
    singular: "lease",
    storage_prefix: "/registry/leases",
    definition: "io.k8s.api.coordination.v1.Lease",
    unconditional_update: false,
    create_on_update: true,
    columns: &[NAME, column("Holder", "Who holds it."), AGE],
    cells: |object, now| {
        vec![
            text(object, &["metadata", "name"]).into(),
            text(object, &["spec", "holderIdentity"]).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    default: |object| {
        value::object_mut(object, "spec");
    },
    prepare_create: |object| {
        for key in ELECTION {
            forget(object, key);
        }
    },
    prepare_update: |new, old| {
        for key in ELECTION {
            if at(old, &["spec", key]).is_null() {
                forget(new, key);
            }
        }
    },
    validate,
    validate_update: |new, _| validate(new),
    ..BASE
};

/// What a coordinated election would write, which is off in 1.35; where it stands already, it stays.
const ELECTION: [&str; 2] = ["strategy", "preferredHolder"];

fn forget(lease: &mut Value, key: &str) {
    if let Some(spec) = lease.get_mut("spec") {
        value::remove(spec, key);
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    if !at(spec, &["leaseDurationSeconds"]).is_null()
        && number(spec, &["leaseDurationSeconds"]) <= 0
    {
        wrong.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            at(spec, &["leaseDurationSeconds"]),
            "must be greater than 0",
        ));
    }
    if number(spec, &["leaseTransitions"]) < 0 {
        wrong.push(FieldError::invalid(
            "spec.leaseTransitions",
            at(spec, &["leaseTransitions"]),
            "must be greater than or equal to 0",
        ));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_elections_would_write_is_left_out() {
        let spec = json!({"holderIdentity": "a", "strategy": "OldestEmulationVersion", "preferredHolder": "b"});
        let sent = json!({"spec": spec});
        let mut lease = sent.clone();
        (LEASES.prepare_create)(&mut lease);
        assert_eq!(lease, json!({"spec": {"holderIdentity": "a"}}));
        let mut new = sent.clone();
        (LEASES.prepare_update)(&mut new, &lease);
        assert_eq!(new, lease);
        let mut new = sent.clone();
        (LEASES.prepare_update)(&mut new, &sent);
        assert_eq!(new, sent);
    }
}
