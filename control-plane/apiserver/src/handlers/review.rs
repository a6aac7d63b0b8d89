//! Questions about users: who somebody is, and what he may do. They are answered and never stored.

use api::field::{Fault, FieldError};
use api::status::Status;
use api::value::{at, list, set, text};
use authorization::{Attributes, Decision, ResourceTarget, Rule, Target, User};
use serde_json::{Map, Value, json};

use super::{Call, review_selectors};
use crate::auth;
use crate::body;
use crate::negotiate::Form;
use crate::respond::{self, Answer};

/// Answers a review; `None` where the call is none.
pub(crate) async fn answer(call: &Call) -> Option<Result<Answer, Status>> {
    if !matches!(
        call.row.group,
        "authentication.k8s.io" | "authorization.k8s.io"
    ) {
        return None;
    }
    Some(reviewed(call).await)
}

async fn reviewed(call: &Call) -> Result<Answer, Status> {
    if matches!(call.accepted.form, Form::Table(_)) {
        let why = format!(
            "the resource {} does not support being converted to a Table",
            api::status::Subject::from(call.row)
        );
        return Err(Status::new(406, "NotAcceptable", why));
    }
    let mut review = body::of_kind(call, &[&call.row.api_version()], call.row.kind)?;
    let status = match call.row.kind {
        "SelfSubjectReview" => {
            let now = api::meta::timestamp(time::OffsetDateTime::now_utc());
            set(&mut review["metadata"], "creationTimestamp", now);
            json!({"userInfo": user_info(&call.user)})
        }
        "TokenReview" => token_review(call, &review).await?,
        "SelfSubjectRulesReview" => rules_review(call, &review)?,
        "SelfSubjectAccessReview" => {
            let spec = at(&review, &["spec"]);
            let mut wrong = unclear(spec);
            wrong.extend(bad_metadata(call, &review));
            refuse(call, &wrong)?;
            access(call, &call.user, spec)
        }
        _ => subject_access(call, &review)?,
    };
    set(&mut review, "status", status);
    Ok(respond::value(201, call.accepted.encoding, &review))
}

/// A user as reviews tell of him.
fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    info.insert("username".into(), user.name.as_str().into());
    if !user.uid.is_empty() {
        info.insert("uid".into(), user.uid.as_str().into());
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), user.groups.clone().into());
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

