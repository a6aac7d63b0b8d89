//! The named cases.

use std::collections::BTreeMap;

use futures_util::stream::StreamExt;

use super::{
    Make, block_on, changes_until, create, delete, entry, next, prefix, put, quick, update,
};
use crate::memory::WatchLimits;
use crate::{Change, Entry, Error, Range, Revision, WatchEvent};

pub(super) fn an_empty_store(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        assert_eq!(store.revision(), Revision(0));
        assert_eq!(store.get("/a").await.unwrap(), None);
        let page = store.list(prefix("/")).await.unwrap();
        assert_eq!((page.entries.len(), page.remaining), (0, 0));
        assert_eq!(page.revision, Revision(0));
        assert_eq!(store.write(Vec::new()).await.unwrap(), Revision(0));
        store.compact(Revision(0)).await.unwrap();
        let mut watch = store.watch("/".into(), Some(Revision(0))).await.unwrap();
        let first = next(&mut watch).await.unwrap();
        assert_eq!(first, WatchEvent::Progress(Revision(0)));
    });
}

pub(super) fn create_get_update_delete(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        let write = store.write(vec![create("/a", "1")]).await;
        assert_eq!(write.unwrap(), Revision(1));
        assert_eq!(store.revision(), Revision(1));
        assert_eq!(store.get("/a").await.unwrap(), Some(entry("/a", "1", 1, 1)));
        assert_eq!(store.get("/").await.unwrap(), None);

        let write = store.write(vec![update("/a", "2", 1)]).await;
        assert_eq!(write.unwrap(), Revision(2));
        assert_eq!(store.get("/a").await.unwrap(), Some(entry("/a", "2", 1, 2)));

        let write = store.write(vec![delete("/a", 2)]).await;
        assert_eq!(write.unwrap(), Revision(3));
        assert_eq!(store.get("/a").await.unwrap(), None);

        let write = store.write(vec![create("/a", "")]).await;
        assert_eq!(write.unwrap(), Revision(4));
        assert_eq!(store.get("/a").await.unwrap(), Some(entry("/a", "", 4, 4)));
    });
}

pub(super) fn writes_expect_a_revision(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        store.write(vec![update("/a", "2", 1)]).await.unwrap();

        let refused = store.write(vec![create("/a", "x")]).await;
        assert!(matches!(refused, Err(Error::Exists { key }) if key == "/a"));
        for write in [update("/b", "x", 1), delete("/b", 1), update("/b", "x", 0)] {
            let refused = store.write(vec![write]).await;
            assert!(matches!(refused, Err(Error::NotFound { key }) if key == "/b"));
        }
        for write in [update("/a", "x", 1), delete("/a", 1), delete("/a", 3)] {
            let refused = store.write(vec![write]).await;
            let Err(Error::Conflict { current }) = refused else {
                panic!("a conflict and not {refused:?}");
            };
            assert_eq!(current, entry("/a", "2", 1, 2));
        }
        assert_eq!(store.revision(), Revision(2), "a refusal takes no revision");
    });
}

pub(super) fn several_writes_are_one(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        store.write(vec![create("/b", "1")]).await.unwrap();
        let mut watch = store.watch("/".into(), None).await.unwrap();

        let refused = store
            .write(vec![
                create("/c", "1"),
                update("/a", "2", 1),
                delete("/b", 1),
            ])
            .await;
        assert!(matches!(refused, Err(Error::Conflict { current }) if &*current.key == "/b"));
        assert_eq!(store.get("/c").await.unwrap(), None, "none was carried out");
        assert_eq!(store.revision(), Revision(2));

        let batch = vec![create("/c", "1"), update("/a", "2", 1), delete("/b", 2)];
        assert_eq!(store.write(batch).await.unwrap(), Revision(3));
        let page = store.list(prefix("/")).await.unwrap();
        assert_eq!(
            page.entries,
            [entry("/a", "2", 1, 3), entry("/c", "1", 3, 3)]
        );
        assert_eq!(
            changes_until(&mut watch, Revision(3)).await,
            [
                put(entry("/c", "1", 3, 3), None),
                put(entry("/a", "2", 1, 3), Some(entry("/a", "1", 1, 1))),
                Change::Delete {
                    revision: Revision(3),
                    previous: entry("/b", "1", 2, 2)
                },
            ],
            "in the order of the batch"
        );
    });
}

