//! Acting for somebody else: the `Impersonate-*` headers, each of which has to be permitted.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::status::Status;
use authorization::{
    ANONYMOUS, AUTHENTICATED, Attributes, Decision, ResourceTarget, Target, UNAUTHENTICATED, User,
    refusal, service_account,
};
use http::HeaderMap;

use crate::{State, query};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const GROUP_OF_KEYS: &str = "authentication.k8s.io";

/// The user for whom the request is to be answered: the one who asks, unless he names another.
pub(crate) fn impersonate(
    state: &State,
    user: Arc<User>,
    headers: &HeaderMap,
) -> Result<Arc<User>, Status> {
    if !headers
        .keys()
        .any(|name| name.as_str().starts_with("impersonate-"))
    {
        return Ok(user);
    }
    let Some(wanted) = wanted(headers)? else {
        return Ok(user);
    };
    let may = |target: ResourceTarget<'_>| {
        let attributes = Attributes {
            user: &user,
            verb: "impersonate",
            target: Target::Resource(target),
        };
        match state.mirror.decide(&attributes) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(refusal(&attributes, &reason)),
        }
    };
    let named = |resource, name| ResourceTarget {
        version: "v1",
        resource,
        name,
        ..ResourceTarget::default()
    };
    match service_account(&wanted.name) {
        Some((namespace, name)) => may(ResourceTarget {
            namespace,
            ..named("serviceaccounts", name)
        })?,
        None => may(named("users", &wanted.name))?,
    }
    for group in &wanted.groups {
        may(named("groups", group))?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            may(ResourceTarget {
                group: GROUP_OF_KEYS,
                subresource: key,
                ..named("userextras", value)
            })?;
        }
    }
    if !wanted.uid.is_empty() {
        may(ResourceTarget {
            group: GROUP_OF_KEYS,
            ..named("uids", &wanted.uid)
        })?;
    }
    Ok(Arc::new(with_usual_groups(wanted)))
}

/// What the headers ask for; `None` where they ask for nothing.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let texts = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(str::to_owned)
            .collect()
    };
    let first = |name: &str| texts(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA), value.to_str()) {
            // Names of headers come in lower case, as keys have to be.
            let key = query::decode_segment(key).to_lowercase();
            extra.entry(key).or_default().push(value.to_owned());
        }
    }
    let user = User {
        name: first(USER),
        uid: first(UID),
        groups: texts(GROUP),
        extra,
    };
    if !user.name.is_empty() {
        return Ok(Some(user));
    }
    if user == User::default() {
        return Ok(None);
    }
    Err(Status::internal(
        "groups, uid or extra were requested without impersonating a user",
    ))
}

/// Adds the groups that everybody of that name is in.
fn with_usual_groups(mut user: User) -> User {
    if user.name == ANONYMOUS {
        if !user.is(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
        return user;
    }
    if user.groups.is_empty()
        && let Some((namespace, name)) = service_account(&user.name)
    {
        user.groups = User::service_account(namespace, name).groups;
    }
    if !user.is(AUTHENTICATED) && !user.is(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_come_with_a_name() {
        #[rustfmt::skip]
        let cases = [
            ("jane", &[][..], &[AUTHENTICATED][..]),
            ("jane", &["dev"], &["dev", AUTHENTICATED]),
            (ANONYMOUS, &[], &[UNAUTHENTICATED]),
            ("system:serviceaccount:a:b", &[], &["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]),
            ("system:serviceaccount:a:b", &["x"], &["x", AUTHENTICATED]),
        ];
        for (name, given, expected) in cases {
            let user = with_usual_groups(User::new(name, given));
            assert_eq!(user.groups, expected, "{name} {given:?}");
        }
    }
}
