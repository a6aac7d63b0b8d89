//! Label and field selectors.

use api::selector::{FieldSelector, LabelSelector};
use api::{decode, table};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn label_selectors() {
    let sets = [
        ("a", json!({"app": "web", "tier": "front"})),
        ("b", json!({"app": "api"})),
        ("c", json!({})),
        ("d", json!({"app": "", "n": "5"})),
    ];
    let Value::Array(cases) = decode::untyped_yaml(include_bytes!("data/selectors.yaml")).unwrap()
    else {
        panic!()
    };
    assert!(cases.len() > 20);
    for case in cases {
        let query = case["query"].as_str().unwrap();
        let met = match LabelSelector::parse(query) {
            Ok(selector) => {
                let chosen: Vec<&str> = sets
                    .iter()
                    .filter(|(_, labels)| selector.matches(labels))
                    .map(|(n, _)| *n)
                    .collect();
                json!({"query": query, "chooses": chosen})
            }
            Err(status) => {
                assert_eq!((status.code, &*status.reason), (400, "BadRequest"));
                json!({"query": query, "refused": status.message})
            }
        };
        assert_eq!(met, case);
    }
}

#[test]
fn selectors_in_objects() {
    let selector = |value| LabelSelector::from_object(&value);
    let labels = json!({"app": "web"});
    assert!(
        selector(json!({"matchLabels": {"app": "web"}}))
            .unwrap()
            .matches(&labels)
    );
    assert!(
        !selector(json!({"matchLabels": {"app": "web", "x": "y"}}))
            .unwrap()
            .matches(&labels)
    );
    assert!(
        selector(
            json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]})
        )
        .unwrap()
        .matches(&labels)
    );
    assert!(
        !selector(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}))
            .unwrap()
            .matches(&labels)
    );
    assert!(selector(json!({})).unwrap().matches(&labels));
    assert!(selector(json!({"matchExpressions": [{"key": "app", "operator": "Like"}]})).is_none());
}

#[test]
fn field_selectors() {
    let pods = table::find("", "v1", "pods").unwrap();
    let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
    for (query, matches) in [
        ("", true),
        ("metadata.name=p", true),
        ("metadata.name==p,metadata.namespace=d", true),
        ("metadata.name!=p", false),
        ("spec.nodeName=n1,status.phase!=Failed", true),
        ("spec.nodeName=", false),
        ("status.podIP=10.0.0.1", true),
        ("spec.hostNetwork=false", true),
    ] {
        let selector = FieldSelector::parse(pods, query).unwrap();
        assert_eq!(selector.matches(pods, &pod), matches, "{query}");
    }
    for (query, message) in [
        ("spec.nope=1", "field label not supported: spec.nope"),
        (
            "metadata.name",
            "invalid selector: 'metadata.name'; can't understand 'metadata.name'",
        ),
        (
            "metadata.name=a=b",
            "invalid field selector: invalid value: \"a=b\"",
        ),
    ] {
        assert_eq!(
            FieldSelector::parse(pods, query).unwrap_err().message,
            message
        );
    }
    let escaped = FieldSelector::parse(pods, "metadata.name=a\\,b").unwrap();
    assert_eq!(escaped.exact("metadata.name"), Some("a,b"));
}

#[test]
fn every_label_of_the_table_can_be_selected() {
    for (group, plural, labels) in [
        (
            "",
            "pods",
            "spec.nodeName spec.host spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName",
        ),
        ("", "nodes", "spec.unschedulable"),
        ("", "namespaces", "status.phase"),
        ("", "secrets", "type"),
        ("", "services", "spec.clusterIP spec.type"),
        (
            "",
            "events",
            "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type",
        ),
        (
            "events.k8s.io",
            "events",
            "regarding.kind regarding.namespace regarding.name regarding.uid reason reportingController type",
        ),
    ] {
        let resource = table::find(group, "v1", plural).unwrap();
        for label in labels.split(' ').chain(["metadata.name"]) {
            assert!(
                FieldSelector::parse(resource, &format!("{label}=x")).is_ok(),
                "{plural} {label}"
            );
        }
    }
}

proptest! {
    #[test]
    fn no_query_panics(query in "[a-z!=<>(), /.\\\\é]{0,24}") {
        let _ = LabelSelector::parse(&query);
        let _ = FieldSelector::parse(table::find("", "v1", "pods").unwrap(), &query);
    }

    #[test]
    fn a_value_and_its_negation_split_all_labels(value in "[a-c]{1,2}", labels in prop::collection::btree_map("[ab]", "[a-c]{0,2}", 0..3)) {
        let labels = serde_json::to_value(labels).unwrap();
        let equal = LabelSelector::parse(&format!("a={value}")).unwrap().matches(&labels);
        let other = LabelSelector::parse(&format!("a!={value}")).unwrap().matches(&labels);
        prop_assert!(equal != other);
    }
}
