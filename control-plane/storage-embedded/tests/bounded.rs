//! However much is written, the disk holds what is current and some history.

use std::path::Path;

use storage::{Range, Revision, Storage, Write};
use storage_embedded::{Embedded, Options};

const KEYS: u64 = 16;
const VALUE: usize = 4 << 10;
const LOG: u64 = 256 << 10;
const WRITES: u64 = 4000;

fn open(directory: &Path) -> Embedded {
    let options = Options {
        log_bytes: LOG,
        ..Options::default()
    };
    Embedded::open(directory, options).unwrap()
}

fn size(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    // A file may go while they are counted.
    let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
    sizes.sum()
}

/// The key that a revision wrote, and what it wrote.
fn written(revision: u64) -> (String, Vec<u8>) {
    let mut value = vec![b'.'; VALUE];
    value[..8].copy_from_slice(&revision.to_le_bytes());
    (format!("/{:02}", revision % KEYS), value)
}

#[tokio::test]
async fn the_disk_is_bounded_and_history_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut largest = 0;
    for revision in 1..=WRITES {
        let (key, value) = written(revision);
        let value = value.into();
        let write = if revision <= KEYS {
            Write::Create { key, value }
        } else {
            let expected = Revision(revision - KEYS);
            Write::Update {
                key,
                value,
                expected,
            }
        };
        let written = store.write(vec![write]).await.unwrap();
        assert_eq!(written, Revision(revision));
        if revision % 50 == 0 {
            largest = largest.max(size(directory.path()));
        }
    }
    // 16 MiB were written. Two snapshots and three logs are a megabyte; a snapshot that waits for a busy disk lets the
    // log grow meanwhile.
    assert!(largest < 24 * LOG, "{largest} bytes");
    drop(store);

    let store = open(directory.path());
    assert_eq!(store.revision(), Revision(WRITES));
    let oldest = WRITES - LOG / VALUE as u64;
    for revision in oldest..=WRITES {
        let (key, value) = written(revision);
        let range = Range {
            prefix: key,
            at: Some(Revision(revision)),
            ..Range::default()
        };
        let page = store.list(range).await.unwrap();
        assert_eq!(page.entries[0].value, value, "{revision}");
    }
    assert!(size(directory.path()) < 24 * LOG);
}
