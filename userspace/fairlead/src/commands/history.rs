//! `fairlead history` and `fairlead diff`: what became of an object, as far back as the server retains history.
//!
//! Both ask a Fairlead server what Kubernetes has no words for: a watch with `history=true`, which begins with the oldest
//! state that is retained and ends when it has told what happened since; and a GET with
//! `resourceVersionMatch=Exact`, which reads the object as it stood at a resourceVersion.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use client::{Client, Path, Resource};
use serde::Serialize;
use serde_json::Value;

use super::connect;
use crate::cli::{Diff, History, ObjectFlags};
use crate::output::{self, Format, Row};

/// How many changed fields are named in a row.
const FIELDS_SHOWN: usize = 4;

/// One state of the object.
#[derive(Debug, Serialize)]
struct Version {
    revision: String,
    event: String,
    /// The field manager that wrote last.
    by: String,
    time: String,
    /// Fields that differ from the state before.
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<Value>,
}

impl Row for Version {
    const HEADER: &'static [&'static str] = &["REVISION", "EVENT", "BY", "TIME", "CHANGED"];

    fn cells(&self) -> Vec<String> {
        let mut changed = self.changed[..self.changed.len().min(FIELDS_SHOWN)].join(", ");
        if self.changed.len() > FIELDS_SHOWN {
            changed.push_str(&format!(" and {} more", self.changed.len() - FIELDS_SHOWN));
        }
        vec![
            self.revision.clone(),
            self.event.clone(),
            self.by.clone(),
            self.time.clone(),
            changed,
        ]
    }
}

pub(crate) async fn history(flags: &History) -> anyhow::Result<()> {
    let target = Target::find(&flags.object).await?;
    let events = target.events().await?;
    let mut versions = Vec::new();
    let mut before: Option<Value> = None;
    for event in events {
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ERROR") => bail!(
                "{}",
                object["message"].as_str().unwrap_or("the watch failed")
            ),
            Some(kind @ ("ADDED" | "MODIFIED" | "DELETED")) => {
                versions.push(version(kind, before.as_ref(), object, flags.output.output));
                before = (kind != "DELETED").then(|| object.clone());
            }
            _ => {}
        }
    }
    if versions.is_empty() {
        bail!(
            "{} is not there, and nothing that is retained tells of it",
            flags.object.target
        );
    }
    output::rows(&versions, flags.output.output)
}

pub(crate) async fn diff(flags: &Diff) -> anyhow::Result<()> {
    let target = Target::find(&flags.object).await?;
    let from = target.at(Some(flags.from)).await?;
    let to = target.at(flags.to).await?;
    let yaml = |object: &Option<Value>| match object {
        None => Ok(String::new()),
        Some(object) => serde_saphyr::to_string(object).context("write the object as YAML"),
    };
    let (old, new) = (yaml(&from)?, yaml(&to)?);
    let name = |revision: Option<u64>| match revision {
        Some(revision) => format!("{} at {revision}", flags.object.target),
        None => format!("{} now", flags.object.target),
    };
    let lines = differences(&old, &new);
    if lines.is_empty() {
        return Ok(());
    }
    output::emit(&format!(
        "--- {}\n+++ {}\n{lines}",
        name(Some(flags.from)),
        name(flags.to)
    ))
}

/// The object meant, and whom to ask.
struct Target {
    client: Client,
    resource: Resource,
    namespace: String,
    name: String,
}

impl Target {
    async fn find(flags: &ObjectFlags) -> anyhow::Result<Self> {
        let client = connect(&flags.kubeconfig.kubeconfig)?;
        let (kind, name) = flags.target.split_once('/').context(
            "name the object as KIND/NAME, for instance deployment/web or widgets.example.com/a",
        )?;
        let resource = resolve(&client, kind).await?;
        let namespace = match (&flags.namespace, resource.namespaced) {
            (_, false) => String::new(),
            (Some(namespace), true) => namespace.clone(),
            (None, true) => client.namespace().to_owned(),
        };
        Ok(Self {
            client,
            resource,
            namespace,
            name: name.to_owned(),
        })
    }

