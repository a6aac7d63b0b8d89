//! Discovery: which groups, versions and resources there are; the old documents, one for each group version, and the
//! aggregated ones of KEP-3352.

use serde_json::{Map, Value, json};

use crate::table::{Resource, Subresource};
use crate::value::{flag, list, text};

/// Version of aggregated discovery that a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aggregated {
    /// `apidiscovery.k8s.io/v2`.
    V2,
    /// `apidiscovery.k8s.io/v2beta1`, for clients older than 1.30.
    V2Beta1,
}

impl Aggregated {
    /// As it stands in `apiVersion`.
    pub fn version(self) -> &'static str {
        match self {
            Aggregated::V2 => "v2",
            Aggregated::V2Beta1 => "v2beta1",
        }
    }

    /// The content type of the answer.
    pub fn content_type(self) -> String {
        format!(
            "application/json;g=apidiscovery.k8s.io;v={};as=APIGroupDiscoveryList",
            self.version()
        )
    }
}

/// `/api`: the versions of the core group. `server_address` is `host:port` as clients reach it.
pub fn legacy_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

/// `/apis`: every group of the rows but the core group.
pub fn legacy_groups(rows: &[&Resource]) -> Value {
    let groups: Vec<Value> = groups(rows)
        .into_iter()
        .filter(|g| !g.is_empty())
        .map(|group| group_body(rows, group))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`; `None` where there is no such group.
pub fn legacy_group(rows: &[&Resource], group: &str) -> Option<Value> {
    let known = groups(rows)
        .into_iter()
        .find(|g| *g == group && !g.is_empty())?;
    let mut body = group_body(rows, known);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Some(body)
}

/// `/api/v1` or `/apis/<group>/<version>`; `None` where there is no such group version.
pub fn legacy_resources(rows: &[&Resource], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for row in rows
        .iter()
        .filter(|r| r.group == group && r.version == version)
    {
        resources.push(legacy_resource(row));
        resources.extend(row.subresources.iter().map(|s| legacy_subresource(row, s)));
    }
    let first = rows
        .iter()
        .find(|r| r.group == group && r.version == version)?;
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(), "resources": resources,
    }))
}

/// The aggregated document of `/api` (`core`) or of `/apis`.
pub fn aggregated(rows: &[&Resource], core: bool, version: Aggregated) -> Value {
    let items: Vec<Value> = groups(rows)
        .into_iter()
        .filter(|g| g.is_empty() == core)
        .map(|group| {
            let versions: Vec<Value> = versions(rows, group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> = rows
                        .iter()
                        .filter(|r| r.group == group && r.version == version)
                        .map(|row| aggregated_resource(row))
                        .collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let mut metadata = Map::new();
            if !group.is_empty() {
                metadata.insert("name".into(), group.into());
            }
            metadata.insert("creationTimestamp".into(), Value::Null);
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", version.version()),
        "metadata": {},
        "items": items,
    })
}

/// The resources of a document such as [`legacy_resources`] gives, which somebody else wrote, as aggregated discovery
/// tells of them. What makes no sense is left out.
pub fn aggregated_from_legacy(document: &Value, group: &str, version: &str) -> Vec<Value> {
    let kind = |resource: &Value| {
        let or = |key: &str, other| match text(resource, &[key]) {
            "" => other,
            own => own.to_owned(),
        };
        let (group, version) = (
            or("group", group.to_owned()),
            or("version", version.to_owned()),
        );
        json!({"group": group, "version": version, "kind": text(resource, &["kind"])})
    };
    let scope = |resource: &Value| match flag(resource, &["namespaced"]) {
        true => "Namespaced",
        false => "Cluster",
    };
    let mut found: Vec<Value> = Vec::new();
    for resource in list(document, &["resources"]) {
        let (name, subresource) = match text(resource, &["name"]).split_once('/') {
            Some((name, subresource)) => (name, Some(subresource)),
            None => (text(resource, &["name"]), None),
        };
        if name.is_empty() {
            continue;
        }
        let mut body = json!({"responseKind": kind(resource), "verbs": list(resource, &["verbs"])});
        let known = found.iter().position(|known| known["resource"] == name);
        let Some(subresource) = subresource else {
            body["resource"] = name.into();
            body["scope"] = scope(resource).into();
            body["singularResource"] = text(resource, &["singularName"]).into();
            for key in ["shortNames", "categories"] {
                if resource[key].is_array() {
                    body[key] = resource[key].clone();
                }
            }
            if known.is_none() {
                found.push(body);
            }
            continue;
        };
        body["subresource"] = subresource.into();
        let at = known.unwrap_or_else(|| {
            // A resource that there is only for what is below it.
            let none = json!({"group": "", "version": "", "kind": ""});
            found.push(json!({
                "resource": name, "scope": scope(resource), "responseKind": none, "singularResource": "",
                "verbs": [],
            }));
            found.len() - 1
        });
        match found[at]
            .get_mut("subresources")
            .and_then(Value::as_array_mut)
        {
            Some(subresources) => subresources.push(body),
            None => found[at]["subresources"] = json!([body]),
        }
    }
    found
}

/// The groups in the order of the rows, the core group among them.
fn groups<'a>(rows: &[&'a Resource]) -> Vec<&'a str> {
    let mut found = Vec::new();
    for row in rows {
        if !found.contains(&row.group) {
            found.push(row.group);
        }
    }
    found
}

/// The versions of a group, the most mature first.
fn versions<'a>(rows: &[&'a Resource], group: &str) -> Vec<&'a str> {
    let mut all = Vec::new();
    for row in rows.iter().filter(|r| r.group == group) {
        if !all.contains(&row.version) {
            all.push(row.version);
        }
    }
    all.sort_by(|a, b| version_rank(b).cmp(&version_rank(a)).then(a.cmp(b)));
    all
}

/// How mature a version is by its name: `v2` before `v1` before `v1beta1` before `v1alpha1` before anything else.
pub fn version_rank(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let (major, rest) = rest.split_at(digits(rest));
        let major: u32 = major.parse().ok()?;
        if rest.is_empty() {
            return Some((3, major, 0));
        }
        let (stage, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
            (Some(minor), _) => (2, minor),
            (_, Some(minor)) => (1, minor),
            _ => return None,
        };
        Some((stage, major, minor.parse().ok()?))
    };
    parsed().unwrap_or((0, 0, 0))
}

fn group_body(rows: &[&Resource], group: &str) -> Value {
    let versions: Vec<Value> = versions(rows, group)
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{group}/{version}"), "version": version}))
        .collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions.first()})
}

fn legacy_resource(row: &Resource) -> Value {
    let mut body = json!({
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": row.verbs,
        "storageVersionHash": storage_version_hash(row),
    });
    if !row.short_names.is_empty() {
        body["shortNames"] = row.short_names.into();
    }
    if !row.categories.is_empty() {
        body["categories"] = row.categories.into();
    }
    body
}

fn legacy_subresource(row: &Resource, sub: &Subresource) -> Value {
    let mut body = json!({
        "name": format!("{}/{}", row.plural, sub.name),
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": sub_kind(row, sub),
        "verbs": sub.verbs,
    });
    if let Some((group, version)) = sub.group_version {
        body["group"] = group.into();
        body["version"] = version.into();
    }
    body
}

fn aggregated_resource(row: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let mut body = json!({
        "resource": row.plural,
        "responseKind": kind(row.group, row.version, row.kind),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        body["shortNames"] = row.short_names.into();
    }
    if !row.categories.is_empty() {
        body["categories"] = row.categories.into();
    }
    if !row.subresources.is_empty() {
        body["subresources"] = row
            .subresources
            .iter()
            .map(|sub| {
                let (group, version) = sub.group_version.unwrap_or((row.group, row.version));
                json!({
                    "subresource": sub.name,
                    "responseKind": kind(group, version, sub_kind(row, sub)),
                    "verbs": sub.verbs,
                })
            })
            .collect();
    }
    body
}

fn sub_kind<'a>(row: &'a Resource, sub: &'a Subresource) -> &'a str {
    if sub.kind.is_empty() {
        row.kind
    } else {
        sub.kind
    }
}

/// Tells clients whether objects are stored in another form than before: eight bytes of a hash of the stored kind.
fn storage_version_hash(row: &Resource) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}/{}", row.group, row.version, row.kind);
    base64::engine::general_purpose::STANDARD
        .encode(crate::openapi::hash(text.as_bytes()).to_be_bytes())
}
