//! NetworkPolicy: which Pods may speak with whom.

use std::net::IpAddr;

use serde_json::Value;

use super::label_selector::bad_selector;
use super::named_cells;
use crate::field::FieldError;
use crate::names;
use crate::net;
use crate::table::{AGE, BASE, NAME, Resource, column};
use crate::value::{self, at, entries, items_mut, list, number, set_default, text};

/// Which Pods may speak with whom.
pub(crate) static NETWORK_POLICIES: Resource = Resource {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    list_kind: "NetworkPolicyList",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    storage_prefix: "/registry/networkpolicies",
    definition: "io.k8s.api.networking.v1.NetworkPolicy",
    has_generation: true,
    columns: &[
        NAME,
        column("Pod-Selector", "The Pods that it is for."),
        AGE,
    ],
    cells: |object, now| {
        let shown = super::selector_shown(at(object, &["spec", "podSelector"]));
        named_cells(object, [shown.into()], now)
    },
    default: |object| {
        let Some(spec) = value::object_mut(object, "spec") else {
            return;
        };
        for rules in ["ingress", "egress"] {
            for rule in items_mut(spec, rules) {
                for port in items_mut(rule, "ports") {
                    set_default(port, "protocol", "TCP");
                }
            }
        }
        if list(spec, &["policyTypes"]).is_empty() {
            let mut types = vec![Value::from("Ingress")];
            if !list(spec, &["egress"]).is_empty() {
                types.push("Egress".into());
            }
            value::set(spec, "policyTypes", types);
        }
        value::object_mut(spec, "podSelector");
    },
    validate,
    validate_update: |new, _| validate(new),
    warnings: super::warnings::of_network_policy,
    ..BASE
};

fn validate(object: &Value) -> Vec<FieldError> {
    let spec = at(object, &["spec"]);
    let mut wrong = bad_selector("spec.podSelector", at(spec, &["podSelector"]));
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in list(spec, &[rules]).iter().enumerate() {
            let path = format!("spec.{rules}[{i}]");
            for (j, port) in list(rule, &["ports"]).iter().enumerate() {
                wrong.extend(bad_port(&format!("{path}.ports[{j}]"), port));
            }
            for (j, peer) in list(rule, &[peers]).iter().enumerate() {
                wrong.extend(bad_peer(&format!("{path}.{peers}[{j}]"), peer));
            }
        }
    }
    let types = list(spec, &["policyTypes"]);
    if types.len() > 2 {
        wrong.push(FieldError::invalid(
            "spec.policyTypes",
            at(spec, &["policyTypes"]),
            "may not specify more than two policyTypes",
        ));
        return wrong;
    }
    for (i, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or("");
        if !matches!(kind, "Ingress" | "Egress") {
            wrong.push(FieldError::not_supported(
                format!("spec.policyTypes[{i}]"),
                kind,
                &["Egress", "Ingress"],
            ));
        }
    }
    wrong
}

fn bad_port(path: &str, port: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let protocol = text(port, &["protocol"]);
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        wrong.push(FieldError::not_supported(
            format!("{path}.protocol"),
            protocol,
            super::PROTOCOLS,
        ));
    }
    let (first, last) = (at(port, &["port"]), at(port, &["endPort"]));
    if first.is_null() {
        if !last.is_null() {
            wrong.push(FieldError::required(
                format!("{path}.port"),
                "must be specified when `endPort` is specified",
            ));
        }
        return wrong;
    }
    wrong.extend(super::bad_port_or_name(&format!("{path}.port"), first));
    let Some(last_number) = last.as_i64() else {
        return wrong;
    };
    if first.is_string() {
        wrong.push(FieldError::invalid(
            format!("{path}.endPort"),
            last,
            "may not be specified when `port` is non-numeric",
        ));
        return wrong;
    }
    if last_number < number(port, &["port"]) {
        wrong.push(FieldError::invalid(
            format!("{path}.endPort"),
            first,
            "must be greater than or equal to `port`",
        ));
    }
    for why in names::port_number(last_number) {
        wrong.push(FieldError::invalid(format!("{path}.endPort"), last, why));
    }
    wrong
}

