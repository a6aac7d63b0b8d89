//! Pages of lists, decoded straight into the caller's type.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::path::Query;

/// What to list.
#[derive(Clone, Debug)]
pub struct ListParams {
    /// For instance `app=web,tier!=test`; empty for all.
    pub label_selector: String,
    /// For instance `spec.nodeName=a`; empty for all.
    pub field_selector: String,
    /// Items per page; zero means all at once.
    pub limit: u32,
    /// From the page before; empty for the first page.
    pub continue_token: String,
    /// Whether a server of ours passes over what it cannot read, where others, and it, otherwise refuse the list.
    pub skip_unreadable: bool,
}

impl Default for ListParams {
    fn default() -> ListParams {
        ListParams {
            label_selector: String::new(),
            field_selector: String::new(),
            limit: 500,
            continue_token: String::new(),
            skip_unreadable: false,
        }
    }
}

impl ListParams {
    pub(crate) fn query(&self) -> Query {
        let limit = match self.limit {
            0 => String::new(),
            limit => limit.to_string(),
        };
        let skip = if self.skip_unreadable { "true" } else { "" };
        Query::default()
            .with("labelSelector", &self.label_selector)
            .with("fieldSelector", &self.field_selector)
            .with("limit", &limit)
            .with("skipUnreadable", skip)
            .with("continue", &self.continue_token)
    }
}

/// Items of a collection at one resource version.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Those that could be decoded.
    pub items: Vec<T>,
    /// Those that could not.
    pub findings: Vec<Finding>,
    /// What the whole list is of; a watch may start here.
    pub resource_version: String,
    /// For the next page; empty on the last.
    pub continue_token: String,
}

/// An object that its reader cannot read. The others are not affected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The object's namespace, as far as it could be read.
    pub namespace: String,
    /// The object's name, as far as it could be read.
    pub name: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Finding {
    pub(crate) fn new(object: &RawValue, error: &serde_json::Error) -> Finding {
        let meta = serde_json::from_str::<Identified>(object.get());
        let meta = meta.unwrap_or_default().metadata;
        Finding {
            namespace: meta.namespace,
            name: meta.name,
            problem: error.to_string(),
        }
    }
}

/// The part of every object that says which one it is.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Identified {
    pub(crate) metadata: Identity,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) resource_version: String,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Option<Vec<T>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    continue_token: String,
}

/// One pass when every item is as it should be; item by item when one is not.
pub(crate) fn decode_page<T: DeserializeOwned>(body: &[u8]) -> Result<Page<T>, serde_json::Error> {
    if let Ok(list) = serde_json::from_slice::<List<T>>(body) {
        return Ok(page(
            list.metadata,
            list.items.unwrap_or_default(),
            Vec::new(),
        ));
    }
    let list = serde_json::from_slice::<List<Box<RawValue>>>(body)?;
    let (mut items, mut findings) = (Vec::new(), Vec::new());
    for raw in list.items.unwrap_or_default() {
        match serde_json::from_str(raw.get()) {
            Ok(item) => items.push(item),
            Err(error) => findings.push(Finding::new(&raw, &error)),
        }
    }
    Ok(page(list.metadata, items, findings))
}

fn page<T>(meta: ListMeta, items: Vec<T>, findings: Vec<Finding>) -> Page<T> {
    Page {
        items,
        findings,
        resource_version: meta.resource_version,
        continue_token: meta.continue_token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Sized {
        size: u8,
    }

    #[test]
    fn an_item_that_cannot_be_read_does_not_hide_the_others() {
        let body = br#"{"kind":"XList","metadata":{"resourceVersion":"7","continue":"c"},"items":[
            {"metadata":{"name":"a"},"size":1},
            {"metadata":{"namespace":"n","name":"b"},"size":"two"},
            {"metadata":{"name":"c"},"size":3}]}"#;
        let page = decode_page::<Sized>(body).unwrap();
        let sizes: Vec<u8> = page.items.iter().map(|item| item.size).collect();
        assert_eq!(sizes, [1, 3]);
        assert_eq!(
            (page.resource_version.as_str(), page.continue_token.as_str()),
            ("7", "c")
        );
        let [finding] = page.findings.as_slice() else {
            panic!("{:?}", page.findings)
        };
        assert_eq!(
            (finding.namespace.as_str(), finding.name.as_str()),
            ("n", "b")
        );
        assert!(
            finding.problem.contains("expected u8"),
            "{}",
            finding.problem
        );
    }

    #[test]
    fn lists_without_items() {
        for body in [r#"{"metadata":{},"items":null}"#, r#"{"items":[]}"#] {
            assert!(
                decode_page::<Sized>(body.as_bytes())
                    .unwrap()
                    .items
                    .is_empty()
            );
        }
        assert!(decode_page::<Sized>(b"<html>").is_err());
    }
}
