//! Backups of a store that is being written to, and what is made of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use storage::{Error, Range, Revision, Storage, Write};
use storage_embedded::{Embedded, OpenError, Options, backup, restore};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

fn options() -> Options {
    Options {
        // So that snapshots are taken, and logs begun and removed, while backups are made.
        log_bytes: 32 << 10,
        ..Options::default()
    }
}

#[test]
fn a_backup_of_a_running_store_is_of_one_moment() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("store");
    let store = Arc::new(Embedded::open(&directory, options()).unwrap());
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Two keys that are always written together.
            let mut expected = Revision(0);
            while !stop.load(Ordering::Relaxed) {
                let value = "v".repeat(200) + &expected.0.to_string();
                let writes = ["/a", "/b"].map(|key| {
                    let (key, value) = (key.to_owned(), value.clone().into());
                    if expected.0 == 0 {
                        Write::Create { key, value }
                    } else {
                        Write::Update {
                            key,
                            value,
                            expected,
                        }
                    }
                });
                expected = block_on(store.write(writes.to_vec())).unwrap();
                acknowledged.store(expected.0, Ordering::Release);
            }
        });
        while acknowledged.load(Ordering::Acquire) < 300 {
            std::thread::yield_now();
        }
        for round in 0..20 {
            let file = temporary.path().join(format!("backup-{round}"));
            let before = acknowledged.load(Ordering::Acquire);
            let copied = backup(&directory, &file).unwrap();
            assert!(
                copied.revision.0 >= before,
                "what was acknowledged is in it"
            );
            assert_eq!(copied.keys, 2);
            let made = temporary.path().join(format!("restored-{round}"));
            let restored = restore(&file, &made, 1000).unwrap();
            assert_eq!(restored.revision.0, copied.revision.0 + 1000);
            let again = Embedded::open(&made, options()).unwrap();
            let page = block_on(again.list(Range::default())).unwrap();
            assert_eq!(page.entries[0].value, page.entries[1].value);
            assert_eq!(page.entries[0].modified, copied.revision);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_restored_store_never_goes_back() {
    let temporary = tempfile::tempdir().unwrap();
    let (directory, file) = (
        temporary.path().join("store"),
        temporary.path().join("backup"),
    );
    let store = Embedded::open(&directory, options()).unwrap();
    let put = |store: &Embedded, key: &str| {
        block_on(store.write(vec![Write::Create {
            key: key.to_owned(),
            value: "1".into(),
        }]))
        .unwrap()
    };
    let first = put(&store, "/a");
    backup(&directory, &file).unwrap();
    // Lost, and seen by somebody.
    let lost = put(&store, "/b");
    drop(store);
    let occupied = restore(&file, &directory, 1000);
    assert!(
        matches!(occupied, Err(OpenError::Occupied { .. })),
        "{occupied:?}"
    );
    std::fs::remove_dir_all(&directory).unwrap();
    let made = restore(&file, &directory, 1000).unwrap();

    for _ in 0..2 {
        let store = Embedded::open(&directory, options()).unwrap();
        assert!(store.revision() >= made.revision && made.revision > lost);
        for seen in [first, lost] {
            let list = block_on(store.list(Range {
                at: Some(seen),
                ..Range::default()
            }))
            .err();
            let watch = block_on(store.watch(String::new(), Some(seen))).err();
            for refused in [list, watch] {
                assert!(
                    matches!(refused, Some(Error::Compacted { .. })),
                    "{refused:?}"
                );
            }
        }
        let entry = block_on(store.get("/a")).unwrap().unwrap();
        assert_eq!((entry.created, entry.modified), (first, first));
        let key = format!("/new/{}", store.revision().0);
        assert!(put(&store, &key) > made.revision);
    }
    // Nothing else is taken for a backup.
    std::fs::write(&file, "nonsense of some length, longer than a header").unwrap();
    let refused = restore(&file, temporary.path().join("other"), 0);
    assert!(
        matches!(refused, Err(OpenError::Foreign { .. })),
        "{refused:?}"
    );
    let nothing = backup(temporary.path().join("none"), &file);
    assert!(matches!(nothing, Err(OpenError::Io { .. })), "{nothing:?}");
}