fn bad_peer(path: &str, peer: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let given = entries(peer, &[])
        .filter(|(_, value)| !value.is_null())
        .count();
    for key in ["podSelector", "namespaceSelector"] {
        if !at(peer, &[key]).is_null() {
            wrong.extend(bad_selector(&format!("{path}.{key}"), at(peer, &[key])));
        }
    }
    let block = at(peer, &["ipBlock"]);
    if !block.is_null() {
        wrong.extend(bad_block(&format!("{path}.ipBlock"), block));
        if given > 1 {
            wrong.push(FieldError::forbidden(
                path,
                "may not specify both ipBlock and another peer",
            ));
        }
    }
    if given == 0 {
        wrong.push(FieldError::required(path, "must specify a peer"));
    }
    wrong
}

fn bad_block(path: &str, block: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let cidr = text(block, &["cidr"]);
    if cidr.is_empty() {
        return vec![FieldError::required(format!("{path}.cidr"), "")];
    }
    let Some(network) = parsed(&mut wrong, format!("{path}.cidr"), cidr) else {
        return wrong;
    };
    for (i, except) in list(block, &["except"]).iter().enumerate() {
        let field = format!("{path}.except[{i}]");
        let except = except.as_str().unwrap_or("");
        let Some(hole) = parsed(&mut wrong, field.clone(), except) else {
            continue;
        };
        if !is_strictly_within(hole, network) {
            wrong.push(FieldError::invalid_text(
                field,
                except,
                "must be a strict subset of `cidr`",
            ));
        }
    }
    wrong
}

fn parsed(wrong: &mut Vec<FieldError>, field: String, cidr: &str) -> Option<(IpAddr, u8)> {
    let found = net::parse_cidr(cidr);
    if found.is_none() {
        wrong.extend(net::bad_cidr(cidr).map(|why| FieldError::invalid_text(field, cidr, why)));
    }
    found
}

fn is_strictly_within(inner: (IpAddr, u8), outer: (IpAddr, u8)) -> bool {
    let ((inner, narrow), (outer, wide)) = (inner, outer);
    let equal = match (inner, outer) {
        (IpAddr::V4(inner), IpAddr::V4(outer)) => {
            let differing = u32::from(inner) ^ u32::from(outer);
            differing.leading_zeros() >= u32::from(wide)
        }
        (IpAddr::V6(inner), IpAddr::V6(outer)) => {
            let differing = u128::from(inner) ^ u128::from(outer);
            differing.leading_zeros() >= u32::from(wide)
        }
        _ => false,
    };
    equal && narrow > wide
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(policy: &Value) -> Vec<String> {
        validate(policy).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_and_peers() {
        let egress = |rule: Value| json!({"spec": {"podSelector": {}, "egress": [rule]}});
        for (rule, expected) in [
            (
                json!({"ports": [{"port": 80, "endPort": 90}], "to": [{"podSelector": {}}]}),
                None,
            ),
            (
                json!({"ports": [{"port": "web", "endPort": 90}]}),
                Some(
                    "spec.egress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
                ),
            ),
            (
                json!({"ports": [{"port": 80, "endPort": 70}]}),
                Some(
                    "spec.egress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`",
                ),
            ),
            (
                json!({"to": [{}]}),
                Some("spec.egress[0].to[0]: Required value: must specify a peer"),
            ),
            (
                json!({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}),
                None,
            ),
            (
                json!({"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}]}),
                Some(
                    "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ),
            ),
        ] {
            assert_eq!(
                shown(&egress(rule.clone())),
                expected.into_iter().collect::<Vec<_>>(),
                "{rule}"
            );
        }
    }
}
