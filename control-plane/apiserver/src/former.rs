//! Objects that stand in an etcd in a version that an older kube-apiserver wrote and that is served no longer, and in
//! served ones that are not what is stored: as they are read they become what is stored now.

use api::table::{self, Resource};
use api::value::{list, remove, set, set_default, text};
use serde_json::{Value, json};

/// What became of the objects of former versions.
struct Former {
    group: &'static str,
    versions: &'static [&'static str],
    kinds: &'static [&'static str],
    /// Of today's objects, where it is another.
    now: Option<&'static str>,
    change: fn(&mut Value),
    /// Whether today's fields have their numbers in protobuf.
    numbered: bool,
}

const SAME: Former = Former {
    group: "",
    versions: &["v1beta1"],
    kinds: &[],
    now: None,
    change: |_| {},
    numbered: true,
};

#[rustfmt::skip]
const FORMER: &[Former] = &[
    Former { group: "admissionregistration.k8s.io", versions: &["v1alpha1", "v1beta1"], kinds: &[
        "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ], ..SAME },
    Former { group: "apiregistration.k8s.io", kinds: &["APIService"], ..SAME },
    Former { group: "apps", versions: &["v1beta1", "v1beta2"], kinds: &[
        "Deployment", "StatefulSet", "ControllerRevision", "DaemonSet", "ReplicaSet",
    ], ..SAME },
    Former { group: "extensions", kinds: &["Deployment", "DaemonSet", "ReplicaSet"], now: Some("apps"), ..SAME },
    Former { group: "extensions", kinds: &["NetworkPolicy"], now: Some("networking.k8s.io"), ..SAME },
    Former { group: "extensions", kinds: &["Ingress"], now: Some("networking.k8s.io"), change: ingress, numbered: false, ..SAME },
    Former { group: "autoscaling", versions: &["v2beta2"], kinds: &["HorizontalPodAutoscaler"], ..SAME },
    Former { group: "batch", kinds: &["CronJob"], ..SAME },
    Former { group: "certificates.k8s.io", kinds: &["CertificateSigningRequest"], ..SAME },
    Former { group: "coordination.k8s.io", kinds: &["Lease"], ..SAME },
    Former { group: "discovery.k8s.io", kinds: &["EndpointSlice"], change: topology, numbered: false, ..SAME },
    Former { group: "flowcontrol.apiserver.k8s.io", versions: &["v1beta1", "v1beta2", "v1beta3"], kinds: &["FlowSchema"], ..SAME },
    Former { group: "flowcontrol.apiserver.k8s.io", versions: &["v1beta1", "v1beta2", "v1beta3"],
        kinds: &["PriorityLevelConfiguration"], change: shares, ..SAME },
    Former { group: "networking.k8s.io", versions: &["v1alpha1", "v1beta1"], kinds: &["IPAddress", "ServiceCIDR"], ..SAME },
    Former { group: "networking.k8s.io", kinds: &["IngressClass"], ..SAME },
    Former { group: "networking.k8s.io", kinds: &["Ingress"], change: ingress, numbered: false, ..SAME },
    Former { group: "node.k8s.io", kinds: &["RuntimeClass"], ..SAME },
    Former { group: "policy", kinds: &["PodDisruptionBudget"], change: selects_none, ..SAME },
    Former { group: "rbac.authorization.k8s.io", kinds: &[
        "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
    ], ..SAME },
    Former { group: "resource.k8s.io", versions: &["v1beta2"], kinds: &[
        "DeviceClass", "ResourceClaim", "ResourceClaimTemplate", "ResourceSlice",
    ], ..SAME },
    Former { group: "resource.k8s.io", kinds: &["DeviceClass"], ..SAME },
    Former { group: "resource.k8s.io", kinds: &["ResourceClaim", "ResourceClaimTemplate"], change: requests, numbered: false, ..SAME },
    Former { group: "resource.k8s.io", kinds: &["ResourceSlice"], change: devices, numbered: false, ..SAME },
    Former { group: "scheduling.k8s.io", kinds: &["PriorityClass"], ..SAME },
    Former { group: "storage.k8s.io", kinds: &[
        "CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment", "VolumeAttributesClass",
    ], ..SAME },
];

/// Makes an object what is stored of its kind now. Whether it was something else.
///
/// # Errors
/// It is of a kind that is stored, in a version that is not known.
pub(crate) fn renew(object: &mut Value) -> Result<bool, String> {
    let (group, version) = group_version(text(object, &["apiVersion"]));
    let kind = text(object, &["kind"]);
    if let Some(row) = table::find_kind(group, version, kind) {
        if let Some(conversion) = &row.conversion {
            (row.default)(object);
            (conversion.to_stored)(object);
        }
        return Ok(row.conversion.is_some());
    }
    let Some(former) = find(group, version, kind) else {
        return match stored(group, kind) {
            Some(_) => Err(format!(
                "no kind {kind:?} is registered for version {:?}",
                text(object, &["apiVersion"])
            )),
            None => Ok(false),
        };
    };
    if let Some(row) = stored(former.now.unwrap_or(former.group), kind) {
        (former.change)(object);
        set(object, "apiVersion", row.api_version());
        (row.default)(object);
    }
    Ok(true)
}

/// The version whose protobuf an object of a former one is read as.
pub(crate) fn read_as(api_version: &str, kind: &str) -> Option<String> {
    let (group, version) = group_version(api_version);
    let former = find(group, version, kind).filter(|former| former.numbered)?;
    Some(stored(former.now.unwrap_or(former.group), kind)?.api_version())
}

fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

fn find(group: &str, version: &str, kind: &str) -> Option<&'static Former> {
    FORMER.iter().find(|former| {
        former.group == group && former.versions.contains(&version) && former.kinds.contains(&kind)
    })
}

/// What objects of the kind are stored as.
fn stored(group: &str, kind: &str) -> Option<&'static Resource> {
    let mut rows = table::RESOURCES.iter().copied();
    rows.find(|row| (row.group, row.kind) == (group, kind) && row.conversion.is_none())
}

