//! Admission: what is changed in objects, and what is refused, before they are stored.
//!
//! [`PLUGINS`] is one table in Kubernetes' order. A plugin may change an object ([`mutate`] runs these, before the
//! object is checked as a whole) and may refuse it ([`validate`] runs these, afterwards). Plugins look other objects
//! up in a [`Lookup`]; there is no IO and no clock here. What needs either (webhooks, quotas that are charged with the
//! write) has its place in the table and is carried out by who calls: see [`quota`].
#![forbid(unsafe_code)]

pub mod hook;
mod plugins;
mod pod;
pub mod quota;
mod security;

use std::sync::Arc;

use api::status::{Status, Subject};
use authorization::User;
use serde_json::Value;

pub use pod::account_name;
pub use security::{Level, evaluate, namespace as pod_security};

/// What is done to an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is replaced or patched.
    Update,
    /// It is deleted.
    Delete,
    /// Somebody speaks to it: exec, attach, proxy.
    Connect,
}

/// A request, as plugins see it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// What is done.
    pub operation: Operation,
    /// Who does it.
    pub user: &'a User,
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Plural.
    pub resource: &'a str,
    /// For instance `status`; empty for the object itself.
    pub subresource: &'a str,
    /// Empty for objects without one.
    pub namespace: &'a str,
    /// Empty where it is yet to be generated.
    pub name: &'a str,
    /// Letters and digits that tell apart what plugins name themselves.
    pub suffix: &'a str,
}

impl Attributes<'_> {
    /// Whether the object itself, and no part of it, is of this group and resource.
    fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.group == group && self.resource == resource
    }

    /// The refusal in the words of Kubernetes.
    pub(crate) fn forbid(&self, why: impl AsRef<str>) -> Status {
        let subject = Subject {
            group: self.group,
            name: self.resource,
        };
        Status::forbidden(subject, self.name, why.as_ref())
    }
}

/// Other objects, and what users may do.
pub trait Lookup: Sync {
    /// An object by plural, namespace and name.
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;
    /// All objects of a resource, of one namespace where one is given, in order of name.
    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>>;
    /// Whether somebody may, and why.
    fn decide(&self, attributes: &authorization::Attributes<'_>) -> authorization::Decision;
    /// Whether somebody may.
    fn allows(&self, attributes: &authorization::Attributes<'_>) -> bool {
        self.decide(attributes).is_allowed()
    }
}

/// What a client should hear besides the answer.
pub type Warnings = Vec<String>;

/// Changes an object; the second value is what stands there, if anything.
pub type Mutate =
    fn(&Attributes<'_>, &mut Value, Option<&Value>, &dyn Lookup) -> Result<(), Status>;
/// Looks at an object and at what stands there; refuses, or warns.
pub type Validate =
    fn(&Attributes<'_>, &Value, Option<&Value>, &dyn Lookup, &mut Warnings) -> Result<(), Status>;

/// A row of the table.
pub struct Plugin {
    /// As `--disable-admission-plugins` names it.
    pub name: &'static str,
    /// Whether it has anything to say about a request.
    pub handles: fn(&Attributes<'_>) -> bool,
    /// Changes.
    pub mutate: Option<Mutate>,
    /// Checks.
    pub validate: Option<Validate>,
}

/// Every plugin that runs unless it is disabled, in Kubernetes' order.
pub static PLUGINS: &[Plugin] = &[
    plugins::namespace::LIFECYCLE,
    plugins::limits::LIMIT_RANGER,
    plugins::account::SERVICE_ACCOUNT,
    plugins::restriction::NODE_RESTRICTION,
    plugins::node::TAINT_NODES_BY_CONDITION,
    security::POD_SECURITY,
    plugins::priority::PRIORITY,
    plugins::tolerations::DEFAULT_TOLERATION_SECONDS,
    plugins::volume::DEFAULT_STORAGE_CLASS,
    plugins::volume::STORAGE_OBJECT_IN_USE_PROTECTION,
    plugins::volume::PERSISTENT_VOLUME_CLAIM_RESIZE,
    plugins::runtime::RUNTIME_CLASS,
    plugins::certificate::CERTIFICATE_APPROVAL,
    plugins::certificate::CERTIFICATE_SIGNING,
    plugins::certificate::CERTIFICATE_SUBJECT_RESTRICTION,
    plugins::ingress::DEFAULT_INGRESS_CLASS,
    plugins::devices::ADMIN_ACCESS,
    hook::MUTATING_POLICY,
    hook::MUTATING_WEBHOOK,
    hook::VALIDATING_POLICY,
    hook::VALIDATING_WEBHOOK,
    quota::RESOURCE_QUOTA,
];

/// The plugins that are to run: all but those named. A name that is none is returned as the error.
///
/// # Errors
/// The first name that no plugin has.
pub fn enabled(disabled: &[String]) -> Result<Vec<&'static Plugin>, String> {
    if let Some(unknown) = disabled
        .iter()
        .find(|name| PLUGINS.iter().all(|plugin| plugin.name != **name))
    {
        return Err(unknown.clone());
    }
    Ok(PLUGINS
        .iter()
        .filter(|plugin| disabled.iter().all(|name| name != plugin.name))
        .collect())
}

/// Lets every plugin change the object.
///
/// # Errors
/// The first refusal.
pub fn mutate(
    plugins: &[&Plugin],
    attributes: &Attributes<'_>,
    object: &mut Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    for plugin in plugins {
        if let Some(mutate) = plugin.mutate
            && (plugin.handles)(attributes)
        {
            mutate(attributes, object, old, lookup)?;
        }
    }
    Ok(())
}

/// Lets every plugin look at the object. For a deletion it is what stands there.
///
/// # Errors
/// The first refusal.
pub fn validate(
    plugins: &[&Plugin],
    attributes: &Attributes<'_>,
    object: &Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
    warnings: &mut Warnings,
) -> Result<(), Status> {
    for plugin in plugins {
        if let Some(validate) = plugin.validate
            && (plugin.handles)(attributes)
        {
            validate(attributes, object, old, lookup, warnings)?;
        }
    }
    Ok(())
}
