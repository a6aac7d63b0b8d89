//! Volumes: one source each, and what the sources in use today must say. Those of old are in `old_volumes`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::findings::{Findings, Path};
use super::{old_volumes, paths, projected};
use crate::kinds::persistent_volume_claim;
use crate::meta;
use crate::names;
use crate::value::{at, flag, list, text};

/// Volumes of a Pod by name: those without a fault.
pub(super) type Volumes<'a> = BTreeMap<&'a str, &'a Value>;

/// What is known about where a volume stands.
pub(super) struct Place<'a> {
    /// The volume's name.
    pub(super) volume: &'a str,
    /// Whether it is a Pod's own, not a template's.
    pub(super) is_pod: bool,
}

pub(super) type Check = fn(&Value, &Path<'_>, &Place<'_>, &mut Findings);

/// A kind of volume: its key, the name under which one too many is refused, the name under which its faults are, and
/// its check. Clients compare these names, the odd ones included.
pub(super) struct Source {
    key: &'static str,
    pub(super) refused_as: &'static str,
    pub(super) known_as: &'static str,
    pub(super) check: Check,
}

const fn source(key: &'static str, check: Check) -> Source {
    odd(key, key, key, check)
}

const fn odd(
    key: &'static str,
    refused_as: &'static str,
    known_as: &'static str,
    check: Check,
) -> Source {
    Source {
        key,
        refused_as,
        known_as,
        check,
    }
}

/// In the order in which they are looked at.
const SOURCES: &[Source] = &[
    source("emptyDir", empty_dir),
    source("hostPath", host_path),
    source("gitRepo", old_volumes::git_repo),
    odd(
        "gcePersistentDisk",
        "gcePersistentDisk",
        "persistentDisk",
        old_volumes::gce_disk,
    ),
    source("awsElasticBlockStore", old_volumes::aws_disk),
    source("secret", secret),
    source("nfs", nfs),
    source("iscsi", old_volumes::iscsi),
    source("glusterfs", old_volumes::glusterfs),
    source("flocker", old_volumes::flocker),
    source("persistentVolumeClaim", |claim, path, _, found| {
        found.needs(claim, path, "claimName");
    }),
    source("rbd", old_volumes::rbd),
    source("cinder", old_volumes::cinder),
    odd("cephfs", "cephFS", "cephfs", old_volumes::cephfs),
    source("quobyte", old_volumes::quobyte),
    odd(
        "downwardAPI",
        "downwarAPI",
        "downwardAPI",
        projected::downward,
    ),
    source("fc", old_volumes::fc),
    source("flexVolume", old_volumes::flex),
    source("configMap", config_map),
    source("azureFile", old_volumes::azure_file),
    source("vsphereVolume", |disk, path, _, found| {
        found.needs(disk, path, "volumePath");
    }),
    source("photonPersistentDisk", |disk, path, _, found| {
        found.needs(disk, path, "pdID");
    }),
    source("portworxVolume", |volume, path, _, found| {
        found.needs(volume, path, "volumeID");
    }),
    source("azureDisk", old_volumes::azure_disk),
    source("storageos", old_volumes::storage_os),
    source("projected", projected::projected),
    source("scaleIO", |volume, path, _, found| {
        for key in ["gateway", "system", "volumeName"] {
            found.needs(volume, path, key);
        }
    }),
    source("csi", csi),
    source("ephemeral", ephemeral),
    source("image", image),
];

/// What is asked of volumes of a kind.
pub(super) fn source_of(key: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|source| source.key == key)
}

pub(super) const LONG_PORTAL: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                                      iscsi.initiatorName is specified.";

/// Whether the name of a device would be too long for a kernel.
pub(super) fn is_long_portal(volume: &str, portal: &str) -> bool {
    volume.len() + 1 + portal.len() > 64
}

/// Looks at the volumes of a Pod or template. `pod` is the name of the Pod; empty where it has none yet.
pub(super) fn check<'a>(
    spec: &'a Value,
    pod: &str,
    is_pod: bool,
    path: &Path<'_>,
    found: &mut Findings,
) -> Volumes<'a> {
    let here = path.child("volumes");
    let volumes = list(spec, &["volumes"]);
    let made: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| is_pod && !pod.is_empty() && at(volume, &["ephemeral"]).is_object())
        .map(|volume| format!("{pod}-{}", text(volume, &["name"])))
        .collect();
    let mut good = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let before = found.count();
        let path = here.index(i);
        let name = text(volume, &["name"]);
        let place = Place {
            volume: name,
            is_pod,
        };
        one(volume, &path, &place, found);
        if is_pod && !pod.is_empty() && !name.is_empty() && at(volume, &["ephemeral"]).is_object() {
            let claim = format!("{pod}-{name}");
            for why in names::subdomain(&claim) {
                let why = format!("PVC name {}: {why}", crate::field::quoted(&claim));
                found.invalid_text(&path.child("name"), name, why);
            }
        }
        if found.needs(volume, &path, "name") {
            found.against(&path.child("name"), name, names::label(name));
        }
        if good.contains_key(name) {
            found.duplicate(&path.child("name"), name);
        }
        if found.count() == before {
            good.insert(name, volume);
        }
        let claim = text(volume, &["persistentVolumeClaim", "claimName"]);
        if made.contains(claim) {
            let at = path.child("persistentVolumeClaim");
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            found.invalid_text(&at.child("claimName"), claim, why);
        }
    }
    good
}