    async fn events(&self) -> anyhow::Result<Vec<Value>> {
        let collection = self.resource.within(&self.namespace);
        let query = format!(
            "{collection}?watch=true&history=true&fieldSelector=metadata.name%3D{}",
            self.name
        );
        let body = self.client.get_raw(&Path::raw(&query)).await?;
        let lines = body.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).context("read an event"))
            .collect()
    }

    /// The object at a revision; `None` where it was not there.
    async fn at(&self, revision: Option<u64>) -> anyhow::Result<Option<Value>> {
        let object = self.resource.object(&self.namespace, &self.name);
        let path = match revision {
            None => object,
            Some(revision) => Path::raw(&format!(
                "{object}?resourceVersion={revision}&resourceVersionMatch=Exact"
            )),
        };
        match self.client.get_raw(&path).await {
            Ok(body) => {
                let mut object: Value = serde_json::from_slice(&body).context("read the object")?;
                // It changes with every write and says nothing that the rest does not.
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove("managedFields");
                }
                Ok(Some(object))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The resource that people mean by a word: its kind, its plural or singular name, or a short one, with its group behind
/// a dot where they care.
async fn resolve(client: &Client, word: &str) -> anyhow::Result<Resource> {
    let (word, group) = match word.split_once('.') {
        Some((word, group)) => (word, Some(group)),
        None => (word, None),
    };
    let read = async |path: &str| -> anyhow::Result<Value> {
        let body = client.get_raw(&Path::raw(path)).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("read what the server tells at {path}"))
    };
    let mut places = vec![("/api/v1".to_owned(), String::new(), "v1".to_owned())];
    for found in list(&read("/apis").await?["groups"]) {
        let preferred = &found["preferredVersion"];
        places.push((
            format!("/apis/{}", text(&preferred["groupVersion"])),
            text(&found["name"]).to_owned(),
            text(&preferred["version"]).to_owned(),
        ));
    }
    for (path, of, version) in places {
        if group.is_some_and(|group| group != of) {
            continue;
        }
        for resource in list(&read(&path).await?["resources"]) {
            let name = text(&resource["name"]);
            let short = list(&resource["shortNames"]);
            let mut words = vec![
                name,
                text(&resource["kind"]),
                text(&resource["singularName"]),
            ];
            words.extend(short.iter().map(text));
            if !name.contains('/') && words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
                return Ok(Resource {
                    group: of,
                    version,
                    plural: name.to_owned(),
                    namespaced: resource["namespaced"].as_bool().unwrap_or(false),
                });
            }
        }
    }
    bail!("the server has no resource {word:?}; `kubectl api-resources` lists those it has")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn version(kind: &str, before: Option<&Value>, object: &Value, format: Format) -> Version {
    let managers = list(&object["metadata"]["managedFields"]);
    let last = managers.iter().max_by_key(|entry| text(&entry["time"]));
    let (mut old, mut new) = (BTreeMap::new(), BTreeMap::new());
    if let Some(before) = before {
        leaves(before, "", &mut old);
        leaves(object, "", &mut new);
    }
    let mut changed: Vec<String> = old
        .iter()
        .filter(|(path, value)| new.get(*path) != Some(value))
        .map(|(path, _)| path.clone())
        .chain(new.keys().filter(|path| !old.contains_key(*path)).cloned())
        .collect();
    changed.sort();
    let (by, time) = match last {
        // Who deletes an object writes nothing into it.
        _ if kind == "DELETED" => ("", text(&object["metadata"]["deletionTimestamp"])),
        Some(entry) => (text(&entry["manager"]), text(&entry["time"])),
        None => ("", ""),
    };
    // What it was before is not retained any more.
    let is_older = time > text(&object["metadata"]["creationTimestamp"]);
    let kind = match kind {
        "ADDED" if before.is_none() && is_older => "MODIFIED",
        kind => kind,
    };
    Version {
        revision: text(&object["metadata"]["resourceVersion"]).to_owned(),
        event: kind.to_owned(),
        by: by.to_owned(),
        time: time.to_owned(),
        changed: if kind == "MODIFIED" {
            changed
        } else {
            Vec::new()
        },
        object: (format != Format::Table).then(|| object.clone()),
    }
}

/// Every value that is neither an object nor a list, by its path; without what changes with each write.
fn leaves<'a>(value: &'a Value, path: &str, found: &mut BTreeMap<String, &'a Value>) {
    if matches!(path, "metadata.resourceVersion" | "metadata.managedFields") {
        return;
    }
    let below = |key: &str| match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    };
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                leaves(value, &below(key), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (i, value) in items.iter().enumerate() {
                leaves(value, &format!("{path}[{i}]"), found);
            }
        }
        _ => {
            found.insert(path.to_owned(), value);
        }
    }
}