async fn token_review(call: &Call, review: &Value) -> Result<Value, Status> {
    let token = text(review, &["spec", "token"]);
    if token.is_empty() {
        return Err(Status::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let accounts = &call.app.accounts;
    let asked = texts(at(review, &["spec", "audiences"]));
    let audiences = if asked.is_empty() {
        accounts.audiences().to_vec()
    } else {
        asked
    };
    if let Some(user) = call.app.tokens.user(token) {
        // A static token is for the server itself.
        let shared: Vec<&String> = audiences
            .iter()
            .filter(|audience| accounts.audiences().contains(audience))
            .collect();
        if !shared.is_empty() {
            return Ok(json!({
                "authenticated": true, "user": user_info(&user), "audiences": shared,
            }));
        }
    }
    match auth::accounts::verify(&call.app, token, &audiences).await {
        Ok(known) => Ok(json!({
            "authenticated": true,
            "user": user_info(&auth::authenticated(known.user)),
            "audiences": known.audiences,
        })),
        // Kubernetes tells of no user as well.
        Err(doubt) => Ok(json!({"user": {}, "error": doubt.to_string()})),
    }
}

fn rules_review(call: &Call, review: &Value) -> Result<Value, Status> {
    let namespace = text(review, &["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, fault) = call.app.mirror.rbac().rules_for(&call.user, namespace);
    let part = |pick: fn(&Rule) -> bool| -> Vec<Value> {
        rules
            .iter()
            .filter(|rule| pick(rule))
            .filter_map(|rule| serde_json::to_value(rule).ok())
            .collect()
    };
    let mut status = json!({
        "resourceRules": part(|rule| !rule.api_groups.is_empty()),
        "nonResourceRules": part(|rule| !rule.non_resource_urls.is_empty()),
        "incomplete": fault.is_some(),
    });
    if let Some(fault) = fault {
        set(&mut status, "evaluationError", fault);
    }
    Ok(status)
}

fn subject_access(call: &Call, review: &Value) -> Result<Value, Status> {
    let spec = at(review, &["spec"]);
    let mut wrong = unclear(spec);
    let user = User {
        name: text(spec, &["user"]).to_owned(),
        uid: text(spec, &["uid"]).to_owned(),
        groups: texts(at(spec, &["groups"])),
        extra: api::value::entries(spec, &["extra"])
            .map(|(key, values)| (key.to_lowercase(), texts(values)))
            .collect(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        wrong.push(FieldError::invalid_text(
            "spec.user",
            "",
            "at least one of user or group must be specified",
        ));
    }
    if call.row.namespaced && !at(spec, &["nonResourceAttributes"]).is_null() {
        wrong.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            at(spec, &["nonResourceAttributes"]),
            "disallowed on this kind of request",
        ));
    }
    wrong.extend(bad_metadata(call, review));
    refuse(call, &wrong)?;
    if call.row.namespaced {
        let namespace = text(spec, &["resourceAttributes", "namespace"]);
        if namespace != call.namespace {
            return Err(Status::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {}",
                call.namespace
            )));
        }
    }
    Ok(access(call, &user, spec))
}

/// A question has no name, and none of what else objects have that are stored.
fn bad_metadata(call: &Call, review: &Value) -> Option<FieldError> {
    let metadata = at(review, &["metadata"]);
    let (free, why) = match call.row.namespaced {
        true => ("namespace", "must be empty except for namespace"),
        false => ("", "must be empty"),
    };
    let is_said = |(key, value): &(&String, &Value)| {
        !api::value::is_empty(value) && *key != "managedFields" && *key != free
    };
    let said = api::value::entries(metadata, &[]).any(|entry| is_said(&entry));
    said.then(|| FieldError::invalid("metadata", metadata, why))
}

/// What is asked about has to be one thing.
fn unclear(spec: &Value) -> Vec<FieldError> {
    let (resource, path) = (
        at(spec, &["resourceAttributes"]),
        at(spec, &["nonResourceAttributes"]),
    );
    let why = match (resource.is_null(), path.is_null()) {
        (true, true) => {
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        }
        (false, false) => "cannot be specified in combination with resourceAttributes",
        _ => return review_selectors::bad(resource),
    };
    let field = if resource.is_null() {
        "spec.resourceAttributes"
    } else {
        "spec.nonResourceAttributes"
    };
    let fault = Fault::Invalid(path.to_string());
    vec![FieldError::new(field, fault, why)]
}

fn refuse(call: &Call, wrong: &[FieldError]) -> Result<(), Status> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Status::invalid(call.row.group, call.row.kind, "", wrong))
}

fn access(call: &Call, user: &User, spec: &Value) -> Value {
    let asked = at(spec, &["resourceAttributes"]);
    let part = |key: &'static str| text(asked, &[key]);
    let (verb, target) = if asked.is_null() {
        let asked = at(spec, &["nonResourceAttributes"]);
        (text(asked, &["verb"]), Target::Path(text(asked, &["path"])))
    } else {
        let target = ResourceTarget {
            group: part("group"),
            version: part("version"),
            namespace: part("namespace"),
            resource: part("resource"),
            subresource: part("subresource"),
            name: part("name"),
        };
        (part("verb"), Target::Resource(target))
    };
    let decision = call.app.mirror.decide(&Attributes { user, verb, target });
    let mut status = json!({"allowed": decision.is_allowed()});
    let (Decision::Allow(reason) | Decision::NoOpinion(reason)) = decision;
    if !reason.is_empty() {
        set(&mut status, "reason", reason);
    }
    let ignored = review_selectors::ignored(asked);
    if !ignored.is_empty() {
        set(&mut status, "evaluationError", ignored);
    }
    status
}

fn texts(values: &Value) -> Vec<String> {
    list(values, &[])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
