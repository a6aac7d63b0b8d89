//! The scale subresource: how many replicas there are and should be, in the same words for every kind that has them.

use serde_json::{Map, Value, json};

use crate::field::FieldError;
use crate::meta;
use crate::selector::selector_text;
use crate::table::{AGE, BASE, Column, NAME, Resource, column};
use crate::value::{at, number, set};

/// Where in an object the numbers stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// How many there should be.
    pub wanted: &'static [&'static str],
    /// How many there are.
    pub current: &'static [&'static str],
    /// Which Pods are counted: a LabelSelector, a map of labels or a text. Empty where nothing says so.
    pub selector: &'static [&'static str],
}

impl Scale {
    /// Of Deployments and what is like them.
    pub const WORKLOAD: Scale = Scale {
        wanted: &["spec", "replicas"],
        current: &["status", "replicas"],
        selector: &["spec", "selector"],
    };

    /// The `Scale` of an object.
    pub fn of(&self, object: &Value) -> Value {
        let mut metadata = Map::new();
        for key in [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "creationTimestamp",
        ] {
            let value = at(object, &["metadata", key]);
            if !value.is_null() {
                metadata.insert(key.to_owned(), value.clone());
            }
        }
        let mut scale = json!({
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": metadata,
            "spec": {},
            "status": {"replicas": number(object, self.current)},
        });
        let wanted = number(object, self.wanted);
        if wanted != 0 {
            set(&mut scale["spec"], "replicas", wanted);
        }
        let selector = match at(object, self.selector) {
            _ if self.selector.is_empty() => String::new(),
            Value::String(text) => text.clone(),
            selector => as_text(selector),
        };
        if !selector.is_empty() {
            set(&mut scale["status"], "selector", selector);
        }
        scale
    }

    /// Puts what a `Scale` asks for into the object.
    pub fn apply(&self, scale: &Value, object: &mut Value) {
        let Some((last, path)) = self.wanted.split_last() else {
            return;
        };
        let mut here = object;
        for key in path {
            match crate::value::object_mut(here, key) {
                Some(inner) => here = inner,
                None => return,
            }
        }
        set(here, last, number(scale, &["spec", "replicas"]));
    }
}

/// The row of Scales. They are parts of other objects, so it stands in no table.
pub static SCALES: Resource = Resource {
    group: "autoscaling",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    definition: "io.k8s.api.autoscaling.v1.Scale",
    columns: &[
        NAME,
        integer("Desired", "How many replicas there should be."),
        integer("Available", "How many there are."),
        AGE,
    ],
    cells: |scale, now| {
        vec![
            meta::name(scale).into(),
            number(scale, &["spec", "replicas"]).into(),
            number(scale, &["status", "replicas"]).into(),
            crate::duration::age(at(scale, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    ..BASE
};

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column {
        kind: "integer",
        ..column(name, description)
    }
}

/// What is wrong with a `Scale`.
pub fn validate(scale: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let replicas = at(scale, &["spec", "replicas"]);
    if replicas.as_i64().unwrap_or(0) < 0 {
        let why = "must be greater than or equal to 0";
        wrong.push(FieldError::invalid("spec.replicas", replicas, why));
    }
    wrong
}

/// A selector as the query parameter `labelSelector` has it; that of a ReplicationController is nothing but labels.
fn as_text(selector: &Value) -> String {
    if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        selector_text(selector)
    } else {
        selector_text(&json!({"matchLabels": selector}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_and_sets_the_replicas() {
        let mut object = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {
                "matchLabels": {"b": "1", "a": "2"},
                "matchExpressions": [{"key": "c", "operator": "In", "values": ["z", "y"]}],
            }},
            "status": {"replicas": 2},
        });
        assert_eq!(
            Scale::WORKLOAD.of(&object),
            json!({
                "kind": "Scale", "apiVersion": "autoscaling/v1",
                "metadata": {"name": "a", "namespace": "n", "uid": "u"},
                "spec": {"replicas": 3},
                "status": {"replicas": 2, "selector": "a=2,b=1,c in (y,z)"},
            })
        );
        Scale::WORKLOAD.apply(&json!({"spec": {}}), &mut object);
        assert_eq!(object["spec"]["replicas"], 0);
        assert_eq!(validate(&json!({"spec": {"replicas": -1}})).len(), 1);
    }
}
