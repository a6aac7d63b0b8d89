//! StatefulSet and ControllerRevision.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::persistent_volume::default_volume_mode;
use super::workload::{
    CONTAINERS, IMAGES, bad_amount, bad_lasting_template, bad_match, bad_negatives, bad_percent,
    bad_required_selector, clear_status, containers, default_template, is_zero, object_age,
};
use crate::field::FieldError;
use crate::scale::Scale;
use crate::table::{AGE, BASE, NAME, Resource, SCALE, STATUS, column};
use crate::value::{at, items_mut, keep, list, number, object_mut, set, set_default, text};
use crate::{meta, names};

/// StatefulSets.
pub(crate) static STATEFUL_SETS: Resource = Resource {
    group: "apps",
    kind: "StatefulSet",
    list_kind: "StatefulSetList",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage_prefix: "/registry/statefulsets",
    definition: "io.k8s.api.apps.v1.StatefulSet",
    has_generation: true,
    columns: &[
        NAME,
        column("Ready", "Number of the Pod with ready state."),
        AGE,
        CONTAINERS,
        IMAGES,
    ],
    cells,
    default,
    warnings: super::pod_warnings::of_stateful_set,
    prepare_create: |object| {
        clear_status(object);
        set(
            object,
            "status",
            json!({"replicas": 0, "availableReplicas": 0}),
        );
    },
    validate,
    validate_update,
    scale: Some(&Scale::WORKLOAD),
    validate_status: Some(super::workload_status::stateful_set),
    ..BASE
};

/// ControllerRevisions: what a StatefulSet or DaemonSet was.
pub(crate) static CONTROLLER_REVISIONS: Resource = Resource {
    group: "apps",
    kind: "ControllerRevision",
    list_kind: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    storage_prefix: "/registry/controllerrevisions",
    definition: "io.k8s.api.apps.v1.ControllerRevision",
    columns: &[
        NAME,
        column("Controller", "What it is a revision of."),
        column("Revision", "Its place in the order of revisions."),
        AGE,
    ],
    cells: revision_cells,
    validate: validate_revision,
    validate_update: |new, old| {
        let mut wrong = validate_revision(new);
        if at(new, &["data"]) != at(old, &["data"]) {
            wrong.push(FieldError::invalid(
                "data",
                at(new, &["data"]),
                "field is immutable",
            ));
        }
        wrong
    },
    ..BASE
};

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let (names, images) = containers(at(object, &["spec", "template"]));
    let ready = number(object, &["status", "readyReplicas"]);
    let wanted = number(object, &["spec", "replicas"]);
    vec![
        meta::name(object).into(),
        format!("{ready}/{wanted}").into(),
        object_age(object, now),
        names,
        images,
    ]
}

fn default(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    default_template(spec, "template");
    set_default(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    if let Some(policy) = object_mut(spec, "persistentVolumeClaimRetentionPolicy") {
        set_default(policy, "whenDeleted", "Retain");
        set_default(policy, "whenScaled", "Retain");
    }
    if let Some(strategy) = object_mut(spec, "updateStrategy") {
        let given = strategy.as_object().is_some_and(|s| !s.is_empty());
        set_default(strategy, "type", "RollingUpdate");
        let rolling = text(strategy, &["type"]) == "RollingUpdate";
        if rolling
            && (!given || strategy.get("rollingUpdate").is_none_or(Value::is_object))
            && let Some(rolling) = object_mut(strategy, "rollingUpdate")
        {
            set_default(rolling, "partition", 0);
        }
    }
    for claim in items_mut(spec, "volumeClaimTemplates") {
        if !claim.is_object() {
            continue;
        }
        set_default(claim, "apiVersion", "v1");
        set_default(claim, "kind", "PersistentVolumeClaim");
        if let Some(spec) = object_mut(claim, "spec") {
            default_volume_mode(spec);
            object_mut(spec, "resources");
        }
        if let Some(status) = object_mut(claim, "status") {
            set_default(status, "phase", "Pending");
        }
    }
}

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = Vec::new();
    match text(spec, &["podManagementPolicy"]) {
        "OrderedReady" | "Parallel" => {}
        "" => wrong.push(FieldError::required("spec.podManagementPolicy", "")),
        other => wrong.push(FieldError::invalid_text(
            "spec.podManagementPolicy",
            other,
            "must be 'OrderedReady' or 'Parallel'",
        )),
    }
    wrong.extend(bad_update_strategy(at(spec, &["updateStrategy"])));
    let retention = at(spec, &["persistentVolumeClaimRetentionPolicy"]);
    for key in ["whenDeleted", "whenScaled"] {
        let policy = text(retention, &[key]);
        if !matches!(policy, "Retain" | "Delete" | "") {
            wrong.push(FieldError::not_supported(
                format!("spec.persistentVolumeClaimRetentionPolicy.{key}"),
                policy,
                &["Delete", "Retain"],
            ));
        }
    }
    let keys = ["replicas", "minReadySeconds"];
    wrong.extend(bad_negatives(spec, "spec", &keys));
    wrong.extend(bad_negatives(
        at(spec, &["ordinals"]),
        "spec.ordinals",
        &["start"],
    ));
    let service = text(spec, &["serviceName"]);
    if !service.is_empty() {
        for why in names::subdomain(service) {
            wrong.push(FieldError::invalid_text("spec.serviceName", service, why));
        }
    }
    wrong.extend(bad_required_selector(spec, "statefulset"));
    wrong.extend(bad_match(spec));
    let template = at(spec, &["template"]);
    wrong.extend(bad_lasting_template(
        &with_claims(spec, template),
        "spec.template",
        "StatefulSet",
    ));
    wrong
}

