//! What the cluster's administrators add to admission: webhooks and policies in CEL.
//!
//! Here is decided whom a request concerns ([`matching`]), what is asked of a webhook and what its answer means
//! ([`review`]), and what policies say ([`policy`]). Connections and other objects are the caller's.

pub mod conditions;
mod declared;
pub mod devices;
pub mod expression;
pub mod matching;
pub mod mutation;
pub mod policy;
pub mod review;
pub mod rights;
pub mod typing;

use serde_json::{Value, json};

use crate::{Attributes, Operation, Plugin};

/// The group of webhook configurations and policies.
pub const GROUP: &str = "admissionregistration.k8s.io";

/// A place in the table of plugins; who calls carries it out.
const fn place(name: &'static str) -> Plugin {
    Plugin {
        name,
        handles: |_| false,
        mutate: None,
        validate: None,
    }
}

/// Policies that change.
pub const MUTATING_POLICY: Plugin = place("MutatingAdmissionPolicy");
/// Webhooks that may change what is stored.
pub const MUTATING_WEBHOOK: Plugin = place("MutatingAdmissionWebhook");
/// Policies that refuse.
pub const VALIDATING_POLICY: Plugin = place("ValidatingAdmissionPolicy");
/// Webhooks that refuse.
pub const VALIDATING_WEBHOOK: Plugin = place("ValidatingAdmissionWebhook");

/// A form in which one resource is served: a version, or a group that serves the same objects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Of the object that is sent: for a subresource it may be another than that of the resource.
    pub kind: &'static str,
    /// Group and version of that kind where they are not those of the resource.
    pub kind_group_version: Option<(&'static str, &'static str)>,
    /// Plural.
    pub resource: &'static str,
}

impl Form {
    fn kind(&self) -> Value {
        let (group, version) = self
            .kind_group_version
            .unwrap_or((self.group, self.version));
        json!({"group": group, "version": version, "kind": self.kind})
    }

    fn resource(&self) -> Value {
        json!({"group": self.group, "version": self.version, "resource": self.resource})
    }
}

/// A request as webhooks and policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who does what to which object.
    pub attributes: &'a Attributes<'a>,
    /// As it was sent.
    pub form: Form,
    /// What is to be stored; null for a deletion.
    pub object: &'a Value,
    /// What stands there; null for a creation.
    pub old: &'a Value,
    /// The options of the verb, an object with its kind.
    pub options: &'a Value,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
}

impl Request<'_> {
    /// The members of an AdmissionRequest but for its objects and its uid. `form` is the one that a rule named.
    pub fn shown(&self, form: Form) -> Value {
        let attributes = self.attributes;
        let user = attributes.user;
        let mut info = json!({"username": user.name});
        if !user.uid.is_empty() {
            info["uid"] = user.uid.as_str().into();
        }
        if !user.groups.is_empty() {
            info["groups"] = user.groups.clone().into();
        }
        if !user.extra.is_empty() {
            info["extra"] = json!(user.extra);
        }
        let mut shown = json!({
            "kind": form.kind(),
            "resource": form.resource(),
            "requestKind": self.form.kind(),
            "requestResource": self.form.resource(),
            "name": attributes.name,
            "operation": attributes.operation.name(),
            "userInfo": info,
            "dryRun": self.dry_run,
            "options": self.options,
        });
        if !attributes.namespace.is_empty() {
            shown["namespace"] = attributes.namespace.into();
        }
        if !attributes.subresource.is_empty() {
            shown["subResource"] = attributes.subresource.into();
            shown["requestSubResource"] = attributes.subresource.into();
        }
        shown
    }

    /// Whether it writes what says who is asked: nobody is asked about that, or one bad configuration could not be
    /// mended any more.
    pub fn is_exempt(&self) -> bool {
        self.form.group == GROUP
    }
}

impl Operation {
    /// As rules write it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What becomes of a request where a webhook or policy fails to decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// It is refused.
    Fail,
    /// It goes on as if nobody had been asked.
    Ignore,
}

impl OnFailure {
    /// From `failurePolicy`.
    pub fn parse(text: &str) -> Self {
        if text == "Ignore" {
            OnFailure::Ignore
        } else {
            OnFailure::Fail
        }
    }
}
