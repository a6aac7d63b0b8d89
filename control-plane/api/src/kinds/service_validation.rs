//! What a Service must not say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::service_addresses::{addresses, kept_addresses};
use crate::field::{FieldError, quoted};
use crate::meta;
use crate::names;
use crate::net;
use crate::service::{
    externally_accessible, is_headless, needs_cluster_ip, needs_health_check_port,
};
use crate::value::{at, is_empty, list, number, text};

/// A day.
const AFFINITY_SECS_MAX: i64 = 86_400;
/// The node agent's own port.
const KUBELET_PORT: i64 = 10_250;
const ONLY_BALANCERS: &str = "may only be used when `type` is 'LoadBalancer'";

pub(crate) fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let kind = text(spec, &["type"]);
    let headless = is_headless(object);
    let ports = list(spec, &["ports"]);
    let mut wrong = Vec::new();
    if ports.is_empty() && !headless && kind != "ExternalName" {
        wrong.push(FieldError::required("spec.ports", ""));
    }
    wrong.extend(of_kind(spec, kind, headless));
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        wrong.extend(bad_port(
            &format!("spec.ports[{i}]"),
            port,
            ports.len() > 1,
            &mut names,
        ));
    }
    wrong.extend(meta::labels(at(spec, &["selector"]), "spec.selector"));
    wrong.extend(affinity(spec));
    if kind != "ExternalName" {
        wrong.extend(addresses(spec, headless));
    }
    for (i, ip) in list(spec, &["externalIPs"]).iter().enumerate() {
        let ip = ip.as_str().unwrap_or("");
        let field = format!("spec.externalIPs[{i}]");
        wrong.extend(net::bad_ip(ip).map(|why| FieldError::invalid_text(field.clone(), ip, why)));
        wrong.extend(
            net::not_special(ip)
                .into_iter()
                .map(|why| FieldError::invalid_text(field.clone(), ip, why)),
        );
    }
    match kind {
        "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName" => {}
        "" => wrong.push(FieldError::required("spec.type", "")),
        other => wrong.push(FieldError::not_supported(
            "spec.type",
            other,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        )),
    }
    if kind == "ClusterIP" {
        for (i, _) in ports
            .iter()
            .enumerate()
            .filter(|(_, p)| number(p, &["nodePort"]) != 0)
        {
            let why = "may not be used when `type` is 'ClusterIP'";
            wrong.push(FieldError::forbidden(
                format!("spec.ports[{i}].nodePort"),
                why,
            ));
        }
    }
    wrong.extend(duplicates(ports));
    wrong.extend(balancer(spec, kind));
    wrong.extend(policies(object, spec, kind));
    let reported = list(object, &["status", "loadBalancer", "ingress"]);
    if kind != "LoadBalancer" && !reported.is_empty() {
        let why = "may only be used when `spec.type` is \"LoadBalancer\"";
        wrong.push(FieldError::forbidden("status.loadBalancer.ingress", why));
    } else {
        for (i, ingress) in reported.iter().enumerate() {
            let ip = text(ingress, &["ip"]);
            if !ip.is_empty() {
                let field = format!("status.loadBalancer.ingress[{i}].ip");
                wrong.extend(net::bad_ip(ip).map(|why| FieldError::invalid_text(field, ip, why)));
            }
        }
    }
    wrong
}

pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        wrong.extend(kept_addresses(new, old));
    }
    let class = at(old, &["spec", "loadBalancerClass"]);
    if text(old, &["spec", "type"]) == "LoadBalancer"
        && text(new, &["spec", "type"]) == "LoadBalancer"
        && at(new, &["spec", "loadBalancerClass"]) != class
    {
        let met = at(new, &["spec", "loadBalancerClass"]);
        wrong.push(FieldError::invalid(
            "spec.loadBalancerClass",
            met,
            "may not change once set",
        ));
    }
    wrong.extend(validate(new));
    wrong
}

fn of_kind(spec: &Value, kind: &str, headless: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    match kind {
        "LoadBalancer" => {
            for (i, port) in list(spec, &["ports"]).iter().enumerate() {
                if number(port, &["port"]) == KUBELET_PORT {
                    let why = format!(
                        "may not expose port {KUBELET_PORT} externally since it is used by kubelet"
                    );
                    wrong.push(FieldError::invalid(
                        format!("spec.ports[{i}].port"),
                        &KUBELET_PORT.into(),
                        why,
                    ));
                }
            }
        }
        "ExternalName" => {
            for key in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !is_empty(at(spec, &[key])) {
                    wrong.push(FieldError::forbidden(
                        format!("spec.{key}"),
                        "may not be set for ExternalName services",
                    ));
                }
            }
            let name = text(spec, &["externalName"]);
            let bare = name.strip_suffix('.').unwrap_or(name);
            if bare.is_empty() {
                wrong.push(FieldError::required("spec.externalName", ""));
            } else {
                for why in names::subdomain(bare) {
                    wrong.push(FieldError::invalid_text("spec.externalName", bare, why));
                }
            }
        }
        _ => {}
    }
    if headless && matches!(kind, "LoadBalancer" | "NodePort") {
        let why = format!("may not be set to 'None' for {kind} services");
        wrong.push(FieldError::invalid_text("spec.clusterIPs[0]", "None", why));
    }
    wrong
}

