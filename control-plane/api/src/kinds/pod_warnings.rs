//! What authors of Pods and of templates should hear although what they wrote is accepted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::pod_spec::findings::Path;
use super::pod_volume_warnings;
use crate::field::quoted;
use crate::meta;
use crate::names;
use crate::quantity::Quantity;
use crate::value::{at, entries, list, number, text};

/// Labels of nodes that have another name now.
const OLD_NODE_LABELS: &[(&str, &str)] = &[
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

const SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// What is said of a label of nodes that has another name now.
pub(super) fn old_node_label(key: &str) -> Option<&'static str> {
    OLD_NODE_LABELS
        .iter()
        .find(|(old, _)| *old == key)
        .map(|(_, words)| *words)
}

/// The warning about a name that becomes that of a host; `used_in` says how.
fn dotted_name(object: &Value, used_in: &str) -> Option<String> {
    let wrong = names::label(meta::name(object));
    (!wrong.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            wrong.join(" ")
        )
    })
}

/// For a Pod. Those who change one are told nothing: that is mostly machines.
pub(super) fn of_pod(pod: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    let mut said: Vec<String> = dotted_name(pod, "the Pod's hostname").into_iter().collect();
    said.extend(of_spec(pod, &Path::Root(""), false));
    said
}

/// For an object that makes Pods from a template: also told of its name.
pub(super) fn of_named_workload(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_none() {
        said.extend(dotted_name(object, "Pod names and hostnames"));
    }
    said.extend(of_workload(object, old));
    said
}

/// For an object with a template at `spec.template`.
pub(super) fn of_workload(object: &Value, old: Option<&Value>) -> Vec<String> {
    if unchanged(object, old) {
        return Vec::new();
    }
    of_spec(
        at(object, &["spec", "template"]),
        &Path::Root("spec.template"),
        true,
    )
}

/// For a StatefulSet: also of its claims and of how much it remembers.
pub(super) fn of_stateful_set(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = of_workload(object, old);
    if unchanged(object, old) {
        return said;
    }
    let spec = Path::Root("spec");
    let path = spec.child("volumeClaimTemplates");
    let claims = list(object, &["spec", "volumeClaimTemplates"]);
    for (i, claim) in claims.iter().enumerate() {
        let here = path.index(i);
        pod_volume_warnings::claim(at(claim, &["spec"]), &here, &mut said);
    }
    if number(object, &["spec", "revisionHistoryLimit"]) < 0 {
        said.push(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                .to_owned(),
        );
    }
    said
}

/// For a PodTemplate.
pub(super) fn of_pod_template(object: &Value, old: Option<&Value>) -> Vec<String> {
    if unchanged(object, old) {
        return Vec::new();
    }
    of_spec(at(object, &["template"]), &Path::Root("template"), true)
}

/// For a Job.
pub(super) fn of_job(job: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_none() {
        said.extend(dotted_name(job, "Pod names and hostnames"));
    }
    if !unchanged(job, old) {
        said.extend(of_job_spec(at(job, &["spec"]), &Path::Root("spec")));
    }
    said
}

/// For a CronJob.
pub(super) fn of_cron_job(cron_job: &Value, old: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    if old.is_none() {
        said.extend(dotted_name(cron_job, "Pod names and hostnames"));
    }
    if !unchanged(cron_job, old) {
        let spec = at(cron_job, &["spec", "jobTemplate", "spec"]);
        said.extend(of_job_spec(spec, &Path::Root("spec.jobTemplate.spec")));
    }
    said
}

const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_MANY: i64 = 10_000;

fn of_job_spec(spec: &Value, path: &Path<'_>) -> Vec<String> {
    let mut said = Vec::new();
    if text(spec, &["completionMode"]) == "Indexed"
        && number(spec, &["completions"]) > COMPLETIONS_MANY
        && number(spec, &["parallelism"]) > PARALLELISM_MANY
    {
        said.push(format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        ));
    }
    said.extend(of_spec(
        at(spec, &["template"]),
        &path.child("template"),
        true,
    ));
    said
}

/// Whether a change leaves the author's wishes as they were.
fn unchanged(new: &Value, old: Option<&Value>) -> bool {
    let generation = |object: &Value| number(object, &["metadata", "generation"]);
    old.is_some_and(|old| generation(old) == generation(new))
}

