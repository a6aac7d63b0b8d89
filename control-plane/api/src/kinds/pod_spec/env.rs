//! The environment of a container, and its ports.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use super::{paths, selectors};
use crate::names;
use crate::value::{at, list, number, text};

pub(super) fn env(container: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("env");
    for (i, one) in list(container, &["env"]).iter().enumerate() {
        let here = path.index(i);
        let name = text(one, &["name"]);
        if found.needs(one, &here, "name") {
            found.against(&here.child("name"), name, names::env_name(name));
        }
        let from = at(one, &["valueFrom"]);
        if from.is_object() {
            value_from(one, from, &here.child("valueFrom"), found);
        }
    }
}

fn value_from(one: &Value, from: &Value, path: &Path<'_>, found: &mut Findings) {
    let mut sources = 0;
    let mut given = |key: &str| {
        let source = at(from, &[key]);
        sources += usize::from(source.is_object());
        source.is_object().then_some(source)
    };
    if let Some(source) = given("fieldRef") {
        selectors::field(
            found,
            &path.child("fieldRef"),
            source,
            selectors::ENV_FIELDS,
        );
    }
    if let Some(source) = given("resourceFieldRef") {
        selectors::resource(found, &path.child("resourceFieldRef"), source, false);
    }
    if let Some(source) = given("configMapKeyRef") {
        selectors::key(found, &path.child("configMapKeyRef"), source);
    }
    if let Some(source) = given("secretKeyRef") {
        selectors::key(found, &path.child("secretKeyRef"), source);
    }
    if let Some(source) = given("fileKeyRef") {
        let here = path.child("fileKeyRef");
        for key in ["key", "volumeName", "path"] {
            found.needs(source, &here, key);
        }
        paths::local(found, &here.child("path"), text(source, &["path"]));
    }
    if sources == 0 {
        let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        found.invalid_text(path, "", why);
    } else if !text(one, &["value"]).is_empty() {
        let why = "may not be specified when `value` is not empty";
        found.invalid_text(path, "", why);
    } else if sources > 1 {
        let why = "may not have more than one field specified at a time";
        found.invalid_text(path, "", why);
    }
}

pub(super) fn env_from(container: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("envFrom");
    for (i, one) in list(container, &["envFrom"]).iter().enumerate() {
        let here = path.index(i);
        let prefix = text(one, &["prefix"]);
        if !prefix.is_empty() {
            found.against(&here.child("prefix"), prefix, names::env_name(prefix));
        }
        let mut sources = 0;
        for key in ["configMapRef", "secretRef"] {
            let source = at(one, &[key]);
            if source.is_object() {
                sources += 1;
                let here = here.child(key);
                let name = text(source, &["name"]);
                if found.needs(source, &here, "name") {
                    // A name may end in a dash here, as if something were to follow.
                    let whole = name.strip_suffix('-').map(|start| format!("{start}a"));
                    let whole = whole.as_deref().unwrap_or(name);
                    found.against(&here.child("name"), name, names::subdomain(whole));
                }
            }
        }
        if sources != 1 {
            let why = if sources == 0 {
                "must specify one of: `configMapRef` or `secretRef`"
            } else {
                "may not have more than one field specified at a time"
            };
            found.invalid_text(&path, "", why);
        }
    }
}

pub(super) fn ports(container: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("ports");
    let mut seen = BTreeSet::new();
    for (i, port) in list(container, &["ports"]).iter().enumerate() {
        let here = path.index(i);
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let wrong = names::port_name(name);
            if wrong.is_empty() && !seen.insert(name) {
                found.duplicate(&here.child("name"), name);
            }
            found.against(&here.child("name"), name, wrong);
        }
        let inner = number(port, &["containerPort"]);
        if inner == 0 {
            found.required(&here.child("containerPort"), "");
        } else {
            for why in names::port_number(inner) {
                found.invalid(&here.child("containerPort"), &inner.into(), why);
            }
        }
        let host = number(port, &["hostPort"]);
        if host != 0 {
            for why in names::port_number(host) {
                found.invalid(&here.child("hostPort"), &host.into(), why);
            }
        }
        found.one_of(
            &here.child("protocol"),
            text(port, &["protocol"]),
            crate::kinds::PROTOCOLS,
        );
    }
}

/// Ports of the node that several of `containers` want, or one of them twice.
pub(super) fn port_conflicts<'a>(
    containers: impl IntoIterator<Item = &'a Value>,
    path: &Path<'_>,
    found: &mut Findings,
) {
    let mut taken = BTreeSet::new();
    for (i, container) in containers.into_iter().enumerate() {
        let here = path.index(i);
        let ports = here.child("ports");
        for (j, port) in list(container, &["ports"]).iter().enumerate() {
            let host = number(port, &["hostPort"]);
            let key = (text(port, &["protocol"]), text(port, &["hostIP"]), host);
            if host != 0 && !taken.insert(key) {
                let shown = format!("{}/{}/{host}", key.0, key.1);
                found.duplicate(&ports.index(j).child("hostPort"), &shown);
            }
        }
    }
}

/// With the node's network, a container's ports are the node's. A template may leave them to be filled in.
pub(super) fn host_network(spec: &Value, is_pod: bool, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("containers");
    for (i, container) in list(spec, &["containers"]).iter().enumerate() {
        let here = path.index(i);
        let ports = here.child("ports");
        for (j, port) in list(container, &["ports"]).iter().enumerate() {
            let host = number(port, &["hostPort"]);
            if (is_pod || host != 0) && host != number(port, &["containerPort"]) {
                let why = "must match `containerPort` when `hostNetwork` is true";
                found.invalid(&ports.index(j).child("hostPort"), &host.into(), why);
            }
        }
    }
}
