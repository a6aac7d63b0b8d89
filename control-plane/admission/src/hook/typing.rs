//! Type checking of ValidatingAdmissionPolicies: what their expressions make of the kinds that they are for. A fault
//! is told in the policy's status and refuses nothing, since an expression may be meant for other versions.

use std::collections::HashMap;
use std::sync::Arc;

use api::schema::{Schema, Shape};
use api::table::{self, Resource};
use api::value::{at, list, text};
use cel::types::{Decl, DeclKind, FieldDecl, ListKind, escape};
use serde_json::{Value, json};

use super::expression::{Compiled, Gives, Vocabulary, compile, compile_typed};

/// No more kinds than this are checked.
const KINDS_MAX: usize = 10;
/// What stands deeper in a kind may be anything.
const DEPTH_MAX: usize = 24;

/// The status of a policy whose expressions were checked.
pub fn status(policy: &Value) -> Value {
    let warnings = warnings(policy);
    let found = if warnings.is_empty() {
        json!({})
    } else {
        json!({"expressionWarnings": warnings})
    };
    json!({"observedGeneration": at(policy, &["metadata", "generation"]), "typeChecking": found})
}

/// Faults by expression, each with every kind that it has them for.
fn warnings(policy: &Value) -> Vec<Value> {
    let spec = at(policy, &["spec"]);
    let kinds = kinds(spec);
    let mut vocabulary = Vocabulary::of_policy(at(spec, &["paramKind"]).is_object());
    for variable in list(spec, &["variables"]) {
        let compiled: Compiled = compile(text(variable, &["expression"]), Gives::Any, &vocabulary);
        vocabulary.add(text(variable, &["name"]), &compiled);
    }
    let mut warnings = Vec::new();
    for (i, validation) in list(spec, &["validations"]).iter().enumerate() {
        for (key, gives) in [
            ("expression", Gives::Bool),
            ("messageExpression", Gives::Text),
        ] {
            let source = text(validation, &[key]);
            if source.trim().is_empty() {
                continue;
            }
            let faults = kinds.iter().filter_map(|(row, decl)| {
                let fault = compile_typed(source, gives, &vocabulary, decl).err()?;
                let fault = fault.strip_prefix("compilation failed: ").unwrap_or(&fault);
                Some(format!("{}: {fault}", shown(row)))
            });
            let faults: Vec<String> = faults.collect();
            if !faults.is_empty() {
                warnings.push(json!({
                    "fieldRef": format!("spec.validations[{i}].{key}"),
                    "warning": faults.join("\n"),
                }));
            }
        }
    }
    warnings
}

/// As Go prints a kind.
fn shown(row: &Resource) -> String {
    format!("{}/{}, Kind={}", row.group, row.version, row.kind)
}

/// The built-in kinds that the rules name without wildcards, with what their objects look like.
fn kinds(spec: &Value) -> Vec<(&'static Resource, Arc<Decl>)> {
    let mut found: Vec<(&'static Resource, Arc<Decl>)> = Vec::new();
    let mut decls = Decls::default();
    for rule in list(spec, &["matchConstraints", "resourceRules"]) {
        let texts = |key: &str| list(rule, &[key]).iter().filter_map(Value::as_str);
        for group in texts("apiGroups") {
            for version in texts("apiVersions") {
                for plural in texts("resources") {
                    let Some(row) = table::find(group, version, plural) else {
                        continue;
                    };
                    let known = found.iter().any(|(other, _)| *other == row);
                    let Some(schema) = api::schema::of(row).filter(|_| !known) else {
                        continue;
                    };
                    found.push((row, decls.of(&schema.shape, 0)));
                    if found.len() == KINDS_MAX {
                        return found;
                    }
                }
            }
        }
    }
    found
}

/// What definitions look like to expressions, each made once.
#[derive(Default)]
struct Decls {
    made: HashMap<*const Schema, Arc<Decl>>,
}

impl Decls {
    fn of(&mut self, shape: &Shape, depth: usize) -> Arc<Decl> {
        let (schema, shape) = shape.resolve();
        let name = schema.map(std::ptr::from_ref);
        if let Some(made) = name.and_then(|name| self.made.get(&name)) {
            return made.clone();
        }
        if depth > DEPTH_MAX {
            return Decl::any();
        }
        // A definition that leads back to itself may be anything there.
        if let Some(name) = name {
            self.made.insert(name, Decl::any());
        }
        let kind = match shape {
            Shape::Struct(fields) => {
                let mut fields: Vec<FieldDecl> = fields
                    .iter()
                    .filter_map(|(name, field)| {
                        Some(FieldDecl {
                            escaped: escape(name)?.into(),
                            name: (*name).into(),
                            decl: self.of(&field.shape, depth + 1),
                        })
                    })
                    .collect();
                fields.sort_by(|a, b| a.escaped.cmp(&b.escaped));
                DeclKind::Object {
                    name: schema.map_or("object", |schema| schema.name).into(),
                    fields: fields.into(),
                }
            }
            Shape::Map(values) => DeclKind::Map(self.of(values, depth + 1)),
            Shape::List(items) => DeclKind::List {
                items: self.of(items, depth + 1),
                list: ListKind::Atomic,
            },
            Shape::Text { bytes: true } => DeclKind::Bytes,
            Shape::Text { bytes: false } | Shape::Quantity => DeclKind::String,
            Shape::Integer { .. } => DeclKind::Int,
            Shape::Number => DeclKind::Double,
            Shape::Flag => DeclKind::Bool,
            Shape::IntOrString => DeclKind::IntOrString,
            Shape::Time { .. } => DeclKind::Timestamp,
            Shape::Any | Shape::Free | Shape::Ref(_) => DeclKind::Dyn,
        };
        let decl = Arc::new(Decl {
            kind,
            max: u64::MAX,
        });
        if let Some(name) = name {
            self.made.insert(name, decl.clone());
        }
        decl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_by_kind() {
        let policy = |validation: Value, resources: Value| {
            json!({"metadata": {"generation": 3}, "spec": {
            "variables": [{"name": "n", "expression": "object.spec.replicas"}],
            "validations": [validation],
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": resources},
            ]}}})
        };
        let fine = policy(
            json!({"expression": "object.spec.replicas > 1 && object.spec.template.spec.containers.all(c, c.image != '')"}),
            json!(["deployments", "statefulsets"]),
        );
        assert_eq!(
            status(&fine),
            json!({"observedGeneration": 3, "typeChecking": {}})
        );
        let wrong = policy(
            json!({"expression": "object.replicas > 1", "messageExpression": "'x'"}),
            json!(["deployments", "*", "nonsense"]),
        );
        assert_eq!(
            status(&wrong)["typeChecking"]["expressionWarnings"],
            json!([{
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^",
            }])
        );
        let both = policy(
            json!({"expression": "object.spec.replicas == 'x'"}),
            json!(["deployments", "statefulsets", "deployments"]),
        );
        let warnings = status(&both)["typeChecking"]["expressionWarnings"].clone();
        let warning = warnings[0]["warning"].as_str().unwrap();
        assert_eq!(warning.matches("Kind=").count(), 2, "{warning}");
        assert!(
            warning.contains("found no matching overload for '_==_' applied to '(int, string)'")
        );
    }
}
