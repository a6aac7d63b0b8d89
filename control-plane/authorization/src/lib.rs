//! Who may do what.
//!
//! A request becomes [`Attributes`]; an [`Rbac`] holds the roles and bindings of the cluster and decides about them.
//! Beside the decision stand what else Kubernetes derives from roles: the list of what a user may do, the check that
//! nobody grants what he does not hold ([`escalation`]), and roles made of other roles ([`aggregate`]).
//!
//! Where roles come from and who the user is are not known here: there is no IO, no clock and no HTTP in this crate.
#![forbid(unsafe_code)]

pub mod aggregate;
pub mod bootstrap;
pub mod escalation;
pub mod node;
mod rbac;
mod rule;
mod user;

use api::status::{Details, Status, Subject};

pub use rbac::{Binding, Rbac, RoleRef};
pub use rule::{Rule, rules_of};
pub use user::{ANONYMOUS, AUTHENTICATED, MASTERS, UNAUTHENTICATED, User, service_account};

/// What somebody wants to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes<'a> {
    /// Who.
    pub user: &'a User,
    /// For instance `get`, `deletecollection`, `impersonate`.
    pub verb: &'a str,
    /// To what.
    pub target: Target<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// A path that names no resource.
    Path(&'a str),
    /// A resource.
    Resource(ResourceTarget<'a>),
}

/// A resource, an object or a part of one. Empty texts stand for what a request does not name.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ResourceTarget<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Empty: all namespaces, or the resource has none.
    pub namespace: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// For instance `status`.
    pub subresource: &'a str,
    /// Of the object.
    pub name: &'a str,
}

/// What an authorizer says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// It may be done; why.
    Allow(String),
    /// Nothing allows it; what went wrong on the way, if anything did.
    NoOpinion(String),
}

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow(_))
    }
}

/// The answer to those who may not, in the words that clients print. `reason` is that of [`Decision::NoOpinion`].
pub fn refusal(attributes: &Attributes<'_>, reason: &str) -> Status {
    let (user, verb) = (&attributes.user.name, attributes.verb);
    match &attributes.target {
        Target::Path(path) => {
            let mut message = format!("forbidden: User {user:?} cannot {verb} path {path:?}");
            if !reason.is_empty() {
                message.push_str(": ");
                message.push_str(reason);
            }
            let mut status = Status::new(403, "Forbidden", message);
            status.details = Some(Box::<Details>::default());
            status
        }
        Target::Resource(at) => {
            let resource = match at.subresource {
                "" => at.resource.to_owned(),
                sub => format!("{}/{sub}", at.resource),
            };
            let scope = match at.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let mut why = format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
                at.group
            );
            if !reason.is_empty() {
                why.push_str(": ");
                why.push_str(reason);
            }
            let subject = Subject {
                group: at.group,
                name: at.resource,
            };
            Status::forbidden(subject, at.name, &why)
        }
    }
}
