//! OpenAPI documents of what definitions add: made when somebody asks, kept until a definition changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::openapi::{self, Document, Swagger};
use api::table::Resource;
use bytes::Bytes;
use custom_resources::row::DEFINITIONS;
use serde_json::{Map, Value, json};

use crate::registry::{Registry, Served};

/// What was made since the definitions last changed.
#[derive(Debug, Default)]
pub(crate) struct Documents(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    generation: u64,
    documents: BTreeMap<String, (String, Bytes)>,
    /// With the generation of what others say.
    swagger: Option<(u64, Arc<Swagger>)>,
}

/// Documents of version 2 that others wrote, by the path that they answer for.
pub(crate) struct Others {
    /// Changes with the documents.
    pub(crate) generation: u64,
    pub(crate) documents: Vec<(String, Arc<Value>)>,
}

impl Documents {
    /// `/openapi/v3`: what the table has, and what definitions add. Nothing is made for it.
    pub(crate) fn index(&self, registry: &Registry) -> Value {
        let mut index = openapi::v3_index();
        for (root, served) in roots(registry) {
            let address = format!("/openapi/v3/{root}?hash={}", hash(&served));
            index["paths"][root] = json!({"serverRelativeURL": address});
        }
        index
    }

    /// Hash and bytes of the document of a group version that definitions add.
    pub(crate) fn get(&self, registry: &Registry, root: &str) -> Option<(String, Bytes)> {
        let generation = registry.generation();
        if let Some(found) = self.made(generation).documents.get(root) {
            return Some(found.clone());
        }
        let document = make(&roots(registry).remove(root)?);
        let found = (document.hash, Bytes::from(document.bytes));
        self.made(generation)
            .documents
            .insert(root.to_owned(), found.clone());
        Some(found)
    }

    /// `/openapi/v2`, with what others answer for.
    pub(crate) fn swagger(&self, registry: &Registry, others: &Others) -> Arc<Swagger> {
        let generation = registry.generation();
        if let Some((known, swagger)) = &self.made(generation).swagger
            && *known == others.generation
        {
            return swagger.clone();
        }
        let documents: Vec<(&str, &Value)> = others
            .documents
            .iter()
            .map(|(root, document)| (root.as_str(), &**document))
            .collect();
        let added: Vec<Document> = roots(registry)
            .values()
            .map(|served| make(served))
            .collect();
        let swagger = Arc::new(openapi::v2_with(&added, &documents));
        self.made(generation).swagger = Some((others.generation, swagger.clone()));
        swagger
    }

    /// What was made of these definitions; what was made of others is thrown away.
    fn made(&self, generation: u64) -> std::sync::MutexGuard<'_, Made> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if made.generation != generation {
            *made = Made {
                generation,
                ..Made::default()
            };
        }
        made
    }
}

/// The rows of each group version beyond the table. The definitions' own is among them, with no definition.
fn roots(registry: &Registry) -> BTreeMap<String, Vec<(&'static Resource, Option<Served>)>> {
    let mut roots: BTreeMap<String, Vec<(&'static Resource, Option<Served>)>> = BTreeMap::new();
    let own = std::iter::once((&DEFINITIONS, None));
    let custom = registry
        .served()
        .into_iter()
        .map(|served| (served.row, Some(served)));
    for (row, served) in own.chain(custom) {
        let root = row.root_path()[1..].to_owned();
        if openapi::v3_document(&root).is_none() {
            roots.entry(root).or_default().push((row, served));
        }
    }
    roots
}

/// Stands for the definitions that a document is made of.
fn hash(served: &[(&'static Resource, Option<Served>)]) -> String {
    let mut text = String::from(env!("CARGO_PKG_VERSION"));
    for (row, served) in served {
        let revision = served.as_ref().map_or(0, |served| served.revision.0);
        text.push_str(&format!("/{}@{revision}", row.plural));
    }
    openapi::fingerprint(text.as_bytes())
}

fn make(served: &[(&'static Resource, Option<Served>)]) -> Document {
    let mut own = Map::new();
    let rows: Vec<&Resource> = served.iter().map(|(row, _)| *row).collect();
    for (row, served) in served {
        if let Some(served) = served {
            // Written by the server itself, so it parses.
            let object: Value = serde_json::from_slice(&served.definition).unwrap_or_default();
            own.extend(custom_resources::openapi::components(&object, row.version));
        }
    }
    openapi::added_document(&rows, own, hash(served))
}
