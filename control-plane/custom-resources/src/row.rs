//! Rows of the resource table: that of the definitions themselves, and those that definitions add.

use api::scale::Scale;
use api::table::{ALL_VERBS, BASE, Column, NameRule, Resource, SCALE, STATUS, Subresource};
use api::value::at;
use serde_json::Value;

use crate::definition::{self, Definition, Version};
use crate::review;

/// CustomResourceDefinitions.
pub static DEFINITIONS: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    list_kind: "CustomResourceDefinitionList",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[STATUS],
    storage_prefix: "/registry/apiextensions.k8s.io/customresourcedefinitions",
    definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    has_generation: true,
    columns: &[
        Column {
            name: "Name",
            kind: "string",
            format: "name",
            description: "Name of the object, unique among its kind in its namespace.",
            priority: 0,
        },
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            description: "When the object was created.",
            priority: 0,
        },
    ],
    cells: |object, _| {
        vec![
            at(object, &["metadata", "name"]).clone(),
            at(object, &["metadata", "creationTimestamp"]).clone(),
        ]
    },
    default: definition::default,
    prepare_create: definition::prepare_create,
    prepare_update: definition::prepare_update,
    validate: |object| review::review(object, None),
    validate_update: |new, old| {
        let mut wrong = review::review(new, Some(old));
        wrong.extend(review::review_status(new));
        wrong
    },
    warnings: crate::warnings::of,
    ..BASE
};

/// The row of one version of a definition. It lives for ever, which is why equal ones are made once.
///
/// Its words are leaked: some hundred bytes for each set of names that was ever established.
pub fn make(definition: &Definition, version: &Version) -> &'static Resource {
    let subresources: &'static [Subresource] = match (version.scale.is_some(), version.status) {
        (true, true) => &[SCALE, STATUS],
        (true, false) => &[SCALE],
        (false, true) => &[STATUS],
        (false, false) => &[],
    };
    let names = &definition.names;
    Box::leak(Box::new(Resource {
        group: leak(&definition.group),
        version: leak(&version.name),
        kind: leak(&names.kind),
        list_kind: leak(&names.list_kind),
        plural: leak(&names.plural),
        singular: leak(&names.singular),
        short_names: leak_all(&names.short),
        categories: leak_all(&names.categories),
        namespaced: definition.namespaced,
        verbs: ALL_VERBS,
        subresources,
        storage_prefix: leak(&definition.storage_prefix()),
        name_rule: NameRule::Subdomain,
        has_generation: true,
        unconditional_update: false,
        create_on_update: false,
        returns_deleted: false,
        prepare_create: if version.status { drop_status } else { |_| {} },
        definition: leak(&crate::openapi::definition_name(definition, version)),
        scale: version.scale.as_ref().map(|paths| -> &'static Scale {
            Box::leak(Box::new(Scale {
                wanted: leak_all(&paths.spec_replicas),
                current: leak_all(&paths.status_replicas),
                selector: leak_all(&paths.selector),
            }))
        }),
        custom: Some(Box::leak(Box::default())),
        ..BASE
    }))
}

fn drop_status(object: &mut Value) {
    api::value::remove(object, "status");
}

fn leak(text: &str) -> &'static str {
    Box::leak(Box::from(text))
}

fn leak_all(texts: &[String]) -> &'static [&'static str] {
    let all: Vec<&'static str> = texts.iter().map(|text| leak(text)).collect();
    Vec::leak(all)
}

/// What tells rows apart.
pub fn same(row: &Resource, definition: &Definition, version: &Version) -> bool {
    let names = &definition.names;
    let texts =
        |row: &[&str], wanted: &[String]| row.iter().copied().eq(wanted.iter().map(String::as_str));
    row.group == definition.group
        && row.version == version.name
        && row.kind == names.kind
        && row.list_kind == names.list_kind
        && row.plural == names.plural
        && row.singular == names.singular
        && texts(row.short_names, &names.short)
        && texts(row.categories, &names.categories)
        && row.namespaced == definition.namespaced
        && row.subresource("status").is_some() == version.status
        && match (row.scale, &version.scale) {
            (Some(scale), Some(paths)) => {
                texts(scale.wanted, &paths.spec_replicas)
                    && texts(scale.current, &paths.status_replicas)
                    && texts(scale.selector, &paths.selector)
            }
            (None, None) => true,
            _ => false,
        }
}
