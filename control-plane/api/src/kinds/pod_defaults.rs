//! What a Pod is given where its author said nothing.

use serde_json::{Value, json};

use super::persistent_volume::default_volume_mode;
use super::pod_spec::{aggregate, is_huge, is_of_pods};
use crate::quantity::Quantity;
use crate::value::{
    self, at, entries, items_mut, list, number, object_mut, set, set_default, text,
};

/// Fills a Pod.
pub(crate) fn default(object: &mut Value) {
    default_template(object);
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    set_default(spec, "enableServiceLinks", true);
    let host_network = value::flag(spec, &["hostNetwork"]);
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, key) {
            default_requests(container);
            for port in items_mut(container, "ports") {
                let number = number(port, &["containerPort"]);
                if host_network && number != 0 && at(port, &["hostPort"]).is_null() {
                    set(port, "hostPort", number);
                }
            }
        }
    }
    default_pod_level(spec);
}

/// What a Pod as a whole is limited to and asks for follows from its containers, if it says something of either.
fn default_pod_level(spec: &mut Value) {
    let said = |spec: &Value, which: &str| entries(spec, &["resources", which]).next().is_some();
    let lacks =
        |spec: &Value, which: &str, name: &str| at(spec, &["resources", which, name]).is_null();
    let fill = |spec: &mut Value, which: &str, name: &str, amount: Value| {
        if let Some(amounts) = object_mut(spec, "resources").and_then(|all| object_mut(all, which))
        {
            set(amounts, name, amount);
        }
    };
    let owned = |amounts: Vec<(&str, Quantity)>| -> Vec<(String, String)> {
        let text = |(name, amount): (&str, Quantity)| (name.to_owned(), amount.to_string());
        amounts.into_iter().map(text).collect()
    };
    if !said(spec, "limits") && !said(spec, "requests") {
        return;
    }
    for (name, sum) in owned(aggregate(spec, "limits")) {
        if is_huge(&name) && lacks(spec, "requests", &name) && lacks(spec, "limits", &name) {
            fill(spec, "limits", &name, sum.into());
        }
    }
    if !said(spec, "limits") {
        return;
    }
    for (name, sum) in owned(aggregate(spec, "requests")) {
        if !is_huge(&name) && lacks(spec, "requests", &name) {
            fill(spec, "requests", &name, sum.into());
        }
    }
    for (name, limit) in at(spec, &["resources", "limits"])
        .clone()
        .as_object()
        .into_iter()
        .flatten()
    {
        if is_of_pods(name) && lacks(spec, "requests", name) {
            fill(spec, "requests", name, limit.clone());
        }
    }
}

/// What is limited is asked for as much, where nothing was said.
fn default_requests(container: &mut Value) {
    let limits = at(container, &["resources", "limits"]).clone();
    if let Some(limits) = limits.as_object().filter(|l| !l.is_empty())
        && let Some(requests) = container
            .get_mut("resources")
            .and_then(|r| object_mut(r, "requests"))
    {
        for (name, limit) in limits {
            set_default(requests, name, limit.clone());
        }
    }
}

/// Fills the template of Pods: a Pod made from it is given the rest.
pub(crate) fn default_template(object: &mut Value) {
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    set_default(spec, "restartPolicy", "Always");
    set_default(spec, "dnsPolicy", "ClusterFirst");
    set_default(spec, "terminationGracePeriodSeconds", 30);
    set_default(spec, "schedulerName", "default-scheduler");
    object_mut(spec, "securityContext");
    // The older name of the account says the same.
    match (
        text(spec, &["serviceAccountName"]).to_owned(),
        text(spec, &["serviceAccount"]).to_owned(),
    ) {
        (name, _) if !name.is_empty() => set(spec, "serviceAccount", name),
        (_, old) if !old.is_empty() => set(spec, "serviceAccountName", old),
        _ => {}
    }
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, key) {
            default_container(container);
        }
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
}

/// `Always` for an image that may change under its name, else `IfNotPresent`, as for what is no image's name.
fn pull_policy(image: &str) -> &'static str {
    let known = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    if image.is_empty() || !image.chars().all(known) {
        return "IfNotPresent";
    }
    let untagged = image.rsplit('/').next().unwrap_or(image);
    let latest = match (image.contains('@'), untagged.split_once(':')) {
        (true, _) => false,
        (false, None) => true,
        (false, Some((_, tag))) => tag == "latest",
    };
    if latest { "Always" } else { "IfNotPresent" }
}

fn default_container(container: &mut Value) {
    if !container.is_object() {
        return;
    }
    let image = text(container, &["image"]).to_owned();
    set_default(container, "imagePullPolicy", pull_policy(&image));
    set_default(container, "terminationMessagePath", "/dev/termination-log");
    set_default(container, "terminationMessagePolicy", "File");
    object_mut(container, "resources");
    for port in items_mut(container, "ports") {
        set_default(port, "protocol", "TCP");
    }
    for env in items_mut(container, "env") {
        if let Some(field) = env.get_mut("valueFrom").and_then(|v| v.get_mut("fieldRef")) {
            set_default(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|p| p.is_object()) {
            default_probe(probe);
        }
    }
    if let Some(lifecycle) = container.get_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(http) = lifecycle.get_mut(hook).and_then(|h| h.get_mut("httpGet")) {
                default_http(http);
            }
        }
    }
}

