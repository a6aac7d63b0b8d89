//! OpenAPI: what kubectl reads to explain and to validate. Made from the resource table and the schemas at first
//! use, then kept as bytes.

mod paths;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::schema;
use crate::table::RESOURCES;

/// A document, ready to send.
#[derive(Debug)]
pub struct Document {
    /// JSON.
    pub bytes: Vec<u8>,
    /// Of the bytes, in hexadecimal: the `hash` parameter of its address, and an entity tag.
    pub hash: String,
}

static DOCUMENTS: LazyLock<BTreeMap<String, Document>> = LazyLock::new(|| {
    let roots: BTreeSet<(String, &str, &str)> = RESOURCES
        .iter()
        .map(|r| (r.root_path()[1..].to_owned(), r.group, r.version))
        .collect();
    roots
        .into_iter()
        .map(|(root, group, version)| {
            (
                root,
                Document::new(document(group, version).to_string().into_bytes()),
            )
        })
        .collect()
});

/// The one document of OpenAPI v2, in its two forms.
#[derive(Debug)]
pub struct Swagger {
    /// `application/json`.
    pub json: Document,
    /// `application/com.github.proto-openapi.spec.v2@v1.0+protobuf`.
    pub protobuf: Document,
}

static SWAGGER: LazyLock<Swagger> = LazyLock::new(|| {
    let v3: Vec<Value> = DOCUMENTS
        .values()
        .filter_map(|d| serde_json::from_slice(&d.bytes).ok())
        .collect();
    let swagger = v2::document(&v3);
    Swagger {
        json: Document::new(swagger.to_string().into_bytes()),
        protobuf: Document::new(v2::encode(&swagger)),
    }
});

/// `/openapi/v2`.
pub fn v2_document() -> &'static Swagger {
    &SWAGGER
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let hash = format!("{:016X}", hash(&bytes));
        Document { bytes, hash }
    }
}

/// `/openapi/v3`: where the document of each group version is. Addresses carry the hash, so that they can be cached
/// for ever.
pub fn v3_index() -> Value {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(root, document)| {
            let address = format!("/openapi/v3/{root}?hash={}", document.hash);
            (root.clone(), json!({"serverRelativeURL": address}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document of a group version, by its path without the slash before it: `api/v1`, `apis/discovery.k8s.io/v1`.
pub fn v3_document(root: &str) -> Option<&'static Document> {
    DOCUMENTS.get(root)
}

/// FNV-1a, 64 bits: the same in every build.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn document(group: &str, version: &str) -> Value {
    let mut wanted: Vec<&str> = paths::DEFINITIONS.to_vec();
    let mut served = Map::new();
    for row in RESOURCES
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        wanted.push(row.definition);
        paths::add(&mut served, row);
    }
    let lists: Vec<String> = wanted
        .iter()
        .map(|d| format!("{d}List"))
        .filter(|d| schema::find(d).is_some())
        .collect();
    wanted.extend(lists.iter().map(String::as_str));
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Fairlead", "version": env!("CARGO_PKG_VERSION")},
        "paths": served,
        "components": {
            "schemas": components(&wanted),
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer token",
            }},
        },
    })
}

/// The definitions and all that they refer to, with our descriptions.
fn components(wanted: &[&str]) -> Map<String, Value> {
    let described = schema::read(include_str!("../schema/descriptions.json"));
    let values = schema::read(include_str!("../schema/values.json"));
    let mut found: Map<String, Value> = Map::new();
    let mut todo: Vec<String> = wanted.iter().map(|d| (*d).to_owned()).collect();
    while let Some(name) = todo.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let Some(body) = schema::DEFINITIONS.get(&name) else {
            continue;
        };
        let mut body = body.clone();
        references(&body, &mut todo);
        for (field, values) in crate::value::entries(values.get(&name).unwrap_or(&Value::Null), &[])
        {
            body["properties"][field]["enum"] = values.clone();
        }
        describe(&name, &mut body, &described);
        found.insert(name, body);
    }
    found
}

fn references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(name) = map
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|r| r.rsplit('/').next())
            {
                into.push(name.to_owned());
            }
            map.values().for_each(|v| references(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Adds our descriptions. A reference with something beside it has to go into `allOf`: siblings of `$ref` are ignored.
fn describe(name: &str, body: &mut Value, described: &Map<String, Value>) {
    let words = described.get(name);
    if let Some(text) = words.and_then(|w| w.get("")) {
        body["description"] = text.clone();
    }
    let Some(properties) = body.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for (field, property) in properties {
        let own = words.and_then(|w| w.get(field.as_str()));
        let common = described.get("*").and_then(|w| w.get(field.as_str()));
        let text = own.or(common);
        if property.get("$ref").is_some() {
            let reference = property.take();
            *property = json!({"allOf": [reference], "default": {}});
            // Times and alternatives have no empty object for a default.
            let target = property["allOf"][0]["$ref"]
                .as_str()
                .unwrap_or("")
                .to_owned();
            if !has_properties(&target) {
                property.as_object_mut().map(|p| p.remove("default"));
            }
        }
        if let Some(text) = text {
            property["description"] = text.clone();
        }
    }
}

fn has_properties(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or("");
    schema::DEFINITIONS
        .get(name)
        .is_some_and(|d| d.get("properties").is_some())
}
