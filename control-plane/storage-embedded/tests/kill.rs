//! `kill -9` of a process that writes as fast as it can: what it was told is durable is there.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use storage::{Range, Revision, Storage, Write};
use storage_embedded::{Embedded, OpenError, Options};

/// Where the child process finds the directory.
const DIRECTORY: &str = "FAIRLEAD_TEST_KILL_DIRECTORY";

fn options() -> Options {
    Options {
        log_bytes: 64 << 10,
        ..Options::default()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(work)
}

/// Writes for ever, eight at a time, and says on standard output which revision was acknowledged.
fn write_until_killed(directory: &Path) -> ! {
    let store = Embedded::open(directory, options()).unwrap();
    let first = store.revision().0;
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for i in 0_u64.. {
                    let key = format!("/{first}/{writer}/{i}");
                    let value = format!("{key} {}", "v".repeat(100)).into();
                    let revision = block_on(store.write(vec![Write::Create { key, value }]));
                    let revision = revision.unwrap().0;
                    // One system call, so that lines of the writers do not mix.
                    let line = format!("acknowledged {revision} /{first}/{writer}/{i}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
    unreachable!("the writers go on for ever")
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        write_until_killed(Path::new(&directory));
    }
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    let mut acknowledged: Vec<(u64, String)> = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "what_was_acknowledged_survives_kill_9",
                "--nocapture",
            ])
            .env(DIRECTORY, &directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut read = 0;
        let mut note = |line: String| {
            let mut words = line.split(' ');
            if words.next() == Some("acknowledged")
                && let (Some(revision), Some(key)) = (words.next(), words.next())
            {
                read += 1;
                acknowledged.push((revision.parse().unwrap(), key.to_owned()));
            }
            read
        };
        // Far enough that a snapshot is being taken or has been, at a different point each time.
        while note(lines.next().unwrap().unwrap()) < 600 + round * 97 {
            if round == 0 && acknowledged_enough(&directory) {
                refused_while_open(&directory, child.id());
            }
        }
        child.kill().unwrap();
        for line in lines {
            note(line.unwrap());
        }
        child.wait().unwrap();

        let store = Embedded::open(&directory, options()).unwrap();
        let newest = store.revision();
        let page = block_on(store.list(Range::default())).unwrap();
        assert_eq!(
            page.entries.len() as u64,
            newest.0,
            "each revision made one key"
        );
        for (revision, key) in &acknowledged {
            let entry = block_on(store.get(key)).unwrap();
            let entry = entry.unwrap_or_else(|| panic!("{key} of revision {revision} is lost"));
            assert_eq!(entry.modified, Revision(*revision));
            assert!(entry.value.starts_with(key.as_bytes()));
        }
    }
    assert!(acknowledged.len() > 4_000, "{} writes", acknowledged.len());
    for file in std::fs::read_dir(&directory).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
    let mode = std::fs::metadata(&directory).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Whether the child has the store open for certain: its log is there.
fn acknowledged_enough(directory: &Path) -> bool {
    directory.join("lock").exists()
}

/// A second process is told who has the directory.
fn refused_while_open(directory: &Path, holder: u32) {
    match Embedded::open(directory, options()) {
        Err(error @ OpenError::Locked { .. }) => {
            let message = error.to_string();
            assert!(
                message.contains(&directory.display().to_string()),
                "{message}"
            );
            assert!(message.contains(&holder.to_string()), "{message}");
        }
        other => panic!("locked and not {other:?}"),
    }
}
