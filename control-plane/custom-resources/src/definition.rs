//! A CustomResourceDefinition as a value: names, versions, and what each version says.

use api::custom::ScalePaths;
use api::value::{at, flag, list, set_default, text};
use serde_json::{Value, json};

/// What a definition calls its resource.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Names {
    /// As in the path.
    pub plural: String,
    /// For people who type.
    pub singular: String,
    /// As in `kind:`.
    pub kind: String,
    /// `kind:` of a list of them.
    pub list_kind: String,
    /// For people who type little.
    pub short: Vec<String>,
    /// Groups of resources such as `all`.
    pub categories: Vec<String>,
}

impl Names {
    /// From `spec.names` or `status.acceptedNames`.
    pub fn parse(names: &Value) -> Self {
        let one = |key: &str| text(names, &[key]).to_owned();
        Names {
            plural: one("plural"),
            singular: one("singular"),
            kind: one("kind"),
            list_kind: one("listKind"),
            short: strings(names, "shortNames"),
            categories: strings(names, "categories"),
        }
    }
}

/// One version of a custom resource.
#[derive(Clone, PartialEq, Debug)]
pub struct Version {
    /// For instance `v1alpha1`.
    pub name: String,
    /// Whether it has paths.
    pub served: bool,
    /// Whether objects are stored in it.
    pub storage: bool,
    /// What clients of a deprecated version are warned with.
    pub deprecation: Option<String>,
    /// Whether the status has a path of its own.
    pub status: bool,
    /// Where replicas stand, if they have a path of their own.
    pub scale: Option<ScalePaths>,
    /// `additionalPrinterColumns`.
    pub columns: Vec<Value>,
    /// Paths of selectable fields, such as `.spec.color`.
    pub selectable: Vec<String>,
}

/// A definition whose names were accepted, or at least can be read.
#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    /// API group.
    pub group: String,
    /// What it is called.
    pub names: Names,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// In the order of the definition.
    pub versions: Vec<Version>,
    /// The client configuration of a conversion webhook.
    pub webhook: Option<Value>,
}

impl Definition {
    /// Reads what a stored CustomResourceDefinition says.
    pub fn parse(object: &Value) -> Self {
        let spec = at(object, &["spec"]);
        let group = text(spec, &["group"]).to_owned();
        let names = Names::parse(at(spec, &["names"]));
        let versions = list(spec, &["versions"])
            .iter()
            .map(|version| Version::parse(version, &group, &names.kind))
            .collect();
        let webhook = (text(spec, &["conversion", "strategy"]) == "Webhook")
            .then(|| at(spec, &["conversion", "webhook"]).clone());
        Definition {
            group,
            names,
            namespaced: text(spec, &["scope"]) == "Namespaced",
            versions,
            webhook,
        }
    }

    /// The version that objects are stored in.
    pub fn storage_version(&self) -> Option<&Version> {
        self.versions.iter().find(|version| version.storage)
    }

    /// Below which every object's key is stored, without a slash at the end.
    pub fn storage_prefix(&self) -> String {
        format!("/registry/{}/{}", self.group, self.names.plural)
    }
}

impl Version {
    fn parse(body: &Value, group: &str, kind: &str) -> Self {
        let name = text(body, &["name"]).to_owned();
        let scale = at(body, &["subresources", "scale"]);
        let path = |key: &str| -> Vec<String> {
            text(scale, &[key])
                .split('.')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let deprecation =
            flag(body, &["deprecated"]).then(|| match text(body, &["deprecationWarning"]) {
                "" => format!("{group}/{name} {kind} is deprecated"),
                words => words.to_owned(),
            });
        Version {
            served: flag(body, &["served"]),
            storage: flag(body, &["storage"]),
            deprecation,
            status: body["subresources"]
                .get("status")
                .is_some_and(Value::is_object),
            scale: scale.is_object().then(|| ScalePaths {
                spec_replicas: path("specReplicasPath"),
                status_replicas: path("statusReplicasPath"),
                selector: path("labelSelectorPath"),
            }),
            columns: list(body, &["additionalPrinterColumns"]).to_vec(),
            selectable: list(body, &["selectableFields"])
                .iter()
                .map(|field| text(field, &["jsonPath"]).to_owned())
                .collect(),
            name,
        }
    }
}

/// Fills what the author of a definition left to the server.
pub fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    let kind = text(spec, &["names", "kind"]).to_owned();
    if let Some(names) = spec.get_mut("names") {
        set_default(names, "singular", kind.to_lowercase());
        if !kind.is_empty() {
            set_default(names, "listKind", format!("{kind}List"));
        }
    }
    if at(spec, &["conversion"]).is_null() {
        api::value::set(spec, "conversion", json!({"strategy": "None"}));
    }
    if let Some(service) = spec["conversion"]
        .get_mut("webhook")
        .and_then(|webhook| webhook.get_mut("clientConfig"))
        .and_then(|client| client.get_mut("service"))
        .filter(|service| service.is_object())
    {
        set_default(service, "port", 443);
    }
    if at(spec, &["preserveUnknownFields"]) == &Value::Bool(false) {
        api::value::remove(spec, "preserveUnknownFields");
    }
}

/// What a creator has no say in: the status begins with the storage version and nothing else.
pub fn prepare_create(object: &mut Value) {
    let stored: Vec<Value> = list(object, &["spec", "versions"])
        .iter()
        .filter(|version| flag(version, &["storage"]))
        .map(|version| version["name"].clone())
        .collect();
    let status = json!({
        "acceptedNames": {"kind": "", "plural": ""},
        "conditions": null,
        "storedVersions": stored,
    });
    api::value::set(object, "status", status);
}

/// The status is kept; a storage version that is new is stored from now on.
pub fn prepare_update(new: &mut Value, _old: &Value) {
    let storage = list(new, &["spec", "versions"])
        .iter()
        .find(|version| flag(version, &["storage"]))
        .map(|version| version["name"].clone());
    let Some(storage) = storage else {
        return;
    };
    if let Some(status) = api::value::object_mut(new, "status") {
        let mut stored = list(status, &["storedVersions"]).to_vec();
        if !stored.contains(&storage) {
            stored.push(storage);
            api::value::set(status, "storedVersions", stored);
        }
    }
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    list(value, &[key])
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}
