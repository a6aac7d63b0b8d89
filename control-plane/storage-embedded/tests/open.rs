//! Opening on a real file system, and what stands against it.

use std::fs;
use std::path::Path;

use storage::{Error, Range, Revision, Storage, Write};
use storage_embedded::{Embedded, OpenError, Options};

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

fn open(directory: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(directory, Options::default())
}

fn create(store: &Embedded, key: &str, len: usize) -> Result<Revision, Error> {
    block_on(store.write(vec![Write::Create {
        key: key.to_owned(),
        value: vec![1; len].into(),
    }]))
}

const LOG: &str = "log-00000000000000000000";

#[test]
fn what_was_written_is_there_again() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("a/b");
    let store = open(&directory).unwrap();
    create(&store, "/a", 10).unwrap();
    create(&store, "/b", 0).unwrap();
    let before = block_on(store.list(Range::default())).unwrap();

    let Err(OpenError::Locked { pid, .. }) = open(&directory) else {
        panic!("one at a time");
    };
    assert_eq!(pid, std::process::id().to_string());
    drop(store);

    let store = open(&directory).unwrap();
    let after = block_on(store.list(Range::default())).unwrap();
    assert_eq!(after.entries, before.entries);
    assert_eq!(after.revision, Revision(2));
    // History too, as far as the log has it.
    let at = Range {
        at: Some(Revision(1)),
        ..Range::default()
    };
    assert_eq!(block_on(store.list(at)).unwrap().entries.len(), 1);
}

#[test]
fn what_is_lost_of_a_store_that_was_closed_is_no_crash() {
    let temporary = tempfile::tempdir().unwrap();
    let store = open(temporary.path()).unwrap();
    create(&store, "/a", 10).unwrap();
    create(&store, "/b", 10).unwrap();
    drop(store);
    let (log, begun) = (temporary.path().join(LOG), temporary.path().join("begun"));
    let bytes = fs::read(&log).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let refused = |bytes: &[u8], what: &str| {
        fs::write(&log, bytes).unwrap();
        let error = open(temporary.path()).expect_err(what).to_string();
        assert!(error.contains(LOG), "{error}");
        error
    };
    for at in 0..=written {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        refused(&damaged, "a bit");
        let error = refused(&bytes[..at], "the end");
        assert!(
            at < 40 || error.contains("when the store was closed"),
            "{error}"
        );
    }
    // What was found out is given up on purpose.
    fs::write(&begun, "").unwrap();
    let store = open(temporary.path()).unwrap();
    assert!(block_on(store.get("/a")).unwrap().is_some());
    assert!(block_on(store.get("/b")).unwrap().is_none());
    create(&store, "/c", 10).unwrap();
    drop(store);
    // Who opens it after a crash notes where it ends, whether anything is written or not.
    fs::write(&begun, "").unwrap();
    drop(open(temporary.path()).unwrap());
    let end = fs::read_to_string(&begun).unwrap();
    assert!(end.starts_with(LOG), "{end}");
    // Who only looks notes nothing.
    let noted = fs::metadata(&begun).unwrap().modified().unwrap();
    drop(open(temporary.path()).unwrap());
    assert_eq!(fs::metadata(&begun).unwrap().modified().unwrap(), noted);
}

#[test]
fn a_write_may_be_too_large() {
    let temporary = tempfile::tempdir().unwrap();
    let store = open(temporary.path()).unwrap();
    let refused = create(&store, "/a", 65 << 20);
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    create(&store, "/a", 9 << 20).expect("larger than a group");
    drop(store);
    let store = open(temporary.path()).unwrap();
    let entry = block_on(store.get("/a")).unwrap().unwrap();
    assert_eq!(entry.value.len(), 9 << 20);
}

/// What stands in the log, and what is said about it.
#[test]
fn other_files_are_refused() {
    let made = tempfile::tempdir().unwrap();
    drop(open(made.path()).unwrap());
    let header = fs::read(made.path().join(LOG)).unwrap();
    let cases: [(&[u8], &str); 4] = [
        (b"", "shorter than its header"),
        (b"# notes\n", "shorter than its header"),
        (
            &[b'x'; 100],
            "is not a storage file of Fairlead; move it away",
        ),
        (&header[..39], "shorter than its header"),
    ];
    for (bytes, wanted) in cases {
        let temporary = tempfile::tempdir().unwrap();
        let log = temporary.path().join(LOG);
        fs::write(&log, bytes).unwrap();
        let error = open(temporary.path()).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
        assert!(error.contains(&log.display().to_string()), "{error}");
        assert_eq!(fs::read(&log).unwrap(), bytes, "it is left as it was");
    }
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file).expect_err("a file is no directory");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    assert!(
        error.to_string().contains(&file.display().to_string()),
        "{error}"
    );
}

#[test]
fn files_of_others_are_left_alone() {
    let temporary = tempfile::tempdir().unwrap();
    for name in [
        "notes.tmp",
        "log-1",
        "snapshot-backup",
        "log-00000000000000000007.tmp",
    ] {
        fs::write(temporary.path().join(name), "x").unwrap();
    }
    drop(open(temporary.path()).unwrap());
    let mut names: Vec<_> = fs::read_dir(temporary.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "begun",
            "lock",
            LOG,
            "log-1",
            "notes.tmp",
            "snapshot-backup"
        ]
    );
}

#[test]
fn a_store_that_lost_its_files_is_not_begun_anew() {
    let temporary = tempfile::tempdir().unwrap();
    let store = open(temporary.path()).unwrap();
    create(&store, "/a", 10).unwrap();
    drop(store);
    fs::remove_file(temporary.path().join(LOG)).unwrap();
    let error = open(temporary.path()).expect_err("the log is gone");
    assert!(matches!(error, OpenError::Emptied { .. }), "{error}");
    assert!(error.to_string().contains("restore them"), "{error}");

    // Nothing was begun by the attempt, and a directory that was left empty on purpose is a new one.
    assert!(!temporary.path().join(LOG).exists());
    fs::remove_file(temporary.path().join("begun")).unwrap();
    drop(open(temporary.path()).unwrap());
}
