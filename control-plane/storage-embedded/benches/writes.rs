//! `cargo bench -p storage-embedded`: writes a second with 64 writers and 1 KiB values, each durable before it is
//! acknowledged; the list of 50,000 entries; opening 100,000 entries. Beside it, what the disk does alone.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use storage::{Range, Revision, Storage, WatchEvent, Write};
use storage_embedded::{Embedded, Options};

const WRITERS: usize = 64;
const WRITES: usize = 2_000;

fn main() {
    // Test runners start every target; only `cargo bench` says this.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    disk_alone(&directory.path().join("alone"));
    let path = directory.path().join("store");
    runtime.block_on(async {
        let store = Arc::new(Embedded::open(&path, Options::default()).expect("the store opens"));
        write_all(&store, 1, WRITES).await;
        drop(store);
        for watchers in [0, 100] {
            writes_watched(&path, watchers).await;
        }
        lists(&path).await;
    });
    let began = Instant::now();
    let store = Embedded::open(&path, Options::default()).expect("the store opens");
    println!(
        "open, {} revisions: {:?}",
        store.revision().0,
        began.elapsed()
    );
}

fn disk_alone(path: &Path) {
    let mut file = File::create(path).expect("a file can be made");
    let block = [1_u8; 64 * 1100];
    let mut took: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&block).expect("it can be written");
            file.sync_data().expect("it can be synced");
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    println!(
        "disk alone, append {} KiB + fdatasync: p50 {:?}, p99 {:?}",
        block.len() >> 10,
        took[100],
        took[198]
    );
}

async fn writes_watched(path: &Path, watchers: usize) {
    let store = Arc::new(Embedded::open(path, Options::default()).expect("the store opens"));
    let mut tasks = Vec::new();
    for i in 0..watchers {
        let prefix = format!("/registry/pods/{}/", i % WRITERS);
        let mut watch = store.watch(prefix, None).await.expect("the watch begins");
        tasks.push(tokio::spawn(async move {
            let mut changes = 0;
            while let Some(Ok(event)) = watch.next().await {
                changes += usize::from(matches!(event, WatchEvent::Change(_)));
            }
            changes
        }));
    }
    write_all(&store, WRITERS, WRITES).await;
    drop(store);
    let mut seen = 0;
    for task in tasks {
        seen += task.await.expect("a watcher ends with the store");
    }
    println!("  with {watchers} watchers, who saw {seen} changes");
}

/// Has `writers` write `each` values at once.
async fn write_all(store: &Arc<Embedded>, writers: usize, each: usize) {
    let value = bytes::Bytes::from(vec![b'v'; 1024]);
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, value) = (Arc::clone(store), value.clone());
            tokio::spawn(async move {
                let mut took = Vec::with_capacity(each);
                for i in 0..each {
                    let key = format!("/registry/pods/{writer}/{i:06}");
                    let current = store.get(&key).await.expect("reads work");
                    let began = Instant::now();
                    let write = match current {
                        None => Write::Create {
                            key,
                            value: value.clone(),
                        },
                        Some(current) => Write::Update {
                            key,
                            value: value.clone(),
                            expected: current.modified,
                        },
                    };
                    store.write(vec![write]).await.expect("writes work");
                    took.push(began.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a writer ends"));
    }
    let per_second = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{writers} writers: {per_second:.0} writes/s, p50 {p50:?}, p99 {p99:?}");
}

async fn lists(path: &Path) {
    let store = Embedded::open(path, Options::default()).expect("the store opens");
    let newest = store.revision();
    for (what, limit, at) in [
        ("newest", 50_000, None),
        (
            "5,000 revisions back",
            50_000,
            Some(Revision(newest.0 - 5_000)),
        ),
        ("newest, a page of 500", 500, None),
    ] {
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..10 {
            let range = Range {
                prefix: "/registry/pods/".to_owned(),
                start: None,
                limit,
                at,
            };
            let began = Instant::now();
            let page = store.list(range).await.expect("lists work");
            took.push(began.elapsed());
            assert_eq!(page.entries.len(), limit);
        }
        took.sort_unstable();
        println!(
            "list of {limit} ({what}): p50 {:?}, worst {:?}",
            took[5], took[9]
        );
    }
}
