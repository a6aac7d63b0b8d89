//! ReplicaSet, ReplicationController and PodTemplate.

use serde_json::Value;
use time::OffsetDateTime;

use super::workload::{
    CONTAINERS, IMAGES, SELECTOR, bad_change, bad_lasting_template, bad_match, bad_negatives,
    bad_required_selector, bad_template, clear_status, containers, default_template, labels,
    object_age, selector,
};
use crate::field::FieldError;
use crate::meta;
use crate::scale::Scale;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, SCALE, STATUS, column};
use crate::value::{at, entries, number, object_mut, set, set_default};

/// ReplicaSets.
pub(crate) static REPLICA_SETS: Resource = Resource {
    group: "apps",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage_prefix: "/registry/replicasets",
    definition: "io.k8s.api.apps.v1.ReplicaSet",
    has_generation: true,
    columns: COLUMNS,
    cells: |object, now| cells(object, now, selector(at(object, &["spec", "selector"]))),
    fields: REPLICAS,
    default: |object| {
        if let Some(spec) = object_mut(object, "spec") {
            default_template(spec, "template");
            set_default(spec, "replicas", 1);
        }
    },
    warnings: super::pod_warnings::of_named_workload,
    prepare_create: clear_replicas,
    validate: validate_set,
    validate_update: |new, old| {
        let mut wrong = validate_set(new);
        wrong.extend(bad_change(new, old, &["spec", "selector"], "spec.selector"));
        wrong
    },
    scale: Some(&Scale::WORKLOAD),
    validate_status: Some(super::workload_status::replicas),
    ..BASE
};

/// ReplicationControllers.
pub(crate) static REPLICATION_CONTROLLERS: Resource = Resource {
    kind: "ReplicationController",
    list_kind: "ReplicationControllerList",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[SCALE, STATUS],
    storage_prefix: "/registry/controllers",
    definition: "io.k8s.api.core.v1.ReplicationController",
    has_generation: true,
    columns: COLUMNS,
    cells: |object, now| cells(object, now, labels(at(object, &["spec", "selector"]))),
    fields: REPLICAS,
    default: default_controller,
    warnings: super::pod_warnings::of_named_workload,
    prepare_create: clear_replicas,
    validate: validate_controller,
    validate_update: |new, _| validate_controller(new),
    scale: Some(&Scale::WORKLOAD),
    validate_status: Some(super::workload_status::replicas),
    ..BASE
};

/// PodTemplates.
pub(crate) static POD_TEMPLATES: Resource = Resource {
    kind: "PodTemplate",
    list_kind: "PodTemplateList",
    plural: "podtemplates",
    singular: "podtemplate",
    storage_prefix: "/registry/podtemplates",
    definition: "io.k8s.api.core.v1.PodTemplate",
    has_generation: true,
    columns: &[
        NAME,
        column("Containers", "Names of each container in the template."),
        column("Images", "Images of each container in the template."),
        column("Pod Labels", "Labels that Pods made from it get."),
    ],
    cells: |object, _| {
        let template = at(object, &["template"]);
        let (names, images) = containers(template);
        let labels = labels(at(template, &["metadata", "labels"]));
        vec![meta::name(object).into(), names, images, labels.into()]
    },
    default: |object| default_template(object, "template"),
    warnings: super::pod_warnings::of_pod_template,
    validate: |object| bad_template(at(object, &["template"]), "template"),
    validate_update: |new, _| bad_template(at(new, &["template"]), "template"),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    integer("Desired", "How many Pods there should be."),
    integer("Current", "How many Pods there are."),
    integer("Ready", "How many of them are ready."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column {
        kind: "integer",
        ..column(name, description)
    }
}

const REPLICAS: &[Field] = &[Field {
    label: "status.replicas",
    get: |o| number(o, &["status", "replicas"]).to_string(),
}];

fn cells(object: &Value, now: OffsetDateTime, selector: String) -> Vec<Value> {
    let (names, images) = containers(at(object, &["spec", "template"]));
    vec![
        meta::name(object).into(),
        number(object, &["spec", "replicas"]).into(),
        number(object, &["status", "replicas"]).into(),
        number(object, &["status", "readyReplicas"]).into(),
        object_age(object, now),
        names,
        images,
        selector.into(),
    ]
}

/// `replicas` of the status is never left out.
fn clear_replicas(object: &mut Value) {
    clear_status(object);
    set(&mut object["status"], "replicas", 0);
}

fn validate_set(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_negatives(spec, "spec", &["replicas", "minReadySeconds"]);
    wrong.extend(bad_required_selector(spec, "deployment"));
    wrong.extend(bad_match(spec));
    let template = at(spec, &["template"]);
    wrong.extend(bad_lasting_template(
        template,
        "spec.template",
        "ReplicaSet",
    ));
    wrong
}

fn default_controller(object: &mut Value) {
    let labels = at(object, &["spec", "template", "metadata", "labels"]).clone();
    if let Some(spec) = object_mut(object, "spec") {
        default_template(spec, "template");
        set_default(spec, "replicas", 1);
        if labels.is_object() {
            set_default(spec, "selector", labels.clone());
        }
    }
    if labels.is_object()
        && let Some(metadata) = object_mut(object, "metadata")
    {
        set_default(metadata, "labels", labels);
    }
}

fn validate_controller(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_negatives(spec, "spec", &["minReadySeconds"]);
    let selector = at(spec, &["selector"]);
    if entries(selector, &[]).next().is_none() {
        wrong.push(FieldError::required("spec.selector", ""));
    }
    wrong.extend(bad_negatives(spec, "spec", &["replicas"]));
    let template = at(spec, &["template"]);
    if !template.is_object() {
        wrong.push(FieldError::required("spec.template", ""));
        return wrong;
    }
    let labels = at(template, &["metadata", "labels"]);
    if entries(selector, &[]).any(|(key, value)| labels.get(key) != Some(value)) {
        let why = "`selector` does not match template `labels`";
        wrong.push(FieldError::invalid(
            "spec.template.metadata.labels",
            labels,
            why,
        ));
    }
    let kind = "ReplicationController";
    wrong.extend(bad_lasting_template(template, "spec.template", kind));
    wrong
}
