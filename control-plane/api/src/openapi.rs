//! OpenAPI: what kubectl reads to explain and to validate. Made from the resource table and the schemas at first
//! use, then kept as bytes.

mod components;
mod paths;
mod v2;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use crate::schema;
use crate::table::{RESOURCES, Resource};

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
    Swagger::new(&v3, &[])
});

impl Swagger {
    fn new(v3: &[Value], others: &[(&str, &Value)]) -> Self {
        let mut swagger = v2::document(v3);
        for (root, other) in others {
            v2::add(&mut swagger, root, other);
        }
        Swagger {
            json: Document::new(swagger.to_string().into_bytes()),
            protobuf: Document::new(v2::encode(&swagger)),
        }
    }
}

/// `/openapi/v2`.
pub fn v2_document() -> &'static Swagger {
    &SWAGGER
}

impl Document {
    fn new(bytes: Vec<u8>) -> Self {
        let hash = fingerprint(&bytes);
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

/// The document of rows of one group version that is not in the table. `own` are the definitions of custom resources
/// by name; `hash` stands for all that it is made of.
pub fn added_document(rows: &[&Resource], own: Map<String, Value>, hash: String) -> Document {
    Document {
        bytes: document_of(rows, own).to_string().into_bytes(),
        hash,
    }
}

/// `/openapi/v2` with these documents of version 3 besides those of the table, and with `others`: the documents of
/// version 2 of those who answer for what is below a path, such as `/apis/metrics.k8s.io/v1beta1`.
pub fn v2_with<'a>(
    added: impl IntoIterator<Item = &'a Document>,
    others: &[(&str, &Value)],
) -> Swagger {
    let v3: Vec<Value> = DOCUMENTS
        .values()
        .chain(added)
        .filter_map(|d| serde_json::from_slice(&d.bytes).ok())
        .collect();
    Swagger::new(&v3, others)
}

/// A short text that differs where the bytes do.
pub fn fingerprint(bytes: &[u8]) -> String {
    format!("{:016X}", hash(bytes))
}

/// FNV-1a, 64 bits: the same in every build.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn document(group: &str, version: &str) -> Value {
    let rows: Vec<&Resource> = RESOURCES
        .iter()
        .copied()
        .filter(|r| r.group == group && r.version == version)
        .collect();
    document_of(&rows, Map::new())
}

fn document_of(rows: &[&Resource], own: Map<String, Value>) -> Value {
    let mut wanted: Vec<&str> = paths::DEFINITIONS.to_vec();
    let parts: Vec<String> = rows
        .iter()
        .flat_map(|r| r.subresources.iter().map(move |sub| (r, sub)))
        .filter_map(|(row, sub)| paths::definition_of(row, sub))
        .collect();
    wanted.extend(parts.iter().map(String::as_str));
    let mut served = Map::new();
    for row in rows {
        wanted.push(row.definition);
        paths::add(&mut served, row);
    }
    let lists: Vec<String> = wanted
        .iter()
        .map(|d| format!("{d}List"))
        .filter(|d| schema::find(d).is_some())
        .collect();
    wanted.extend(lists.iter().map(String::as_str));
    let mut schemas = components::of(&wanted);
    schemas.extend(own);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Fairlead", "version": env!("CARGO_PKG_VERSION")},
        "paths": served,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"BearerToken": {
                "type": "apiKey", "name": "authorization", "in": "header",
                "description": "Bearer token",
            }},
        },
    })
}
