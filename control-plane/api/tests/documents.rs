//! Discovery and OpenAPI documents: what clients look for in them.

use api::discovery::{self, Aggregated};
use api::openapi;
use api::table::RESOURCES;
use serde_json::{Value, json};

#[test]
fn every_row_is_in_every_form_of_discovery() {
    for version in [Aggregated::V2, Aggregated::V2Beta1] {
        let documents = [
            discovery::aggregated(RESOURCES, true, version),
            discovery::aggregated(RESOURCES, false, version),
        ];
        for row in RESOURCES {
            let found = documents
                .iter()
                .flat_map(|d| d["items"].as_array().unwrap())
                .filter(|group| group["metadata"]["name"].as_str().unwrap_or("") == row.group)
                .flat_map(|group| group["versions"].as_array().unwrap())
                .filter(|v| v["version"] == row.version)
                .flat_map(|v| v["resources"].as_array().unwrap())
                .find(|r| r["resource"] == row.plural)
                .unwrap_or_else(|| panic!("{row:?} is missing"));
            assert_eq!(
                found["responseKind"],
                json!({"group": row.group, "version": row.version, "kind": row.kind})
            );
            assert_eq!(
                found["scope"],
                if row.namespaced {
                    "Namespaced"
                } else {
                    "Cluster"
                }
            );
            assert_eq!(
                found["subresources"].as_array().map_or(0, Vec::len),
                row.subresources.len()
            );
        }
    }
    for row in RESOURCES {
        let list = discovery::legacy_resources(RESOURCES, row.group, row.version).unwrap();
        let names: Vec<&str> = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&row.plural));
        for sub in row.subresources {
            assert!(names.contains(&format!("{}/{}", row.plural, sub.name).as_str()));
        }
        if !row.group.is_empty() {
            let group = discovery::legacy_group(RESOURCES, row.group).unwrap();
            let preferred = RESOURCES.iter().find(|r| r.group == row.group).unwrap();
            assert_eq!(
                group["preferredVersion"]["groupVersion"],
                preferred.api_version()
            );
        }
    }
    assert!(discovery::legacy_resources(RESOURCES, "", "v2").is_none());
    assert!(discovery::legacy_group(RESOURCES, "").is_none());
}

/// Verbs, short names and categories as a real server has them.
#[test]
fn rows_are_named_as_everybody_expects() {
    const ALL: &str = "create,delete,deletecollection,get,list,patch,update,watch";
    for (group, plural, kind, namespaced, verbs, short, categories) in [
        ("", "configmaps", "ConfigMap", true, ALL, "cm", ""),
        ("", "endpoints", "Endpoints", true, ALL, "ep", ""),
        ("", "events", "Event", true, ALL, "ev", ""),
        (
            "",
            "namespaces",
            "Namespace",
            false,
            "create,delete,get,list,patch,update,watch",
            "ns",
            "",
        ),
        ("", "nodes", "Node", false, ALL, "no", ""),
        ("", "pods", "Pod", true, ALL, "po", "all"),
        ("", "secrets", "Secret", true, ALL, "", ""),
        ("", "serviceaccounts", "ServiceAccount", true, ALL, "sa", ""),
        ("", "services", "Service", true, ALL, "svc", "all"),
        ("events.k8s.io", "events", "Event", true, ALL, "ev", ""),
        (
            "networking.k8s.io",
            "ingressclasses",
            "IngressClass",
            false,
            ALL,
            "",
            "",
        ),
        (
            "networking.k8s.io",
            "ingresses",
            "Ingress",
            true,
            ALL,
            "ing",
            "",
        ),
        ("coordination.k8s.io", "leases", "Lease", true, ALL, "", ""),
        (
            "discovery.k8s.io",
            "endpointslices",
            "EndpointSlice",
            true,
            ALL,
            "",
            "",
        ),
    ] {
        let row = api::table::find(group, "v1", plural).unwrap();
        assert_eq!((row.kind, row.namespaced), (kind, namespaced));
        assert_eq!(
            (
                row.verbs.join(","),
                row.short_names.join(","),
                row.categories.join(",")
            ),
            (verbs.into(), short.into(), categories.into())
        );
    }
}

#[test]
fn keys_are_where_kubernetes_has_them() {
    let key = |plural| api::table::find("", "v1", plural).unwrap().key("d", "x");
    assert_eq!(key("services"), "/registry/services/specs/d/x");
    assert_eq!(key("endpoints"), "/registry/services/endpoints/d/x");
    assert_eq!(key("nodes"), "/registry/minions/x");
    assert_eq!(key("pods"), "/registry/pods/d/x");
    assert_eq!(
        api::table::find("", "v1", "pods").unwrap().key_prefix("d"),
        "/registry/pods/d/"
    );
    assert_eq!(
        api::table::find("", "v1", "pods").unwrap().key_prefix(""),
        "/registry/pods/"
    );
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                found.push(name.trim_start_matches("#/components/schemas/").to_owned());
            }
            map.values().for_each(|v| references(v, found));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn openapi_documents_are_whole() {
    let index = openapi::v3_index();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.len() > 15);
    for (root, entry) in paths {
        let document = openapi::v3_document(root).unwrap();
        assert_eq!(
            entry["serverRelativeURL"],
            format!("/openapi/v3/{root}?hash={}", document.hash)
        );
        let body: Value = serde_json::from_slice(&document.bytes).unwrap();
        let schemas = body["components"]["schemas"].as_object().unwrap();
        let mut found = Vec::new();
        references(&body, &mut found);
        for name in found {
            assert!(schemas.contains_key(&name), "{root} lacks {name}");
        }
    }
    assert!(openapi::v3_document("api/v2").is_none());
}

/// kubectl leaves validation to the server where it finds the parameter, and gives up where it doesn't.
#[test]
fn every_patch_takes_field_validation() {
    for row in RESOURCES.iter().filter(|r| r.verbs.contains(&"patch")) {
        let document = openapi::v3_document(&row.root_path()[1..]).unwrap();
        let body: Value = serde_json::from_slice(&document.bytes).unwrap();
        let scope = if row.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let path = format!("{}{scope}/{}/{{name}}", row.root_path(), row.plural);
        let patch = &body["paths"][&path]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"]["kind"], row.kind,
            "{path}"
        );
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|p| p["name"] == "fieldValidation"),
            "{path}"
        );
        let kind = &body["components"]["schemas"][row.definition];
        assert_eq!(kind["x-kubernetes-group-version-kind"][0]["kind"], row.kind);
        assert!(
            kind["description"].as_str().is_some_and(|d| d.len() > 10),
            "{} has no description",
            row.definition
        );
    }
}

#[test]
fn fields_are_explained() {
    let document = openapi::v3_document("api/v1").unwrap();
    let body: Value = serde_json::from_slice(&document.bytes).unwrap();
    let schemas = body["components"]["schemas"].as_object().unwrap();
    assert!(schemas.len() > 150, "{}", schemas.len());
    for (name, schema) in schemas {
        let own = schema["description"].as_str().unwrap_or_default();
        assert!(!own.is_empty() || name.ends_with("List"), "{name}");
        if own.starts_with("Of a kind that Kubernetes no longer has") {
            continue;
        }
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{field}");
        }
    }
    let affinity = &body["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"]["properties"]["sessionAffinity"];
    assert_eq!(affinity["enum"], json!(["ClientIP", "None"]));
}
