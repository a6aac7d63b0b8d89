//! What `kubectl get` shows.

use api::printing::{IncludeObject, TableOptions, table};
use api::{decode, table as rows};
use serde_json::{Value, json};
use time::macros::datetime;

fn options(include: IncludeObject) -> TableOptions<'static> {
    TableOptions {
        version: "v1",
        include,
        list_metadata: json!({"resourceVersion": "7"}),
        now: datetime!(2026-01-02 00:00 UTC),
        without_columns: false,
    }
}

#[test]
fn cells() {
    let Value::Array(cases) = decode::untyped_yaml(include_bytes!("data/printed.yaml")).unwrap()
    else {
        panic!()
    };
    assert!(cases.len() > 30);
    for case in cases {
        let group = case["group"].as_str().unwrap_or("");
        let resource = rows::find(group, "v1", case["resource"].as_str().unwrap()).unwrap();
        let table = table(resource, [&case["object"]], &options(IncludeObject::None));
        assert_eq!(
            table["rows"][0]["cells"], case["cells"],
            "{}",
            case["object"]
        );
    }
}

/// Headings, those of wide output marked with a star, as a real server prints them.
#[test]
fn columns() {
    for (group, plural, headings) in [
        ("", "configmaps", "Name | Data | Age"),
        ("", "endpoints", "Name | Endpoints | Age"),
        (
            "",
            "events",
            "Last Seen | Type | Reason | Object | Subobject* | Source* | Message | First Seen* | Count* | Name*",
        ),
        ("", "namespaces", "Name | Status | Age"),
        (
            "",
            "nodes",
            "Name | Status | Roles | Age | Version | Internal-IP* | External-IP* | OS-Image* | Kernel-Version* | Container-Runtime*",
        ),
        (
            "",
            "pods",
            "Name | Ready | Status | Restarts | Age | IP* | Node* | Nominated Node* | Readiness Gates*",
        ),
        ("", "secrets", "Name | Type | Data | Age"),
        ("", "serviceaccounts", "Name | Age"),
        (
            "",
            "services",
            "Name | Type | Cluster-IP | External-IP | Port(s) | Age | Selector*",
        ),
        (
            "events.k8s.io",
            "events",
            "Last Seen | Type | Reason | Object | Subobject* | Source* | Message | First Seen* | Count* | Name*",
        ),
        (
            "networking.k8s.io",
            "ingressclasses",
            "Name | Controller | Parameters | Age",
        ),
        (
            "networking.k8s.io",
            "ingresses",
            "Name | Class | Hosts | Address | Ports | Age",
        ),
        ("coordination.k8s.io", "leases", "Name | Holder | Age"),
        (
            "discovery.k8s.io",
            "endpointslices",
            "Name | AddressType | Ports | Endpoints | Age",
        ),
    ] {
        let resource = rows::find(group, "v1", plural).unwrap();
        let met: Vec<String> = resource
            .columns
            .iter()
            .map(|c| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" }))
            .collect();
        assert_eq!(met.join(" | "), headings, "{plural}");
        let cells = (resource.cells)(&json!({}), datetime!(2026-01-02 00:00 UTC));
        assert_eq!(cells.len(), resource.columns.len(), "{plural}");
    }
}

#[test]
fn a_row_carries_as_much_of_the_object_as_was_asked_for() {
    let namespaces = rows::find("", "v1", "namespaces").unwrap();
    let object = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "x"}, "status": {"phase": "Active"}});
    let row =
        |include| table(namespaces, [&object], &options(include))["rows"][0]["object"].clone();
    assert_eq!(row(IncludeObject::None), Value::Null);
    assert_eq!(row(IncludeObject::Object), object);
    assert_eq!(
        row(IncludeObject::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "x"}})
    );
    let table = table(namespaces, [&object], &options(IncludeObject::None));
    assert_eq!(table["metadata"]["resourceVersion"], "7");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
}
