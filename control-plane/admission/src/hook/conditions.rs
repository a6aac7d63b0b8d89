//! `matchConditions`: what must be true of a request before a webhook or policy is asked.

use api::field::FieldError;
use api::value::{at, list, text};
use serde_json::Value;

use super::expression::{Compiled, Gives, Inputs, Scope, Vocabulary, compile};
use super::mutation;

/// Whether all conditions hold. One that is false decides, whatever others fail.
///
/// # Errors
/// What failed, where none is false.
pub fn hold(
    conditions: &[Value],
    vocabulary: &Vocabulary,
    inputs: &Inputs<'_>,
) -> Result<bool, String> {
    let compiled: Vec<Compiled> = conditions
        .iter()
        .map(|condition| compile(text(condition, &["expression"]), Gives::Bool, vocabulary))
        .collect();
    let mut scope = Scope::new(inputs);
    let mut failed = Vec::new();
    for (condition, compiled) in conditions.iter().zip(&compiled) {
        match scope.holds(compiled) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => failed.push(format!(
                "expression '{}' resulted in error: {why}",
                text(condition, &["expression"])
            )),
        }
    }
    if failed.is_empty() {
        Ok(true)
    } else {
        Err(failed.join(", "))
    }
}

/// What is wrong with the expressions of a webhook configuration or policy that is to be stored. Those that `old` has
/// as well are let be: they may have been written when more was known.
pub fn faults(kind: &str, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut check = |field: String, source: &str, gives: Gives, vocabulary: &Vocabulary| {
        if source.trim().is_empty() {
            return;
        }
        if let Err(why) = compile(source, gives, vocabulary).as_ref() {
            wrong.push(FieldError::invalid_text(field, source, why.clone()));
        }
    };
    if kind.ends_with("WebhookConfiguration") {
        for (i, webhook) in list(new, &["webhooks"]).iter().enumerate() {
            let before = list(old, &["webhooks"])
                .iter()
                .find(|before| before["name"] == webhook["name"])
                .unwrap_or(&Value::Null);
            if at(before, &["matchConditions"]) == at(webhook, &["matchConditions"]) {
                continue;
            }
            for (j, condition) in list(webhook, &["matchConditions"]).iter().enumerate() {
                let field = format!("webhooks[{i}].matchConditions[{j}].expression");
                check(
                    field,
                    text(condition, &["expression"]),
                    Gives::Bool,
                    &Vocabulary::default(),
                );
            }
        }
        return wrong;
    }
    let policy = matches!(
        kind,
        "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy"
    );
    if !policy || new["spec"] == old["spec"] {
        return wrong;
    }
    let spec = at(new, &["spec"]);
    let mut vocabulary = Vocabulary::of_policy(at(spec, &["paramKind"]).is_object());
    // A condition decides whether variables are needed at all.
    for (i, condition) in list(spec, &["matchConditions"]).iter().enumerate() {
        let field = format!("spec.matchConditions[{i}].expression");
        let source = text(condition, &["expression"]);
        check(field, source, Gives::Bool, &vocabulary);
    }
    for (i, variable) in list(spec, &["variables"]).iter().enumerate() {
        let field = format!("spec.variables[{i}].expression");
        let source = text(variable, &["expression"]);
        check(field, source, Gives::Any, &vocabulary);
        // Of those before it alone.
        let compiled = compile(source, Gives::Any, &vocabulary);
        vocabulary.add(text(variable, &["name"]), &compiled);
    }
    #[rustfmt::skip]
    let parts = [
        ("validations", "expression", Gives::Bool),
        ("validations", "messageExpression", Gives::Text),
        ("auditAnnotations", "valueExpression", Gives::Annotation),
    ];
    for (list_name, key, gives) in parts {
        for (i, item) in list(spec, &[list_name]).iter().enumerate() {
            let field = format!("spec.{list_name}[{i}].{key}");
            check(field, text(item, &[key]), gives, &vocabulary);
        }
    }
    for (i, item) in list(spec, &["mutations"]).iter().enumerate() {
        let (key, gives) = mutation::kind(item);
        let field = format!("spec.mutations[{i}].{key}.expression");
        check(field, text(item, &[key, "expression"]), gives, &vocabulary);
    }
    wrong
}
