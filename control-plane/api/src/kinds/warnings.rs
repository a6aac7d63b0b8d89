//! What a writer should hear of objects that are good, yet say what is deprecated or without effect. Pods and what is
//! made of their templates have a room of their own.

use std::net::IpAddr;

use serde_json::Value;

use crate::net;
use crate::quantity::Quantity;
use crate::value::{at, entries, list, text};

/// Labels of nodes by their old names, since when these are deprecated, and the new names.
const NODE_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "v1.17",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "v1.17",
        "topology.kubernetes.io/zone",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "v1.17",
        "node.kubernetes.io/instance-type",
    ),
];

fn old_label(key: &str) -> Option<String> {
    NODE_LABELS
        .iter()
        .find(|(old, _, _)| *old == key)
        .map(|(_, since, new)| format!("deprecated since {since}; use {new:?} instead"))
}

fn annotated<'a>(object: &'a Value, key: &str) -> &'a Value {
    at(object, &["metadata", "annotations", key])
}

const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

fn old_class(object: &Value) -> Option<String> {
    (!annotated(object, CLASS).is_null()).then(|| {
        format!(
            "metadata.annotations[{CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
        )
    })
}

/// Sources of volumes that are deprecated, with since when, and since when they do nothing.
const OLD_SOURCES: &[(&str, &str, &str)] = &[
    ("cephfs", "v1.28", "v1.31"),
    ("photonPersistentDisk", "v1.11", "v1.16"),
    ("scaleIO", "v1.16", "v1.22"),
    ("storageos", "v1.22", "v1.25"),
    ("glusterfs", "v1.25", "v1.26"),
    ("rbd", "v1.28", "v1.31"),
];

/// Of a PersistentVolume.
pub(super) fn of_volume(new: &Value, _: Option<&Value>) -> Vec<String> {
    let spec = at(new, &["spec"]);
    let mut said: Vec<String> = old_class(new).into_iter().collect();
    if !annotated(new, MOUNT_OPTIONS).is_null() {
        said.push(format!(
            "metadata.annotations[{MOUNT_OPTIONS}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
        ));
    }
    if text(spec, &["persistentVolumeReclaimPolicy"]) == "Recycle" {
        said.push(
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."
                .to_owned(),
        );
    }
    let terms = list(spec, &["nodeAffinity", "required", "nodeSelectorTerms"]);
    for (i, term) in terms.iter().enumerate() {
        for (j, one) in list(term, &["matchExpressions"]).iter().enumerate() {
            let key = text(one, &["key"]);
            if let Some(why) = old_label(key) {
                said.push(format!(
                    "spec.nodeAffinity.required.nodeSelectorTerms[{i}].matchExpressions[{j}].key: {key} is {why}"
                ));
            }
        }
    }
    for (source, since, gone) in OLD_SOURCES {
        if at(spec, &[source]).is_object() {
            said.push(format!(
                "spec.{source}: deprecated in {since}, non-functional in {gone}+"
            ));
        }
    }
    said
}

/// Of a PersistentVolumeClaim.
pub(super) fn of_claim(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said: Vec<String> = old_class(new).into_iter().collect();
    for key in ["requests", "limits"] {
        let amount = super::amount_text(at(new, &["spec", "resources", key, "storage"]));
        if Quantity::parse(&amount).is_ok_and(|read| !read.is_whole()) {
            said.push(format!(
                "spec.resources.{key}[storage]: fractional byte value {amount:?} is invalid, must be an integer"
            ));
        }
    }
    said
}

/// Of a StorageClass.
pub(super) fn of_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    for (i, term) in list(new, &["allowedTopologies"]).iter().enumerate() {
        for (j, one) in list(term, &["matchLabelExpressions"]).iter().enumerate() {
            if let Some(why) = old_label(text(one, &["key"])) {
                said.push(format!(
                    "allowedTopologies[{i}].matchLabelExpressions[{j}].key: {why}"
                ));
            }
        }
    }
    said
}

/// Of a RuntimeClass.
pub(super) fn of_runtime_class(new: &Value, _: Option<&Value>) -> Vec<String> {
    entries(new, &["scheduling", "nodeSelector"])
        .filter_map(|(key, _)| {
            old_label(key).map(|why| format!("scheduling.nodeSelector[{key}]: {why}"))
        })
        .collect()
}

