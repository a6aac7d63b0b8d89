//! A configuration laid over an object, without a record of who owns what: what a policy makes of a request.

use serde_json::Value;

use crate::collect::collect;
use crate::merge::merge;
use crate::types::{Relation, Type};

/// `config` on top of `live`, merged as server-side apply merges.
///
/// # Errors
/// What of the configuration has no place in the schema, and values in it that would replace a whole list or object
/// of which they may hold a part only.
pub fn overlay(of: Type<'_>, live: &Value, config: &Value) -> Result<Value, String> {
    collect(of, config)
        .map_err(|why| format!("failed to convert patch object to typed object: {why}"))?;
    let mut whole = Vec::new();
    atomics(of, config, &mut String::new(), &mut whole);
    if !whole.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            whole.join(", ")
        ));
    }
    Ok(merge(of, live, config))
}

/// Paths of the lists and objects that are owned as a whole.
fn atomics(of: Type<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let leaf = of.relation(value) == Relation::Leaf;
    if leaf && (value.is_object() || value.is_array()) {
        found.push(path.clone());
    }
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(below) = of.field(name).filter(|below| below.named) {
                    path.push('.');
                    path.push_str(name);
                    atomics(below.of, value, path, found);
                    path.truncate(length);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                atomics(of.items(), item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn configurations_are_laid_over_objects() {
        let pod = Type::built_in(api::schema::find("io.k8s.api.core.v1.Pod").unwrap());
        let live = json!({"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let merged = |config: Value| overlay(pod, &live, &config);
        let extra = json!({"metadata": {"labels": {"b": "2"}}, "spec": {
            "initContainers": [{"name": "mesh", "image": "m"}],
            "containers": [{"name": "c", "env": [{"name": "X", "value": "y"}]}]}});
        let mut wanted = live.clone();
        wanted["metadata"]["labels"]["b"] = "2".into();
        wanted["spec"]["initContainers"] = json!([{"name": "mesh", "image": "m"}]);
        wanted["spec"]["containers"][0]["env"] = json!([{"name": "X", "value": "y"}]);
        assert_eq!(merged(extra), Ok(wanted));
        let whole = merged(json!({"spec": {"containers": [{"name": "c", "args": ["-v"]}]}}));
        assert_eq!(
            whole.unwrap_err(),
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.containers[0].args"
        );
        assert!(merged(json!({"spec": {"nonsense": 1}})).is_err());
    }
}
