//! Watches: what they see, in which order, and when they end.

use futures_util::stream::StreamExt;

use super::{Make, block_on, changes_until, create, delete, entry, next, put, quick, update};
use crate::memory::WatchLimits;
use crate::{Change, Error, Revision, WatchEvent};

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