fn one(volume: &Value, path: &Path<'_>, place: &Place<'_>, found: &mut Findings) {
    let mut taken = false;
    for source in SOURCES {
        let given = at(volume, &[source.key]);
        if !given.is_object() {
            continue;
        }
        if taken {
            let why = "may not specify more than 1 volume type";
            found.forbidden(&path.child(source.refused_as), why);
        } else {
            taken = true;
            (source.check)(given, &path.child(source.known_as), place, found);
        }
        let portal = text(given, &["targetPortal"]);
        if source.key == "iscsi"
            && at(given, &["initiatorName"]).is_string()
            && is_long_portal(place.volume, portal)
        {
            found.invalid_text(&path.child("name"), place.volume, LONG_PORTAL);
        }
    }
}

fn empty_dir(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    if super::resources::quantity(at(source, &["sizeLimit"])).is_some_and(|q| q.is_negative()) {
        let why = "SizeLimit field must be a valid resource quantity";
        found.forbidden(&path.child("sizeLimit"), why);
    }
}

const HOST_PATH_TYPES: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

fn host_path(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    if found.needs(source, path, "path") {
        paths::no_backsteps(found, &path.child("path"), text(source, &["path"]));
        found.one_of_given(&path.child("type"), at(source, &["type"]), HOST_PATH_TYPES);
    }
}

fn secret(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "secretName");
    keys(source, path, found);
}

fn config_map(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "name");
    keys(source, path, found);
}

fn keys(source: &Value, path: &Path<'_>, found: &mut Findings) {
    paths::mode(found, path, source, "defaultMode");
    let items = path.child("items");
    for (i, item) in list(source, &["items"]).iter().enumerate() {
        key_to_path(item, &items.index(i), found);
    }
}

/// Where a key becomes a file.
pub(super) fn key_to_path(item: &Value, path: &Path<'_>, found: &mut Findings) {
    found.needs(item, path, "key");
    found.needs(item, path, "path");
    paths::local(found, &path.child("path"), text(item, &["path"]));
    paths::mode(found, path, item, "mode");
}

fn nfs(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    found.needs(source, path, "server");
    found.needs(source, path, "path");
    let given = text(source, &["path"]);
    if !given.starts_with('/') {
        found.invalid_text(&path.child("path"), given, "must be an absolute path");
    }
}

const DRIVER_MAX: usize = 63;

/// The name of a CSI driver.
pub(super) fn driver(source: &Value, path: &Path<'_>, found: &mut Findings) {
    let (driver, here) = (text(source, &["driver"]), path.child("driver"));
    found.needs(source, path, "driver");
    if driver.len() > DRIVER_MAX {
        found.push(crate::field::FieldError::too_long(&here, DRIVER_MAX));
    }
    found.against(&here, driver, names::subdomain(&driver.to_lowercase()));
}

fn csi(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    driver(source, path, found);
    let secret = at(source, &["nodePublishSecretRef"]);
    if secret.is_object() {
        let name = text(secret, &["name"]);
        if name.is_empty() {
            found.required(&path.child("nodePublishSecretRef").child("name"), "");
        } else {
            found.against(&path.child("name"), name, names::subdomain(name));
        }
    }
}

fn ephemeral(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    let path = path.child("volumeClaimTemplate");
    let template = at(source, &["volumeClaimTemplate"]);
    if !template.is_object() {
        return found.required(&path, "");
    }
    let (metadata, here) = (at(template, &["metadata"]), path.child("metadata"));
    let annotations = here.child("annotations").to_string();
    found.extend(meta::annotations(
        at(metadata, &["annotations"]),
        &annotations,
    ));
    let labels = here.child("labels").to_string();
    found.extend(meta::labels(at(metadata, &["labels"]), &labels));
    for (key, _) in crate::value::entries(metadata, &[]).filter(|(key, value)| {
        !matches!(key.as_str(), "annotations" | "labels") && !value.is_null()
    }) {
        found.forbidden(&here.child(key), "cannot be set");
    }
    let spec = path.child("spec").to_string();
    found.extend(persistent_volume_claim::validate_spec(
        &spec,
        at(template, &["spec"]),
    ));
}

fn image(source: &Value, path: &Path<'_>, place: &Place<'_>, found: &mut Findings) {
    if place.is_pod {
        found.needs(source, path, "reference");
    }
    found.one_of_given(
        &path.child("pullPolicy"),
        at(source, &["pullPolicy"]),
        super::containers::PULL_POLICIES,
    );
}

/// Whether a block device can be had from the volume.
pub(super) fn is_claim(volume: &Value) -> bool {
    at(volume, &["persistentVolumeClaim"]).is_object() || at(volume, &["ephemeral"]).is_object()
}

/// Whether nobody can write to where the container has it.
pub(super) fn is_read_only(mount: &Value) -> bool {
    flag(mount, &["readOnly"])
}
