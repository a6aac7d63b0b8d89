//! Custom resources from their definition to its end.

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::Server;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"],
            "x-kubernetes-validations": [{"rule": "!has(self.replicas) || self.replicas <= self.size * 10", "message": "too many replicas"}],
            "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 10},
            "color": {"type": "string", "default": "red", "enum": ["red", "blue"]},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"], "properties": {
                    "name": {"type": "string"}, "number": {"type": "integer"}}}},
            "replicas": {"type": "integer"},
        }},
        "status": {"type": "object", "properties": {
            "phase": {"type": "string"}, "replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    }});
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
            "additionalPrinterColumns": [
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                {"name": "Ports", "type": "string", "jsonPath": ".spec.ports[*].name", "priority": 1}],
            "selectableFields": [{"jsonPath": ".spec.color"}],
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

fn widget(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn established(server: &Server, name: &str) -> Value {
    for _ in 0..200 {
        let object = server.get(&format!("{DEFINITIONS}/{name}")).await.ok();
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c["type"] == "Established" && c["status"] == "True")
        {
            return object;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{name} is not established");
}

async fn served() -> Server {
    let server = Server::new().await;
    let made = server.post(DEFINITIONS, &definition()).await.ok();
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["spec"]["names"]["singular"], "widget");
    assert_eq!(made["spec"]["names"]["listKind"], "WidgetList");
    assert_eq!(made["spec"]["conversion"]["strategy"], "None");
    established(&server, "widgets.example.com").await;
    // Served in the same moment or the next.
    for _ in 0..200 {
        if server.get(WIDGETS).await.code == 200 {
            return server;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("widgets are not served");
}

#[tokio::test]
async fn objects_are_pruned_filled_and_checked() {
    let server = served().await;
    let sent = widget(
        "a",
        &json!({"size": 3, "unknown": 1, "free": {"x": {"y": 1}}, "port": "http"}),
    );
    let made = server.post(WIDGETS, &sent).await;
    assert!(
        made.header("warning")
            .contains("unknown field \\\"spec.unknown\\\""),
        "{}",
        made.header("warning")
    );
    let made = made.ok();
    assert_eq!(
        made["spec"],
        json!({"size": 3, "color": "red", "free": {"x": {"y": 1}}, "port": "http"})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = server
        .post(
            &format!("{WIDGETS}?fieldValidation=Strict"),
            &widget("b", &json!({"size": 1, "x": 1})),
        )
        .await;
    assert!(
        strict
            .refused(400)
            .contains("strict decoding error: unknown field \"spec.x\"")
    );

    // Null where none may be counts as absent, and whole numbers are integers however they are written.
    let odd =
        json!({"size": 3.0, "replicas": 2e0, "port": null, "names": null, "free": {"x": null}});
    let made = server.post(WIDGETS, &widget("odd", &odd)).await;
    assert_eq!(
        made.ok()["spec"],
        json!({"size": 3, "replicas": 2, "color": "red", "free": {"x": null}})
    );

    let cases = [
        (
            json!({"size": "x"}),
            "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ),
        (json!({}), "spec.size: Required value"),
        (
            json!({"size": 11}),
            "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10",
        ),
        (
            json!({"size": 1, "color": "green"}),
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            json!({"size": 1, "names": ["a", "a"]}),
            "spec.names[1]: Duplicate value: \"a\"",
        ),
        (
            json!({"size": 1, "ports": [{"name": "a"}, {"name": "a"}]}),
            "spec.ports[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({"size": 1, "port": true}),
            "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ),
    ];
    for (spec, expected) in cases {
        let refusal = server
            .post(WIDGETS, &widget("bad", &spec))
            .await
            .refused(422);
        assert!(refusal.contains(expected), "{spec}: {refusal}");
    }
}

#[tokio::test]
async fn the_status_has_a_path_of_its_own() {
    let server = served().await;
    let made = server.post(WIDGETS, &json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 1}, "status": {"phase": "x"},
    })).await.ok();
    assert_eq!(made.get("status"), None);
    let patched = server
        .patch(
            &format!("{WIDGETS}/a/status"),
            "merge",
            &json!({"status": {"phase": "Ready"}, "spec": {"size": 2}}),
        )
        .await
        .ok();
    assert_eq!(
        (&patched["status"]["phase"], &patched["spec"]["size"]),
        (&json!("Ready"), &json!(1))
    );
    assert_eq!(patched["metadata"]["generation"], 1);
    let patched = server
        .patch(
            &format!("{WIDGETS}/a"),
            "merge",
            &json!({"spec": {"size": 2}}),
        )
        .await
        .ok();
    assert_eq!(patched["metadata"]["generation"], 2);
    let known =
        "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
    for part in ["", "/status", "/scale"] {
        let path = format!("{WIDGETS}/a{part}");
        let patch = json!({"spec": {"replicas": 2}});
        let refusal = server.patch(&path, "strategic-merge", &patch).await;
        assert_eq!(
            refusal.refused(415),
            format!(
                "the body of the request was in an unknown format - accepted media types include: {known}"
            ),
            "{path}"
        );
    }
}

#[tokio::test]
async fn rules_hold_and_the_scale_obeys_them() {
    let server = served().await;
    let refusal = server
        .post(WIDGETS, &widget("a", &json!({"size": 1, "replicas": 11})))
        .await
        .refused(422);
    assert_eq!(
        refusal,
        "Widget.example.com \"a\" is invalid: spec: Invalid value: too many replicas"
    );
    server
        .post(WIDGETS, &widget("a", &json!({"size": 1, "replicas": 1})))
        .await
        .ok();
    let path = format!("{WIDGETS}/a/scale");
    let scale = server.get(&path).await.ok();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"]),
        (&json!("Scale"), &json!(1))
    );
    server
        .patch(&path, "merge", &json!({"spec": {"replicas": 5}}))
        .await
        .ok();
    assert_eq!(
        server.get(&format!("{WIDGETS}/a")).await.ok()["spec"]["replicas"],
        5
    );
    let more = json!({"spec": {"replicas": 50}});
    assert_eq!(server.patch(&path, "merge", &more).await.code, 422);
}

#[tokio::test]
async fn documents_describe_them_and_change_with_them() {
    let server = served().await;
    let address = |index: &Value| {
        index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let first = address(&server.get("/openapi/v3").await.ok());
    let document = server.get(&first).await;
    assert!(document.header("cache-control").contains("immutable"));
    let document = document.ok();
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(
        widget["x-kubernetes-group-version-kind"][0]["kind"],
        "Widget"
    );
    assert_eq!(
        widget["properties"]["spec"]["properties"]["color"]["default"],
        "red"
    );
    let swagger = server.get("/openapi/v2").await.ok();
    // By these kubectl chooses how it patches.
    for part in ["", "/status", "/scale"] {
        let path = format!("/apis/example.com/v1/namespaces/{{namespace}}/widgets/{{name}}{part}");
        let known = [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json",
        ];
        let content = &document["paths"][&path]["patch"]["requestBody"]["content"];
        let mut v3: Vec<&str> = content
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        v3.sort_unstable();
        assert_eq!(v3, known, "{path}");
        assert_eq!(
            swagger["paths"][&path]["patch"]["consumes"],
            json!(known),
            "{path}"
        );
    }
    assert!(
        swagger["definitions"]
            .get("com.example.v1.Widget")
            .is_some()
    );
    let change = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/description", "value": "A widget."}]);
    let definition = format!("{DEFINITIONS}/widgets.example.com");
    server.patch(&definition, "json", &change).await.ok();
    for _ in 0..200 {
        let second = address(&server.get("/openapi/v3").await.ok());
        if second != first {
            let document = server.get(&second).await.ok();
            let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
            assert_eq!(widget["description"], "A widget.");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the document stays as it was");
}

#[tokio::test]
async fn versions_differ_in_name_only() {
    let server = served().await;
    server
        .post(WIDGETS, &widget("a", &json!({"size": 1})))
        .await
        .ok();
    let path = "/apis/example.com/v1beta1/namespaces/default/widgets/a";
    let other = server.get(path).await.ok();
    assert_eq!(
        (&other["apiVersion"], &other["spec"]["size"]),
        (&json!("example.com/v1beta1"), &json!(1))
    );
    let patched = server
        .patch(path, "merge", &json!({"spec": {"size": 2}}))
        .await
        .ok();
    assert_eq!(patched["apiVersion"], "example.com/v1beta1");
    let again = server.get(&format!("{WIDGETS}/a")).await.ok();
    assert_eq!(
        (&again["apiVersion"], &again["spec"]["size"]),
        (&json!("example.com/v1"), &json!(2))
    );
    let list = server.get("/apis/example.com/v1beta1/widgets").await.ok();
    assert_eq!(list["kind"], "WidgetList");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn discovery_tables_and_selectors_know_them() {
    let server = served().await;
    server
        .post(
            WIDGETS,
            &widget(
                "a",
                &json!({"size": 1, "ports": [{"name": "x"}, {"name": "y"}]}),
            ),
        )
        .await
        .ok();
    server
        .post(WIDGETS, &widget("b", &json!({"size": 2, "color": "blue"})))
        .await
        .ok();
    let group = server.get("/apis/example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let resources = server.get("/apis/example.com/v1").await.ok();
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = server.get_as("/apis", accept).await.ok();
    let ours = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["metadata"]["name"] == "example.com")
        .unwrap()
        .clone();
    let versions: Vec<&str> = ours["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    let table = server
        .get_as(WIDGETS, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .ok();
    let columns: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["Name", "Size", "Ports"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 1, "x y"]));
    let blue = server
        .get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"))
        .await
        .ok();
    assert_eq!(blue["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        server
            .get(&format!("{WIDGETS}?fieldSelector=spec.size%3D1"))
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn a_definition_takes_its_objects_and_watches_along() {
    let server = served().await;
    server
        .post(WIDGETS, &widget("a", &json!({"size": 1})))
        .await
        .ok();
    let mut watch = server.watch(&format!("{WIDGETS}?watch=1")).await;
    assert_eq!(watch.line().await, "ADDED a");
    let answer = server
        .delete(&format!("{DEFINITIONS}/widgets.example.com"))
        .await;
    assert_eq!(answer.code, 200);
    assert_eq!(watch.line().await, "DELETED a");
    assert_eq!(watch.next().await, None);
    for _ in 0..200 {
        if server
            .get(&format!("{DEFINITIONS}/widgets.example.com"))
            .await
            .code
            == 404
            && server.get(WIDGETS).await.code == 404
        {
            // And it can come back.
            server.post(DEFINITIONS, &definition()).await.ok();
            established(&server, "widgets.example.com").await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the definition stays");
}

#[tokio::test]
async fn names_that_others_have_are_refused() {
    let server = served().await;
    let mut other = definition();
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    server.post(DEFINITIONS, &other).await.ok();
    for _ in 0..200 {
        let object = server
            .get(&format!("{DEFINITIONS}/gadgets.example.com"))
            .await
            .ok();
        if let Some(conditions) = object["status"]["conditions"].as_array() {
            let of = |kind: &str| {
                conditions
                    .iter()
                    .find(|c| c["type"] == kind)
                    .unwrap()
                    .clone()
            };
            assert_eq!(of("NamesAccepted")["status"], "False");
            assert_eq!(of("NamesAccepted")["reason"], "ShortNamesConflict");
            assert_eq!(of("NamesAccepted")["message"], "\"wd\" is already in use");
            assert_eq!(of("Established")["reason"], "NotAccepted");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no conditions");
}

#[tokio::test]
async fn definitions_that_make_no_sense_are_refused() {
    let server = Server::new().await;
    let cases: [(&str, Value, &str); 6] = [
        (
            "/metadata/name",
            json!("x.example.com"),
            "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "/spec/scope",
            json!("Space"),
            "spec.scope: Unsupported value: \"Space\": supported values: \"Cluster\", \"Namespaced\"",
        ),
        (
            "/spec/names/kind",
            json!("wid get"),
            "spec.names.kind: Invalid value",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/type",
            json!(""),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color/default",
            json!("green"),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[color].default: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        ),
        (
            "/spec/preserveUnknownFields",
            json!(true),
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut object = definition();
        if let Some(slot) = object.pointer_mut(pointer) {
            *slot = value;
        } else {
            object["spec"]["preserveUnknownFields"] = value;
        }
        let refusal = server.post(DEFINITIONS, &object).await.refused(422);
        assert!(refusal.contains(expected), "{pointer}: {refusal}");
    }
}

#[tokio::test]
async fn one_that_is_called_as_a_built_in_kind_is_nothing_special() {
    let server = Server::new().await;
    let group = "same.example.com";
    let kinds = [
        ("services", "Service", "Namespaced"),
        ("bindings", "Binding", "Namespaced"),
        (
            "certificatesigningrequests",
            "CertificateSigningRequest",
            "Cluster",
        ),
        ("componentstatuses", "ComponentStatus", "Cluster"),
        (
            "customresourcedefinitions",
            "CustomResourceDefinition",
            "Cluster",
        ),
    ];
    for (plural, kind, scope) in kinds {
        let name = format!("{plural}.{group}");
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": name},
            "spec": {"group": group, "scope": scope, "names": {"plural": plural, "kind": kind}, "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]},
        });
        server.post(DEFINITIONS, &definition).await.ok();
        established(&server, &name).await;
        let path = match scope {
            "Cluster" => format!("/apis/{group}/v1/{plural}"),
            _ => format!("/apis/{group}/v1/namespaces/default/{plural}"),
        };
        for _ in 0..1000 {
            if server.get(&path).await.code == 200 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let spec = json!({"ports": [{"port": 80}], "finalizers": ["kubernetes"]});
        let object = json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": "x"}, "spec": spec});
        let made = server.post(&path, &object).await.ok();
        assert_eq!(made["spec"], spec, "{kind}");
        let there = server.get(&path).await.ok();
        assert_eq!(there["items"][0]["spec"], spec, "{kind}");
        let object = format!("{path}/x");
        server.delete(&object).await.ok();
        assert_eq!(server.get(&object).await.code, 404, "{kind} is gone");
    }
}