pub(super) fn a_key_is_named_once(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        for second in [create("/a", "x"), update("/a", "x", 1), delete("/a", 1)] {
            let batch = vec![update("/a", "2", 1), create("/b", "1"), second];
            let refused = store.write(batch).await;
            assert!(matches!(refused, Err(Error::Refused { reason }) if reason.contains("/a")));
        }
        assert_eq!(store.revision(), Revision(1));
    });
}

/// Prefix, start, limit; what is found, and how many more there are.
type ListCase = (
    &'static str,
    Option<&'static str>,
    usize,
    &'static [&'static str],
    u64,
);

pub(super) fn lists_are_ranges(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        let keys = [
            "/a",
            "/a/",
            "/a/1",
            "/a/2",
            "/a/é",
            "/a0",
            "/b",
            "/\u{10ffff}",
        ];
        for key in keys {
            store.write(vec![create(key, "v")]).await.unwrap();
        }
        let table: &[ListCase] = &[
            (
                "",
                None,
                0,
                &[
                    "/a",
                    "/a/",
                    "/a/1",
                    "/a/2",
                    "/a/é",
                    "/a0",
                    "/b",
                    "/\u{10ffff}",
                ],
                0,
            ),
            (
                "/a",
                None,
                0,
                &["/a", "/a/", "/a/1", "/a/2", "/a/é", "/a0"],
                0,
            ),
            ("/a/", None, 0, &["/a/", "/a/1", "/a/2", "/a/é"], 0),
            ("/a/", None, 2, &["/a/", "/a/1"], 2),
            ("/a/", None, 4, &["/a/", "/a/1", "/a/2", "/a/é"], 0),
            ("/a/", None, 5, &["/a/", "/a/1", "/a/2", "/a/é"], 0),
            ("/a/", Some("/a/1"), 1, &["/a/1"], 2),
            ("/a/", Some("/a/1\0"), 0, &["/a/2", "/a/é"], 0),
            ("/a/", Some("/a/9"), 0, &["/a/é"], 0),
            ("/a/", Some("/"), 1, &["/a/"], 3),
            ("/a/", Some("/b"), 0, &[], 0),
            ("/c", None, 0, &[], 0),
            ("/\u{10ffff}", None, 0, &["/\u{10ffff}"], 0),
        ];
        for (prefix, start, limit, found, remaining) in table {
            let range = Range {
                prefix: (*prefix).to_owned(),
                start: start.map(str::to_owned),
                limit: *limit,
                at: None,
            };
            let page = store.list(range.clone()).await.unwrap();
            let keys: Vec<&str> = page.entries.iter().map(|entry| &*entry.key).collect();
            assert_eq!(keys, *found, "{range:?}");
            assert_eq!(page.remaining, *remaining, "{range:?}");
            assert_eq!(page.revision, Revision(8));
        }
    });
}

pub(super) fn pages_are_of_one_revision(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        for i in 0..50 {
            let write = create(&format!("/k/{i:03}"), "old");
            store.write(vec![write]).await.unwrap();
        }
        let mut range = prefix("/k/");
        range.limit = 7;
        let mut found: Vec<Entry> = Vec::new();
        loop {
            let page = store.list(range.clone()).await.unwrap();
            assert_eq!(page.revision, Revision(50));
            let Some(last) = page.entries.last() else {
                break;
            };
            range.at = Some(page.revision);
            range.start = Some(format!("{}\0", last.key));
            found.extend(page.entries);
            assert_eq!(page.remaining, 50 - found.len() as u64);
            // Meanwhile the store moves on, before and behind the reader.
            let i = found.len() as u64 - 1;
            for i in [i, 49 - i] {
                let key = format!("/k/{i:03}");
                if let Some(now) = store.get(&key).await.unwrap() {
                    let write = delete(&key, now.modified.0);
                    store.write(vec![write]).await.unwrap();
                }
            }
            store
                .write(vec![create(&format!("/k/{i:03}x"), "new")])
                .await
                .unwrap();
        }
        assert_eq!(found.len(), 50);
        assert!(found.iter().all(|entry| entry.value == "old"));
    });
}

