//! Bytes into objects: what is refused, what is warned of, and that nothing panics.

use api::decode::{self, FieldValidation};
use api::quantity::Quantity;
use api::table::{self, RESOURCES};
use api::{Resource, meta::Stamps, write};
use proptest::prelude::*;
use serde_json::{Value, json};

fn row(plural: &str) -> &'static Resource {
    RESOURCES
        .iter()
        .copied()
        .find(|r| r.plural == plural)
        .unwrap()
}

#[test]
fn values_of_another_type() {
    for (plural, body, why) in [
        (
            "pods",
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"abc"}]}]}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "services",
            r#"{"spec":{"type":3}}"#,
            "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type v1.ServiceType",
        ),
        (
            "services",
            r#"{"spec":{"ports":{}}}"#,
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
        ),
        (
            "services",
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
        ),
        (
            "services",
            r#"{"spec":{"selector":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ServiceSpec.spec.selector of type string",
        ),
        (
            "services",
            r#"{"spec":{"ports":[{"port":80.5}]}}"#,
            "json: cannot unmarshal number 80.5 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            "services",
            r#"{"spec":{"ports":[{"port":3000000000}]}}"#,
            "json: cannot unmarshal number 3000000000 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            "services",
            r#"{"spec":{"ports":[{"targetPort":[]}]}}"#,
            "json: cannot unmarshal array into Go value of type int32",
        ),
        (
            "configmaps",
            r#"{"metadata":{"labels":{"a":true}}}"#,
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "configmaps",
            r#"{"metadata":{"creationTimestamp":"soon"}}"#,
            "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
        ),
        (
            "secrets",
            r#"{"data":{"a":"%%"}}"#,
            "illegal base64 data at input byte 0",
        ),
        (
            "pods",
            r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let status =
            decode::json(row(plural), body.as_bytes(), FieldValidation::Strict).unwrap_err();
        let kind = row(plural).kind;
        assert_eq!(
            status.message,
            format!("{kind} in version \"v1\" cannot be handled as a {kind}: {why}")
        );
        assert_eq!(status.code, 400);
    }
}

#[test]
fn unknown_and_duplicate_fields() {
    let body = br#"{"spec":{"prots":[],"ports":[{"port":80,"prot":1,"port":81}],"selector":{"a":"1","a":"2"}},"metadata":{"name":"x","nmae":"y"}}"#;
    let found = [
        "unknown field \"spec.prots\"",
        "unknown field \"spec.ports[0].prot\"",
        "duplicate field \"spec.ports[0].port\"",
        "duplicate field \"spec.selector.a\"",
        "unknown field \"metadata.nmae\"",
    ];
    let services = row("services");
    assert_eq!(
        decode::json(services, body, FieldValidation::Warn)
            .unwrap()
            .warnings,
        found
    );
    assert!(
        decode::json(services, body, FieldValidation::Ignore)
            .unwrap()
            .warnings
            .is_empty()
    );
    let refused = decode::json(services, body, FieldValidation::Strict).unwrap_err();
    assert_eq!(
        refused.message,
        format!(
            "Service in version \"v1\" cannot be handled as a Service: strict decoding error: {}",
            found.join(", ")
        )
    );
    let object: Value = serde_json::from_slice(body).unwrap();
    let patched = decode::check(services, object, FieldValidation::Warn).unwrap();
    assert_eq!(patched.warnings.len(), 3);
    assert_eq!(patched.object["spec"]["prots"], json!([]));
}

#[test]
fn yaml_is_read_like_json() {
    let read = decode::yaml(
        row("services"),
        b"kind: Service\napiVersion: v1\nmetadata:\n  name: web\nspec: {ports: [{port: 80}]}\n",
        FieldValidation::Strict,
    )
    .unwrap();
    assert_eq!(read.object["spec"]["ports"][0]["port"], 80);
    for bad in ["{bad", "a: [", "\t- x", "&a [*a"] {
        assert_eq!(
            decode::yaml(row("services"), bad.as_bytes(), FieldValidation::Strict)
                .unwrap_err()
                .code,
            400,
            "{bad}"
        );
    }
    assert_eq!(
        decode::untyped_yaml(&[0xff, 0xfe, 0x00]).unwrap_err().code,
        400
    );
}

