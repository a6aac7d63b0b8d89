//! Manifests: documents of any kind, applied by the server (KEP-555).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::Error;
use crate::path::{Path, Resource};
use crate::request::{Client, PatchKind};

/// What applying a document did, with the object as the server keeps it.
#[derive(Clone, PartialEq, Debug)]
pub enum Applied {
    /// It was not there.
    Created(Value),
    /// It was there and is changed.
    Configured(Value),
    /// It was there just so.
    Unchanged(Value),
}

/// Whatever others have written, and unknown fields are errors.
const APPLY: &[(&str, &str)] = &[("force", "true"), ("fieldValidation", "Strict")];

/// What a short manifest may come to by its aliases: nodes, and what the parser says of each.
const NODES_MIN: usize = 250_000;
const EVENTS_MIN: usize = 1_000_000;

/// The documents of a YAML (or JSON) manifest, Lists taken apart, empty documents left out. Numbers such as `0644`
/// are octal, as for kubectl.
///
/// # Errors
/// [`Error::Yaml`] says where it is no YAML.
pub fn documents(manifest: &str) -> Result<Vec<Value>, Error> {
    // Aliases may make more of a text than it holds, which the parser bounds. What it holds is its author's affair:
    // a document, a node and an event take an octet each at least.
    let size = manifest.len();
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        budget: serde_saphyr::budget! {
            max_documents: size,
            max_nodes: size.max(NODES_MIN),
            max_events: size.saturating_mul(2).max(EVENTS_MIN),
        },
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(manifest, options)
        .map_err(|source| Error::Yaml {
            source: Box::new(source),
        })?;
    let mut flat = Vec::new();
    for mut document in documents {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) if document["kind"] == "List" => flat.extend(items),
            Some(items) => {
                document["items"] = items;
                flat.push(document);
            }
            None if document.is_null() => {}
            None => flat.push(document),
        }
    }
    Ok(flat)
}

impl Client {
    /// Makes the object of a document what the document says, or creates it: what an earlier version of the document
    /// said and this one does not goes, what others wrote stays. Fields that the server does not know are refused: in a
    /// document that a person wrote they are mistakes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn apply(&self, document: &Value) -> Result<Applied, Error> {
        let path = self.locate(document).await?;
        let before = match self.get::<Value>(&path.object).await {
            Ok(before) => Some(before),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let apply = PatchKind::Apply.content_type();
        let after: Value = self
            .write(Method::PATCH, &path.object, apply, document, APPLY)
            .await?;
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        Ok(match before {
            None => Applied::Created(after),
            Some(before) if version(&before) == version(&after) => Applied::Unchanged(after),
            Some(_) => Applied::Configured(after),
        })
    }

    /// Where the object of a document stands, by the server's discovery.
    ///
    /// # Errors
    /// [`Error::Incomplete`] and [`Error::UnknownKind`] when the document does not say, or the server does not know.
    pub async fn locate(&self, document: &Value) -> Result<Location, Error> {
        let text = |value: &Value, field| match value.as_str() {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            Some(_) | None => Err(Error::Incomplete {
                kind: document["kind"].as_str().unwrap_or_default().to_owned(),
                field,
            }),
        };
        let api_version = text(&document["apiVersion"], "apiVersion")?;
        let kind = text(&document["kind"], "kind")?;
        let name = text(&document["metadata"]["name"], "metadata.name")?;
        let namespace = document["metadata"]["namespace"].as_str();
        let resource = self.resource(&api_version, &kind).await?;
        let namespace = match (resource.namespaced, namespace) {
            (false, _) => "",
            (true, Some(namespace)) if !namespace.is_empty() => namespace,
            (true, _) => self.namespace(),
        };
        Ok(Location {
            collection: resource.within(namespace),
            object: resource.object(namespace, &name),
        })
    }

