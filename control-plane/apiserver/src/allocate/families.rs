//! Of which IP families a Service is: what its author left open is settled by the ranges that the cluster has
//! (KEP-563).

use api::field::FieldError;
use api::status::Status;
use api::value::{at, list, set, text};
use api::{meta, net};
use serde_json::{Value, json};

/// The families of the cluster's ranges, the default first.
pub(crate) type Families = [&'static str];

/// Fills `spec.ipFamilies` and `spec.ipFamilyPolicy`.
///
/// # Errors
/// 422 for a family that the cluster does not have, or a policy that contradicts the addresses or families given.
pub(crate) fn settle(new: &mut Value, old: Option<&Value>, cluster: &Families) -> Result<(), Status> {
    let name = meta::name(new).to_owned();
    let refuse = |errors: &[FieldError]| {
        if errors.is_empty() { Ok(()) } else { Err(Status::invalid("", "Service", &name, errors)) }
    };
    if old.is_some_and(|old| keeps_preference(new, old)) {
        return Ok(());
    }
    let addresses = texts(new, "clusterIPs");
    let mut families = texts(new, "ipFamilies");
    let mut policy = text(new, &["spec", "ipFamilyPolicy"]).to_owned();
    let headless = addresses.first().is_some_and(|first| first == "None");

    let mut errors = Vec::new();
    for (count, what) in [(addresses.len(), "clusterIPs"), (families.len(), "ipFamilies")] {
        if policy == "SingleStack" && count == 2 {
            let why = format!("must be RequireDualStack or PreferDualStack when multiple '{what}' are specified");
            errors.push(FieldError::invalid_text("spec.ipFamilyPolicy", &policy, why));
        }
    }
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        if headless {
            break;
        }
        let Some(family) = net::parse_ip(address).map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" }) else { break };
        if cluster.contains(&family) {
            families.push(family.to_owned());
        } else {
            let why = format!("{family} is not configured on this cluster");
            errors.push(FieldError::invalid(format!("spec.clusterIPs[{index}]"), &addresses.clone().into(), why));
        }
    }
    refuse(&errors)?;
    if policy.is_empty() && (addresses.len() == 2 || families.len() == 2) {
        policy = "RequireDualStack".into();
    }

    if headless && list_is_empty(at(new, &["spec", "selector"])) {
        // Whoever writes the endpoints of such a Service may have other families than the cluster.
        if policy.is_empty() {
            policy = "RequireDualStack".into();
        }
        if families.is_empty() {
            families.extend(cluster.first().map(|family| (*family).to_owned()));
        }
        if families.len() == 1 && policy != "SingleStack" {
            families.push(other(&families[0]).to_owned());
        }
        write(new, &families, &policy);
        return Ok(());
    }

    if policy == "RequireDualStack" && cluster.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid_text("spec.ipFamilyPolicy", &policy, why));
    }
    for (index, family) in families.iter().enumerate() {
        if !cluster.contains(&family.as_str()) {
            let field = format!("spec.ipFamilies[{index}]");
            errors.push(FieldError::invalid_text(field, family, "not configured on this cluster"));
        }
    }
    refuse(&errors)?;
    if policy.is_empty() {
        policy = "SingleStack".into();
    }
    if families.is_empty() {
        families.extend(cluster.first().map(|family| (*family).to_owned()));
    }
    if families.len() == 1 && policy != "SingleStack" && cluster.len() == 2 {
        families.push(other(&families[0]).to_owned());
    }
    write(new, &families, &policy);
    Ok(())
}

/// A Service that prefers two families keeps what it has when only other things change, even if the cluster's ranges
/// have changed since.
fn keeps_preference(new: &Value, old: &Value) -> bool {
    let same = |key: &str| at(new, &["spec", key]) == at(old, &["spec", key]);
    text(new, &["spec", "ipFamilyPolicy"]) == "PreferDualStack"
        && ["ipFamilyPolicy", "clusterIPs", "ipFamilies"].into_iter().all(same)
        && !list_is_empty(at(new, &["spec", "clusterIPs"]))
}

fn texts(service: &Value, key: &str) -> Vec<String> {
    list(service, &["spec", key]).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list_is_empty(value: &Value) -> bool {
    api::value::is_empty(value)
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

fn write(service: &mut Value, families: &[String], policy: &str) {
    if let Some(spec) = api::value::object_mut(service, "spec") {
        set(spec, "ipFamilies", json!(families));
        set(spec, "ipFamilyPolicy", policy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_settled_as_kubernetes_settles_them() {
        let (v4, dual, dual6): (&Families, &Families, &Families) = (&["IPv4"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]);
        let cases = [
            (v4, json!({}), Ok(("SingleStack", vec!["IPv4"]))),
            (v4, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok(("PreferDualStack", vec!["IPv4"]))),
            (v4, json!({"ipFamilyPolicy": "RequireDualStack"}), Err("spec.ipFamilyPolicy")),
            (v4, json!({"ipFamilies": ["IPv6"]}), Err("spec.ipFamilies[0]")),
            (v4, json!({"clusterIPs": ["fd00::1"]}), Err("spec.clusterIPs[0]")),
            (v4, json!({"clusterIPs": ["None"], "selector": {"a": "b"}}), Ok(("SingleStack", vec!["IPv4"]))),
            (v4, json!({"clusterIPs": ["None"]}), Ok(("RequireDualStack", vec!["IPv4", "IPv6"]))),
            (dual, json!({}), Ok(("SingleStack", vec!["IPv4"]))),
            (dual6, json!({}), Ok(("SingleStack", vec!["IPv6"]))),
            (dual, json!({"ipFamilyPolicy": "PreferDualStack"}), Ok(("PreferDualStack", vec!["IPv4", "IPv6"]))),
            (dual, json!({"ipFamilies": ["IPv6", "IPv4"]}), Ok(("RequireDualStack", vec!["IPv6", "IPv4"]))),
            (dual, json!({"clusterIPs": ["fd00::1"]}), Ok(("SingleStack", vec!["IPv6"]))),
            (
                dual,
                json!({"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6", "IPv4"]}),
                Err("spec.ipFamilyPolicy"),
            ),
        ];
        for (cluster, spec, expected) in cases {
            let mut service = json!({"metadata": {"name": "s"}, "spec": spec});
            let found = settle(&mut service, None, cluster);
            match expected {
                Ok((policy, families)) => {
                    found.unwrap();
                    assert_eq!(service["spec"]["ipFamilyPolicy"], policy, "{spec}");
                    assert_eq!(service["spec"]["ipFamilies"], json!(families), "{spec}");
                }
                Err(field) => assert!(found.unwrap_err().message.contains(field), "{spec}"),
            }
        }
    }
}
