//! PodSecurity: what the labels of a namespace say about the Pods in it, by the levels of the Pod Security Standards.
//!
//! `enforce` refuses Pods, `warn` tells the client, also of the Pods that a Deployment or Job would make. A label names
//! a level and, in a second label, the version of the standards; they are applied as of the newest version.

mod baseline;
pub mod namespace;
mod restricted;

use std::collections::BTreeSet;

use api::field::{FieldError, quoted};
use api::status::Status;
use api::value::{at, list, text};
use serde_json::Value;

use crate::plugins::writes;
use crate::pod::containers;
use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

const LABEL: &str = "pod-security.kubernetes.io/";

pub(crate) const POD_SECURITY: Plugin = Plugin {
    name: "PodSecurity",
    handles: |attributes| {
        writes(attributes.operation)
            && (template(attributes).is_some()
                || attributes.is("", "namespaces")
                || (
                    attributes.group,
                    attributes.resource,
                    attributes.subresource,
                ) == ("", "pods", "ephemeralcontainers"))
    },
    mutate: None,
    validate: Some(validate),
};

/// How much is allowed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Everything.
    Privileged,
    /// Nothing by which privileges are known to be gained.
    Baseline,
    /// Only what follows current practice in hardening.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A fault of a Pod: the reason, and more about it.
pub(crate) type Finding = (String, String);

/// One check of the standards. The first argument is the Pod's metadata, the second its spec.
type Check = fn(&Value, &Value) -> Option<Finding>;

/// Everything in a Pod that the level does not allow, as it is told: empty where the Pod is fine.
pub fn evaluate(level: Level, metadata: &Value, spec: &Value) -> String {
    let told: Vec<String> = findings(level, metadata, spec)
        .into_iter()
        .map(|(reason, detail)| match detail.as_str() {
            "" => reason,
            detail => format!("{reason} ({detail})"),
        })
        .collect();
    told.join(", ")
}

fn findings(level: Level, metadata: &Value, spec: &Value) -> Vec<Finding> {
    let checks: &[&[Check]] = match level {
        Level::Privileged => &[],
        Level::Baseline => &[baseline::FIRST, baseline::REPLACED, baseline::REST],
        Level::Restricted => &[baseline::FIRST, baseline::REST, restricted::ALL],
    };
    let mut found: Vec<Finding> = checks
        .iter()
        .flat_map(|checks| checks.iter())
        .filter_map(|check| check(metadata, spec))
        .collect();
    if level == Level::Baseline {
        found.sort_by_key(|(reason, _)| baseline::place(reason));
    }
    found
}

/// Level and version in the labels of a namespace, for `enforce`, `warn` or `audit`. What is not set allows all; what
/// makes no sense is taken for the strictest where it warns and for none where it would refuse, and is reported.
fn policy(labels: &Value, mode: &str) -> (Level, String) {
    let label = |key: String| labels.get(key).and_then(Value::as_str).unwrap_or_default();
    let level = match label(format!("{LABEL}{mode}")) {
        "" => Level::Privileged,
        // The API refuses such labels; one that is there nevertheless must not open the door.
        set => Level::parse(set).unwrap_or(Level::Restricted),
    };
    let version = match label(format!("{LABEL}{mode}-version")) {
        "" => "latest",
        version => version,
    };
    (level, version.to_owned())
}

