//! Any history, cut off anywhere, compacted at any time: what the watch says adds up to what the server has.
#![forbid(unsafe_code)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Event, Params};
use futures_util::StreamExt;
use proptest::prelude::*;
use support::{Answer, End, Thing, line, page, serve, status, thing};

/// One change: the object's number, and its new size or none when it goes.
type Change = (usize, Option<u64>);

/// What befalls a request.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// A list or watch as it should be; meanwhile so many changes happen.
    Well(usize),
    /// The connection breaks before the answer.
    Break,
    /// A watch breaks after so many bytes.
    Cut(usize),
    /// Everything up to now is compacted: older places are gone.
    Compact,
}

struct Server {
    history: Vec<Change>,
    /// How much of the history has happened.
    now: usize,
    compacted: usize,
    fates: Vec<Fate>,
}

impl Server {
    /// Objects after the first `revision` changes: name, version, size.
    fn state(&self, revision: usize) -> BTreeMap<String, (u64, u64)> {
        let mut state = BTreeMap::new();
        for (index, (number, size)) in self.history[..revision].iter().enumerate() {
            let name = format!("t{number}");
            match size {
                Some(size) => state.insert(name, (index as u64 + 1, *size)),
                None => state.remove(&name),
            };
        }
        state
    }

    fn answer(&mut self, query: &str) -> Answer {
        let value = |key: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.to_owned())
        };
        let fate = self.fates.pop().unwrap_or(Fate::Well(self.history.len()));
        match fate {
            Fate::Break => return Answer::Break,
            Fate::Compact => self.compacted = self.now,
            Fate::Well(_) | Fate::Cut(_) => {}
        }
        let answer = if value("watch").is_some() {
            self.watch(value("resourceVersion").unwrap().parse().unwrap(), fate)
        } else {
            self.list(value("continue").as_deref())
        };
        if let Fate::Well(meanwhile) = fate {
            self.now = (self.now + meanwhile).min(self.history.len());
        }
        answer
    }

    /// Two items a page; the continue token is `revision.offset`.
    fn list(&self, token: Option<&str>) -> Answer {
        let (revision, offset) = match token.and_then(|token| token.split_once('.')) {
            Some((revision, offset)) => (revision.parse().unwrap(), offset.parse().unwrap()),
            None => (self.now, 0),
        };
        if revision < self.compacted {
            return status(410, "Expired");
        }
        let state = self.state(revision);
        let items: Vec<_> = state
            .iter()
            .skip(offset)
            .take(2)
            .map(|(name, (version, size))| thing(name, *version, *size))
            .collect();
        let next = match offset + 2 < state.len() {
            true => format!("{revision}.{}", offset + 2),
            false => String::new(),
        };
        page(revision as u64, &next, &items)
    }

    fn watch(&self, from: usize, fate: Fate) -> Answer {
        if from < self.compacted {
            return status(410, "Expired");
        }
        let mut text = String::new();
        for revision in from..self.now {
            let (number, size) = self.history[revision];
            let before = self.state(revision);
            let name = format!("t{number}");
            let version = revision as u64 + 1;
            match (before.get(&name), size) {
                (None, None) => {}
                (Some((_, size)), None) => text += &line("DELETED", &thing(&name, version, *size)),
                (None, Some(size)) => text += &line("ADDED", &thing(&name, version, size)),
                (Some(_), Some(size)) => text += &line("MODIFIED", &thing(&name, version, size)),
            }
        }
        match fate {
            Fate::Cut(bytes) => {
                text.truncate(bytes);
                Answer::Pieces(vec![text], End::Break)
            }
            Fate::Well(_) if self.now == self.history.len() => {
                Answer::Pieces(vec![text], End::Hang)
            }
            Fate::Well(_) | Fate::Compact | Fate::Break => Answer::Pieces(vec![text], End::Close),
        }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0usize..4).prop_map(Fate::Well),
        1 => Just(Fate::Break),
        2 => (0usize..400).prop_map(Fate::Cut),
        1 => Just(Fate::Compact),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_watch_adds_up(
        history in prop::collection::vec((0usize..5, prop::option::weighted(0.7, 0u64..9)), 1..30),
        fates in prop::collection::vec(fate(), 0..20),
    ) {
        let server = Arc::new(Mutex::new(Server { history, now: 0, compacted: 0, fates }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let answering = Arc::clone(&server);
        let client = serve(move |request| answering.lock().unwrap().answer(request.uri().query().unwrap()));
        let folded = runtime.block_on(async {
            let mut state = BTreeMap::new();
            let mut listed = BTreeMap::new();
            let mut listing = false;
            let mut newest = 0;
            let mut watch = client.watch::<Thing>(Params::default());
            // Longer than the longest wait, shorter than a watch.
            while let Ok(event) = tokio::time::timeout(Duration::from_secs(100), watch.next()).await {
                match event.unwrap() {
                    Event::Restarted => {
                        listing = true;
                        listed = BTreeMap::new();
                    }
                    Event::Synced => {
                        listing = false;
                        state = std::mem::take(&mut listed);
                    }
                    Event::Applied(thing) => {
                        let version: u64 = thing.metadata.resource_version.parse().unwrap();
                        if listing {
                            listed.insert(thing.metadata.name, (version, thing.size));
                        } else {
                            assert!(version > newest, "{version} after {newest}: repeated");
                            state.insert(thing.metadata.name, (version, thing.size));
                        }
                        newest = newest.max(version);
                    }
                    Event::Deleted { name, .. } => {
                        assert!(!listing);
                        assert!(state.remove(&name).is_some(), "{name} was not there: repeated");
                    }
                }
            }
            state
        });
        let server = server.lock().unwrap();
        prop_assert_eq!(server.now, server.history.len());
        prop_assert_eq!(folded, server.state(server.history.len()));
    }
}
