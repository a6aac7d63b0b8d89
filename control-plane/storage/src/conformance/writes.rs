//! Single writes, batches, and many at once.

use super::{
    Make, block_on, changes_until, create, delete, entry, next, prefix, put, quick, update,
};
use crate::{Change, Error, Revision, WatchEvent};

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
