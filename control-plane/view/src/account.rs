//! The view of ServiceAccounts: nobody asks for more than whether one exists.

use api::Kind;
use serde::Deserialize;

use crate::objects::{Object, ObjectMeta};

/// `v1` ServiceAccount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ServiceAccount {
    /// Object metadata.
    pub metadata: ObjectMeta,
}

impl Kind for ServiceAccount {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "ServiceAccount";
    const PLURAL: &'static str = "serviceaccounts";
    const NAMESPACED: bool = true;
}

impl Object for ServiceAccount {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}
