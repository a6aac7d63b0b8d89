//! The paths of a resource and the operations on them.

use serde_json::{Map, Value, json};

use crate::table::{Resource, Subresource};

/// Definitions that operations speak of.
pub(super) const DEFINITIONS: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
    "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent",
];

/// Adds every path of `row`.
pub(super) fn add(paths: &mut Map<String, Value>, row: &Resource) {
    let root = row.root_path();
    let has = |verb: &str| row.verbs.contains(&verb);
    let scope = if row.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let mut collection = item_of(row, false);
    if has("list") {
        collection["get"] = operation(
            row,
            "list",
            &list_parameters(),
            None,
            &format!("{}List", row.definition),
        );
    }
    if has("create") {
        collection["post"] = operation(
            row,
            "post",
            &write_parameters(),
            Some(row.definition),
            row.definition,
        );
    }
    if has("deletecollection") {
        let parameters = [list_parameters(), delete_parameters()].concat();
        collection["delete"] =
            operation(row, "deletecollection", &parameters, None, DEFINITIONS[3]);
    }
    paths.insert(format!("{root}{scope}/{}", row.plural), collection);
    if row.namespaced && has("list") {
        let get = operation(
            row,
            "list",
            &list_parameters(),
            None,
            &format!("{}List", row.definition),
        );
        paths.insert(format!("{root}/{}", row.plural), json!({"get": get}));
    }
    let mut one = item_of(row, true);
    for verb in row.verbs {
        add_verb(&mut one, row, verb);
    }
    let path = format!("{root}{scope}/{}/{{name}}", row.plural);
    for sub in row.subresources {
        paths.insert(format!("{path}/{}", sub.name), subresource(row, sub));
    }
    if ["delete", "get", "patch", "update"].into_iter().any(has) {
        paths.insert(path, one);
    }
}

/// The definition of what a subresource takes and answers. `None` for what is passed on to a node.
pub(super) fn definition_of(row: &Resource, sub: &Subresource) -> Option<String> {
    if sub.kind.is_empty() || sub.kind == row.kind {
        return (sub.name != "log").then(|| row.definition.to_owned());
    }
    let api_version = match sub.group_version {
        Some(("", version)) => version.to_owned(),
        Some((group, version)) => format!("{group}/{version}"),
        None => row.api_version(),
    };
    crate::schema::of_kind(&api_version, sub.kind).map(crate::schema::Schema::full_name)
}

fn subresource(row: &Resource, sub: &Subresource) -> Value {
    let mut path = item_of(row, true);
    let Some(definition) = definition_of(row, sub) else {
        for verb in sub.verbs {
            let method = match *verb {
                "create" => "post",
                "update" => "put",
                other => other,
            };
            path[method] = json!({
                "operationId": format!("connect{method}{}{}{}", row.group.replace('.', ""), row.kind, sub.name),
                "tags": [row.api_version()],
                "parameters": [],
                "responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}},
                "x-kubernetes-action": "connect",
                "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": if sub.kind.is_empty() { row.kind } else { sub.kind }},
            });
        }
        return path;
    };
    let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
    let kind = if sub.kind.is_empty() {
        row.kind
    } else {
        sub.kind
    };
    for verb in sub.verbs {
        if *verb == "create" {
            path["post"] = operation(
                row,
                "post",
                &write_parameters(),
                Some(&definition),
                &definition,
            );
        } else {
            add_verb_of(&mut path, row, verb, &definition);
        }
    }
    for method in ["get", "put", "post", "patch"] {
        if path[method].is_object() {
            let id = format!(
                "{}{}",
                path[method]["operationId"].as_str().unwrap_or(""),
                sub.name
            );
            path[method]["operationId"] = id.into();
            path[method]["x-kubernetes-group-version-kind"] =
                json!({"group": group, "version": version, "kind": kind});
        }
    }
    path
}

fn add_verb(path: &mut Value, row: &Resource, verb: &str) {
    add_verb_of(path, row, verb, row.definition);
}

fn add_verb_of(path: &mut Value, row: &Resource, verb: &str, definition: &str) {
    match verb {
        "get" => path["get"] = operation(row, "get", &[], None, definition),
        "update" => {
            path["put"] = operation(
                row,
                "put",
                &write_parameters(),
                Some(definition),
                definition,
            );
        }
        "patch" => {
            let mut parameters = write_parameters();
            parameters.push(query(
                "force",
                "boolean",
                "Take fields over from other managers.",
            ));
            let mut patch = operation(row, "patch", &parameters, None, definition);
            let body = json!({"schema": reference(DEFINITIONS[2])});
            let content: Map<String, Value> = row
                .patch_types()
                .iter()
                .map(|media| ((*media).to_owned(), body.clone()))
                .collect();
            patch["requestBody"] = json!({"content": content, "required": true});
            path["patch"] = patch;
        }
        "delete" => {
            path["delete"] = operation(
                row,
                "delete",
                &delete_parameters(),
                Some(DEFINITIONS[1]),
                if row.returns_deleted {
                    row.definition
                } else {
                    DEFINITIONS[3]
                },
            );
        }
        _ => {}
    }
}

/// A path with the parameters in it.
fn item_of(row: &Resource, named: bool) -> Value {
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name", "Name of the object."));
    }
    if row.namespaced {
        parameters.push(in_path("namespace", "Namespace of the object."));
    }
    parameters.push(query("pretty", "string", "Indent the answer."));
    json!({"parameters": parameters})
}

fn operation(
    row: &Resource,
    action: &str,
    parameters: &[Value],
    body: Option<&str>,
    answer: &str,
) -> Value {
    let id = format!("{action}{}{}", row.group.replace('.', ""), row.kind);
    let mut operation = json!({
        "operationId": id,
        "tags": [row.api_version()],
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference(answer)}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": row.kind},
    });
    if let Some(body) = body {
        operation["requestBody"] = json!({"content": {"*/*": {"schema": reference(body)}}});
    }
    operation
}

fn reference(definition: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{definition}")})
}

fn in_path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string", "uniqueItems": true}})
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn write_parameters() -> Vec<Value> {
    vec![
        query("dryRun", "string", "`All`: do everything but store it."),
        query("fieldManager", "string", "Who writes."),
        query(
            "fieldValidation",
            "string",
            "What to do about unknown or duplicate fields: Ignore, Warn or Strict.",
        ),
    ]
}

fn delete_parameters() -> Vec<Value> {
    vec![
        query("dryRun", "string", "`All`: do everything but remove it."),
        query(
            "gracePeriodSeconds",
            "integer",
            "Seconds that the object is given to end.",
        ),
        query(
            "propagationPolicy",
            "string",
            "What becomes of dependents: Orphan, Background or Foreground.",
        ),
    ]
}

fn list_parameters() -> Vec<Value> {
    vec![
        query(
            "allowWatchBookmarks",
            "boolean",
            "Send events that carry only a resourceVersion.",
        ),
        query("continue", "string", "Token of the page before."),
        query("fieldSelector", "string", "Which objects, by their fields."),
        query("labelSelector", "string", "Which objects, by their labels."),
        query("limit", "integer", "The most objects in a page."),
        query("resourceVersion", "string", "How fresh the answer must be."),
        query(
            "resourceVersionMatch",
            "string",
            "How resourceVersion is meant: Exact or NotOlderThan.",
        ),
        query(
            "sendInitialEvents",
            "boolean",
            "Begin a watch with what there is.",
        ),
        query("timeoutSeconds", "integer", "How long a watch may last."),
        query("watch", "boolean", "Stream changes."),
    ]
}