pub(super) fn lists_at_every_revision(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        let mut now: BTreeMap<String, Entry> = BTreeMap::new();
        let mut states = vec![Vec::new()];
        for i in 0..200_u64 {
            let key = format!("/k/{}", i * 7 % 13);
            let value = i.to_string();
            let revision = i + 1;
            let write = match now.get(&key) {
                None => create(&key, &value),
                Some(old) if i % 3 == 0 => delete(&key, old.modified.0),
                Some(old) => update(&key, &value, old.modified.0),
            };
            store.write(vec![write]).await.unwrap();
            match now.remove(&key) {
                Some(_) if i % 3 == 0 => {}
                old => {
                    let created = old.map_or(revision, |old| old.created.0);
                    now.insert(key.clone(), entry(&key, &value, created, revision));
                }
            }
            states.push(now.values().cloned().collect());
        }
        for (revision, state) in states.iter().enumerate().rev() {
            let mut range = prefix("/k/");
            range.at = Some(Revision(revision as u64));
            let page = store.list(range).await.unwrap();
            assert_eq!(&page.entries, state, "at revision {revision}");
            assert_eq!(page.revision, Revision(revision as u64));
        }
    });
}

pub(super) fn watch_from_every_revision(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        // Two prefixes, written in turn; the watch sees its own, whether written before or after it began.
        for i in 0..20_u64 {
            let write = create(&format!("/{}/{i}", ["a", "ab"][i as usize % 2]), "v");
            store.write(vec![write]).await.unwrap();
        }
        let mut watches = Vec::new();
        for from in 0..=20 {
            let watch = store.watch("/a/".into(), Some(Revision(from))).await;
            watches.push((from, watch.unwrap()));
        }
        watches.push((20, store.watch("/a/".into(), None).await.unwrap()));
        for i in 20..40_u64 {
            let write = create(&format!("/{}/{i}", ["a", "ab"][i as usize % 2]), "v");
            store.write(vec![write]).await.unwrap();
        }
        for (from, mut watch) in watches {
            let seen: Vec<u64> = changes_until(&mut watch, Revision(40))
                .await
                .iter()
                .inspect(|change| assert!(change.key().starts_with("/a/")))
                .map(|change| change.revision().0)
                .collect();
            let wanted: Vec<u64> = (from + 1..=40)
                .filter(|revision| revision % 2 == 1)
                .collect();
            assert_eq!(seen, wanted, "from {from}");
        }
    });
}

pub(super) fn watch_sees_what_was_before(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        let mut live = store.watch("/a".into(), None).await.unwrap();
        for write in [
            create("/a", "1"),
            update("/a", "2", 1),
            delete("/a", 2),
            create("/a", "3"),
        ] {
            store.write(vec![write]).await.unwrap();
        }
        let mut replay = store.watch("/a".into(), Some(Revision(0))).await.unwrap();
        let wanted = [
            put(entry("/a", "1", 1, 1), None),
            put(entry("/a", "2", 1, 2), Some(entry("/a", "1", 1, 1))),
            Change::Delete {
                revision: Revision(3),
                previous: entry("/a", "2", 1, 2),
            },
            put(entry("/a", "3", 4, 4), None),
        ];
        assert_eq!(changes_until(&mut live, Revision(4)).await, wanted);
        assert_eq!(changes_until(&mut replay, Revision(4)).await, wanted);
    });
}