/// The lines that differ, `-` and `+` before them, each run of them with up to three lines around it.
fn differences(old: &str, new: &str) -> String {
    const AROUND: usize = 3;
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let steps = script(&old, &new);
    let near = |at: usize| {
        let (from, to) = (
            at.saturating_sub(AROUND),
            (at + AROUND + 1).min(steps.len()),
        );
        steps[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut out = String::new();
    let mut gap = false;
    for (at, (mark, line)) in steps.iter().enumerate() {
        if near(at) {
            if std::mem::take(&mut gap) && !out.is_empty() {
                out.push_str("@@\n");
            }
            out.push(*mark);
            out.push_str(line);
            out.push('\n');
        } else {
            gap = true;
        }
    }
    out
}

/// How the new lines come of the old ones, by their longest common subsequence. What both begin and end with is left
/// out of the table; should the rest be very long, it is replaced as a whole.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    const CELLS_MAX: usize = 16 << 20;
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - head;
    let backwards = old.iter().rev().zip(new.iter().rev());
    let tail = backwards.take(rest).take_while(|(a, b)| a == b).count();
    let (a, b) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut steps: Vec<(char, &str)> = old[..head].iter().map(|line| (' ', *line)).collect();
    if a.len().saturating_mul(b.len()) > CELLS_MAX {
        steps.extend(a.iter().map(|line| ('-', *line)));
        steps.extend(b.iter().map(|line| ('+', *line)));
    } else {
        // How many lines are common to what begins at each pair of places.
        let width = b.len() + 1;
        let mut common = vec![0_u32; (a.len() + 1) * width];
        for i in (0..a.len()).rev() {
            for j in (0..b.len()).rev() {
                common[i * width + j] = if a[i] == b[j] {
                    common[(i + 1) * width + j + 1] + 1
                } else {
                    common[(i + 1) * width + j].max(common[i * width + j + 1])
                };
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < a.len() || j < b.len() {
            if i < a.len() && j < b.len() && a[i] == b[j] {
                steps.push((' ', a[i]));
                (i, j) = (i + 1, j + 1);
            } else if j == b.len()
                || i < a.len() && common[(i + 1) * width + j] >= common[i * width + j + 1]
            {
                steps.push(('-', a[i]));
                i += 1;
            } else {
                steps.push(('+', b[j]));
                j += 1;
            }
        }
    }
    steps.extend(old[old.len() - tail..].iter().map(|line| (' ', *line)));
    steps
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_lines() {
        // Old, new, what is shown; a comma is the end of a line.
        for (old, new, shown) in [
            ("a,b,c", "a,b,c", ""),
            ("a,b,c", "a,x,c", " a,-b,+x, c,"),
            ("", "a", "+a,"),
            ("a,b", "", "-a,-b,"),
            (
                "1,2,3,4,5,6,7,8,9",
                "1,2,3,4,x,6,7,8,9",
                " 2, 3, 4,-5,+x, 6, 7, 8,",
            ),
            (
                "a,1,2,3,4,5,6,7,b",
                "x,1,2,3,4,5,6,7,y",
                "-a,+x, 1, 2, 3,@@, 5, 6, 7,-b,+y,",
            ),
        ] {
            let lines = |text: &str| text.replace(',', "\n");
            assert_eq!(
                differences(&lines(old), &lines(new)),
                lines(shown),
                "{old} {new}"
            );
        }
    }

    #[test]
    fn a_version_names_what_changed_and_who_did() {
        let object = |replicas: u32, revision: &str, time: &str| {
            json!({
                "metadata": {"resourceVersion": revision, "managedFields": [
                    {"manager": "other", "time": "2026-01-01T00:00:00Z"}, {"manager": "me", "time": time},
                ]},
                "spec": {"replicas": replicas, "ports": [{"port": 1}]},
            })
        };
        let (old, new) = (
            object(1, "5", "2026-01-02T00:00:00Z"),
            object(2, "6", "2026-01-03T00:00:00Z"),
        );
        let version = version("MODIFIED", Some(&old), &new, Format::Table);
        assert_eq!(
            (version.revision.as_str(), version.by.as_str()),
            ("6", "me")
        );
        assert_eq!(version.changed, ["spec.replicas"]);
    }
}
