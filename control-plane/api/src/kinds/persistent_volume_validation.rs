//! Everything wrong with a PersistentVolume, or with the spec of one that a VolumeAttachment holds.

use serde_json::Value;

use super::pod_spec::findings::{Findings, Path};
use super::pod_spec::{node_selector, persistent};
use super::{amount_text, immutable};
use crate::field::FieldError;
use crate::names;
use crate::quantity::Quantity;
use crate::value::{at, entries, list, text};

const INLINE: &str = "may not be specified in the context of inline volumes";

pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut found = Findings::default();
    let (spec, path) = (at(object, &["spec"]), Path::Root("spec"));
    access_modes(spec, &path, &mut found);
    capacity(spec, &path, &mut found);
    let policy = text(spec, &["persistentVolumeReclaimPolicy"]);
    if !policy.is_empty() {
        let here = path.child("persistentVolumeReclaimPolicy");
        found.one_of(&here, policy, &["Delete", "Recycle", "Retain"]);
    }
    let affinity = at(spec, &["nodeAffinity"]);
    if affinity.is_object() {
        let here = path.child("nodeAffinity");
        let here = here.child("required");
        let required = at(affinity, &["required"]);
        if required.is_object() {
            node_selector(required, &here, &mut found);
        } else {
            found.required(&here, "must specify required node constraints");
        }
    }
    source(text(object, &["metadata", "name"]), spec, &path, &mut found);
    if at(spec, &["local"]).is_object() && !affinity.is_object() {
        let why = "Local volume requires node affinity";
        found.required(&path.child("nodeAffinity"), why);
    }
    let directory = text(spec, &["hostPath", "path"]);
    if directory.starts_with('/')
        && directory.split('/').all(|part| matches!(part, "" | "."))
        && policy == "Recycle"
    {
        let why = "may not be 'recycle' for a hostPath mount of '/'";
        found.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
    let class = text(spec, &["storageClassName"]);
    if !class.is_empty() {
        let here = path.child("storageClassName");
        found.against(&here, class, names::subdomain(class));
    }
    found.extend(bad_volume_mode(
        "spec.volumeMode",
        at(spec, &["volumeMode"]),
    ));
    attributes_class(spec, &path, &mut found);
    found.into_vec()
}

pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = validate(new);
    let (after, before) = (at(new, &["spec"]), at(old, &["spec"]));
    if !persistent::given(after).eq(persistent::given(before)) && !gains_secret(after, before) {
        wrong.push(FieldError::forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        ));
    }
    wrong.extend(immutable(after, before, &["volumeMode"]));
    if at(before, &["nodeAffinity"]).is_object() {
        wrong.extend(immutable(after, before, &["nodeAffinity"]));
    }
    let class = |spec| at(spec, &["volumeAttributesClassName"]);
    if class(before).is_string() && class(after).is_null() {
        wrong.push(FieldError::forbidden(
            "spec.volumeAttributesClassName",
            "update from non-nil value to nil is forbidden",
        ));
    }
    wrong
}

/// Whether all that is new of the source is the secret by which it grows.
fn gains_secret(after: &Value, before: &Value) -> bool {
    const SECRET: &str = "controllerExpandSecretRef";
    let mut expected = at(before, &["csi"]).clone();
    let secret = at(after, &["csi", SECRET]);
    if !at(&expected, &[SECRET]).is_null() || !secret.is_object() {
        return false;
    }
    crate::value::set(&mut expected, SECRET, secret.clone());
    let others = |spec| persistent::given(spec).filter(|(key, _)| *key != "csi");
    expected == *at(after, &["csi"]) && others(after).eq(others(before))
}

/// Everything wrong with the spec that stands within a VolumeAttachment at `field`.
pub(super) fn validate_inline(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut found = Findings::default();
    let path = Path::Root(field);
    for key in ["claimRef", "capacity"] {
        let given = at(spec, &[key]);
        if given.is_object() && (key == "claimRef" || entries(given, &[]).next().is_some()) {
            found.forbidden(&path.child(key), INLINE);
        }
    }
    let csi = at(spec, &["csi"]).is_object();
    if !csi {
        let why = "has to be specified in the context of inline volumes";
        found.required(&path.child("csi"), why);
    }
    access_modes(spec, &path, &mut found);
    if !matches!(
        text(spec, &["persistentVolumeReclaimPolicy"]),
        "" | "Retain"
    ) {
        let why = "may only be Retain in the context of inline volumes";
        found.forbidden(&path.child("persistentVolumeReclaimPolicy"), why);
    }
    if at(spec, &["nodeAffinity"]).is_object() {
        found.forbidden(&path.child("nodeAffinity"), INLINE);
    }
    source("", spec, &path, &mut found);
    if !text(spec, &["storageClassName"]).is_empty() {
        found.forbidden(&path.child("storageClassName"), INLINE);
    }
    let mode = at(spec, &["volumeMode"]).as_str();
    if mode.is_some_and(|mode| mode != "Filesystem") {
        let why =
            "may not specify volumeMode other than Filesystem in the context of inline volumes";
        found.forbidden(&path.child("volumeMode"), why);
    }
    attributes_class(spec, &path, &mut found);
    found.into_vec()
}