/// The objects in a list of an object.
fn each(object: &mut Value, path: &[&str], change: impl FnMut(&mut Value)) {
    let found = path.iter().try_fold(object, |at, key| at.get_mut(key));
    let items = found.and_then(Value::as_array_mut).into_iter().flatten();
    items.for_each(change);
}

/// A budget without conditions covered no Pod, and now every one.
fn selects_none(budget: &mut Value) {
    let spec = budget.get_mut("spec");
    if let Some(spec) = spec.filter(|spec| spec.get("selector") == Some(&json!({}))) {
        let none = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
        let none = json!({"matchExpressions": [{"key": none, "operator": "Exists"}]});
        set(spec, "selector", none);
    }
}

fn shares(level: &mut Value) {
    if let Some(limited) = level.pointer_mut("/spec/limited")
        && let Some(shares) = remove(limited, "assuredConcurrencyShares")
    {
        set(limited, "nominalConcurrencyShares", shares);
    }
}

fn topology(slice: &mut Value) {
    each(slice, &["endpoints"], |endpoint| {
        let Some(mut topology) = remove(endpoint, "topology") else {
            return;
        };
        for (label, key) in [
            ("kubernetes.io/hostname", "nodeName"),
            ("topology.kubernetes.io/zone", "zone"),
        ] {
            if let Some(value) = remove(&mut topology, label) {
                set_default(endpoint, key, value);
            }
        }
        if topology.as_object().is_some_and(|rest| !rest.is_empty()) {
            set(endpoint, "deprecatedTopology", topology);
        }
    });
}

fn ingress(ingress: &mut Value) {
    let Some(spec) = ingress.get_mut("spec") else {
        return;
    };
    if let Some(mut backend) = remove(spec, "backend") {
        names_service(&mut backend);
        set(spec, "defaultBackend", backend);
    }
    each(spec, &["rules"], |rule| {
        each(rule, &["http", "paths"], |path| {
            set_default(path, "pathType", "ImplementationSpecific");
            path.get_mut("backend").map(names_service);
        });
    });
}

fn names_service(backend: &mut Value) {
    let (name, port) = (
        remove(backend, "serviceName"),
        remove(backend, "servicePort"),
    );
    if let Some(name) = name {
        let port = match port {
            Some(Value::String(name)) => json!({"name": name}),
            port => json!({"number": port}),
        };
        set(backend, "service", json!({"name": name, "port": port}));
    }
}

fn requests(claim: &mut Value) {
    let inner = ["spec", "spec", "devices", "requests"];
    let path = match list(claim, &inner) {
        [] => &inner[1..],
        _ => &inner,
    };
    each(claim, path, |request| {
        let mut exactly = json!({});
        for key in [
            "deviceClassName",
            "selectors",
            "allocationMode",
            "count",
            "adminAccess",
            "tolerations",
            "capacity",
        ] {
            if let Some(value) = remove(request, key) {
                set(&mut exactly, key, value);
            }
        }
        if !text(&exactly, &["deviceClassName"]).is_empty() {
            set(request, "exactly", exactly);
        }
    });
}

