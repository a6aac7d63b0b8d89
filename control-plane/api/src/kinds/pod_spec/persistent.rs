//! Sources of PersistentVolumes: most are those of Pods' volumes, but for their secrets, which stand in any namespace.

use serde_json::Value;

use super::findings::{Findings, Path};
use super::volumes::{self, Place};
use super::{old_volumes, paths};
use crate::names;
use crate::value::{at, text};

type Check = fn(&Value, &Path<'_>, &mut Findings);

/// Where a PersistentVolume's bytes are: a key of its spec, and what is asked beyond what Pods are asked.
const SOURCES: &[(&str, Check)] = &[
    ("hostPath", |_, _, _| {}),
    ("gcePersistentDisk", |_, _, _| {}),
    ("awsElasticBlockStore", |_, _, _| {}),
    ("glusterfs", endpoints_namespace),
    ("flocker", |_, _, _| {}),
    ("nfs", |_, _, _| {}),
    ("rbd", |_, _, _| {}),
    ("quobyte", |_, _, _| {}),
    ("cephfs", |_, _, _| {}),
    ("iscsi", old_volumes::secret_name),
    ("cinder", secret_namespace),
    ("fc", |_, _, _| {}),
    ("flexVolume", |_, _, _| {}),
    ("azureFile", |file, path, found| {
        if at(file, &["secretNamespace"]).is_string() {
            found.needs(file, path, "secretNamespace");
        }
    }),
    ("vsphereVolume", |_, _, _| {}),
    ("photonPersistentDisk", |_, _, _| {}),
    ("portworxVolume", |_, _, _| {}),
    ("azureDisk", |_, _, _| {}),
    ("scaleIO", |_, _, _| {}),
    ("local", local),
    ("storageos", secret_namespace),
    ("csi", csi),
];

/// The sources that a spec holds, by key: an update keeps them.
pub(in crate::kinds) fn given(spec: &Value) -> impl Iterator<Item = (&'static str, &Value)> {
    let sources = SOURCES.iter().map(|(key, _)| (*key, at(spec, &[key])));
    sources.filter(|(_, source)| source.is_object())
}

/// Looks at the sources of the PersistentVolume of this name; false if there is none.
pub(in crate::kinds) fn check(
    spec: &Value,
    name: &str,
    path: &Path<'_>,
    found: &mut Findings,
) -> bool {
    let place = Place {
        volume: name,
        is_pod: false,
    };
    let mut taken = false;
    for (key, more) in SOURCES {
        let given = at(spec, &[key]);
        if !given.is_object() {
            continue;
        }
        // What Pods' volumes of the kind are asked, where they are asked the same.
        let of_pods = volumes::source_of(key).filter(|_| *key != "csi");
        let [refused_as, known_as] =
            of_pods.map_or([*key; 2], |source| [source.refused_as, source.known_as]);
        // A second one is refused; Kubernetes lets this kind be one more.
        if taken && *key != "flexVolume" {
            let why = "may not specify more than 1 volume type";
            found.forbidden(&path.child(refused_as), why);
            continue;
        }
        taken = true;
        let here = path.child(known_as);
        if *key == "iscsi" && at(given, &["initiatorName"]).is_string() {
            let portal = text(given, &["targetPortal"]);
            if volumes::is_long_portal(name, portal) {
                let at = here.child("targetportal");
                found.invalid_text(&at, portal, volumes::LONG_PORTAL);
            }
        }
        if let Some(source) = of_pods {
            (source.check)(given, &here, &place, found);
        }
        more(given, &here, found);
    }
    taken
}

fn endpoints_namespace(source: &Value, path: &Path<'_>, found: &mut Findings) {
    let here = path.child("endpointsNamespace");
    match at(source, &["endpointsNamespace"]).as_str() {
        Some("") => {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            found.invalid_text(&here, "", why);
        }
        Some(namespace) => found.against(&here, namespace, names::label(namespace)),
        None => {}
    }
}

fn secret_namespace(source: &Value, path: &Path<'_>, found: &mut Findings) {
    let secret = at(source, &["secretRef"]);
    if secret.is_object() {
        found.needs(secret, &path.child("secretRef"), "namespace");
    }
}

fn local(source: &Value, path: &Path<'_>, found: &mut Findings) {
    if found.needs(source, path, "path") {
        paths::no_backsteps(found, &path.child("path"), text(source, &["path"]));
    }
}

fn csi(source: &Value, path: &Path<'_>, found: &mut Findings) {
    volumes::driver(source, path, found);
    found.needs(source, path, "volumeHandle");
    for key in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let (secret, here) = (at(source, &[key]), path.child(key));
        if !secret.is_object() {
            continue;
        }
        for (part, check) in [
            ("name", names::subdomain as fn(&str) -> Vec<String>),
            ("namespace", names::label),
        ] {
            if found.needs(secret, &here, part) {
                let text = text(secret, &[part]);
                found.against(&here.child(part), text, check(text));
            }
        }
    }
}
