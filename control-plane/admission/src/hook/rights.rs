//! What `authorizer` in expressions answers from.

use std::fmt;

use authorization::{Decision, ResourceTarget, Target, User};
use cel::authorizer::{self, Authority, Question};

use super::Request;
use crate::Lookup;

/// The rights of who makes a request.
#[derive(Clone, Copy)]
pub struct Rights<'a> {
    request: Request<'a>,
    lookup: &'a dyn Lookup,
}

impl<'a> Rights<'a> {
    /// Of the user of the request.
    pub fn of(request: Request<'a>, lookup: &'a dyn Lookup) -> Self {
        Rights { request, lookup }
    }
}

impl fmt::Debug for Rights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rights").field(&self.request).finish()
    }
}

impl Authority for Rights<'_> {
    fn decide(&self, question: &Question) -> authorizer::Decision {
        let account = question.account.as_ref().map(|(namespace, name)| {
            let mut user = User::service_account(namespace, name);
            user.groups.push(authorization::AUTHENTICATED.to_owned());
            user
        });
        let target = if question.path.is_empty() {
            Target::Resource(ResourceTarget {
                group: &question.group,
                version: "*",
                namespace: &question.namespace,
                resource: &question.resource,
                subresource: &question.subresource,
                name: &question.name,
            })
        } else {
            Target::Path(&question.path)
        };
        let attributes = authorization::Attributes {
            user: account.as_ref().unwrap_or(self.request.attributes.user),
            verb: &question.verb,
            target,
        };
        let (allowed, reason) = match self.lookup.decide(&attributes) {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) => (false, reason),
        };
        authorizer::Decision { allowed, reason }
    }

    fn request_resource(&self) -> Question {
        let of = self.request.attributes;
        Question {
            group: of.group.to_owned(),
            resource: of.resource.to_owned(),
            subresource: of.subresource.to_owned(),
            namespace: of.namespace.to_owned(),
            name: of.name.to_owned(),
            ..Question::default()
        }
    }
}

/// Nobody may do anything: for expressions that are asked outside of any request.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Authority for Nobody {
    fn decide(&self, _: &Question) -> authorizer::Decision {
        authorizer::Decision {
            allowed: false,
            reason: String::new(),
        }
    }

    fn request_resource(&self) -> Question {
        Question::default()
    }
}