    /// The resource of a kind, asked once for each group and version.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<Resource, Error> {
        if let Some(resource) = self.discovery().find(api_version, kind) {
            return Ok(resource);
        }
        let unknown = || Error::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        };
        let list: ResourceList = match self.get(&version_path(api_version)).await {
            Ok(list) => list,
            Err(error) if error.is_not_found() => return Err(unknown()),
            Err(error) => return Err(error),
        };
        self.discovery().learn(api_version, list);
        self.discovery().find(api_version, kind).ok_or_else(unknown)
    }

    /// Every resource of the server, of one version each, that allows all of `verbs`. Subresources are left out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn resources(&self, verbs: &[&str]) -> Result<Resources, Error> {
        let groups: GroupList = self.get(&Path::raw("/apis")).await?;
        let mut versions = vec!["v1".to_owned()];
        versions.extend(
            groups
                .groups
                .into_iter()
                .map(|group| group.preferred_version.group_version),
        );
        let mut all = Resources::default();
        for version in versions {
            let path = version_path(&version);
            let list = match timeout(VERSION_PATIENCE, self.get::<ResourceList>(&path)).await {
                Ok(Ok(list)) => list,
                Ok(Err(Error::Status { .. } | Error::Decode { .. } | Error::Timeout { .. }))
                | Err(_) => {
                    all.missing.push(version);
                    continue;
                }
                Ok(Err(error)) => return Err(error),
            };
            let wanted = list.resources.into_iter().filter(|resource| {
                let allows = |verb: &&str| resource.verbs.iter().any(|allowed| allowed == verb);
                !resource.name.contains('/') && verbs.iter().all(allows)
            });
            all.found
                .extend(wanted.map(|resource| resource.at(&version)));
        }
        Ok(all)
    }
}

/// How long the server may take to tell what there is of one version of a group: another may have to be asked.
const VERSION_PATIENCE: Duration = Duration::from_secs(10);

/// What a server has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// As far as it can say.
    pub found: Vec<Resource>,
    /// Versions of groups, such as `metrics.k8s.io/v1beta1`, of which it cannot say what there is: those who answer for
    /// them are away.
    pub missing: Vec<String>,
}

/// Where the server tells what it has of a group and version.
fn version_path(api_version: &str) -> Path {
    match api_version.contains('/') {
        true => Path::raw(&format!("/apis/{api_version}")),
        false => Path::raw(&format!("/api/{api_version}")),
    }
}

/// Where an object stands, and its collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// To create it in.
    pub collection: Path,
    /// To read, change and delete it.
    pub object: Path,
}

/// What the server said it has.
#[derive(Default)]
pub(crate) struct Discovery {
    known: Mutex<HashMap<(String, String), Resource>>,
}

impl Discovery {
    fn find(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let known = self
            .known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        known
            .get(&(api_version.to_owned(), kind.to_owned()))
            .cloned()
    }

    fn learn(&self, api_version: &str, list: ResourceList) {
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        for resource in list.resources {
            if !resource.name.contains('/') {
                let key = (api_version.to_owned(), resource.kind.clone());
                known.insert(key, resource.at(api_version));
            }
        }
    }
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
struct ApiResource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

impl ApiResource {
    fn at(self, api_version: &str) -> Resource {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        Resource {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: self.name,
            namespaced: self.namespaced,
        }
    }
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn manifests_come_apart_into_documents() {
        let manifest = "# only a comment\n---\nkind: A\nmode: 0644\n---\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n";
        assert_eq!(
            documents(manifest).unwrap(),
            [
                json!({"kind": "A", "mode": 420}),
                json!({"kind": "B"}),
                json!({"kind": "C"})
            ]
        );
        assert_eq!(documents("").unwrap(), Vec::<Value>::new());
        assert!(matches!(documents("a: [1"), Err(Error::Yaml { .. })));
    }

    #[test]
    fn manifests_are_as_long_as_they_are() {
        let manifest =
            "kind: A\nmetadata: {name: a, labels: {a: b, c: d, e: f}}\n---\n".repeat(20_000);
        assert_eq!(documents(&manifest).unwrap().len(), 20_000);
        // Nine levels of nine aliases each are not.
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let list = format!("*a{}, ", level - 1).repeat(9);
            bomb += &format!("a{level}: &a{level} [{list}]\n");
        }
        assert!(matches!(documents(&bomb), Err(Error::Yaml { .. })));
    }
}
