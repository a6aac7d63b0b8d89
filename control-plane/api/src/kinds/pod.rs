//! Pod: what it looks like in a list, and what it is given by default. Validation is in `pod_spec`.

use serde_json::Value;
use time::OffsetDateTime;

use super::pod_defaults::default;
use super::pod_spec;
use crate::duration::{age, parse_time};
use crate::meta;
use crate::table::{AGE, BASE, Column, Field, NAME, Resource, column, wide};
use crate::value::{self, at, flag, list, number, text};

/// Pods.
pub(crate) static PODS: Resource = Resource {
    kind: "Pod",
    list_kind: "PodList",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    subresources: super::pod_parts::SUBRESOURCES,
    storage_prefix: "/registry/pods",
    definition: "io.k8s.api.core.v1.Pod",
    has_generation: true,
    graceful_deletion: true,
    returns_deleted: true,
    columns: COLUMNS,
    cells,
    fields: FIELDS,
    default,
    prepare_create: |object| {
        pod_spec::write_label_keys(object);
        value::set(
            object,
            "status",
            serde_json::json!({"phase": "Pending", "qosClass": super::pod_defaults::qos(object)}),
        );
    },
    warnings: super::pod_warnings::of_pod,
    validate: pod_spec::new_pod,
    validate_update: pod_spec::update::check,
    prepare_status: pod_spec::status::prepare,
    validate_status: Some(pod_spec::status::check),
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "Containers that are ready, of how many."),
    column("Status", "Where it is in its life, or what went wrong."),
    column(
        "Restarts",
        "How often its containers were started again, and when last.",
    ),
    AGE,
    wide("IP", "Its address."),
    wide("Node", "Where it runs."),
    wide("Nominated Node", "Where it may run once others have left."),
    wide(
        "Readiness Gates",
        "Conditions that hold, of those that it waits for.",
    ),
];

const FIELDS: &[Field] = &[
    Field {
        label: "spec.nodeName",
        get: |o| text(o, &["spec", "nodeName"]).to_owned(),
    },
    Field {
        label: "spec.host",
        get: |o| text(o, &["spec", "nodeName"]).to_owned(),
    },
    Field {
        label: "spec.restartPolicy",
        get: |o| text(o, &["spec", "restartPolicy"]).to_owned(),
    },
    Field {
        label: "spec.schedulerName",
        get: |o| text(o, &["spec", "schedulerName"]).to_owned(),
    },
    Field {
        label: "spec.serviceAccountName",
        get: |o| text(o, &["spec", "serviceAccountName"]).to_owned(),
    },
    Field {
        label: "spec.hostNetwork",
        get: |o| flag(o, &["spec", "hostNetwork"]).to_string(),
    },
    Field {
        label: "status.phase",
        get: |o| text(o, &["status", "phase"]).to_owned(),
    },
    Field {
        label: "status.podIP",
        get: |o| first_ip(o).to_owned(),
    },
    Field {
        label: "status.podIPs",
        get: |o| first_ip(o).to_owned(),
    },
    Field {
        label: "status.nominatedNodeName",
        get: |o| text(o, &["status", "nominatedNodeName"]).to_owned(),
    },
];

fn first_ip(object: &Value) -> &str {
    match list(object, &["status", "podIPs"]).first() {
        Some(ip) => text(ip, &["ip"]),
        None => text(object, &["status", "podIP"]),
    }
}

fn cells(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let state = State::of(object);
    let or_none = |text: &str| {
        if text.is_empty() {
            "<none>".to_owned()
        } else {
            text.to_owned()
        }
    };
    let restarts = match state.last_restart {
        Some(at) if state.restarts != 0 => {
            format!(
                "{} ({} ago)",
                state.restarts,
                crate::duration::human((now - at).whole_seconds())
            )
        }
        _ => state.restarts.to_string(),
    };
    vec![
        meta::name(object).into(),
        format!("{}/{}", state.ready, state.total).into(),
        state.reason.into(),
        restarts.into(),
        age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        or_none(first_ip(object)).into(),
        or_none(text(object, &["spec", "nodeName"])).into(),
        or_none(text(object, &["status", "nominatedNodeName"])).into(),
        gates(object).into(),
    ]
}

