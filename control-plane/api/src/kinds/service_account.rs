//! ServiceAccount: an identity for what runs in a namespace.

use crate::duration::age;
use crate::table::{AGE, BASE, NAME, Resource};
use crate::value::{at, text};

/// Service accounts.
pub(crate) static SERVICE_ACCOUNTS: Resource = Resource {
    kind: "ServiceAccount",
    list_kind: "ServiceAccountList",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    storage_prefix: "/registry/serviceaccounts",
    definition: "io.k8s.api.core.v1.ServiceAccount",
    subresources: &[super::review::TOKEN],
    returns_deleted: true,
    columns: &[NAME, AGE],
    cells: |object, now| {
        vec![
            text(object, &["metadata", "name"]).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
        ]
    },
    warnings: super::warnings::of_account,
    ..BASE
};