pub(super) fn watch_tells_progress(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        store.write(vec![create("/b", "1")]).await.unwrap();
        let mut watch = store.watch("/a".into(), Some(Revision(0))).await.unwrap();
        let first = next(&mut watch).await.unwrap();
        assert_eq!(first, WatchEvent::Change(put(entry("/a", "1", 1, 1), None)));
        let second = next(&mut watch).await.unwrap();
        assert_eq!(
            second,
            WatchEvent::Progress(Revision(2)),
            "the backlog is through"
        );
        for revision in 3..6 {
            let write = create(&format!("/b{revision}"), "1");
            store.write(vec![write]).await.unwrap();
            let told = next(&mut watch).await.unwrap();
            assert_eq!(told, WatchEvent::Progress(Revision(revision)));
        }
    });
}

pub(super) fn compaction_forgets(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        store.write(vec![create("/b", "1")]).await.unwrap();
        store.write(vec![delete("/b", 2)]).await.unwrap();
        store.write(vec![update("/a", "2", 1)]).await.unwrap();
        store.write(vec![update("/a", "3", 4)]).await.unwrap();
        store.compact(Revision(3)).await.unwrap();
        store.compact(Revision(1)).await.expect("done already");

        for at in 0..=5 {
            let mut range = prefix("/");
            range.at = Some(Revision(at));
            let page = store.list(range).await;
            let watch = store.watch("/".into(), Some(Revision(at))).await;
            if at < 3 {
                for refused in [page.err(), watch.err()] {
                    let Some(Error::Compacted { asked, oldest }) = refused else {
                        panic!("compacted at {at} and not {refused:?}");
                    };
                    assert_eq!((asked, oldest), (Revision(at), Revision(3)));
                }
                continue;
            }
            let value = ["1", "2", "3"][at as usize - 3];
            let modified = [1, 4, 5][at as usize - 3];
            assert_eq!(
                page.unwrap().entries,
                [entry("/a", value, 1, modified)],
                "at {at}"
            );
            let mut watch = watch.unwrap();
            let seen = changes_until(&mut watch, Revision(5)).await;
            let revisions: Vec<u64> = seen.iter().map(|change| change.revision().0).collect();
            assert_eq!(revisions, (at + 1..=5).collect::<Vec<_>>());
        }
        let value = store.get("/a").await.unwrap();
        assert_eq!(value, Some(entry("/a", "3", 1, 5)));
    });
}

pub(super) fn compaction_spares_a_watch(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        for i in 0..5 {
            store
                .write(vec![create(&format!("/{i}"), "1")])
                .await
                .unwrap();
        }
        let mut backlog = store.watch("/".into(), Some(Revision(0))).await.unwrap();
        let mut live = store.watch("/".into(), None).await.unwrap();
        let mut quiet = store.watch("/none".into(), None).await.unwrap();
        for i in 5..10 {
            store
                .write(vec![create(&format!("/{i}"), "1")])
                .await
                .unwrap();
        }
        store.compact(Revision(10)).await.unwrap();
        assert_eq!(changes_until(&mut backlog, Revision(10)).await.len(), 10);
        assert_eq!(changes_until(&mut live, Revision(10)).await.len(), 5);
        assert_eq!(changes_until(&mut quiet, Revision(10)).await.len(), 0);
    });
}

pub(super) fn the_future_is_refused(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/a", "1")]).await.unwrap();
        let mut range = prefix("/");
        range.at = Some(Revision(2));
        let list = store.list(range).await.err();
        let watch = store.watch("/".into(), Some(Revision(2))).await.err();
        let compact = store.compact(Revision(2)).await.err();
        for refused in [list, watch, compact] {
            let Some(Error::Future { asked, newest }) = refused else {
                panic!("the future and not {refused:?}");
            };
            assert_eq!((asked, newest), (Revision(2), Revision(1)));
        }
    });
}