#[test]
fn yaml_that_blows_up_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let again = format!("*a{}, ", i - 1).repeat(10);
        bomb += &format!("a{i}: &a{i} [{again}]\n");
    }
    let deep = (1..200).fold(String::new(), |deep, i| deep + &" ".repeat(i) + "a:\n");
    for (yaml, why) in [
        (
            bomb.as_str(),
            "line 6: it nests too deeply, or has too many nodes once its aliases are followed",
        ),
        (
            &deep,
            "line 65: it nests too deeply, or has too many nodes once its aliases are followed",
        ),
    ] {
        let refusal = decode::untyped_yaml(yaml.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, 400);
        assert_eq!(
            refusal.message,
            format!("error decoding YAML: error converting YAML to JSON: yaml: {why}")
        );
    }
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = open.repeat(100_000) + "1" + &close.repeat(100_000);
        assert_eq!(decode::untyped_json(deep.as_bytes()).unwrap_err().code, 400);
        assert_eq!(
            decode::json(row("configmaps"), deep.as_bytes(), FieldValidation::Strict)
                .unwrap_err()
                .code,
            400
        );
        assert_eq!(decode::untyped_yaml(deep.as_bytes()).unwrap_err().code, 400);
    }
    let fits = "[".repeat(100) + &"]".repeat(100);
    assert!(decode::untyped_json(fits.as_bytes()).is_ok());
}

#[test]
fn absent_and_null_are_the_same() {
    let sent = br#"{"metadata":{"name":"x","creationTimestamp":null},"spec":{"clusterIP":null,"unknown":null},"status":{}}"#;
    let object = decode::json(row("services"), sent, FieldValidation::Ignore)
        .unwrap()
        .object;
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"unknown": null},
            "status": {"loadBalancer": {}}})
    );
}

