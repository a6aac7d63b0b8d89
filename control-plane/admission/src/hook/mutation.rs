//! MutatingAdmissionPolicy (KEP-3962): what a policy wants changed of a request, given one set of parameters.

use api::status::{Cause, Status};
use api::value::{at, list, text};
use serde_json::Value;

use super::conditions;
use super::expression::{Compiled, Gives, Inputs, Scope, Vocabulary, compile};
use super::{OnFailure, Request};

/// What is to be done to an object.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Lay this over it, as server-side apply does.
    Configuration(Value),
    /// Carry out these steps (RFC 6902).
    Steps(Value),
}

/// Whether the policy's conditions hold for the request.
///
/// # Errors
/// A condition failed, and none is false.
pub fn concerns(policy: &Value, inputs: &Inputs<'_>) -> Result<bool, String> {
    let spec = at(policy, &["spec"]);
    let vocabulary = Vocabulary::of_policy(at(spec, &["paramKind"]).is_object());
    conditions::hold(list(spec, &["matchConditions"]), &vocabulary, inputs)
}

/// How many changes the policy makes, one after the other.
pub fn count(policy: &Value) -> usize {
    list(policy, &["spec", "mutations"]).len()
}

/// What one of its mutations wants changed of the object as it is now.
///
/// # Errors
/// The expression has no value, or one that is no change.
pub fn change(policy: &Value, index: usize, inputs: &Inputs<'_>) -> Result<Change, String> {
    let spec = at(policy, &["spec"]);
    let mutation = list(spec, &["mutations"]).get(index);
    let mutation = mutation.unwrap_or(&Value::Null);
    let (key, gives) = kind(mutation);
    let mut vocabulary = Vocabulary::of_policy(at(spec, &["paramKind"]).is_object());
    let variables = list(spec, &["variables"]);
    let mut defined: Vec<Compiled> = Vec::with_capacity(variables.len());
    for variable in variables {
        let compiled = compile(text(variable, &["expression"]), Gives::Any, &vocabulary);
        vocabulary.add(text(variable, &["name"]), &compiled);
        defined.push(compiled);
    }
    let source = text(mutation, &[key, "expression"]);
    let compiled = compile(source, gives, &vocabulary);
    let mut scope = Scope::new(inputs);
    for (variable, compiled) in variables.iter().zip(&defined) {
        scope.define(text(variable, &["name"]), compiled);
    }
    let value = scope
        .value(&compiled)
        .map_err(|why| format!("expression '{}' resulted in error: {why}", source.trim()))?;
    let made = value
        .to_json()
        .map_err(|why| format!("type mismatch: {why}"))?;
    Ok(match gives {
        Gives::Object => Change::Configuration(made),
        _ => Change::Steps(made),
    })
}

/// Where the expression of a mutation stands, and what it gives.
pub(super) fn kind(mutation: &Value) -> (&'static str, Gives) {
    match text(mutation, &["patchType"]) {
        "JSONPatch" => ("jsonPatch", Gives::Steps),
        _ => ("applyConfiguration", Gives::Object),
    }
}

/// Whether the request is refused where the policy fails.
pub fn is_strict(policy: &Value) -> bool {
    OnFailure::parse(text(policy, &["spec", "failurePolicy"])) == OnFailure::Fail
}

/// A policy that failed, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// For people, with the names of policy and binding.
    pub message: String,
    /// Whether the request itself is to blame rather than how the policy is set up.
    pub invalid: bool,
}

impl Failed {
    /// In the words of Kubernetes.
    pub fn new(policy: &str, binding: &str, why: &str, invalid: bool) -> Self {
        Failed {
            message: format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
            invalid,
        }
    }
}

/// The refusal of a request for which policies failed; `None`: none did.
pub fn refusal(request: &Request<'_>, failed: &[Failed]) -> Option<Status> {
    let first = failed.first()?;
    let mut status = request
        .attributes
        .forbid("admission request denied by policy");
    status.message.clone_from(&first.message);
    if first.invalid {
        status.reason = "Invalid".into();
    }
    if let Some(details) = &mut status.details {
        details.causes.extend(failed.iter().map(|failed| Cause {
            message: failed.message.clone(),
            ..Cause::default()
        }));
    }
    Some(status)
}
