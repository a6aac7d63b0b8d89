//! `x-kubernetes-validations`.

use api::field::FieldError;
use api::value::text;
use serde_json::Value;

use crate::schema::Schema;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The expression that must be true.
    pub rule: Box<str>,
}

impl Rule {
    /// From the schema.
    pub fn parse(body: &Value) -> Self {
        Rule {
            rule: text(body, &["rule"]).into(),
        }
    }
}

/// The rules of a schema.
#[derive(Debug)]
pub struct Compiled;

impl Compiled {
    /// Of all nodes.
    pub fn new(_schema: &mut Schema) -> Self {
        Compiled
    }

    /// What the rules find.
    pub fn validate(
        &self,
        _schema: &Schema,
        _object: &Value,
        _old: Option<&Value>,
    ) -> Vec<FieldError> {
        Vec::new()
    }
}