fn default_probe(probe: &mut Value) {
    for (key, default) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if number(probe, &[key]) == 0 {
            set(probe, key, default);
        }
    }
    if let Some(http) = probe.get_mut("httpGet") {
        default_http(http);
    }
    if let Some(grpc) = probe.get_mut("grpc").filter(|g| g.is_object())
        && at(grpc, &["service"]).is_null()
    {
        set(grpc, "service", "");
    }
}

fn default_http(http: &mut Value) {
    set_default(http, "path", "/");
    set_default(http, "scheme", "HTTP");
}

/// Files of volumes are readable by all, 0644.
const FILE_MODE: i64 = 0o644;

/// What volumes of old kinds are given.
const OLD_VOLUMES: &[(&str, &[(&str, &str)])] = &[
    (
        "rbd",
        &[
            ("pool", "rbd"),
            ("user", "admin"),
            ("keyring", "/etc/ceph/keyring"),
        ],
    ),
    (
        "scaleIO",
        &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")],
    ),
    (
        "azureDisk",
        &[
            ("cachingMode", "ReadWrite"),
            ("fsType", "ext4"),
            ("kind", "Shared"),
        ],
    ),
];

fn default_volume(volume: &mut Value) {
    let Some(map) = volume.as_object() else {
        return;
    };
    if map.keys().all(|key| key == "name") {
        set(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).filter(|s| s.is_object()) {
            set_default(source, "defaultMode", FILE_MODE);
            default_downward(source);
            for projection in items_mut(source, "sources") {
                if let Some(token) = projection
                    .get_mut("serviceAccountToken")
                    .filter(|t| t.is_object())
                {
                    set_default(token, "expirationSeconds", 3600);
                }
                if let Some(downward) = projection.get_mut("downwardAPI") {
                    default_downward(downward);
                }
            }
        }
    }
    if let Some(image) = volume.get_mut("image").filter(|v| v.is_object()) {
        let policy = pull_policy(text(image, &["reference"]));
        set_default(image, "pullPolicy", policy);
    }
    if let Some(template) = volume
        .get_mut("ephemeral")
        .and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"))
        .filter(|template| template.is_object())
    {
        object_mut(template, "metadata");
        if let Some(claim) = object_mut(template, "spec") {
            default_volume_mode(claim);
            object_mut(claim, "resources");
        }
    }
    default_volume_source(volume);
}

/// Fills a source that Pods and PersistentVolumes have in common: `holder` is a volume of a Pod, or a PersistentVolume's
/// spec.
pub(super) fn default_volume_source(holder: &mut Value) {
    if let Some(host_path) = holder.get_mut("hostPath").filter(|h| h.is_object())
        && at(host_path, &["type"]).is_null()
    {
        set(host_path, "type", "");
    }
    for (source, defaults) in OLD_VOLUMES {
        if let Some(source) = holder.get_mut(source).filter(|v| v.is_object()) {
            for (key, default) in *defaults {
                set_default(source, key, *default);
            }
        }
    }
    if let Some(disk) = holder.get_mut("azureDisk").filter(|v| v.is_object()) {
        set_default(disk, "readOnly", false);
    }
    if let Some(iscsi) = holder.get_mut("iscsi").filter(|v| v.is_object()) {
        set_default(iscsi, "iscsiInterface", "default");
    }
}

fn default_downward(source: &mut Value) {
    for item in items_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef").filter(|f| f.is_object()) {
            set_default(field, "apiVersion", "v1");
        }
    }
}

/// How well a Pod is protected when its node runs short: by what it asks for and is limited to.
pub(crate) fn qos(object: &Value) -> &'static str {
    let mut asks = false;
    let mut guaranteed = true;
    let spec = at(object, &["spec"]);
    let as_a_whole = ["limits", "requests"]
        .into_iter()
        .flat_map(|which| entries(spec, &["resources", which]))
        .any(|(name, _)| is_of_pods(name));
    let containers = list(spec, &["containers"])
        .iter()
        .chain(list(spec, &["initContainers"]));
    // What the Pod as a whole says goes before what its containers say.
    let holders: Vec<&Value> = if as_a_whole {
        vec![spec]
    } else {
        containers.collect()
    };
    for container in holders {
        for resource in ["cpu", "memory"] {
            let amount = |kind: &str| {
                at(container, &["resources", kind, resource])
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| {
                        at(container, &["resources", kind, resource])
                            .as_number()
                            .map(ToString::to_string)
                    })
                    .and_then(|t| Quantity::parse(&t).ok())
                    .filter(|q| !q.is_zero())
            };
            let (request, limit) = (amount("requests"), amount("limits"));
            asks |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (asks, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
