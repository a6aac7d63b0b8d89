//! ServiceAccount: a Pod runs as an account of its namespace, and finds that account's token in its containers.

use api::status::Status;
use api::value::{at, items_mut, list, object_mut, set, text};
use serde_json::{Value, json};

use crate::pod::{account_name, containers, is_mirror};
use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

/// Where containers look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seconds that a token holds: an hour, and some seconds that tell such tokens from others.
const TOKEN_SECS: i64 = 3607;
/// An account that says so lets its Pods mount only the secrets that it names.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

pub(crate) const SERVICE_ACCOUNT: Plugin = Plugin {
    name: "ServiceAccount",
    handles: |attributes| {
        attributes.is("", "pods") && attributes.operation == Operation::Create
            || attributes.group.is_empty()
                && attributes.resource == "pods"
                && attributes.subresource == "ephemeralcontainers"
                && attributes.operation == Operation::Update
    },
    mutate: Some(mutate),
    validate: Some(validate),
};

fn mutate(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    if attributes.operation != Operation::Create || is_mirror(pod) {
        return Ok(());
    }
    let name = account_name(pod).to_owned();
    let account = find(attributes, &name, lookup)?;
    let Some(spec) = object_mut(pod, "spec") else {
        return Ok(());
    };
    set(spec, "serviceAccountName", name.as_str());
    set(spec, "serviceAccount", name.as_str());
    let mounts = at(spec, &["automountServiceAccountToken"])
        .as_bool()
        .or_else(|| at(&account, &["automountServiceAccountToken"]).as_bool())
        .unwrap_or(true);
    if mounts {
        mount_token(spec, attributes.suffix);
    }
    if list(spec, &["imagePullSecrets"]).is_empty() {
        let secrets = list(&account, &["imagePullSecrets"]);
        if !secrets.is_empty() {
            set(spec, "imagePullSecrets", secrets.to_vec());
        }
    }
    Ok(())
}

fn find(
    attributes: &Attributes<'_>,
    name: &str,
    lookup: &dyn Lookup,
) -> Result<std::sync::Arc<Value>, Status> {
    let namespace = attributes.namespace;
    lookup
        .get("serviceaccounts", namespace, name)
        .ok_or_else(|| {
            attributes.forbid(format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            ))
        })
}

fn mount_token(spec: &mut Value, suffix: &str) {
    let known = list(spec, &["volumes"])
        .iter()
        .map(|volume| text(volume, &["name"]))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let volume = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut needed = false;
    for key in ["initContainers", "containers"] {
        for container in items_mut(spec, key) {
            let mounts = list(container, &["volumeMounts"]);
            if mounts
                .iter()
                .any(|mount| text(mount, &["mountPath"]) == MOUNT_PATH)
            {
                continue;
            }
            let mut mounts = mounts.to_vec();
            mounts.push(json!({"name": volume, "readOnly": true, "mountPath": MOUNT_PATH}));
            set(container, "volumeMounts", mounts);
            needed = true;
        }
    }
    if !needed || known.is_some() {
        return;
    }
    let mut volumes = list(spec, &["volumes"]).to_vec();
    volumes.push(json!({
        "name": volume,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECS, "path": "token"}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    }));
    set(spec, "volumes", volumes);
}

fn validate(
    attributes: &Attributes<'_>,
    pod: &Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    let spec = at(pod, &["spec"]);
    if is_mirror(pod) {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        if !text(spec, &["serviceAccountName"]).is_empty() {
            return Err(attributes.forbid("a mirror pod may not reference service accounts"));
        }
        let secret = secret_names(spec).next().is_some();
        if secret {
            return Err(attributes.forbid("a mirror pod may not reference secrets"));
        }
        let token = list(spec, &["volumes"]).iter().any(|volume| {
            let sources = list(volume, &["projected", "sources"]);
            sources
                .iter()
                .any(|source| source.get("serviceAccountToken").is_some())
        });
        if token {
            let why = "a mirror pod may not use ServiceAccountToken volume projections";
            return Err(attributes.forbid(why));
        }
        return Ok(());
    }
    let account = find(attributes, account_name(pod), lookup)?;
    let enforced = text(&account, &["metadata", "annotations", ENFORCE]);
    if !matches!(enforced, "true" | "1" | "t" | "T" | "TRUE" | "True") {
        return Ok(());
    }
    let name = api::meta::name(&account);
    let allowed = |secret: &str| {
        let secrets = list(&account, &["secrets"]);
        secrets.iter().any(|known| text(known, &["name"]) == secret)
    };
    for (what, secret) in secret_names(spec) {
        if !allowed(secret) {
            return Err(attributes.forbid(format!(
                "{what}={secret:?} is not allowed because service account {name} does not reference that secret"
            )));
        }
    }
    Ok(())
}

/// The secrets that a Pod mounts or reads, and how each is referred to.
fn secret_names(spec: &Value) -> impl Iterator<Item = (String, &str)> {
    let volumes = list(spec, &["volumes"]).iter().filter_map(|volume| {
        let name = text(volume, &["secret", "secretName"]);
        (!name.is_empty()).then(|| ("volume with secret.secretName".to_owned(), name))
    });
    let environments = containers(spec).flat_map(|container| {
        let shown = text(container, &["name"]).to_owned();
        let single = list(container, &["env"]).iter().filter_map({
            let shown = shown.clone();
            move |env| {
                let name = text(env, &["valueFrom", "secretKeyRef", "name"]);
                let variable = text(env, &["name"]);
                (!name.is_empty()).then(|| {
                    let what = format!(
                        "container {shown} with envVar {variable} referencing secret.secretName"
                    );
                    (what, name)
                })
            }
        });
        let whole = list(container, &["envFrom"])
            .iter()
            .filter_map(move |from| {
                let name = text(from, &["secretRef", "name"]);
                (!name.is_empty()).then(|| {
                    (
                        format!("container {shown} with envFrom referencing secret.secretName"),
                        name,
                    )
                })
            });
        single.chain(whole)
    });
    let pulling = list(spec, &["imagePullSecrets"]).iter().map(|secret| {
        (
            "imagePullSecrets[].name".to_owned(),
            text(secret, &["name"]),
        )
    });
    volumes.chain(environments).chain(pulling)
}
