//! What a CustomResourceDefinition gives to the rows that it adds at run time. A row is a value that lives for ever;
//! the rules behind it are replaced when the definition changes, and go when it goes.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;
use time::OffsetDateTime;

use crate::field::FieldError;
use crate::write::Part;

/// The rules of one version of a custom resource. Pure; none of them fails on nonsense.
pub trait Rules: Send + Sync {
    /// Removes what the schema does not know; the paths of what was removed, such as `spec.replcas`.
    fn prune(&self, object: &mut Value) -> Vec<String>;

    /// Fills in the schema's defaults.
    fn default(&self, object: &mut Value);

    /// Everything wrong with an object, metadata apart; with `old`, everything wrong with going there from it.
    fn validate(&self, object: &Value, old: Option<&Value>, part: Part) -> Vec<FieldError>;

    /// The `columnDefinitions` of a Table.
    fn columns(&self) -> Value;

    /// The cells of a row of that Table.
    fn cells(&self, object: &Value, now: OffsetDateTime) -> Vec<Value>;

    /// The field labels that selectors may name beyond name and namespace.
    fn selectable(&self) -> &[String];

    /// The value of a selectable field as a text.
    fn field(&self, object: &Value, label: &str) -> Option<String>;

    /// Where replicas and their selector stand, where there is a scale subresource.
    fn scale(&self) -> Option<&ScalePaths>;

    /// Whether stored objects of this apiVersion may be sent as they are: nothing that was stored under an earlier
    /// schema could differ.
    fn sent_as_stored(&self) -> bool;

    /// How lists and maps at a path of keys merge, for server-side apply: the schema as JSON, `x-kubernetes-*`
    /// included.
    fn schema(&self) -> Arc<Value>;

    /// The `apiVersion` that objects are stored with.
    fn storage_version(&self) -> &str;

    /// Whether going from one version to another asks a webhook.
    fn webhook(&self) -> Option<&Value>;
}

/// Paths of the scale subresource, each a list of keys.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ScalePaths {
    /// Where the wish stands, below `spec`.
    pub spec_replicas: Vec<String>,
    /// Where the count stands, below `status`.
    pub status_replicas: Vec<String>,
    /// Where the selector stands as a text; empty where the definition names none.
    pub selector: Vec<String>,
}

/// The place of a row's rules.
#[derive(Default)]
pub struct Slot(RwLock<Option<Arc<dyn Rules>>>);

impl Slot {
    /// The rules as they are now; `None` where the definition is gone.
    pub fn rules(&self) -> Option<Arc<dyn Rules>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts other rules in their place.
    pub fn replace(&self, rules: Option<Arc<dyn Rules>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot")
    }
}
