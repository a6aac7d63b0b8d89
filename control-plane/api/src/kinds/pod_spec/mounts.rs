//! Where a container has the volumes of its Pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use super::paths;
use super::volumes::{Volumes, is_claim, is_read_only};
use crate::value::{at, flag, list, text};

/// Looks at files and devices of the container.
pub(super) fn check(
    container: &Value,
    volumes: &Volumes<'_>,
    path: &Path<'_>,
    found: &mut Findings,
) {
    mounts(container, volumes, &path.child("volumeMounts"), found);
    devices(container, volumes, &path.child("volumeDevices"), found);
}

fn has(items: &[Value], key: &str, wanted: &str) -> bool {
    items.iter().any(|item| text(item, &[key]) == wanted)
}

fn mounts(container: &Value, volumes: &Volumes<'_>, path: &Path<'_>, found: &mut Findings) {
    let devices = list(container, &["volumeDevices"]);
    let privileged = flag(container, &["securityContext", "privileged"]);
    let mut seen = BTreeSet::new();
    for (i, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
        let here = path.index(i);
        let (name, place) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        found.needs(mount, &here, "name");
        if !volumes.contains_key(name) {
            found.not_found(&here.child("name"), name);
        }
        found.needs(mount, &here, "mountPath");
        if !seen.insert(place) {
            found.invalid_text(&here.child("mountPath"), place, "must be unique");
        }
        if has(devices, "name", name) {
            let why = "must not already exist in volumeDevices";
            found.invalid_text(&here.child("name"), name, why);
        }
        if has(devices, "devicePath", place) {
            let why = "must not already exist as a path in volumeDevices";
            found.invalid_text(&here.child("mountPath"), place, why);
        }
        let (sub, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        if !sub.is_empty() {
            paths::descending(found, &path.child("subPath"), sub);
        }
        if !expression.is_empty() {
            if !sub.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                found.invalid_text(&here.child("subPathExpr"), expression, why);
            }
            paths::descending(found, &path.child("subPathExpr"), expression);
        }
        propagation(mount, privileged, &path.child("mountPropagation"), found);
        recursive(mount, &path.child("recursiveReadOnly"), found);
    }
}

fn propagation(mount: &Value, privileged: bool, path: &Path<'_>, found: &mut Findings) {
    let given = at(mount, &["mountPropagation"]);
    let known = ["Bidirectional", "HostToContainer", "None"];
    found.one_of_given(path, given, &known);
    if given.as_str() == Some("Bidirectional") && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        found.forbidden(path, why);
    }
}

fn recursive(mount: &Value, path: &Path<'_>, found: &mut Findings) {
    match at(mount, &["recursiveReadOnly"]).as_str() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if !is_read_only(mount) {
                found.forbidden(path, "may only be specified when readOnly is true");
            }
            let spread = at(mount, &["mountPropagation"]).as_str();
            if spread.is_some_and(|mode| mode != "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                found.forbidden(path, why);
            }
        }
        Some(other) => found.unsupported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn devices(container: &Value, volumes: &Volumes<'_>, path: &Path<'_>, found: &mut Findings) {
    let mounts = list(container, &["volumeMounts"]);
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in list(container, &["volumeDevices"]).iter().enumerate() {
        let here = path.index(i);
        let (name_at, place_at) = (here.child("name"), here.child("devicePath"));
        let (name, place) = (text(device, &["name"]), text(device, &["devicePath"]));
        found.needs(device, &here, "name");
        if names.contains(name) {
            found.invalid_text(&name_at, name, "must be unique");
        }
        match volumes.get(name) {
            Some(volume) if !is_claim(volume) => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                found.invalid_text(&name_at, name, why);
            }
            Some(_) => {}
            None => found.not_found(&name_at, name),
        }
        found.needs(device, &here, "devicePath");
        if places.contains(place) {
            found.invalid_text(&place_at, place, "must be unique");
        }
        if paths::has_backsteps(place) {
            found.invalid_text(&place_at, place, "can not contain backsteps ('..')");
        } else {
            places.insert(place);
        }
        if has(mounts, "name", name) {
            let why = "must not already exist in volumeMounts";
            found.invalid_text(&name_at, name, why);
        }
        if has(mounts, "mountPath", place) {
            let why = "must not already exist as a path in volumeMounts";
            found.invalid_text(&place_at, place, why);
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
