//! Policies and where they hold: which of them concern a request through which binding, and with which parameters.

use std::sync::Arc;

use admission::hook::matching::Criteria;
use admission::hook::{Form, Request};
use api::meta;
use api::selector::LabelSelector;
use api::table::Resource;
use api::value::{at, text};
use serde_json::Value;
use storage::Range;

use super::Context;
use crate::handlers::Call;
use crate::{State, object};

/// A policy that concerns a request.
pub(super) struct Bound {
    pub(super) policy: Arc<Value>,
    pub(super) binding: Arc<Value>,
    /// The form of the object that the policy is shown.
    pub(super) form: Form,
    /// Its sets of parameters, one that is null where it takes none; or why there are none.
    pub(super) parameters: Result<Vec<Value>, String>,
}

impl Bound {
    pub(super) fn names(&self) -> (&str, &str) {
        (meta::name(&self.policy), meta::name(&self.binding))
    }
}

/// Every policy of the kind that concerns the request, in order of the names of policy and binding.
pub(super) async fn concerning(
    context: &Context<'_>,
    (policies, bindings): (&str, &str),
    request: &Request<'_>,
) -> Vec<Bound> {
    let mirror = &context.call.app.mirror;
    let forms = context.forms();
    let mut found = Vec::new();
    let mut bindings = mirror.list(bindings, "");
    bindings.sort_by(|a, b| {
        let order = |binding: &Value| text(binding, &["spec", "policyName"]).to_owned();
        order(a).cmp(&order(b))
    });
    for binding in bindings {
        let Some(policy) = mirror.get(policies, "", text(&binding, &["spec", "policyName"])) else {
            continue;
        };
        let constraints = Criteria::of_policy(at(&policy, &["spec", "matchConstraints"]), false);
        let Some(form) = constraints.form(request, &forms, mirror) else {
            continue;
        };
        let resources = Criteria::of_policy(at(&binding, &["spec", "matchResources"]), true);
        if resources.form(request, &forms, mirror).is_none() {
            continue;
        }
        let parameters = parameters(context.call, &policy, &binding).await;
        found.push(Bound {
            policy,
            binding,
            form,
            parameters: parameters.map_err(|why| format!("failed to configure binding: {why}")),
        });
    }
    found
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
