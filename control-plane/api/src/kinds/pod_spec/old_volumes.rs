//! Volumes of kinds that CSI drivers have taken over, or that nobody should use any more.

use serde_json::Value;

use super::findings::{Findings, Path};
use super::paths;
use super::volumes::Place;
use crate::names;
use crate::value::{at, entries, flag, list, text};

pub(super) fn git_repo(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "repository");
    let directory = text(source, &["directory"]);
    paths::descending(found, &path.child("directory"), directory);
}

pub(super) fn gce_disk(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "pdName");
    partition(source, path, found);
}

pub(super) fn aws_disk(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "volumeID");
    partition(source, path, found);
}

fn partition(source: &Value, path: &Path<'_>, found: &mut Findings) {
    let partition = at(source, &["partition"]);
    if partition.as_i64().is_some_and(|p| !(0..=255).contains(&p)) {
        let why = "must be between 1 and 255, inclusive";
        found.invalid(&path.child("partition"), partition, why);
    }
}

pub(super) fn iscsi(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "targetPortal");
    if found.needs(source, path, "iqn") {
        initiator(&path.child("iqn"), text(source, &["iqn"]), found);
    }
    found.between(&path.child("lun"), at(source, &["lun"]), 0, 255);
    let asks = flag(source, &["chapAuthDiscovery"]) || flag(source, &["chapAuthSession"]);
    if asks && at(source, &["secretRef"]).is_null() {
        found.required(&path.child("secretRef"), "");
    }
    if let Some(name) = at(source, &["initiatorName"]).as_str() {
        initiator(&path.child("initiatorname"), name, found);
    }
}

/// The name of a target or an initiator: RFC 3720, section 3.2.6.3.
fn initiator(path: &Path<'_>, name: &str, found: &mut Findings) {
    let alphanumeric = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
    // Any character, then so many digits and letters.
    let identifier = |rest: &str, length: usize| {
        let mut chars = rest.chars();
        chars.next().is_some() && chars.as_str().len() == length && alphanumeric(chars.as_str())
    };
    let fits = if name.starts_with("iqn") {
        name.match_indices("iqn.")
            .any(|(start, prefix)| qualified(&name[start + prefix.len()..]))
    } else if let Some(rest) = name.strip_prefix("eui") {
        identifier(rest, 16)
    } else if let Some(rest) = name.strip_prefix("naa") {
        identifier(rest, 32)
    } else {
        let why = "must be valid format starting with iqn, eui, or naa";
        return found.invalid_text(path, name, why);
    };
    if !fits {
        found.invalid_text(path, name, "must be valid format");
    }
}

/// `2020-01.com.example:storage`, as it follows `iqn.`.
fn qualified(rest: &str) -> bool {
    let Some((authority, unique)) = rest.split_once(':') else {
        return false;
    };
    let Some((date, domain)) = authority.split_once('.') else {
        return false;
    };
    let digits =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let dated = date
        .split_once('-')
        .is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    dated
        && !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && !unique.is_empty()
        && !unique.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n', '\r', '\x0c'])
}

pub(super) fn glusterfs(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "endpoints");
    found.needs(source, path, "path");
}

pub(super) fn flocker(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    let name = text(source, &["datasetName"]);
    match (name, text(source, &["datasetUUID"])) {
        ("", "") => found.required(path, "one of datasetName and datasetUUID is required"),
        (name, uuid) if !name.is_empty() && !uuid.is_empty() => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            found.invalid_text(path, "resource", why);
        }
        _ => {}
    }
    if name.contains('/') {
        found.invalid_text(&path.child("datasetName"), name, "must not contain '/'");
    }
}

pub(super) fn rbd(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    monitors(source, path, found);
    found.needs(source, path, "image");
}

pub(super) fn cephfs(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    monitors(source, path, found);
}

fn monitors(source: &Value, path: &Path<'_>, found: &mut Findings) {
    if list(source, &["monitors"]).is_empty() {
        found.required(&path.child("monitors"), "");
    }
}

pub(super) fn cinder(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "volumeID");
    secret_name(source, path, found);
}

/// That the secret, where one is meant, has a name.
pub(super) fn secret_name(source: &Value, path: &Path<'_>, found: &mut Findings) {
    let secret = at(source, &["secretRef"]);
    if secret.is_object() {
        found.needs(secret, &path.child("secretRef"), "name");
    }
}

pub(super) fn quobyte(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, &["registry"]);
    if registry.is_empty() {
        found.required(&path.child("registry"), PAIRS);
    } else if text(source, &["tenant"]).len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        found.required(&path.child("tenant"), why);
    } else {
        for pair in registry.split(',') {
            let host = pair.rsplit_once(':').map(|(host, _)| host);
            let bracketed = |host: &str| host.starts_with('[') && host.ends_with(']');
            if !host.is_some_and(|host| !host.contains(':') || bracketed(host)) {
                found.invalid_text(&path.child("registry"), registry, PAIRS);
            }
        }
    }
    found.needs(source, path, "volume");
}

pub(super) fn fc(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    let names = list(source, &["targetWWNs"]);
    let here = path.child("targetWWNs");
    match (names.is_empty(), list(source, &["wwids"]).is_empty()) {
        (true, true) => {
            found.required(
                &here,
                "must specify either targetWWNs or wwids, but not both",
            );
        }
        (false, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            found.invalid(&here, at(source, &["targetWWNs"]), why);
        }
        _ => {}
    }
    if !names.is_empty() {
        let (lun, here) = (at(source, &["lun"]), path.child("lun"));
        if lun.is_null() {
            found.required(&here, "lun is required if targetWWNs is specified");
        }
        found.between(&here, lun, 0, 255);
    }
}

pub(super) fn flex(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "driver");
    let options = path.child("options");
    for (key, _) in entries(source, &["options"]) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(first, _)| first);
        let whole = format!(".{}", namespace.to_lowercase());
        if whole.ends_with(".kubernetes.io") || whole.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            found.invalid_text(&options.key(key), key, why);
        }
    }
}

pub(super) fn azure_file(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "secretName");
    found.needs(source, path, "shareName");
}

pub(super) fn azure_disk(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "diskName");
    found.needs(source, path, "diskURI");
    let caching = ["None", "ReadOnly", "ReadWrite"];
    found.one_of_given(
        &path.child("cachingMode"),
        at(source, &["cachingMode"]),
        &caching,
    );
    let kinds = ["Dedicated", "Managed", "Shared"];
    found.one_of_given(&path.child("kind"), at(source, &["kind"]), &kinds);
    let (uri, here) = (text(source, &["diskURI"]), path.child("diskURI"));
    match at(source, &["kind"]).as_str() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            let form = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
            found.unsupported(&here, uri, &[form]);
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            let form =
                "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
            found.unsupported(&here, uri, &[form]);
        }
        _ => {}
    }
}

pub(super) fn storage_os(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    let name = text(source, &["volumeName"]);
    if found.needs(source, path, "volumeName") {
        found.against(&path.child("volumeName"), name, names::label(name));
    }
    let namespace = text(source, &["volumeNamespace"]);
    if !namespace.is_empty() {
        let here = path.child("volumeNamespace");
        found.against(&here, namespace, names::label(namespace));
    }
    secret_name(source, path, found);
}