/// Of a Node.
pub(super) fn of_node(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    let spec = at(new, &["spec"]);
    if at(spec, &["configSource"]).is_object() {
        said.push("spec.configSource: the feature is removed".to_owned());
    }
    if !text(spec, &["externalID"]).is_empty() {
        said.push(
            "spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned(),
        );
    }
    for (i, cidr) in list(spec, &["podCIDRs"]).iter().enumerate() {
        said.extend(odd_cidr(&format!("spec.podCIDRs[{i}]"), cidr));
    }
    said
}

/// Of a ServiceAccount.
pub(super) fn of_account(new: &Value, _: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/enforce-mountable-secrets";
    let said = format!(
        "metadata.annotations[{key}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
    );
    (!annotated(new, key).is_null())
        .then_some(said)
        .into_iter()
        .collect()
}

/// Of an Ingress that is new.
pub(super) fn of_ingress(new: &Value, old: Option<&Value>) -> Vec<String> {
    let key = "kubernetes.io/ingress.class";
    let said =
        format!("annotation {key:?} is deprecated, please use 'spec.ingressClassName' instead");
    (old.is_none() && !annotated(new, key).is_null())
        .then_some(said)
        .into_iter()
        .collect()
}

/// Of a NetworkPolicy.
pub(super) fn of_network_policy(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(new, &["spec", rules]).iter().enumerate() {
            for (j, peer) in list(rule, &[peers]).iter().enumerate() {
                let field = format!("spec.{rules}[{i}].{peers}[{j}].ipBlock");
                let block = at(peer, &["ipBlock"]);
                said.extend(odd_cidr(&format!("{field}.cidr"), at(block, &["cidr"])));
                for (k, cidr) in list(block, &["except"]).iter().enumerate() {
                    said.extend(odd_cidr(&format!("{field}.except[{k}]"), cidr));
                }
            }
        }
    }
    said
}