fn access_modes(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let (modes, here) = (list(spec, &["accessModes"]), path.child("accessModes"));
    if modes.is_empty() {
        found.required(&here, "");
    }
    found.extend(bad_access_modes(&here.to_string(), modes));
}

fn capacity(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let here = path.child("capacity");
    if entries(spec, &["capacity"]).next().is_none() {
        found.required(&here, "");
    } else if at(spec, &["capacity", "storage"]).is_null()
        || entries(spec, &["capacity"]).count() > 1
    {
        found.push(FieldError::not_supported_shown(
            &here,
            at(spec, &["capacity"]).to_string(),
            &["storage"],
        ));
    }
    for (name, amount) in entries(spec, &["capacity"]) {
        let read = Quantity::parse(&amount_text(amount));
        if read.is_ok_and(|amount| amount.is_zero() || amount.is_negative()) {
            found.invalid(&here.key(name), amount, "must be greater than zero");
        }
    }
}

fn source(name: &str, spec: &Value, path: &Path<'_>, found: &mut Findings) {
    if !persistent::check(spec, name, path, found) {
        found.required(path, "must specify a volume type");
    }
}

fn attributes_class(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let Some(class) = at(spec, &["volumeAttributesClassName"]).as_str() else {
        return;
    };
    let here = path.child("volumeAttributesClassName");
    if class.is_empty() {
        found.required(&here, "an empty string is disallowed");
    } else {
        found.against(&here, class, names::subdomain(class));
    }
    if !at(spec, &["csi"]).is_object() {
        let why = "has to be specified when using volumeAttributesClassName";
        found.required(&path.child("csi"), why);
    }
}

/// What is wrong with the access modes that stand at `field`.
pub(super) fn bad_access_modes(field: &str, modes: &[Value]) -> Vec<FieldError> {
    const KNOWN: &[&str] = &[
        "ReadOnlyMany",
        "ReadWriteMany",
        "ReadWriteOnce",
        "ReadWriteOncePod",
    ];
    let mut wrong = Vec::new();
    // With others, and with those that are used by one Pod alone.
    let mut modes_of = [false; 2];
    for mode in modes {
        match mode.as_str().unwrap_or("") {
            known if KNOWN.contains(&known) => {
                modes_of[usize::from(known == "ReadWriteOncePod")] = true;
            }
            other => wrong.push(FieldError::not_supported(field, other, KNOWN)),
        }
    }
    if modes_of == [true; 2] {
        wrong.push(FieldError::forbidden(
            field,
            "may not use ReadWriteOncePod with other access modes",
        ));
    }
    wrong
}

