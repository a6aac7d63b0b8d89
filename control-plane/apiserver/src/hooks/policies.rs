//! ValidatingAdmissionPolicies: what they say of a request, and what is done about it.

use admission::hook::expression::Inputs;
use admission::hook::policy::{self, Denial};
use admission::hook::rights::Rights;
use admission::hook::{self, Request};
use api::status::Status;
use api::value::list;
use serde_json::Value;

use super::Context;
use super::bound::{self, Bound};
use crate::handlers::Call;

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// Whether any policy holds anywhere.
pub(super) fn any(call: &Call) -> bool {
    !call.own
        && call.app.admission.runs(hook::VALIDATING_POLICY.name)
        && !call.app.mirror.list(BINDINGS, "").is_empty()
}

/// Lets every policy look at the request.
pub(super) async fn validate(
    context: &Context<'_>,
    object: &Value,
    old: &Value,
) -> Result<(), Status> {
    let request = context.request(object, old);
    if request.is_exempt() {
        return Ok(());
    }
    let mirror = &context.call.app.mirror;
    let namespace = mirror.get("namespaces", "", context.attributes.namespace);
    let mut refusal = None;
    for bound in bound::concerning(context, (POLICIES, BINDINGS), &request).await {
        let shown = request.shown(bound.form);
        let (object, old) = (
            context.converted(object, bound.form),
            context.converted(old, bound.form),
        );
        let rights = Rights::of(request, mirror);
        let mut denials = Vec::new();
        match &bound.parameters {
            Ok(sets) => {
                for params in sets {
                    let inputs = Inputs {
                        object: &object,
                        old: &old,
                        request: &shown,
                        params,
                        namespace: namespace.as_deref().unwrap_or(&Value::Null),
                        authority: &rights,
                    };
                    let judged = policy::judge(&bound.policy, &inputs);
                    denials.extend(judged.denials);
                    for (key, said) in judged.annotations {
                        let (policy_name, _) = bound.names();
                        context.call.note(format!("{policy_name}/{key}"), said);
                    }
                }
            }
            Err(why) => denials.extend(Denial::of_failure(&bound.policy, why.clone())),
        }
        refusal = refusal.or(act(context.call, &request, &bound, denials));
    }
    refusal.map_or(Ok(()), Err)
}

/// Does what the binding wants done about denials.
fn act(call: &Call, request: &Request<'_>, bound: &Bound, denials: Vec<Denial>) -> Option<Status> {
    let (policy_name, binding_name) = bound.names();
    let mut refusal = None;
    for denial in denials {
        let actions = list(&bound.binding, &["spec", "validationActions"]);
        for action in actions {
            match action.as_str() {
                Some("Deny") if refusal.is_none() => {
                    refusal = Some(policy::refusal(request, policy_name, binding_name, &denial));
                }
                Some("Warn") => {
                    call.warn(vec![policy::warning(policy_name, binding_name, &denial)]);
                }
                Some("Audit") => {
                    let (key, said) =
                        policy::annotation(policy_name, binding_name, actions, &denial);
                    call.note(key, said);
                }
                _ => {}
            }
        }
    }
    refusal
}
