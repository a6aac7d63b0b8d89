//! Whether the user may do what a request asks.

use std::borrow::Cow;
use std::sync::Arc;

use api::status::Status;
use authorization::{
    Attributes, Decision, ResourceTarget, RoleRef, Target, User, escalation, node, refusal,
    rules_of,
};
use serde_json::Value;

use crate::State;
use crate::handlers::Call;
use crate::nodes;
use crate::query::{self, Query};
use crate::request;

/// What is said of a request.
pub(crate) struct Verdict {
    /// Why it may be done, or what went wrong on the way to finding that out.
    pub(crate) reason: String,
    /// Of what may not be done.
    pub(crate) refusal: Option<Status>,
}

/// Refuses what neither a role of the user allows nor, to the agent of a node, its Pods.
pub(crate) async fn check(
    state: &Arc<State>,
    user: &User,
    verb: &str,
    target: &request::Target<'_>,
    query: &Query,
) -> Verdict {
    let at = match target {
        request::Target::Path(path) => {
            return ask(state, user, verb, Target::Path(path));
        }
        request::Target::Resource(at) => at,
    };
    let part = |segment: Option<&'_ str>| decoded(segment.unwrap_or_default()).into_owned();
    let (namespace, resource) = (part(at.namespace), decoded(at.resource));
    let subresource = part(at.subresource);
    let mut name = part(at.name);
    if name.is_empty() && matches!(verb, "list" | "watch") {
        name = only_name(query.text("fieldSelector"));
    }
    let target = ResourceTarget {
        group: at.group,
        version: at.version,
        namespace: &namespace,
        resource: &resource,
        subresource: &subresource,
        name: &name,
    };
    let asked = ask(state, user, verb, Target::Resource(target));
    match (&asked.refusal, node::name(user)) {
        (Some(_), Some(agent_of)) => {
            let fields = query.text("fieldSelector");
            let checked = nodes::check(state, user, agent_of, verb, target, fields).await;
            Verdict {
                reason: String::new(),
                refusal: checked.err(),
            }
        }
        _ => asked,
    }
}

fn ask(state: &State, user: &User, verb: &str, target: Target<'_>) -> Verdict {
    let attributes = Attributes { user, verb, target };
    match state.mirror.decide(&attributes) {
        Decision::Allow(reason) => Verdict {
            reason,
            refusal: None,
        },
        Decision::NoOpinion(reason) => Verdict {
            refusal: Some(refusal(&attributes, &reason)),
            reason,
        },
    }
}

fn decoded(segment: &str) -> Cow<'_, str> {
    if segment.contains('%') {
        query::decode_segment(segment).into()
    } else {
        segment.into()
    }
}

/// The name that a field selector holds a list to: who may see one object may list it alone.
fn only_name(selector: &str) -> String {
    let names = selector.split(',').find_map(|part| {
        let value = part.trim().strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value))
    });
    names
        .filter(|name| !name.contains(['/', '%']) && *name != "." && *name != "..")
        .unwrap_or_default()
        .to_owned()
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding by which somebody would grant what he does not hold. `old` is what stands there.
pub(crate) fn check_grant(call: &Call, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if call.row.group != RBAC || call.subresource.is_some() {
        return Ok(());
    }
    let (row, user) = (call.row, &*call.user);
    let name = api::meta::name(new);
    let may = |verb: &str, resource: &str, name: &str| {
        let target = ResourceTarget {
            group: RBAC,
            version: "v1",
            namespace: &call.namespace,
            resource,
            name,
            subresource: "",
        };
        let attributes = Attributes {
            user,
            verb,
            target: Target::Resource(target),
        };
        call.app.mirror.decide(&attributes).is_allowed()
    };
    let refuse = |rules: &[authorization::Rule]| {
        escalation::refuse(&call.app.mirror.rbac(), user, &call.namespace, rules)
    };
    match row.kind {
        "Role" | "ClusterRole" => {
            if old.is_some_and(|old| escalation::same_grant(new, old))
                || may("escalate", row.plural, name)
            {
                return Ok(());
            }
            let gathers = new.get("aggregationRule").is_some_and(Value::is_object);
            if gathers && refuse(&escalation::everything()).is_some() {
                let why = "must have cluster-admin privileges to use an aggregationRule";
                return Err(Status::forbidden(row, name, why));
            }
            match refuse(&rules_of(new)) {
                None => Ok(()),
                Some(why) => Err(Status::forbidden(row, name, &why)),
            }
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            let same = |key: &str| old.is_some_and(|old| old[key] == new[key]);
            let role = RoleRef::of_binding(new, &call.namespace);
            let plural = if role.namespace.is_empty() {
                "clusterroles"
            } else {
                "roles"
            };
            if (same("roleRef") && same("subjects"))
                || user.is(authorization::MASTERS)
                || may("bind", plural, &role.name)
            {
                return Ok(());
            }
            let rules = call.app.mirror.rbac().role(&role).cloned();
            let Some(rules) = rules else {
                let subject = api::status::Subject {
                    group: RBAC,
                    name: plural,
                };
                return Err(Status::not_found(subject, &role.name));
            };
            match refuse(&rules) {
                None => Ok(()),
                Some(why) => Err(Status::forbidden(row, name, &why)),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_that_names_one_object() {
        let cases = [
            ("metadata.name=a", "a"),
            ("metadata.name==a", "a"),
            ("type=Opaque, metadata.name=a", "a"),
            ("metadata.name!=a", ""),
            ("metadata.namespace=a", ""),
            ("metadata.name=..", ""),
            ("", ""),
        ];
        for (selector, name) in cases {
            assert_eq!(only_name(selector), name, "{selector}");
        }
    }
}