/// What is wrong with the volume mode that stands at `field`.
pub(super) fn bad_volume_mode(field: &str, mode: &Value) -> Option<FieldError> {
    let (known, mode) = (["Block", "Filesystem"], mode.as_str()?);
    (!known.contains(&mode)).then(|| FieldError::not_supported(field, mode, &known))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(wrong: &[FieldError]) -> Vec<String> {
        wrong.iter().map(ToString::to_string).collect()
    }

    /// A volume of one source.
    fn volume(source: &str, value: &Value) -> Value {
        json!({"metadata": {"name": "v"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "volumeMode": "Filesystem", source: value,
        }})
    }

    #[test]
    fn sources_are_asked_what_those_of_pods_are() {
        let label = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        let of_namespace =
            format!("spec.glusterfs.endpointsNamespace: Invalid value: \"A\": {label}");
        let cases: Vec<(&str, Value, Vec<&str>)> = vec![
            (
                "hostPath",
                json!({"path": "/a", "type": "Directory"}),
                vec![],
            ),
            (
                "hostPath",
                json!({"path": "/a/..", "type": "Foo"}),
                vec![
                    "spec.hostPath.path: Invalid value: \"/a/..\": must not contain '..'",
                    "spec.hostPath.type: Unsupported value: \"Foo\": supported values: \"\", \"BlockDevice\", \
                     \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (
                "gcePersistentDisk",
                json!({}),
                vec!["spec.persistentDisk.pdName: Required value"],
            ),
            (
                "glusterfs",
                json!({"endpoints": "e", "path": "p", "endpointsNamespace": "A"}),
                vec![&of_namespace],
            ),
            (
                "rbd",
                json!({}),
                vec![
                    "spec.rbd.monitors: Required value",
                    "spec.rbd.image: Required value",
                ],
            ),
            (
                "iscsi",
                json!({"targetPortal": "p", "iqn": "iqn.2020-01.com.example:a", "secretRef": {}}),
                vec!["spec.iscsi.secretRef.name: Required value"],
            ),
            (
                "cinder",
                json!({"volumeID": "a", "secretRef": {"name": "s"}}),
                vec!["spec.cinder.secretRef.namespace: Required value"],
            ),
            (
                "azureFile",
                json!({"secretName": "s", "shareName": "s", "secretNamespace": ""}),
                vec!["spec.azureFile.secretNamespace: Required value"],
            ),
            (
                "csi",
                json!({"driver": "a/b", "nodeStageSecretRef": {}, "nodePublishSecretRef": {"name": "s"}}),
                vec![
                    "spec.csi.driver: Invalid value: \"a/b\": a lowercase RFC 1123 subdomain must consist of lower case \
                     alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                     'example.com', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                    "spec.csi.volumeHandle: Required value",
                    "spec.csi.nodePublishSecretRef.namespace: Required value",
                ],
            ),
            (
                "local",
                json!({"path": "/a"}),
                vec!["spec.nodeAffinity: Required value: Local volume requires node affinity"],
            ),
        ];
        for (source, value, wanted) in cases {
            assert_eq!(
                shown(&validate(&volume(source, &value))),
                wanted,
                "{source}"
            );
        }
    }

    #[test]
    fn one_source_and_what_stands_beside_it() {
        let mut volume = volume("hostPath", &json!({"path": "/./"}));
        let spec = &mut volume["spec"];
        spec["nfs"] = json!({});
        spec["flexVolume"] = json!({"driver": "d"});
        spec["accessModes"] = json!(["ReadWriteOncePod", "ReadWriteOncePod"]);
        spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": []}});
        spec["persistentVolumeReclaimPolicy"] = json!("Recycle");
        spec["volumeMode"] = json!("");
        spec["volumeAttributesClassName"] = json!("");
        let wanted = [
            "spec.nodeAffinity.required.nodeSelectorTerms: Required value: must have at least one node selector term",
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            "spec.volumeMode: Unsupported value: \"\": supported values: \"Block\", \"Filesystem\"",
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
            "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
        ];
        assert_eq!(shown(&validate(&volume)), wanted);
        let nothing = json!({"spec": {"accessModes": [], "capacity": {}}});
        let wanted = [
            "spec.accessModes: Required value",
            "spec.capacity: Required value",
            "spec: Required value: must specify a volume type",
        ];
        assert_eq!(shown(&validate(&nothing)), wanted);
    }

    #[test]
    fn a_source_gains_the_secret_by_which_it_grows_and_nothing_else() {
        let old = volume("csi", &json!({"driver": "d", "volumeHandle": "h"}));
        let mut new = old.clone();
        new["spec"]["csi"]["controllerExpandSecretRef"] = json!({"name": "a", "namespace": "b"});
        assert!(validate_update(&new, &old).is_empty());
        let refused = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";
        assert_eq!(shown(&validate_update(&old, &new)), [refused]);
        new["spec"]["csi"]["volumeHandle"] = json!("other");
        assert_eq!(shown(&validate_update(&new, &old)), [refused]);
        let mut old = old;
        old["spec"]["volumeAttributesClassName"] = json!("gold");
        let mut new = old.clone();
        new["spec"]["volumeAttributesClassName"] = Value::Null;
        new["spec"]["volumeMode"] = json!("Block");
        let wanted = [
            "volumeMode: Invalid value: \"Block\": field is immutable",
            "spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden",
        ];
        assert_eq!(shown(&validate_update(&new, &old)), wanted);
    }

    #[test]
    fn a_spec_within_an_attachment_is_of_csi_and_little_else() {
        let mut volume = volume("nfs", &json!({"server": "s", "path": "/"}));
        volume["spec"]["claimRef"] = json!({});
        volume["spec"]["storageClassName"] = json!("c");
        let wanted = [
            "spec.source.inlineVolumeSpec.claimRef: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
        ];
        let field = "spec.source.inlineVolumeSpec";
        assert_eq!(shown(&validate_inline(&volume["spec"], field)), wanted);
    }
}
