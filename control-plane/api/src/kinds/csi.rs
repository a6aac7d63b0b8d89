//! storage.k8s.io: what storage drivers say of themselves, of nodes and of how much room there is.

use serde_json::{Value, json};

use super::storage_class::{STORAGE, bad_driver_name};
use super::{created_at, immutable, named_cells};
use crate::field::FieldError;
use crate::names;
use crate::quantity::Quantity;
use crate::table::{AGE, CREATED_AT, Column, NAME, Resource, column, typed};
use crate::value::{self, at, list, set_default, text};

/// What a driver can do.
pub(crate) static CSI_DRIVERS: Resource = Resource {
    kind: "CSIDriver",
    list_kind: "CSIDriverList",
    plural: "csidrivers",
    singular: "csidriver",
    storage_prefix: "/registry/csidrivers",
    definition: "io.k8s.api.storage.v1.CSIDriver",
    unconditional_update: false,
    columns: DRIVER_COLUMNS,
    cells: |object, now| {
        let spec = at(object, &["spec"]);
        let or = |key: &str, default: bool| -> Value {
            at(spec, &[key]).as_bool().unwrap_or(default).into()
        };
        let join = |items: Vec<&str>, none: &str| -> Value {
            if items.is_empty() {
                none.into()
            } else {
                items.join(",").into()
            }
        };
        let tokens = list(spec, &["tokenRequests"])
            .iter()
            .map(|request| text(request, &["audience"]))
            .collect();
        let modes = list(spec, &["volumeLifecycleModes"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        named_cells(
            object,
            [
                or("attachRequired", true),
                or("podInfoOnMount", false),
                or("storageCapacity", false),
                join(tokens, "<unset>"),
                or("requiresRepublish", false),
                join(modes, "<none>"),
            ],
            now,
        )
    },
    default: |object| {
        let Some(spec) = value::object_mut(object, "spec") else {
            return;
        };
        set_default(spec, "attachRequired", true);
        set_default(spec, "podInfoOnMount", false);
        set_default(spec, "storageCapacity", false);
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        set_default(spec, "requiresRepublish", false);
        set_default(spec, "seLinuxMount", false);
        if at(spec, &["volumeLifecycleModes"]).is_null() {
            value::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    },
    validate: validate_driver,
    validate_update: |new, old| {
        let mut wrong = validate_driver(new);
        for key in ["attachRequired", "volumeLifecycleModes"] {
            wrong.extend(immutable(new, old, &["spec", key]));
        }
        wrong
    },
    ..STORAGE
};

const DRIVER_COLUMNS: &[Column] = &[
    NAME,
    typed(
        "AttachRequired",
        "boolean",
        "Whether volumes are attached before they are mounted.",
    ),
    typed(
        "PodInfoOnMount",
        "boolean",
        "Whether the driver is told of the Pod.",
    ),
    typed(
        "StorageCapacity",
        "boolean",
        "Whether it tells how much room there is.",
    ),
    column("TokenRequests", "Audiences of the tokens that it gets."),
    typed(
        "RequiresRepublish",
        "boolean",
        "Whether mounts are renewed from time to time.",
    ),
    column("Modes", "How long its volumes live."),
    AGE,
];

fn validate_driver(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    for mode in list(spec, &["volumeLifecycleModes"]) {
        let mode = mode.as_str().unwrap_or("");
        if !matches!(mode, "Persistent" | "Ephemeral") {
            wrong.push(FieldError::not_supported(
                "spec.volumeLifecycleModes",
                mode,
                &["Ephemeral", "Persistent"],
            ));
        }
    }
    let policy = text(spec, &["fsGroupPolicy"]);
    if !matches!(policy, "ReadWriteOnceWithFSType" | "File" | "None") {
        wrong.push(FieldError::not_supported(
            "spec.fsGroupPolicy",
            policy,
            &["File", "None", "ReadWriteOnceWithFSType"],
        ));
    }
    let mut audiences = std::collections::BTreeSet::new();
    for (i, request) in list(spec, &["tokenRequests"]).iter().enumerate() {
        let audience = text(request, &["audience"]);
        if !audiences.insert(audience) {
            wrong.push(FieldError::duplicate(
                format!("spec.tokenRequests[{i}].audience"),
                crate::field::quoted(audience),
            ));
            continue;
        }
        let seconds = at(request, &["expirationSeconds"]);
        let why = match seconds.as_i64() {
            Some(secs) if secs < 600 => "may not specify a duration less than 10 minutes",
            Some(secs) if secs > 1 << 32 => "may not specify a duration larger than 2^32 seconds",
            _ => continue,
        };
        wrong.push(FieldError::invalid(
            format!("spec.tokenRequests[{i}].expirationSeconds"),
            seconds,
            why,
        ));
    }
    let period = at(spec, &["nodeAllocatableUpdatePeriodSeconds"]);
    if period.as_i64().is_some_and(|secs| secs < 10) {
        wrong.push(FieldError::invalid(
            "spec.nodeAllocatableUpdatePeriodSeconds",
            period,
            "must be greater than or equal to 10 seconds",
        ));
    }
    wrong
}

/// The drivers on a node.
pub(crate) static CSI_NODES: Resource = Resource {
    kind: "CSINode",
    list_kind: "CSINodeList",
    plural: "csinodes",
    singular: "csinode",
    storage_prefix: "/registry/csinodes",
    definition: "io.k8s.api.storage.v1.CSINode",
    unconditional_update: false,
    columns: &[
        NAME,
        typed("Drivers", "integer", "Drivers on the node."),
        AGE,
    ],
    cells: |object, now| {
        named_cells(
            object,
            [list(object, &["spec", "drivers"]).len().into()],
            now,
        )
    },
    default: |object| {
        if let Some(spec) = value::object_mut(object, "spec") {
            value::null_if_empty(spec, "drivers");
        }
    },
    validate: validate_csi_node,
    validate_update: |new, old| {
        let mut wrong = validate_csi_node(new);
        wrong.extend(changed_drivers(new, old));
        wrong
    },
    ..STORAGE
};

/// A driver that a node has had says the same of itself for ever; how much it takes may change.
fn changed_drivers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for (i, driver) in list(new, &["spec", "drivers"]).iter().enumerate() {
        let before = list(old, &["spec", "drivers"])
            .iter()
            .find(|before| text(before, &["name"]) == text(driver, &["name"]));
        for key in ["nodeID", "topologyKeys"] {
            let Some(before) = before else { continue };
            if !value::same(at(driver, &[key]), at(before, &[key])) {
                wrong.push(FieldError::invalid(
                    format!("spec.drivers[{i}].{key}"),
                    at(driver, &[key]),
                    "field is immutable",
                ));
            }
        }
    }
    wrong
}

/// The most bytes that a node's name may have in the words of a driver.
const NODE_ID_MAX: usize = 256;

fn validate_csi_node(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (i, driver) in list(object, &["spec", "drivers"]).iter().enumerate() {
        let name = text(driver, &["name"]);
        wrong.extend(bad_driver_name(&format!("spec.drivers[{i}].name"), name));
        let node = text(driver, &["nodeID"]);
        if node.is_empty() {
            wrong.push(FieldError::required(
                format!("spec.drivers[{i}].nodeID"),
                "",
            ));
        }
        if node.len() > NODE_ID_MAX {
            wrong.push(FieldError::invalid_text(
                format!("spec.drivers[{i}].nodeID"),
                node,
                format!("must be {NODE_ID_MAX} characters or less"),
            ));
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(
                format!("spec.drivers[{i}].name"),
                crate::field::quoted(name),
            ));
        }
        let mut keys = std::collections::BTreeSet::new();
        // Findings about keys name the driver.
        let field = format!("spec.drivers[{i}]");
        for key in list(driver, &["topologyKeys"]) {
            let key = key.as_str().unwrap_or("");
            if key.is_empty() {
                wrong.push(FieldError::required(field.clone(), ""));
            }
            if !keys.insert(key) {
                wrong.push(FieldError::duplicate(
                    field.clone(),
                    crate::field::quoted(key),
                ));
            }
            for why in names::qualified_name(key) {
                wrong.push(FieldError::invalid_text(field.clone(), key, why));
            }
        }
        let count = at(driver, &["allocatable", "count"]);
        if count.as_i64().is_some_and(|count| count < 0) {
            wrong.push(FieldError::invalid(
                format!("spec.drivers[{i}].allocatable.count"),
                count,
                "must be greater than or equal to 0",
            ));
        }
    }
    wrong
}

/// How much room a class of volumes has in a part of the cluster.
pub(crate) static CSI_STORAGE_CAPACITIES: Resource = Resource {
    kind: "CSIStorageCapacity",
    list_kind: "CSIStorageCapacityList",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    namespaced: true,
    storage_prefix: "/registry/csistoragecapacities",
    definition: "io.k8s.api.storage.v1.CSIStorageCapacity",
    unconditional_update: false,
    columns: &[NAME, CREATED_AT],
    cells: created_at,
    validate: validate_capacity,
    validate_update: |new, old| {
        let mut wrong = validate_capacity(new);
        wrong.extend(immutable(new, old, &["nodeTopology"]));
        wrong.extend(immutable(new, old, &["storageClassName"]));
        wrong
    },
    ..STORAGE
};

fn validate_capacity(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let class = text(object, &["storageClassName"]);
    for why in names::subdomain(class) {
        wrong.push(FieldError::invalid_text("storageClassName", class, why));
    }
    for key in ["capacity", "maximumVolumeSize"] {
        let amount = at(object, &[key]);
        let negative = amount
            .as_str()
            .and_then(|amount| Quantity::parse(amount).ok())
            .is_some_and(|amount| amount.is_negative());
        if negative {
            wrong.push(FieldError::invalid(
                key,
                amount,
                "must be greater than or equal to 0",
            ));
        }
    }
    if at(object, &["nodeTopology"]).is_object() {
        wrong.extend(super::label_selector::bad_selector(
            "nodeTopology",
            at(object, &["nodeTopology"]),
        ));
    }
    wrong
}