#[test]
fn values_have_one_spelling() {
    for (plural, sent, stored) in [
        (
            "secrets",
            json!({"data": {"a": "YQ==\n", "b": "YR==", "c": "YWI=", "d": ""}}),
            json!({"metadata": {}, "data": {"a": "YQ==", "b": "YQ==", "c": "YWI=", "d": ""}}),
        ),
        (
            "configmaps",
            json!({"metadata": {"labels": {"a": null}}, "data": {"x": null}}),
            json!({"metadata": {"labels": {"a": ""}}, "data": {"x": ""}}),
        ),
        (
            "leases",
            json!({"spec": {"renewTime": "2020-01-01T02:00:00.123456+02:00"}}),
            json!({"metadata": {}, "spec": {"renewTime": "2020-01-01T00:00:00.123456Z"}}),
        ),
        (
            "pods",
            json!({"spec": {"containers": [{"args": ["a", null], "resources": {"limits": {"cpu": null}}}]},
                "status": {"startTime": "2020-01-01T02:00:00.5+02:00"}}),
            json!({"metadata": {}, "spec": {"containers": [{"name": "", "args": ["a", ""], "resources": {"limits": {"cpu": "0"}}}]},
                "status": {"startTime": "2020-01-01T00:00:00Z"}}),
        ),
        // What Go writes in any case is there.
        (
            "pods",
            json!({"status": {"containerStatuses": [{"name": "c"}], "conditions": [{"type": "Ready"}]}}),
            json!({"metadata": {}, "spec": {}, "status": {
                "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {}, "lastState": {}}],
                "conditions": [{"type": "Ready", "status": "", "lastProbeTime": null, "lastTransitionTime": null}]}}),
        ),
        (
            "nodes",
            json!({"status": {"addresses": [{"type": "Hostname"}]}}),
            json!({"metadata": {}, "spec": {}, "status": {"addresses": [{"type": "Hostname", "address": ""}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
                "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "", "osImage": "",
                    "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": "", "operatingSystem": "",
                    "architecture": ""}}}),
        ),
    ] {
        let read = decode::check(row(plural), sent.clone(), FieldValidation::Strict).unwrap();
        let mut met = read.object;
        let map = met.as_object_mut().unwrap();
        map.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind"));
        assert_eq!(met, stored, "{sent}");
    }
    let micro = json!({"spec": {"acquireTime": "2020-01-01T00:00:00Z"}});
    let refused = decode::check(row("leases"), micro, FieldValidation::Ignore).unwrap_err();
    assert!(
        refused
            .message
            .ends_with("cannot parse \"Z\" as \".000000\""),
        "{refused}"
    );
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec![
            "",
            "a",
            "None",
            "10.0.0.1",
            "IPv6",
            "TCP",
            "é",
            "1Gi",
            "ClientIP",
            "2026-01-01T00:00:00Z"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        let key = prop::sample::select(vec![
            "metadata",
            "name",
            "namespace",
            "labels",
            "annotations",
            "ownerReferences",
            "finalizers",
            "spec",
            "status",
            "type",
            "ports",
            "port",
            "targetPort",
            "nodePort",
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "sessionAffinity",
            "selector",
            "containers",
            "initContainers",
            "image",
            "resources",
            "limits",
            "requests",
            "cpu",
            "volumes",
            "volumeMounts",
            "env",
            "endpoints",
            "addresses",
            "addressType",
            "subsets",
            "conditions",
            "rules",
            "http",
            "paths",
            "backend",
            "service",
            "data",
            "stringData",
            "taints",
            "podCIDRs",
            "loadBalancer",
            "ingress",
            "containerStatuses",
            "regarding",
            "series",
            "livenessProbe",
            "httpGet",
            "tolerations",
            "podIPs",
            "ip",
            "parameters",
            "controller",
            "generateName",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key, inner, 0..6).prop_map(|map| map
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        for resource in RESOURCES {
            let _ = decode::json(resource, &bytes, FieldValidation::Strict);
        }
        let _ = decode::untyped_yaml(&bytes);
    }

    /// Whatever JSON comes, and whatever stands in the store: every function of every row gives an answer.
    #[test]
    fn random_objects_never_panic(one in json_values(), other in json_values()) {
        let now = time::OffsetDateTime::UNIX_EPOCH;
        let stamps = Stamps { now, uid: "u".into(), suffix: "s".into() };
        for resource in RESOURCES {
            let _ = decode::check(resource, one.clone(), FieldValidation::Strict);
            let mut object = one.clone();
            let _ = write::create(resource, &mut object, "default", &stamps);
            let mut new = one.clone();
            (resource.prepare_update)(&mut new, &other);
            let _ = (resource.validate_update)(&new, &other);
            prop_assert_eq!((resource.cells)(&one, now).len(), resource.columns.len());
            for field in resource.fields {
                let _ = (field.get)(&one);
            }
            if other["metadata"].is_object() {
                for part in [write::Part::Main, write::Part::Status, write::Part::Finalize] {
                    let _ = write::update(resource, &mut one.clone(), &other, part);
                }
                let _ = write::Deletion::default().fate(resource, &other, now);
            }
            if let Some(conversion) = &resource.conversion {
                (conversion.to_stored)(&mut object);
                (conversion.from_stored)(&mut object);
            }
        }
        let mut service = one.clone();
        let _ = api::service::assign_families(&mut service, Some(&other), &[api::service::Family::V4]);
        let _ = api::service::wanted_addresses(&one);
    }

    #[test]
    fn defaults_are_filled_once(spec in json_values()) {
        for resource in RESOURCES {
            let mut once = json!({"metadata": {"name": "x"}, "spec": spec.clone()});
            (resource.default)(&mut once);
            let mut twice = once.clone();
            (resource.default)(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn quantities_keep_their_amount(whole in 0_u64..1_000_000_000, thousandths in 0_u16..1000, suffix in prop::sample::select(vec!["", "m", "k", "M", "Ki", "Mi", "Gi", "e3", "n"])) {
        let text = format!("{whole}.{thousandths:03}{suffix}");
        let quantity = Quantity::parse(&text).unwrap();
        let canonical = quantity.to_string();
        let again = Quantity::parse(&canonical).unwrap();
        prop_assert_eq!(quantity, again, "{} {}", text, canonical);
        prop_assert_eq!(again.to_string(), canonical);
    }

    #[test]
    fn quantities_never_panic(text in "[-+0-9.eEinumkKMGTP]{0,40}") {
        if let Ok(quantity) = Quantity::parse(&text) {
            prop_assert!(Quantity::parse(&quantity.to_string()).is_ok());
        }
    }
}

#[test]
fn events_go_both_ways() {
    let events = table::find("events.k8s.io", "v1", "events").unwrap();
    let conversion = events.conversion.as_ref().unwrap();
    let served = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "regarding": {"kind": "Pod"}, "note": "x", "deprecatedCount": 3, "reportingController": "c"});
    let mut object = served.clone();
    (conversion.to_stored)(&mut object);
    assert_eq!(
        object,
        json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod"}, "message": "x", "count": 3, "reportingComponent": "c"})
    );
    (conversion.from_stored)(&mut object);
    assert_eq!(object, served);
}