/// The template with the claims' volumes in it: mounts may name them.
fn with_claims(spec: &Value, template: &Value) -> Value {
    let mut template = template.clone();
    let own: Vec<String> = list(&template, &["spec", "volumes"])
        .iter()
        .map(|v| text(v, &["name"]).to_owned())
        .collect();
    let added: Vec<Value> = list(spec, &["volumeClaimTemplates"])
        .iter()
        .map(meta::name)
        .filter(|name| !name.is_empty() && !own.iter().any(|o| o == name))
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    if !added.is_empty()
        && let Some(spec) = object_mut(&mut template, "spec")
        && let Some(map) = spec.as_object_mut()
        && let Value::Array(volumes) = map.entry("volumes").or_insert_with(|| json!([]))
    {
        volumes.extend(added);
    }
    template
}

fn bad_update_strategy(strategy: &Value) -> Vec<FieldError> {
    let rolling = at(strategy, &["rollingUpdate"]);
    let field = "spec.updateStrategy.rollingUpdate";
    match text(strategy, &["type"]) {
        "" => vec![FieldError::required("spec.updateStrategy", "")],
        "OnDelete" if rolling.is_null() => Vec::new(),
        "OnDelete" => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            vec![FieldError::invalid(field, rolling, why)]
        }
        "RollingUpdate" => {
            let mut wrong = bad_negatives(rolling, field, &["partition"]);
            let unavailable = at(rolling, &["maxUnavailable"]);
            if !unavailable.is_null() {
                let path = format!("{field}.maxUnavailable");
                wrong.extend(bad_amount(unavailable, &path));
                if is_zero(unavailable) {
                    wrong.push(FieldError::invalid(
                        path.clone(),
                        unavailable,
                        "cannot be 0",
                    ));
                }
                wrong.extend(bad_percent(unavailable, &path));
            }
            wrong
        }
        _ => vec![FieldError::invalid(
            "spec.updateStrategy",
            strategy,
            "must be 'RollingUpdate' or 'OnDelete'",
        )],
    }
}

const FROZEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let before = at(old, &["spec"]);
    let mut rest = at(new, &["spec"]).clone();
    for key in [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ] {
        keep(&mut rest, before, key);
    }
    if rest != *before {
        wrong.push(FieldError::forbidden("spec", FROZEN));
    }
    wrong
}

fn revision_cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let owner = list(object, &["metadata", "ownerReferences"])
        .iter()
        .find(|o| crate::value::flag(o, &["controller"]));
    let controller = owner.map_or_else(
        || "<none>".to_owned(),
        |owner| {
            let group = text(owner, &["apiVersion"])
                .rsplit_once('/')
                .map_or("", |(g, _)| g);
            let kind = text(owner, &["kind"]).to_lowercase();
            let dot = if group.is_empty() { "" } else { "." };
            format!("{kind}{dot}{group}/{}", text(owner, &["name"]))
        },
    );
    vec![
        meta::name(object).into(),
        controller.into(),
        number(object, &["revision"]).into(),
        object_age(object, now),
    ]
}

fn validate_revision(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if at(object, &["data"]).is_null() {
        wrong.push(FieldError::required("data", "data is mandatory"));
    }
    wrong.extend(
        bad_negatives(object, "", &["revision"])
            .into_iter()
            .map(|mut e| {
                e.field = "revision".to_owned();
                e
            }),
    );
    wrong
}