/// Of a Service.
pub(super) fn of_service(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut said = Vec::new();
    let spec = at(new, &["spec"]);
    let hints = "service.kubernetes.io/topology-aware-hints";
    if !annotated(new, hints).is_null() {
        said.push(format!(
            "annotation {hints} is deprecated, please use service.kubernetes.io/topology-mode instead"
        ));
    }
    let headless = text(spec, &["clusterIP"]) == "None";
    if !headless {
        said.extend(odd_ips("spec.clusterIPs", list(spec, &["clusterIPs"])));
    }
    let external = list(spec, &["externalIPs"]);
    let kind = crate::service::kind(new);
    if headless && kind == "ClusterIP" {
        if !text(spec, &["loadBalancerIP"]).is_empty() {
            said.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if !external.is_empty() {
            said.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if !matches!(text(spec, &["sessionAffinity"]), "" | "None") {
            said.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    said.extend(odd_ips("spec.externalIPs", external));
    said.extend(odd_ip("spec.loadBalancerIP", at(spec, &["loadBalancerIP"])));
    let ranges = list(spec, &["loadBalancerSourceRanges"]);
    for (i, cidr) in ranges.iter().enumerate() {
        said.extend(odd_cidr(
            &format!("spec.loadBalancerSourceRanges[{i}]"),
            cidr,
        ));
    }
    if kind == "ExternalName" && !external.is_empty() {
        said.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if kind != "ExternalName" && !text(spec, &["externalName"]).is_empty() {
        said.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
    }
    if text(spec, &["trafficDistribution"]) == "PreferClose" {
        said.push(
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
                .to_owned(),
        );
    }
    said
}

fn odd_ips(field: &str, ips: &[Value]) -> Vec<String> {
    let each = ips.iter().enumerate();
    each.filter_map(|(i, ip)| odd_ip(&format!("{field}[{i}]"), ip))
        .collect()
}

/// An address that is not spelled as everybody else spells it.
fn odd_ip(field: &str, ip: &Value) -> Option<String> {
    let written = ip.as_str().filter(|ip| !ip.is_empty())?;
    let read = sloppy_ip(written)?;
    let mapped = matches!(written.parse(), Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    if mapped || written.parse::<IpAddr>().is_err() {
        return Some(format!(
            "{field}: non-standard IP address {written:?} will be considered invalid in a future Kubernetes release: use \"{read}\""
        ));
    }
    let canonical = read.to_string();
    (read.is_ipv6() && written != canonical).then(|| {
        format!("{field}: IPv6 address {written:?} should be in RFC 5952 canonical format ({canonical:?})")
    })
}

/// A range that is not spelled as everybody else spells it, or whose address says more than the range.
fn odd_cidr(field: &str, cidr: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let Some((written, (address, bits))) = cidr
        .as_str()
        .and_then(|written| Some((written, written.split_once('/')?)))
    else {
        return said;
    };
    let (Some(ip), Ok(length)) = (sloppy_ip(address), bits.parse::<u32>()) else {
        return said;
    };
    // Of an IPv4 address within IPv6, the range is that of IPv4.
    let mapped = matches!(address.parse(), Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some());
    let length = if mapped {
        length.saturating_sub(96)
    } else {
        length
    };
    let (network, whole) = match ip {
        IpAddr::V4(v4) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            (IpAddr::V4((v4.to_bits() & mask).into()), 32)
        }
        IpAddr::V6(v6) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            (IpAddr::V6((v6.to_bits() & mask).into()), 128)
        }
        _ => return said,
    };
    if network != ip {
        said.push(format!(
            "{field}: CIDR value {written:?} is ambiguous in this context (should be \"{network}/{length}\" or \"{ip}/{whole}\"?)"
        ));
    }
    let plain = address.parse::<IpAddr>().is_ok() && bits == length.to_string();
    if mapped || !plain {
        said.push(format!(
            "{field}: non-standard CIDR value {written:?} will be considered invalid in a future Kubernetes release: use \"{network}/{length}\""
        ));
    }
    let canonical = format!("{ip}/{length}");
    if said.is_empty() && ip.is_ipv6() && canonical != written {
        said.push(format!(
            "{field}: IPv6 CIDR value {written:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
    said
}

/// An address, also with zeros before its numbers; one of IPv4 within IPv6 is of IPv4.
fn sloppy_ip(written: &str) -> Option<IpAddr> {
    net::parse_ip(written).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    type Warn = fn(&Value, Option<&Value>) -> Vec<String>;

    #[test]
    fn what_is_said() {
        let table: &[(Warn, Value, &[&str])] = &[
            (
                of_service,
                json!({"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "externalIPs": ["1.2.3.4", "2001:db8::1"]}}),
                &[],
            ),
            (
                of_service,
                json!({"spec": {"externalIPs": ["2001:DB8::1", "1.2.3.04"], "externalName": "a.b", "loadBalancerSourceRanges": ["10.0.0.1/8"]}}),
                &[
                    "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                    "spec.externalIPs[1]: non-standard IP address \"1.2.3.04\" will be considered invalid in a future Kubernetes release: use \"1.2.3.4\"",
                    "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
                    "spec.externalName is ignored when spec.type is not \"ExternalName\"",
                ],
            ),
            (
                of_service,
                json!({"spec": {"clusterIP": "None", "sessionAffinity": "ClientIP"}}),
                &["spec.SessionAffinity is ignored for headless services"],
            ),
            (
                of_service,
                json!({"spec": {"clusterIP": "None", "sessionAffinity": "None"}}),
                &[],
            ),
            (
                of_volume,
                json!({"metadata": {"annotations": {(CLASS): "x"}}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {}}}),
                &[
                    "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                    "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
                    "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
                ],
            ),
            (
                of_claim,
                json!({"spec": {"resources": {"requests": {"storage": "500m"}}}}),
                &[
                    "spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer",
                ],
            ),
            (
                of_claim,
                json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
                &[],
            ),
            (
                of_class,
                json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone"}]}]}),
                &[
                    "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
                ],
            ),
            (
                of_node,
                json!({"spec": {"externalID": "x", "configSource": {}, "podCIDRs": ["2001:db8::/064"]}}),
                &[
                    "spec.configSource: the feature is removed",
                    "spec.externalID: this field is deprecated, and is unused by Kubernetes",
                    "spec.podCIDRs[0]: non-standard CIDR value \"2001:db8::/064\" will be considered invalid in a future Kubernetes release: use \"2001:db8::/64\"",
                ],
            ),
            (
                of_ingress,
                json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}),
                &[
                    "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
                ],
            ),
            (
                of_network_policy,
                json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "::ffff:10.0.0.0/104", "except": ["10.1.0.0/16"]}}]}]}}),
                &[
                    "spec.ingress[0].from[0].ipBlock.cidr: non-standard CIDR value \"::ffff:10.0.0.0/104\" will be considered invalid in a future Kubernetes release: use \"10.0.0.0/8\"",
                ],
            ),
            (
                of_account,
                json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}}),
                &[
                    "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
                ],
            ),
        ];
        for (warn, object, wanted) in table {
            assert_eq!(warn(object, None), *wanted, "{object}");
        }
    }
}
