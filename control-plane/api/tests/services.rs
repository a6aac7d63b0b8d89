//! What Services ask the cluster for, and what they keep when they change.

use api::service::{Family, assign_families, drop_of_other_type, keep_allocated};
use api::value::{at, text};
use serde_json::{Value, json};

#[test]
fn families() {
    use Family::{V4, V6};
    let dual: &[Family] = &[V4, V6];
    let single: &[Family] = &[V4];
    let all_of = |spec: Value| json!({"spec": spec});
    for (spec, server, expected) in [
        (
            json!({"selector": {"a": "b"}}),
            single,
            Ok(("SingleStack", vec!["IPv4"])),
        ),
        (
            json!({"selector": {"a": "b"}}),
            dual,
            Ok(("SingleStack", vec!["IPv4"])),
        ),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            single,
            Ok(("PreferDualStack", vec!["IPv4"])),
        ),
        (
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            dual,
            Ok(("PreferDualStack", vec!["IPv4", "IPv6"])),
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            dual,
            Ok(("SingleStack", vec!["IPv6"])),
        ),
        (
            json!({"ipFamilies": ["IPv6", "IPv4"]}),
            dual,
            Ok(("RequireDualStack", vec!["IPv6", "IPv4"])),
        ),
        (
            json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
            dual,
            Ok(("SingleStack", vec!["IPv6"])),
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None"]}),
            single,
            Ok(("RequireDualStack", vec!["IPv4", "IPv6"])),
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            single,
            Err("spec.ipFamilies[0]: Invalid value: [\"IPv6\"]: not configured on this cluster"),
        ),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            single,
            Err(
                "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
            ),
        ),
    ] {
        let mut object = all_of(spec.clone());
        match (assign_families(&mut object, None, server), expected) {
            (Ok(()), Ok((policy, families))) => {
                assert_eq!(text(&object, &["spec", "ipFamilyPolicy"]), policy, "{spec}");
                assert_eq!(
                    at(&object, &["spec", "ipFamilies"]),
                    &json!(families),
                    "{spec}"
                );
            }
            (Err(wrong), Err(message)) => assert_eq!(wrong[0].to_string(), message),
            (met, expected) => panic!("{spec}: {met:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn what_was_given_stays() {
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
        "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30080}]}});
    let mut new = json!({"spec": {"type": "NodePort", "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "UDP", "port": 80}]}});
    keep_allocated(&mut new, &old);
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.0.0.9"]));
    assert_eq!(
        new["spec"]["ports"],
        json!([{"protocol": "TCP", "port": 80, "nodePort": 30080}, {"protocol": "UDP", "port": 80}])
    );
}

#[test]
fn another_type_drops_what_it_cannot_have() {
    let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
        "externalTrafficPolicy": "Cluster", "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30080}]}});
    let mut new = old.clone();
    new["spec"]["type"] = "ClusterIP".into();
    drop_of_other_type(&mut new, &old);
    assert_eq!(
        new["spec"],
        json!({"type": "ClusterIP", "clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"],
        "ports": [{"protocol": "TCP", "port": 80}]})
    );
}
