//! ValidatingAdmissionPolicies: which of them concern a request through which binding, and with which parameters.

use std::sync::Arc;

use admission::hook::expression::Inputs;
use admission::hook::matching::Criteria;
use admission::hook::policy::{self, Denial};
use admission::hook::{self, Request};
use api::meta;
use api::selector::LabelSelector;
use api::status::Status;
use api::table::Resource;
use api::value::{at, list, text};
use serde_json::Value;
use storage::Range;

use super::Context;
use crate::handlers::Call;
use crate::{State, object};

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
    let forms = context.forms();
    let namespace = mirror.get("namespaces", "", context.attributes.namespace);
    let mut refusal = None;
    for binding in mirror.list(BINDINGS, "") {
        let Some(policy) = mirror.get(POLICIES, "", text(&binding, &["spec", "policyName"])) else {
            continue;
        };
        let constraints = Criteria::of_policy(at(&policy, &["spec", "matchConstraints"]), false);
        let Some(form) = constraints.form(&request, &forms, mirror) else {
            continue;
        };
        let resources = Criteria::of_policy(at(&binding, &["spec", "matchResources"]), true);
        if resources.form(&request, &forms, mirror).is_none() {
            continue;
        }
        let shown = request.shown(form);
        let (object, old) = (
            context.converted(object, form),
            context.converted(old, form),
        );
        let denials = match parameters(context.call, &policy, &binding).await {
            Ok(sets) => sets
                .iter()
                .flat_map(|params| {
                    let inputs = Inputs {
                        object: &object,
                        old: &old,
                        request: &shown,
                        params,
                        namespace: namespace.as_deref().unwrap_or(&Value::Null),
                    };
                    policy::denials(&policy, &inputs)
                })
                .collect(),
            Err(why) => {
                let why = format!("failed to configure binding: {why}");
                Denial::of_failure(&policy, why).into_iter().collect()
            }
        };
        refusal = refusal.or(act(context.call, &request, &policy, &binding, denials));
    }
    refusal.map_or(Ok(()), Err)
}

/// Does what the binding wants done about denials.
fn act(
    call: &Call,
    request: &Request<'_>,
    policy: &Value,
    binding: &Value,
    denials: Vec<Denial>,
) -> Option<Status> {
    let (policy_name, binding_name) = (meta::name(policy), meta::name(binding));
    let mut refusal = None;
    for denial in denials {
        for action in list(binding, &["spec", "validationActions"]) {
            match action.as_str() {
                Some("Deny") if refusal.is_none() => {
                    refusal = Some(policy::refusal(request, policy_name, binding_name, &denial));
                }
                Some("Warn") => {
                    call.warn(vec![policy::warning(policy_name, binding_name, &denial)]);
                }
                Some("Audit") => tracing::info!(
                    policy = policy_name,
                    binding = binding_name,
                    message = denial.message,
                    "a request does not meet a policy"
                ),
                _ => {}
            }
        }
    }
    refusal
}

/// Every set of parameters that the binding names; one that is null where the policy takes none. Empty: the policy is
/// not to be asked.
///
/// # Errors
/// Why there are none.
async fn parameters(call: &Call, policy: &Value, binding: &Value) -> Result<Vec<Value>, String> {
    let kind = at(policy, &["spec", "paramKind"]);
    let reference = at(binding, &["spec", "paramRef"]);
    if !kind.is_object() || !reference.is_object() {
        return Ok(vec![Value::Null]);
    }
    let app = &call.app;
    let row =
        row_of_kind(app, text(kind, &["apiVersion"]), text(kind, &["kind"])).ok_or_else(|| {
            format!(
                "failed to find resource referenced by paramKind: '{}, Kind={}'",
                text(kind, &["apiVersion"]),
                text(kind, &["kind"])
            )
        })?;
    let namespace = match (row.namespaced, text(reference, &["namespace"])) {
        (false, "") => "",
        (false, _) => {
            return Err(
                "paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into(),
            );
        }
        (true, "") if call.namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => call.namespace.as_str(),
        (true, namespace) => namespace,
    };
    let found = match text(reference, &["name"]) {
        "" => selected(app, row, namespace, at(reference, &["selector"])).await?,
        name => {
            let entry = app.storage.get(&row.key(namespace, name)).await;
            let entry = entry.map_err(|error| error.to_string())?;
            entry
                .map(|entry| object::decode(row, &entry))
                .into_iter()
                .collect()
        }
    };
    if found.is_empty() && text(reference, &["parameterNotFoundAction"]) != "Allow" {
        return Err(
            "no params found for policy binding with `Deny` parameterNotFoundAction".into(),
        );
    }
    Ok(found)
}

async fn selected(
    app: &Arc<State>,
    row: &'static Resource,
    namespace: &str,
    selector: &Value,
) -> Result<Vec<Value>, String> {
    let selector = LabelSelector::from_object(selector).ok_or("the selector cannot be read")?;
    let range = Range {
        prefix: row.key_prefix(namespace),
        ..Range::default()
    };
    let page = app.storage.list(range).await;
    let page = page.map_err(|error| error.to_string())?;
    let all = page.entries.iter().map(|entry| object::decode(row, entry));
    Ok(all
        .filter(|object| selector.matches_object(object))
        .collect())
}

fn row_of_kind(app: &State, api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let mut rows = app.registry.rows().into_iter();
    rows.find(|row| (row.group, row.version, row.kind) == (group, version, kind))
}
