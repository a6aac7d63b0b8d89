//! MutatingAdmissionPolicies: which of them concern a request, and what they make of its object.

use std::collections::BTreeSet;

use admission::hook::expression::Inputs;
use admission::hook::mutation::{self, Change, Failed};
use admission::hook::rights::Rights;
use admission::hook::{self, Form};
use api::patch;
use api::status::Status;
use api::value::text;
use serde_json::Value;

use super::Context;
use super::bound::{self, Bound};
use crate::admit::{self, Asked};
use crate::handlers::Call;
use crate::managers;

const POLICIES: &str = "mutatingadmissionpolicies";
const BINDINGS: &str = "mutatingadmissionpolicybindings";

/// Whether any policy holds anywhere.
pub(super) fn any(call: &Call) -> bool {
    !call.own
        && call.app.admission.runs(hook::MUTATING_POLICY.name)
        && !call.app.mirror.list(BINDINGS, "").is_empty()
}

/// Policies that want to see what others made of the object after them: policy, binding, and which set of parameters.
pub(super) type Seen = BTreeSet<(String, String, usize)>;

/// Lets every policy change the object; `again`: only those that were asked before and want to be asked again. Whether
/// they did.
pub(super) async fn mutate(
    call: &Call,
    asked: Asked,
    new: &mut Value,
    old: Option<&Value>,
    seen: &mut Seen,
    again: bool,
) -> Result<bool, Status> {
    let name = admit::shown_name(call, new);
    let context = Context::new(call, asked, &name);
    let old = old.map_or(Value::Null, |old| context.shown(old));
    let shown = context.shown(new);
    let request = context.request(&shown, &old);
    if request.is_exempt() || !context.keeps_changes() {
        return Ok(false);
    }
    let mut failed = Vec::new();
    let mut changed = false;
    for bound in bound::concerning(&context, (POLICIES, BINDINGS), &request).await {
        let (policy, binding) = bound.names();
        let mut fail = |why: &str, invalid: bool| {
            if mutation::is_strict(&bound.policy) {
                failed.push(Failed::new(policy, binding, why, invalid));
            } else {
                tracing::warn!(policy, binding, why, "a policy failed, which is ignored");
            }
        };
        let sets = match &bound.parameters {
            Ok(sets) => sets,
            Err(why) => {
                fail(why, false);
                continue;
            }
        };
        for (index, params) in sets.iter().enumerate() {
            let key = (policy.to_owned(), binding.to_owned(), index);
            if again && !seen.contains(&key) {
                continue;
            }
            match carry_out(&context, &bound, params, new, &old)? {
                Ok(did) => {
                    changed |= did;
                    if text(&bound.policy, &["spec", "reinvocationPolicy"]) == "IfNeeded" {
                        seen.insert(key);
                    }
                }
                Err(why) => fail(&why, true),
            }
        }
    }
    mutation::refusal(&request, &failed).map_or(Ok(changed), Err)
}

/// Has one policy change the object: whether it did, or why it failed.
fn carry_out(
    context: &Context<'_>,
    bound: &Bound,
    params: &Value,
    new: &mut Value,
    old: &Value,
) -> Result<Result<bool, String>, Status> {
    let mirror = &context.call.app.mirror;
    let namespace = mirror.get("namespaces", "", context.attributes.namespace);
    let old = context.converted(old, bound.form);
    let mut changed = false;
    for index in 0..mutation::count(&bound.policy) {
        let current = context.converted(new, bound.form);
        let request = context.request(&current, &old);
        let shown = request.shown(bound.form);
        let rights = Rights::of(request, mirror);
        let inputs = Inputs {
            object: &current,
            old: &old,
            request: &shown,
            params,
            namespace: namespace.as_deref().unwrap_or(&Value::Null),
            authority: &rights,
        };
        // The conditions are those of the object as it was before this policy.
        if index == 0 {
            match mutation::concerns(&bound.policy, &inputs) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(false)),
                Err(why) => return Ok(Err(why)),
            }
        }
        let change = match mutation::change(&bound.policy, index, &inputs) {
            Ok(change) => change,
            Err(why) => return Ok(Err(why)),
        };
        match changed_by(context, bound.form, &current, change) {
            Ok(Some(made)) => changed |= context.adopt(bound.form, made, new)?,
            Ok(None) => {}
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(changed))
}

/// The object after a change; `None`: a test in a patch failed, which leaves it as it is.
fn changed_by(
    context: &Context<'_>,
    form: Form,
    current: &Value,
    change: Change,
) -> Result<Option<Value>, String> {
    match change {
        Change::Configuration(mut config) => {
            for key in ["apiVersion", "kind"] {
                api::value::set(&mut config, key, current[key].clone());
            }
            managers::overlay(context.row(form), current, &config)
                .map(Some)
                .map_err(|why| format!("error applying patch: {why}"))
        }
        Change::Steps(steps) => patch::json_patch_if(current, &steps)
            // Kubernetes calls it a path.
            .map_err(|why| format!("JSONPath: {why}")),
    }
}