fn bad_port<'a>(
    field: &str,
    port: &'a Value,
    needs_name: bool,
    seen: &mut BTreeSet<&'a str>,
) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let name = text(port, &["name"]);
    if name.is_empty() {
        if needs_name {
            wrong.push(FieldError::required(format!("{field}.name"), ""));
        }
    } else {
        for why in names::label(name) {
            wrong.push(FieldError::invalid_text(format!("{field}.name"), name, why));
        }
        if !seen.insert(name) {
            wrong.push(FieldError::duplicate(format!("{field}.name"), quoted(name)));
        }
    }
    wrong.extend(super::bad_number_or_protocol(field, port));
    wrong.extend(super::bad_port_or_name(
        &format!("{field}.targetPort"),
        at(port, &["targetPort"]),
    ));
    if let Some(app) = at(port, &["appProtocol"]).as_str() {
        for why in names::qualified_name(app) {
            wrong.push(FieldError::invalid_text(
                format!("{field}.appProtocol"),
                app,
                why,
            ));
        }
    }
    wrong
}

fn affinity(spec: &Value) -> Vec<FieldError> {
    let config = at(spec, &["sessionAffinityConfig"]);
    match text(spec, &["sessionAffinity"]) {
        "" => vec![FieldError::required("spec.sessionAffinity", "")],
        "ClientIP" => {
            let timeout = at(config, &["clientIP", "timeoutSeconds"]);
            let secs = timeout.as_i64().unwrap_or(0);
            if (1..=AFFINITY_SECS_MAX).contains(&secs) {
                return Vec::new();
            }
            vec![FieldError::invalid(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                timeout,
                format!("must be greater than 0 and less than {AFFINITY_SECS_MAX}"),
            )]
        }
        "None" if !config.is_null() => vec![FieldError::forbidden(
            "spec.sessionAffinityConfig",
            "must not be set when session affinity is None",
        )],
        "None" => Vec::new(),
        other => vec![FieldError::not_supported(
            "spec.sessionAffinity",
            other,
            &["ClientIP", "None"],
        )],
    }
}

fn duplicates(ports: &[Value]) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut node_ports = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let node = number(port, &["nodePort"]);
        if node != 0 && !node_ports.insert((text(port, &["protocol"]), node)) {
            wrong.push(FieldError::duplicate(
                format!("spec.ports[{i}].nodePort"),
                node.to_string(),
            ));
        }
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (protocol, number) = (text(port, &["protocol"]), number(port, &["port"]));
        if !seen.insert((protocol, number)) {
            let shown = format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                quoted(protocol)
            );
            wrong.push(FieldError::duplicate(format!("spec.ports[{i}]"), shown));
        }
    }
    wrong
}

fn balancer(spec: &Value, kind: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let ranges = list(spec, &["loadBalancerSourceRanges"]);
    let is_balancer = kind == "LoadBalancer";
    if !ranges.is_empty() && !is_balancer {
        wrong.push(FieldError::forbidden(
            "spec.LoadBalancerSourceRanges",
            ONLY_BALANCERS,
        ));
    }
    for (i, range) in ranges.iter().enumerate() {
        let range = range.as_str().unwrap_or("").trim();
        let field = format!("spec.LoadBalancerSourceRanges[{i}]");
        wrong.extend(net::bad_cidr(range).map(|why| FieldError::invalid_text(field, range, why)));
    }
    if !at(spec, &["allocateLoadBalancerNodePorts"]).is_null() && !is_balancer {
        wrong.push(FieldError::forbidden(
            "spec.allocateLoadBalancerNodePorts",
            ONLY_BALANCERS,
        ));
    }
    if let Some(class) = at(spec, &["loadBalancerClass"]).as_str() {
        if is_balancer {
            for why in names::qualified_name(class) {
                wrong.push(FieldError::invalid_text(
                    "spec.loadBalancerClass",
                    class,
                    why,
                ));
            }
        } else {
            wrong.push(FieldError::forbidden(
                "spec.loadBalancerClass",
                ONLY_BALANCERS,
            ));
        }
    }
    wrong
}

fn policies(object: &Value, spec: &Value, kind: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let external = text(spec, &["externalTrafficPolicy"]);
    let field = "spec.externalTrafficPolicy";
    if !externally_accessible(spec) {
        if !external.is_empty() {
            let why = "may only be set for externally-accessible services";
            wrong.push(FieldError::invalid_text(field, external, why));
        }
    } else if external.is_empty() {
        wrong.push(FieldError::required(field, ""));
    } else if !matches!(external, "Cluster" | "Local") {
        wrong.push(FieldError::not_supported(
            field,
            external,
            &["Cluster", "Local"],
        ));
    }
    let health = number(spec, &["healthCheckNodePort"]);
    if !needs_health_check_port(object) {
        if health != 0 {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            wrong.push(FieldError::invalid(
                "spec.healthCheckNodePort",
                &health.into(),
                why,
            ));
        }
    } else if health != 0 {
        for why in names::port_number(health) {
            wrong.push(FieldError::invalid(
                "spec.healthCheckNodePort",
                &health.into(),
                why,
            ));
        }
    }
    let internal = text(spec, &["internalTrafficPolicy"]);
    match internal {
        "Cluster" | "Local" => {}
        "" if matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") => {
            wrong.push(FieldError::required("spec.internalTrafficPolicy", ""));
        }
        "" => {}
        other => wrong.push(FieldError::not_supported(
            "spec.internalTrafficPolicy",
            other,
            &["Cluster", "Local"],
        )),
    }
    if let Some(distribution) = at(spec, &["trafficDistribution"]).as_str() {
        let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
        if !known.contains(&distribution) {
            wrong.push(FieldError::not_supported(
                "spec.trafficDistribution",
                distribution,
                &known,
            ));
        }
    }
    wrong
}