fn of_spec(object: &Value, root: &Path<'_>, is_template: bool) -> Vec<String> {
    let mut said = Vec::new();
    let (spec, path) = (at(object, &["spec"]), root.child("spec"));
    let metadata = root.child("metadata");
    let (notes, notes_at) = (
        at(object, &["metadata", "annotations"]),
        metadata.child("annotations"),
    );
    node_labels(spec, &path, &mut said);
    for (key, words) in OLD_ANNOTATIONS {
        if !at(notes, &[key]).is_null() {
            said.push(format!("{}: {words}", notes_at.key(key)));
        }
    }
    pod_volume_warnings::check(spec, &path, &mut said);
    twice(spec, "hostAliases", "ip", &path, &mut said);
    twice(spec, "imagePullSecrets", "name", &path, &mut said);
    let secrets = path.child("imagePullSecrets");
    for (i, secret) in list(spec, &["imagePullSecrets"]).iter().enumerate() {
        if text(secret, &["name"]).is_empty() {
            let here = secrets.index(i);
            said.push(format!("{}: invalid empty name \"\"", here.child("name")));
        }
    }
    fractions(spec, "overhead", &path, &mut said);
    let pod = "seccomp.security.alpha.kubernetes.io/pod";
    if !at(notes, &[pod]).is_null() && !has_profile(spec, "seccompProfile") {
        said.push(format!("{}: {SECCOMP}", notes_at.key(pod)));
    }
    let armored = has_profile(spec, "appArmorProfile");
    visit(spec, &path, |container, here| {
        let name = text(container, &["name"]);
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{name}");
        if !at(notes, &[&key]).is_null() && !has_profile(container, "seccompProfile") {
            said.push(format!("{}: {SECCOMP}", notes_at.key(&key)));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{name}");
        let armored = armored || has_profile(container, "appArmorProfile");
        if !at(notes, &[&key]).is_null() && !armored {
            said.push(match is_template {
                true => format!("{}: {APP_ARMOR}", notes_at.key(&key)),
                false => format!("metadata.annotations[{key}]: {APP_ARMOR}"),
            });
        }
        let resources = at(container, &["resources"]);
        for part in ["limits", "requests"] {
            fractions(resources, part, &here.child("resources"), &mut said);
        }
        hidden(container, here, &mut said);
    });
    ports(spec, &path, &mut said);
    if number(spec, &["terminationGracePeriodSeconds"]) < 0 {
        said.push(format!(
            "{}: must be >= 0; negative values are invalid and will be treated as 1",
            path.child("terminationGracePeriodSeconds")
        ));
    }
    neighbours(spec, &path, &mut said);
    said
}

fn has_profile(value: &Value, key: &str) -> bool {
    at(value, &["securityContext", key]).is_object()
}

fn visit<'a>(spec: &'a Value, path: &Path<'_>, mut each: impl FnMut(&'a Value, &Path<'_>)) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(key);
        for (i, container) in list(spec, &[key]).iter().enumerate() {
            each(container, &path.index(i));
        }
    }
}

fn node_labels(spec: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let selector = path.child("nodeSelector");
    for (key, _) in entries(spec, &["nodeSelector"]) {
        if let Some(words) = old_node_label(key) {
            said.push(format!("{}: {words}", selector.key(key)));
        }
    }
    let affinity = path.child("affinity");
    let (nodes, nodes_at) = (
        at(spec, &["affinity", "nodeAffinity"]),
        affinity.child("nodeAffinity"),
    );
    let required = nodes_at.child(REQUIRED);
    let terms = required.child("nodeSelectorTerms");
    for (i, term) in list(nodes, &[REQUIRED, "nodeSelectorTerms"])
        .iter()
        .enumerate()
    {
        node_term(term, false, &terms.index(i), said);
    }
    let preferred = nodes_at.child(PREFERRED);
    for (i, term) in list(nodes, &[PREFERRED]).iter().enumerate() {
        let here = preferred.index(i);
        let term = at(term, &["preference"]);
        node_term(term, true, &here.child("preference"), said);
    }
    let spread = path.child("topologySpreadConstraints");
    for (i, one) in list(spec, &["topologySpreadConstraints"])
        .iter()
        .enumerate()
    {
        let here = spread.index(i);
        let key = text(one, &["topologyKey"]);
        if let Some(words) = old_node_label(key) {
            said.push(format!("{}: {key} is {words}", here.child("topologyKey")));
        }
        if at(one, &["labelSelector"]).is_null() {
            said.push(format!("{}: {NO_SELECTOR}", here.child("labelSelector")));
        }
    }
}

