//! Schemas of custom resources as OpenAPI components.

use api::value::{at, flag, list, text};
use serde_json::{Map, Value, json};

use crate::definition::{Definition, Version};
use crate::structural::DEPTH_MAX;

const OBJECT_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The name of a version's component: the group backwards, the version, the kind.
pub fn definition_name(definition: &Definition, version: &Version) -> String {
    let group: Vec<&str> = definition.group.rsplit('.').collect();
    format!(
        "{}.{}.{}",
        group.join("."),
        version.name,
        definition.names.kind
    )
}

/// Adds what every object says of itself.
fn typed(properties: &mut Map<String, Value>, meta: &str, of: &str) {
    properties.insert(
        "apiVersion".into(),
        json!({"type": "string", "description": "APIVersion defines which schema the object follows, by group and version."}),
    );
    properties.insert(
        "kind".into(),
        json!({"type": "string", "description": "Name of the schema that the object follows."}),
    );
    let metadata = json!({"allOf": [{"$ref": meta}], "description": format!("Standard {of} metadata."), "default": {}});
    properties.insert("metadata".into(), metadata);
}

/// Embedded resources are objects too, and must say so.
fn typed_below(schema: &mut Value, depth: usize) {
    let Some(map) = schema.as_object_mut().filter(|_| depth > 0) else {
        return;
    };
    for key in ["items", "additionalProperties"] {
        if let Some(below) = map.get_mut(key) {
            typed_below(below, depth - 1);
        }
    }
    let properties = map.get_mut("properties").and_then(Value::as_object_mut);
    for below in properties.into_iter().flat_map(Map::values_mut) {
        typed_below(below, depth - 1);
    }
    if !flag(schema, &["x-kubernetes-embedded-resource"]) {
        return;
    }
    if let Some(properties) =
        api::value::object_mut(schema, "properties").and_then(Value::as_object_mut)
    {
        typed(properties, OBJECT_META, "object's");
    }
    let mut required = list(schema, &["required"]).to_vec();
    for key in ["kind", "apiVersion"] {
        if !required.iter().any(|known| known == key) {
            required.push(key.into());
        }
    }
    api::value::set(schema, "required", required);
}

/// The components of one version of a stored definition: its objects and lists of them.
pub fn components(object: &Value, version: &str) -> Map<String, Value> {
    let definition = Definition::parse(object);
    let mut found = Map::new();
    let Some(known) = definition
        .versions
        .iter()
        .find(|known| known.name == version)
    else {
        return found;
    };
    let stored = list(object, &["spec", "versions"])
        .iter()
        .find(|stored| text(stored, &["name"]) == version);
    let mut body = at(
        stored.unwrap_or(&Value::Null),
        &["schema", "openAPIV3Schema"],
    )
    .clone();
    if !body.is_object() {
        body = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    }
    let names = &definition.names;
    let kind = |kind: &str| json!([{"group": definition.group, "version": version, "kind": kind}]);
    typed_below(&mut body, DEPTH_MAX);
    body["x-kubernetes-group-version-kind"] = kind(&names.kind);
    if let Some(properties) =
        api::value::object_mut(&mut body, "properties").and_then(Value::as_object_mut)
    {
        typed(properties, OBJECT_META, "object's");
    }
    let name = definition_name(&definition, known);
    let mut properties = Map::new();
    typed(&mut properties, LIST_META, "list");
    let items = json!({
        "type": "array", "description": format!("Objects of the kind {}.", names.kind),
        "items": {"$ref": format!("#/components/schemas/{name}")},
    });
    properties.insert("items".into(), items);
    let whole = json!({
        "type": "object", "description": format!("A list of {}.", names.plural), "required": ["items"],
        "properties": properties, "x-kubernetes-group-version-kind": kind(&names.list_kind),
    });
    found.insert(format!("{name}List"), whole);
    found.insert(name, body);
    found
}
