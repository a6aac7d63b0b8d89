//! Which resources there are: the table, the definitions themselves, and the rows that definitions add at run time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::table::{self, Resource};
use arc_swap::ArcSwap;
use bytes::Bytes;
use custom_resources::{Custom, Definition, conditions, row};
use serde_json::Value;
use storage::Revision;
use tokio::sync::watch;

/// How long a watch goes on after its definition went.
const LAST_EVENTS: Duration = Duration::from_millis(100);

/// A definition as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) revision: Revision,
    pub(crate) bytes: Bytes,
    pub(crate) object: Value,
}

/// Rows come and go with definitions; readers see one whole set of them.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    now: ArcSwap<Rows>,
    /// Whether definitions were read once.
    read: watch::Sender<bool>,
    /// [`Registry::generation`], for those who wait for another.
    changed: watch::Sender<u64>,
    /// Every row that was ever made, so that equal ones are made once.
    made: Mutex<Vec<&'static Resource>>,
}

/// The rows of all established definitions at one moment.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    served: BTreeMap<(String, String, String), Served>,
    /// Grows with every change.
    pub(crate) generation: u64,
}

/// A row and what else there is to know about it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) row: &'static Resource,
    /// The definition's revision.
    pub(crate) revision: Revision,
    /// JSON of the definition.
    pub(crate) definition: Bytes,
    /// What clients of a deprecated version are warned with.
    pub(crate) deprecation: Option<String>,
    /// Whether the definition is on its way out.
    pub(crate) terminating: bool,
    /// Becomes true when the definition is gone or the row another.
    gone: watch::Sender<bool>,
}

impl Registry {
    /// The row of a resource, by what stands in the path.
    pub(crate) fn find(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<&'static Resource> {
        let built_in = table::find(group, version, plural);
        let definitions = &row::DEFINITIONS;
        built_in
            .or_else(|| {
                let names = (definitions.group, definitions.version, definitions.plural);
                (names == (group, version, plural)).then_some(definitions)
            })
            .or_else(|| self.custom(group, version, plural).map(|served| served.row))
    }

    /// The row that a definition adds.
    pub(crate) fn custom(&self, group: &str, version: &str, plural: &str) -> Option<Served> {
        let rows = self.now.load();
        if rows.served.is_empty() {
            return None;
        }
        let key = (group.to_owned(), version.to_owned(), plural.to_owned());
        rows.served.get(&key).cloned()
    }

    /// All rows beyond the table, the definitions' own first.
    pub(crate) fn added(&self) -> Vec<&'static Resource> {
        let mut rows = vec![&row::DEFINITIONS];
        rows.extend(self.now.load().served.values().map(|served| served.row));
        rows
    }

    /// All rows in the order of discovery.
    pub(crate) fn rows(&self) -> Vec<&'static Resource> {
        let mut rows: Vec<&'static Resource> = table::RESOURCES.to_vec();
        rows.extend(self.added());
        rows
    }

    /// The rows that definitions add, as they are now.
    pub(crate) fn served(&self) -> Vec<Served> {
        self.now.load().served.values().cloned().collect()
    }

    /// Returns once the definitions were read for the first time.
    pub(crate) async fn until_read(&self) {
        // The sender is this registry's own.
        let _ = self.read.subscribe().wait_for(|read| *read).await;
    }

    /// Changes whenever rows do.
    pub(crate) fn generation(&self) -> u64 {
        self.now.load().generation
    }

    /// Told of each change of the rows.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Becomes true when the row is no longer served; `None` for rows of the table.
    pub(crate) fn gone(&self, row: &Resource) -> Option<watch::Receiver<bool>> {
        row.custom?;
        let served = self.custom(row.group, row.version, row.plural);
        Some(served.map_or_else(
            || watch::Sender::new(true).subscribe(),
            |served| served.gone.subscribe(),
        ))
    }

    /// Takes over what the definitions say.
    pub(crate) fn update(&self, definitions: &[Stored]) {
        let before = self.now.load_full();
        let mut served = BTreeMap::new();
        for stored in definitions {
            if !conditions::is_true(&stored.object, "Established") {
                continue;
            }
            let mut definition = Definition::parse(&stored.object);
            definition.names = custom_resources::definition::Names::parse(api::value::at(
                &stored.object,
                &["status", "acceptedNames"],
            ));
            for version in definition.versions.iter().filter(|version| version.served) {
                let key = (
                    definition.group.clone(),
                    version.name.clone(),
                    definition.names.plural.clone(),
                );
                let old = before.served.get(&key);
                if let Some(same) = old.filter(|old| old.revision == stored.revision) {
                    served.insert(key, same.clone());
                    continue;
                }
                let row = self.row(&definition, version);
                let rules = Custom::new(&stored.object, &stored.bytes, &definition, &version.name);
                if let (Some(slot), Some(rules)) = (row.custom, rules) {
                    slot.replace(Some(Arc::new(rules)));
                }
                let gone = old
                    .filter(|old| std::ptr::eq(old.row, row))
                    .map_or_else(|| watch::Sender::new(false), |old| old.gone.clone());
                let entry = Served {
                    row,
                    revision: stored.revision,
                    definition: stored.bytes.clone(),
                    deprecation: version.deprecation.clone(),
                    terminating: api::meta::is_terminating(&stored.object),
                    gone,
                };
                served.insert(key, entry);
            }
        }
        let rows = Rows {
            generation: before.generation + 1,
            served,
        };
        let rows = Arc::new(rows);
        self.now.store(rows.clone());
        self.changed.send_replace(rows.generation);
        self.read.send_replace(true);
        for (key, old) in &before.served {
            let still = rows
                .served
                .get(key)
                .is_some_and(|new| std::ptr::eq(new.row, old.row));
            if !still {
                end_soon(old.gone.clone());
                let elsewhere = rows
                    .served
                    .values()
                    .any(|new| std::ptr::eq(new.row, old.row));
                if let Some(slot) = old.row.custom.filter(|_| !elsewhere) {
                    slot.replace(None);
                }
            }
        }
    }

    /// Ends what hangs on any row: the server closes.
    pub(crate) fn close(&self) {
        for served in self.now.load().served.values() {
            served.gone.send_replace(true);
        }
    }

    fn row(
        &self,
        definition: &Definition,
        version: &custom_resources::definition::Version,
    ) -> &'static Resource {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = made.iter().find(|row| row::same(row, definition, version)) {
            return row;
        }
        let row = row::make(definition, version);
        made.push(row);
        row
    }
}

/// Watches are given a moment to tell of the last objects before they end.
fn end_soon(gone: watch::Sender<bool>) {
    tokio::spawn(async move {
        tokio::time::sleep(LAST_EVENTS).await;
        gone.send_replace(true);
    });
}
