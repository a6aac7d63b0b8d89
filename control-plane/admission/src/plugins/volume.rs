//! What happens to volumes and claims: a default class, protection while they are used, and growth where the class
//! allows it.

use api::quantity::Quantity;
use api::status::Status;
use api::value::{at, flag, object_mut, set, text};
use serde_json::Value;

use super::default_class;
use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

const DEFAULT: &[&str] = &[
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];
/// Where claims named their class before they had a field for it.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(crate) const DEFAULT_STORAGE_CLASS: Plugin = Plugin {
    name: "DefaultStorageClass",
    handles: |attributes| {
        attributes.is("", "persistentvolumeclaims") && attributes.operation == Operation::Create
    },
    mutate: Some(|_, claim, _, lookup| {
        let old = at(claim, &["metadata", "annotations", OLD_CLASS]);
        if old.is_string() || at(claim, &["spec", "storageClassName"]).is_string() {
            return Ok(());
        }
        if let Some(class) = default_class(lookup, "storageclasses", DEFAULT)
            && let Some(spec) = object_mut(claim, "spec")
        {
            set(spec, "storageClassName", api::meta::name(&class));
        }
        Ok(())
    }),
    validate: None,
};

pub(crate) const STORAGE_OBJECT_IN_USE_PROTECTION: Plugin = Plugin {
    name: "StorageObjectInUseProtection",
    handles: |attributes| {
        attributes.operation == Operation::Create && finalizer(attributes).is_some()
    },
    mutate: Some(|attributes, object, _, _| {
        let Some(wanted) = finalizer(attributes) else {
            return Ok(());
        };
        let mut all = api::meta::finalizers(object).to_vec();
        if !all.iter().any(|known| known == wanted) {
            all.push(wanted.into());
            if let Some(metadata) = object_mut(object, "metadata") {
                set(metadata, "finalizers", all);
            }
        }
        Ok(())
    }),
    validate: None,
};

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    if attributes.is("", "persistentvolumeclaims") {
        Some("kubernetes.io/pvc-protection")
    } else if attributes.is("", "persistentvolumes") {
        Some("kubernetes.io/pv-protection")
    } else if attributes.is("storage.k8s.io", "volumeattributesclasses") {
        Some("kubernetes.io/vac-protection")
    } else {
        None
    }
}

pub(crate) const PERSISTENT_VOLUME_CLAIM_RESIZE: Plugin = Plugin {
    name: "PersistentVolumeClaimResize",
    handles: |attributes| {
        attributes.is("", "persistentvolumeclaims") && attributes.operation == Operation::Update
    },
    mutate: None,
    validate: Some(resize),
};

fn resize(
    attributes: &Attributes<'_>,
    claim: &Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    let Some(old) = old else { return Ok(()) };
    let size = |claim: &Value| {
        Quantity::parse(text(claim, &["spec", "resources", "requests", "storage"])).ok()
    };
    let (Some(new), Some(before)) = (size(claim), size(old)) else {
        return Ok(());
    };
    if new <= before {
        return Ok(());
    }
    if text(old, &["status", "phase"]) != "Bound" {
        return Err(attributes.forbid("Only bound persistent volume claims can be expanded"));
    }
    let class = |claim: &Value| match text(claim, &["metadata", "annotations", OLD_CLASS]) {
        "" => text(claim, &["spec", "storageClassName"]).to_owned(),
        old => old.to_owned(),
    };
    let name = class(claim);
    let grows = !name.is_empty()
        && name == class(old)
        && lookup
            .get("storageclasses", "", &name)
            .is_some_and(|class| flag(&class, &["allowVolumeExpansion"]));
    if grows {
        return Ok(());
    }
    Err(attributes.forbid(
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support \
         resize",
    ))
}
