//! What a Service is given where its author said nothing, and what becomes of its parts when it changes.

use serde_json::{Value, json};

use crate::service::{self, externally_accessible};
use crate::value::{self, at, items_mut, list, object_mut, set, set_default, text};

/// Clients stick to a backend for three hours.
const AFFINITY_SECS: i64 = 10_800;

pub(crate) fn default(object: &mut Value) {
    if let Some(status) = object_mut(object, "status")
        && let Some(balancer) = object_mut(status, "loadBalancer")
    {
        for ingress in items_mut(balancer, "ingress") {
            if !text(ingress, &["ip"]).is_empty() {
                set_default(ingress, "ipMode", "VIP");
            }
        }
    }
    let Some(spec) = object_mut(object, "spec") else {
        return;
    };
    set_default(spec, "sessionAffinity", "None");
    match text(spec, &["sessionAffinity"]) {
        "None" => {
            value::remove(spec, "sessionAffinityConfig");
        }
        "ClientIP" => {
            if let Some(client) =
                object_mut(spec, "sessionAffinityConfig").and_then(|c| object_mut(c, "clientIP"))
            {
                set_default(client, "timeoutSeconds", AFFINITY_SECS);
            }
        }
        _ => {}
    }
    set_default(spec, "type", "ClusterIP");
    for port in items_mut(spec, "ports") {
        set_default(port, "protocol", "TCP");
        let target = at(port, &["targetPort"]);
        if target.is_null() || *target == json!(0) || *target == json!("") {
            let number = at(port, &["port"]).clone();
            set(port, "targetPort", number);
        }
        // Zero means that none was asked for.
        if at(port, &["nodePort"]) == &json!(0) {
            value::remove(port, "nodePort");
        }
    }
    if externally_accessible(spec) {
        set_default(spec, "externalTrafficPolicy", "Cluster");
    }
    let kind = text(spec, &["type"]).to_owned();
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        set_default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        set_default(spec, "allocateLoadBalancerNodePorts", true);
    }
    for key in ["clusterIP", "clusterIPs"] {
        if value::is_empty(at(spec, &[key])) {
            value::remove(spec, key);
        }
    }
}

pub(crate) fn prepare_create(object: &mut Value) {
    set(object, "status", json!({"loadBalancer": {}}));
    if let Some(spec) = object_mut(object, "spec") {
        let one = text(spec, &["clusterIP"]).to_owned();
        if !one.is_empty() && list(spec, &["clusterIPs"]).is_empty() {
            set(spec, "clusterIPs", json!([one]));
        }
    }
}

pub(crate) fn prepare_update(new: &mut Value, old: &Value) {
    if let Some(spec) = object_mut(new, "spec") {
        // The single and the plural form: who changed one without the other means both.
        let before = at(old, &["spec"]);
        let changed = |spec: &Value, key: &str| at(spec, &[key]) != at(before, &[key]);
        if changed(spec, "clusterIP") && !changed(spec, "clusterIPs") {
            match text(spec, &["clusterIP"]).to_owned() {
                one if one.is_empty() => value::remove(spec, "clusterIPs"),
                one => spec
                    .as_object_mut()
                    .and_then(|s| s.insert("clusterIPs".into(), json!([one]))),
            };
        } else if let (true, Some(first)) = (
            text(spec, &["clusterIP"]).is_empty(),
            list(spec, &["clusterIPs"]).first(),
        ) {
            let first = first.clone();
            set(spec, "clusterIP", first);
        } else if !text(spec, &["clusterIP"]).is_empty()
            && list(spec, &["clusterIPs"]).is_empty()
            && changed(spec, "clusterIP")
        {
            let one = at(spec, &["clusterIP"]).clone();
            set(spec, "clusterIPs", json!([one]));
        }
    }
    service::keep_allocated(new, old);
    service::drop_of_other_type(new, old);
    // What a balancer reported is history once the Service asks for none, though its removal takes a while.
    if service::kind(new) != "LoadBalancer"
        && let Some(status) = object_mut(new, "status")
    {
        set(status, "loadBalancer", json!({}));
    }
}
