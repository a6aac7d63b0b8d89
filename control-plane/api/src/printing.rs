//! Table output: what `kubectl get` prints is decided here, in the server.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::table::Resource;

/// How much of each object goes along with its row.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata, as `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`; `None` for a value that is not known.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(IncludeObject::None),
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

/// How to print.
#[derive(Clone, Debug)]
pub struct TableOptions<'a> {
    /// `v1` or `v1beta1` of `meta.k8s.io`, as asked for.
    pub version: &'a str,
    /// How much of each object goes along.
    pub include: IncludeObject,
    /// The `metadata` of the list that the rows are of: resourceVersion, continue, remainingItemCount.
    pub list_metadata: Value,
    /// The server's now, for ages.
    pub now: OffsetDateTime,
    /// Whether to leave the column definitions out, as in the later events of a watch.
    pub without_columns: bool,
}

/// A `Table` of the items.
pub fn table<'a>(
    resource: &Resource,
    items: impl IntoIterator<Item = &'a Value>,
    options: &TableOptions<'_>,
) -> Value {
    let rows: Vec<Value> = items
        .into_iter()
        .map(|item| row(resource, item, options))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{}", options.version),
        "metadata": options.list_metadata,
        "columnDefinitions": if options.without_columns { Value::Null } else { columns(resource) },
        "rows": rows,
    })
}

/// One row, for a server that writes long tables row by row.
pub fn row(resource: &Resource, item: &Value, options: &TableOptions<'_>) -> Value {
    let mut row = Map::new();
    let cells = match resource.rules() {
        Some(rules) => rules.cells(item, options.now),
        None => (resource.cells)(item, options.now),
    };
    row.insert("cells".into(), Value::Array(cells));
    match options.include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row.insert("object".into(), partial(item, options.version));
        }
        IncludeObject::Object => {
            row.insert("object".into(), item.clone());
        }
    }
    Value::Object(row)
}

/// The column definitions of a table.
pub fn columns(resource: &Resource) -> Value {
    if let Some(rules) = resource.rules() {
        return rules.columns();
    }
    resource
        .columns
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "type": c.kind, "format": c.format,
                "description": c.description, "priority": c.priority,
            })
        })
        .collect()
}

/// An object reduced to its metadata, as `PartialObjectMetadata` of that version of `meta.k8s.io`.
pub fn partial(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}