fn gates(object: &Value) -> String {
    let gates = list(object, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let holds = |gate: &&Value| condition(object, text(gate, &["conditionType"]));
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

fn condition(object: &Value, kind: &str) -> bool {
    list(object, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
}

/// The one word that says how a Pod is, and the counts beside it.
struct State {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: Option<OffsetDateTime>,
}

impl State {
    fn of(object: &Value) -> Self {
        let inits = list(object, &["spec", "initContainers"]);
        let sidecar = |name: &str| {
            inits
                .iter()
                .any(|c| text(c, &["name"]) == name && text(c, &["restartPolicy"]) == "Always")
        };
        let phase = text(object, &["status", "phase"]);
        let mut state = State {
            ready: 0,
            total: list(object, &["spec", "containers"]).len()
                + inits
                    .iter()
                    .filter(|c| text(c, &["restartPolicy"]) == "Always")
                    .count(),
            reason: phase.to_owned(),
            restarts: 0,
            last_restart: None,
        };
        let reason = text(object, &["status", "reason"]);
        if !reason.is_empty() {
            state.reason = reason.to_owned();
        }
        let gated = list(object, &["status", "conditions"]).iter().any(|c| {
            text(c, &["type"]) == "PodScheduled" && text(c, &["reason"]) == "SchedulingGated"
        });
        if gated {
            state.reason = "SchedulingGated".to_owned();
        }
        let mut sidecar_restarts = 0;
        let mut sidecar_last = None;
        let mut initializing = false;
        for (i, status) in list(object, &["status", "initContainerStatuses"])
            .iter()
            .enumerate()
        {
            let is_sidecar = sidecar(text(status, &["name"]));
            state.restarts += number(status, &["restartCount"]);
            state.last_restart = state.last_restart.max(last_end(status));
            if is_sidecar {
                sidecar_restarts += number(status, &["restartCount"]);
                sidecar_last = sidecar_last.max(last_end(status));
            }
            let ended = at(status, &["state", "terminated"]);
            let waiting = text(status, &["state", "waiting", "reason"]);
            if ended.is_object() && number(ended, &["exitCode"]) == 0 {
                continue;
            }
            if is_sidecar && flag(status, &["started"]) {
                state.ready += usize::from(flag(status, &["ready"]));
                continue;
            }
            state.reason = if ended.is_object() {
                format!("Init:{}", end_reason(ended))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", inits.len())
            };
            initializing = true;
            break;
        }
        if !initializing || condition(object, "Initialized") {
            state.restarts = sidecar_restarts;
            state.last_restart = sidecar_last;
            state.running(object);
        }
        if !text(object, &["metadata", "deletionTimestamp"]).is_empty() {
            if reason == "NodeLost" {
                state.reason = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                state.reason = "Terminating".to_owned();
            }
        }
        state
    }

    fn running(&mut self, object: &Value) {
        let mut some_run = false;
        for status in list(object, &["status", "containerStatuses"]).iter().rev() {
            self.restarts += number(status, &["restartCount"]);
            self.last_restart = self.last_restart.max(last_end(status));
            let waiting = text(status, &["state", "waiting", "reason"]);
            let ended = at(status, &["state", "terminated"]);
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if ended.is_object() {
                self.reason = end_reason(ended);
            } else if flag(status, &["ready"]) && at(status, &["state", "running"]).is_object() {
                some_run = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && some_run {
            self.reason = if condition(object, "Ready") {
                "Running"
            } else {
                "NotReady"
            }
            .to_owned();
        }
    }
}

fn last_end(status: &Value) -> Option<OffsetDateTime> {
    parse_time(text(status, &["lastState", "terminated", "finishedAt"]))
}

fn end_reason(ended: &Value) -> String {
    match (text(ended, &["reason"]), number(ended, &["signal"])) {
        ("", 0) => format!("ExitCode:{}", number(ended, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