fn devices(slice: &mut Value) {
    each(slice, &["spec", "devices"], |device| {
        if let Some(Value::Object(basic)) = remove(device, "basic") {
            for (key, value) in basic {
                set(device, &key, value);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_former_kind_is_stored_as_something() {
        for former in FORMER {
            for kind in former.kinds {
                let group = former.now.unwrap_or(former.group);
                assert!(stored(group, kind).is_some(), "{group} {kind}");
                let served =
                    |version: &&&str| table::find_kind(former.group, version, kind).is_some();
                assert_eq!(former.versions.iter().find(served), None, "{kind}");
            }
        }
    }

    #[test]
    fn objects_become_what_is_stored_now() {
        #[rustfmt::skip]
        let cases = [
            (json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 40}}),
                "autoscaling/v2", "/spec/metrics/0/resource/target/averageUtilization", json!(40)),
            (json!({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 3}}),
                "autoscaling/v2", "/spec/maxReplicas", json!(3)),
            (json!({"apiVersion": "batch/v1beta1", "kind": "CronJob", "spec": {"schedule": "@daily"}}),
                "batch/v1", "/spec/concurrencyPolicy", json!("Allow")),
            (json!({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "spec": {"selector": {}}}),
                "policy/v1", "/spec/selector/matchExpressions/0/operator", json!("Exists")),
            (json!({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "spec": {"selector": {"matchLabels": {"a": "b"}}}}),
                "policy/v1", "/spec/selector", json!({"matchLabels": {"a": "b"}})),
            (json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1beta2", "kind": "PriorityLevelConfiguration", "spec": {"type": "Limited", "limited": {"assuredConcurrencyShares": 7}}}),
                "flowcontrol.apiserver.k8s.io/v1", "/spec/limited/nominalConcurrencyShares", json!(7)),
            (json!({"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice", "endpoints": [{"addresses": ["10.0.0.1"], "topology": {"kubernetes.io/hostname": "n", "topology.kubernetes.io/zone": "z", "x": "y"}}]}),
                "discovery.k8s.io/v1", "/endpoints/0", json!({"addresses": ["10.0.0.1"], "nodeName": "n", "zone": "z", "deprecatedTopology": {"x": "y"}})),
            (json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "spec": {"backend": {"serviceName": "s", "servicePort": "web"}}}),
                "networking.k8s.io/v1", "/spec/defaultBackend/service", json!({"name": "s", "port": {"name": "web"}})),
            (json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress", "spec": {"rules": [{"http": {"paths": [{"backend": {"serviceName": "s", "servicePort": 80}}]}}]}}),
                "networking.k8s.io/v1", "/spec/rules/0/http/paths/0",
                json!({"pathType": "ImplementationSpecific", "backend": {"service": {"name": "s", "port": {"number": 80}}}})),
            (json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim", "spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "c", "allocationMode": "All"}]}}}),
                "resource.k8s.io/v1", "/spec/devices/requests/0", json!({"name": "r", "exactly": {"deviceClassName": "c", "allocationMode": "All"}})),
            (json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaimTemplate", "spec": {"spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "c", "allocationMode": "All"}]}}}}),
                "resource.k8s.io/v1", "/spec/spec/devices/requests/0/exactly/deviceClassName", json!("c")),
            (json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceSlice", "spec": {"devices": [{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}]}}),
                "resource.k8s.io/v1", "/spec/devices/0", json!({"name": "d", "attributes": {"a": {"int": 1}}})),
            // What is of nobody's kind stays as it is.
            (json!({"apiVersion": "example.com/v1beta1", "kind": "CronJob", "spec": {}}), "example.com/v1beta1", "/spec", json!({})),
        ];
        for (mut object, api_version, path, wanted) in cases {
            let shown = object.to_string();
            let renewed = api_version != object["apiVersion"];
            assert_eq!(renew(&mut object), Ok(renewed), "{shown}");
            assert_eq!(object["apiVersion"], api_version, "{shown}");
            assert_eq!(object.pointer(path), Some(&wanted), "{shown} {object}");
        }
        let mut unknown = json!({"apiVersion": "policy/v9", "kind": "PodDisruptionBudget"});
        let told = "no kind \"PodDisruptionBudget\" is registered for version \"policy/v9\"";
        assert_eq!(renew(&mut unknown), Err(told.to_owned()));
    }
}
