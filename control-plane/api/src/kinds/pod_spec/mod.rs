//! Everything wrong with what a Pod, or a template of Pods, says. One room for each part; here they are put together in
//! the order in which refusals list them.

mod affinity;
mod annotations;
mod containers;
mod dns;
mod env;
pub(super) mod findings;
mod handlers;
mod mounts;
mod old_volumes;
mod paths;
pub(super) mod persistent;
mod projected;
mod resources;
mod scheduling;
mod security;
mod selectors;
pub(super) mod status;
#[cfg(test)]
mod tests;
pub(super) mod update;
mod volumes;
mod windows;

use serde_json::Value;

pub(in crate::kinds) use affinity::{node_selector, write_label_keys};
pub(in crate::kinds) use resources::{
    aggregate, container_resource_name, is_huge, is_of_pods, resource_name,
};
pub(in crate::kinds) use scheduling::toleration;

use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::value::{at, flag, list, text};
use findings::{Findings, Path};

const ROOT: Path<'static> = Path::Root("");

/// Everything wrong with a Pod that stands there already, or with a new one apart from what only those must not say.
pub(in crate::kinds) fn pod(object: &Value, found: &mut Findings) {
    let (metadata, path) = (ROOT.child("metadata"), ROOT.child("spec"));
    annotations::check(object, &metadata.child("annotations"), &path, found);
    spec(object, true, &path, found);
}

/// Everything wrong with a new Pod.
pub(in crate::kinds) fn new_pod(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    pod(object, &mut found);
    let path = ROOT.child("spec");
    let spec = at(object, &["spec"]);
    if !list(spec, &["ephemeralContainers"]).is_empty() {
        found.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
    let gated = !list(spec, &["schedulingGates"]).is_empty();
    if gated && !text(spec, &["nodeName"]).is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        found.forbidden(&path.child("nodeName"), why);
    }
    annotations::app_armor_agrees(object, &path, &mut found);
    found.into_vec()
}

/// Everything wrong with a template of Pods at `field`.
pub(in crate::kinds) fn template(template: &Value, field: &str) -> Vec<FieldError> {
    let mut found = Findings::default();
    let root = Path::Root(field);
    let (labels, notes) = (root.child("labels"), root.child("annotations"));
    let metadata = at(template, &["metadata"]);
    found.extend(meta::labels(at(metadata, &["labels"]), &labels.to_string()));
    found.extend(meta::annotations(
        at(metadata, &["annotations"]),
        &notes.to_string(),
    ));
    let path = root.child("spec");
    annotations::check(template, &notes, &path, &mut found);
    spec(template, false, &path, &mut found);
    if !list(template, &["spec", "ephemeralContainers"]).is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        found.forbidden(&path.child("ephemeralContainers"), why);
    }
    found.into_vec()
}

fn spec(object: &Value, is_pod: bool, path: &Path<'_>, found: &mut Findings) {
    let spec = at(object, &["spec"]);
    let name = if is_pod { meta::name(object) } else { "" };
    let volumes = volumes::check(spec, name, is_pod, path, found);
    let claims = scheduling::claims(spec, path, found);
    let around = containers::Around {
        spec,
        volumes: &volumes,
        claims: &claims,
        is_pod,
    };
    containers::running(&around, path, found);
    containers::preparing(&around, path, found);
    containers::passing(&around, path, found);
    resources::pod_level(spec, &claims, path, found);
    if flag(spec, &["hostNetwork"]) {
        env::host_network(spec, is_pod, path, found);
    }
    found.one_of(
        &path.child("restartPolicy"),
        text(spec, &["restartPolicy"]),
        &["Always", "OnFailure", "Never"],
    );
    dns::policy(spec, path, found);
    let selector = path.child("nodeSelector").to_string();
    found.extend(meta::labels(at(spec, &["nodeSelector"]), &selector));
    security::pod(spec, path, found);
    affinity::check(spec, path, found);
    dns::config(spec, path, found);
    scheduling::gates(spec, path, found);
    affinity::spread(spec, path, found);
    windows::host_process(spec, path, found);
    security::host_users(spec, path, found);
    for key in ["serviceAccountName", "nodeName"] {
        subdomain(spec, key, path, found);
    }
    let deadline = at(spec, &["activeDeadlineSeconds"]);
    let here = path.child("activeDeadlineSeconds");
    found.between(&here, deadline, 1, i64::from(i32::MAX));
    for key in ["hostname", "subdomain"] {
        let name = text(spec, &[key]);
        if !name.is_empty() {
            found.against(&path.child(key), name, names::label(name));
        }
    }
    hostname_override(spec, path, found);
    let tolerations = path.child("tolerations");
    for (i, one) in list(spec, &["tolerations"]).iter().enumerate() {
        toleration(one, &tolerations.index(i), found);
    }
    dns::aliases(spec, path, found);
    subdomain(spec, "priorityClassName", path, found);
    if at(spec, &["runtimeClassName"]).is_string() {
        let name = text(spec, &["runtimeClassName"]);
        let here = path.child("runtimeClassName");
        found.against(&here, name, names::subdomain(name));
    }
    if let Some(policy) = at(spec, &["preemptionPolicy"]).as_str() {
        let known = ["PreemptLowerPriority", "Never"];
        found.one_of(&path.child("preemptionPolicy"), policy, &known);
    }
    resources::overhead(at(spec, &["overhead"]), &path.child("overhead"), found);
    windows::system(spec, path, found);
    if is_pod {
        account_tokens(spec, path, found);
    }
    containers::images(&around, path, found);
}

fn subdomain(spec: &Value, key: &str, path: &Path<'_>, found: &mut Findings) {
    let name = text(spec, &[key]);
    if !name.is_empty() {
        found.against(&path.child(key), name, names::subdomain(name));
    }
}

/// The most bytes of a host's name that the kernel takes.
const KERNEL_HOSTNAME_MAX: usize = 64;

/// A name that stands for all that the Pod says of its host's name otherwise.
fn hostname_override(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let name = text(spec, &["hostnameOverride"]);
    if name.is_empty() {
        return;
    }
    let here = path.child("hostnameOverride");
    for key in ["setHostnameAsFQDN", "hostNetwork"] {
        if flag(spec, &[key]) {
            found.forbidden(&here, format!("may not be specified when {key} is true"));
        }
    }
    found.against(&here, name, names::subdomain(name));
    if name.len() > KERNEL_HOSTNAME_MAX {
        found.push(FieldError::too_long(&here, KERNEL_HOSTNAME_MAX));
    }
}

/// Without an account there is nobody to have a token.
fn account_tokens(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    if !text(spec, &["serviceAccountName"]).is_empty() {
        return;
    }
    let volumes = path.child("volumes");
    for (i, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let here = volumes.index(i);
        let projected = here.child("projected");
        let sources = projected.child("sources");
        for (j, source) in list(volume, &["projected", "sources"]).iter().enumerate() {
            if at(source, &["serviceAccountToken"]).is_object() {
                let why = "must not be specified when serviceAccountName is not set";
                found.forbidden(&sources.index(j).child("serviceAccountToken"), why);
            }
        }
    }
}