pub(super) fn a_slow_watcher_is_cut_off(make: Make<'_>) {
    let store = make(WatchLimits {
        unread_bytes: 64 << 10,
        ..quick()
    });
    block_on(async {
        let value = "v".repeat(1024);
        let mut slow = store.watch("/a/".into(), None).await.unwrap();
        let mut other = store.watch("/b/".into(), None).await.unwrap();
        for i in 0..200 {
            let write = create(&format!("/a/{i}"), &value);
            store.write(vec![write]).await.unwrap();
        }
        let mut seen = 0;
        let end = loop {
            match next(&mut slow).await {
                Ok(WatchEvent::Progress(_)) => {}
                Ok(WatchEvent::Change(change)) => {
                    seen += 1;
                    assert_eq!(change.revision(), Revision(seen), "no gap before the end");
                }
                Err(end) => break end,
            }
        };
        assert!(matches!(end, Error::Slow), "{end}");
        assert!(seen < 70, "{seen} KiB waited, 64 may");
        assert!(slow.next().await.is_none(), "the stream is over");
        assert!(changes_until(&mut other, Revision(200)).await.is_empty());
        // From the last revision seen it goes on without a gap.
        let mut again = store
            .watch("/a/".into(), Some(Revision(seen)))
            .await
            .unwrap();
        let rest = changes_until(&mut again, Revision(200)).await.len();
        assert_eq!(rest as u64, 200 - seen);
    });
}

pub(super) fn a_backlog_is_not_slowness(make: Make<'_>) {
    let store = make(WatchLimits {
        unread_bytes: 4 << 10,
        ..quick()
    });
    block_on(async {
        let value = "v".repeat(1024);
        for i in 0..100 {
            let write = create(&format!("/a/{i}"), &value);
            store.write(vec![write]).await.unwrap();
        }
        let mut watch = store.watch("/a/".into(), Some(Revision(0))).await.unwrap();
        assert_eq!(changes_until(&mut watch, Revision(100)).await.len(), 100);
    });
}

pub(super) fn many_writers(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        let mut watch = store.watch("/w/".into(), None).await.unwrap();
        let mut writers = Vec::new();
        for writer in 0..64 {
            let store = std::sync::Arc::clone(&store);
            writers.push(tokio::spawn(async move {
                let mut revisions = Vec::new();
                let key = format!("/w/{writer}");
                let mut last = store.write(vec![create(&key, "0")]).await.unwrap();
                revisions.push(last);
                for i in 1..20 {
                    let write = update(&key, &i.to_string(), last.0);
                    last = store.write(vec![write]).await.unwrap();
                    let now = store.get(&key).await.unwrap().unwrap();
                    assert_eq!(now.modified, last, "a writer reads what it wrote");
                    assert!(store.revision() >= last);
                    revisions.push(last);
                }
                revisions
            }));
        }
        let mut all = Vec::new();
        for writer in writers {
            let revisions = writer.await.unwrap();
            assert!(revisions.is_sorted_by(|a, b| a < b));
            all.extend(revisions);
        }
        all.sort_unstable();
        let total = 64 * 20;
        let wanted: Vec<Revision> = (1..=total).map(Revision).collect();
        assert_eq!(all, wanted, "each write its own revision, none left out");
        let seen = changes_until(&mut watch, Revision(total)).await;
        let revisions: Vec<Revision> = seen.iter().map(Change::revision).collect();
        assert_eq!(revisions, wanted, "the watch sees all in order");
    });
}

pub(super) fn one_winner_per_revision(make: Make<'_>) {
    let store = make(quick());
    block_on(async {
        store.write(vec![create("/n", "0")]).await.unwrap();
        let mut writers = Vec::new();
        for _ in 0..8 {
            let store = std::sync::Arc::clone(&store);
            writers.push(tokio::spawn(async move {
                let mut won = 0;
                while won < 10 {
                    let now = store.get("/n").await.unwrap().unwrap();
                    let n: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                    let write = update("/n", &(n + 1).to_string(), now.modified.0);
                    match store.write(vec![write]).await {
                        Ok(_) => won += 1,
                        Err(Error::Conflict { current }) => {
                            assert!(current.modified > now.modified);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let end = store.get("/n").await.unwrap();
        assert_eq!(end, Some(entry("/n", "80", 1, 81)), "no update was lost");
    });
}