/// Where the pod template of a workload stands; empty for a Pod itself.
fn template(attributes: &Attributes<'_>) -> Option<&'static [&'static str]> {
    if !attributes.subresource.is_empty() {
        return None;
    }
    const SPEC: &[&str] = &["spec", "template"];
    match (attributes.group, attributes.resource) {
        ("", "pods") => Some(&[]),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => Some(SPEC),
        ("batch", "cronjobs") => Some(&["spec", "jobTemplate", "spec", "template"]),
        ("", "podtemplates") => Some(&["template"]),
        _ => None,
    }
}

fn validate(
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
    warnings: &mut Warnings,
) -> Result<(), Status> {
    if attributes.resource == "namespaces" {
        return check_labels(attributes, object);
    }
    let path = template(attributes).unwrap_or_default();
    let pod = at(object, path);
    let (metadata, spec) = (at(pod, &["metadata"]), at(pod, &["spec"]));
    let is_pod = attributes.resource == "pods";
    if is_pod
        && attributes.operation == Operation::Update
        && attributes.subresource.is_empty()
        && old.is_some_and(|old| !significant(object, old))
    {
        return Ok(());
    }
    if list(spec, &["containers"]).is_empty() {
        return Ok(());
    }
    let Some(namespace) = lookup.get("namespaces", "", attributes.namespace) else {
        return Ok(());
    };
    let labels = at(&namespace, &["metadata", "labels"]);
    let (enforced, version) = policy(labels, "enforce");
    if is_pod && enforced > Level::Privileged {
        let faults = evaluate(enforced, metadata, spec);
        if !faults.is_empty() {
            return Err(attributes.forbid(format!(
                "violates PodSecurity \"{}:{version}\": {faults}",
                enforced.name()
            )));
        }
    }
    let (warned, version) = policy(labels, "warn");
    // Whoever is held to a level need not be warned of a lower one.
    if warned > Level::Privileged && !(is_pod && enforced >= warned) {
        let faults = evaluate(warned, metadata, spec);
        if !faults.is_empty() {
            warnings.push(format!(
                "would violate PodSecurity \"{}:{version}\": {faults}",
                warned.name()
            ));
        }
    }
    Ok(())
}

/// Whether an update of a Pod changes anything that the standards look at.
fn significant(new: &Value, old: &Value) -> bool {
    let annotations = |pod: &Value| -> Vec<(String, Value)> {
        api::value::entries(pod, &["metadata", "annotations"])
            .filter(|(key, _)| key.starts_with(baseline::APP_ARMOR))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let images_apart = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for key in crate::pod::CONTAINERS {
            for container in api::value::items_mut(&mut spec, key) {
                api::value::remove(container, "image");
            }
        }
        for key in ["activeDeadlineSeconds", "tolerations"] {
            api::value::remove(&mut spec, key);
        }
        spec
    };
    annotations(new) != annotations(old)
        || (new["spec"] != old["spec"] && images_apart(new) != images_apart(old))
}

/// Labels of a namespace that make no sense.
fn check_labels(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), Status> {
    let mut wrong = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let labels = at(namespace, &["metadata", "labels"]);
        let key = format!("{LABEL}{mode}");
        if let Some(level) = labels.get(&key).and_then(Value::as_str)
            && Level::parse(level).is_none()
        {
            wrong.push(FieldError::invalid_text(
                format!("metadata.labels[{key}]"),
                level,
                "must be one of privileged, baseline, restricted",
            ));
        }
        let key = format!("{LABEL}{mode}-version");
        if let Some(version) = labels.get(&key).and_then(Value::as_str)
            && !is_version(version)
        {
            wrong.push(FieldError::invalid_text(
                format!("metadata.labels[{key}]"),
                version,
                "must be \"latest\" or \"v1.x\"",
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Namespace", attributes.name, &wrong))
}

fn is_version(text: &str) -> bool {
    let minor = |text: &str| {
        !text.is_empty()
            && text.len() < 5
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    text == "latest" || text.strip_prefix("v1.").is_some_and(minor)
}

/// Names, quoted, in the order given.
pub(crate) fn names<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let quoted: Vec<String> = names
        .into_iter()
        .map(|name| quoted(name.as_ref()))
        .collect();
    quoted.join(", ")
}

/// One of two words, by number.
pub(crate) fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
pub(crate) fn shown(names_of: &[&str]) -> String {
    let word = plural(names_of.len(), "container", "containers");
    format!("{word} {}", names(names_of))
}

/// The names of the containers that something holds for.
pub(crate) fn where_true<'a>(spec: &'a Value, holds: impl Fn(&'a Value) -> bool) -> Vec<&'a str> {
    containers(spec)
        .filter(|container| holds(container))
        .map(|container| text(container, &["name"]))
        .collect()
}

/// Texts without repetition, sorted.
pub(crate) type Texts<'a> = BTreeSet<&'a str>;
