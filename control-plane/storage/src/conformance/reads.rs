//! Lists: ranges, pages, older revisions, and what compaction leaves.

use std::collections::BTreeMap;

use super::{Make, block_on, changes_until, create, delete, entry, prefix, quick, update};
use crate::{Entry, Error, Range, Revision};

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
                ..Range::default()
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