/// What is only preferred may name values that no label can have, and is told of them.
fn node_term(term: &Value, values_too: bool, path: &Path<'_>, said: &mut Vec<String>) {
    let expressions = path.child("matchExpressions");
    for (i, one) in list(term, &["matchExpressions"]).iter().enumerate() {
        let here = expressions.index(i);
        let key = text(one, &["key"]);
        if let Some(words) = old_node_label(key) {
            said.push(format!("{}: {key} is {words}", here.child("key")));
        }
        let values = here.child("values");
        for (j, value) in list(one, &["values"]).iter().enumerate() {
            let value = value.as_str().filter(|_| values_too).unwrap_or("");
            for why in names::label_value(value) {
                said.push(format!("{}: {value} is invalid, {why}", values.index(j)));
            }
        }
    }
}

/// Items of a list of which one says all that the server heeds.
fn twice(spec: &Value, key: &str, name: &str, path: &Path<'_>, said: &mut Vec<String>) {
    let path = path.child(key);
    let mut seen = BTreeSet::new();
    for (i, item) in list(spec, &[key]).iter().enumerate() {
        let value = text(item, &[name]);
        if !seen.insert(value) {
            let here = path.index(i);
            let here = here.child(name);
            said.push(format!("{here}: duplicate {name} {}", quoted(value)));
        }
    }
}

/// Parts of bytes.
pub(super) fn fraction(amount: &Value) -> Option<String> {
    let amount = Quantity::parse(&super::amount_text(amount)).ok()?;
    (!amount.is_whole()).then(|| {
        let shown = quoted(&amount.to_string());
        format!("fractional byte value {shown} is invalid, must be an integer")
    })
}

fn fractions(amounts: &Value, part: &str, path: &Path<'_>, said: &mut Vec<String>) {
    let path = path.child(part);
    for name in ["memory", "ephemeral-storage"] {
        if let Some(words) = fraction(at(amounts, &[part, name])) {
            said.push(format!("{}: {words}", path.key(name)));
        }
    }
}

/// Variables that say nothing of the one before them with their name.
fn hidden(container: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let path = path.child("env");
    let mut seen = BTreeSet::new();
    for (i, one) in list(container, &["env"]).iter().enumerate() {
        let (name, value) = (text(one, &["name"]), text(one, &["value"]));
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let refers = value.contains(&reference) && value != reference;
        if !refers || at(one, &["valueFrom"]).is_object() {
            said.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.index(i),
                quoted(name)
            ));
        }
    }
}

/// Ports of all containers: they are in one network.
fn ports(spec: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let mut taken: BTreeMap<(i64, &str), Vec<(String, &Value)>> = BTreeMap::new();
    visit(spec, path, |container, here| {
        let here = here.child("ports");
        for (i, port) in list(container, &["ports"]).iter().enumerate() {
            let here = here.index(i).to_string();
            let (host, ip) = (number(port, &["hostPort"]), text(port, &["hostIP"]));
            let (inner, protocol) = (number(port, &["containerPort"]), text(port, &["protocol"]));
            if !ip.is_empty() && host == 0 {
                let name = text(port, &["name"]);
                said.push(format!(
                    "{here}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{inner} \
                     Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            let others = taken.entry((inner, protocol)).or_default();
            for (there, other) in others.iter() {
                let (other_host, other_ip) =
                    (number(other, &["hostPort"]), text(other, &["hostIP"]));
                let what = if (host, ip) == (other_host, other_ip) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                said.push(format!("{here}: {what} port definition with {there}"));
            }
            others.push((here, port));
        }
    });
}

fn neighbours(spec: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let affinity = path.child("affinity");
    for key in ["podAffinity", "podAntiAffinity"] {
        let pods = at(spec, &["affinity", key]);
        let path = affinity.child(key);
        for (kind, within) in [(REQUIRED, None), (PREFERRED, Some("podAffinityTerm"))] {
            let path = path.child(kind);
            for (i, term) in list(pods, &[kind]).iter().enumerate() {
                let here = path.index(i);
                let (term, here) = match within {
                    Some(key) => (at(term, &[key]), here.child(key)),
                    None => (term, here),
                };
                if at(term, &["labelSelector"]).is_null() {
                    said.push(format!("{}: {NO_SELECTOR}", here.child("labelSelector")));
                }
            }
        }
    }
}
