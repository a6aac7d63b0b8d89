//! What only an etcd of its own shows: others who write to it, members that go away, time to live, compaction by turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use storage::linear::drive::{self, Size};
use storage::linear::{Outcome, check};
use storage::{
    Answer, Change, Codec, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write,
};
use storage_etcd::testing::{Server, free_port};
use storage_etcd::{ConnectError, Etcd, Options};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(30);

/// Values as they are.
struct Plain;

impl Codec for Plain {
    fn encode(&self, _: &str, value: &Bytes) -> Bytes {
        value.clone()
    }
    fn decode(&self, _: &str, stored: Bytes) -> Result<Bytes, String> {
        Ok(stored)
    }
}

fn options(server: &Server) -> Options {
    Options {
        root: String::new(),
        prefix: String::new(),
        timeout: Duration::from_secs(3),
        compaction: None,
        ..Options::new(vec![server.url.clone()])
    }
}

async fn connect(server: &Server) -> Etcd {
    let store = Etcd::connect(options(server), Arc::new(Plain)).await;
    store.expect("etcd answers")
}

fn create(key: &str, value: &str) -> Vec<Write> {
    vec![Write::Create {
        key: key.to_owned(),
        value: value.to_owned().into(),
    }]
}

fn update(key: &str, value: &str, expected: Revision) -> Vec<Write> {
    vec![Write::Update {
        key: key.to_owned(),
        value: value.to_owned().into(),
        expected,
    }]
}

/// Waits until the condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn two_stores_are_one() {
    let server = Server::start();
    let (a, b) = (connect(&server).await, connect(&server).await);
    let first = a.write(create("/registry/x/1", "a")).await.unwrap();
    // What one has acknowledged the other reads, at once.
    let seen = b.get("/registry/x/1").await.unwrap().unwrap();
    assert_eq!((&seen.value[..], seen.modified), (&b"a"[..], first));
    let Err(Error::Exists { key }) = b.write(create("/registry/x/1", "b")).await else {
        panic!("a key exists once");
    };
    assert_eq!(key, "/registry/x/1");
    let second = b.write(update("/registry/x/1", "b", first)).await.unwrap();
    let Err(Error::Conflict { current }) = a.write(update("/registry/x/1", "c", first)).await
    else {
        panic!("a revision is updated once");
    };
    assert_eq!((&current.value[..], current.modified), (&b"b"[..], second));
    assert_eq!(a.newest().await.unwrap(), second);
    // The history of before its time is there for one who comes later.
    let late = connect(&server).await;
    let mut events = late
        .watch("/registry/x/".into(), Some(Revision(first.0 - 1)))
        .await
        .unwrap();
    let mut values = Vec::new();
    while values.len() < 2 {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        if let WatchEvent::Change(Change::Put { entry, .. }) = event.unwrap() {
            values.push(entry.value);
        }
    }
    assert_eq!(values, ["a", "b"]);
    // Who stands below another prefix sees nothing of it.
    let options = Options {
        prefix: "/other".to_owned(),
        ..options(&server)
    };
    let other = Etcd::connect(options, Arc::new(Plain)).await.unwrap();
    let page = other.list(Range::default()).await.unwrap();
    assert!(page.entries.is_empty() && page.revision == second);
}

#[tokio::test]
async fn of_writers_on_two_stores_one_wins_each_revision() {
    let server = Server::start();
    let stores = [connect(&server).await, connect(&server).await];
    let key = "/registry/counter";
    stores[0].write(create(key, "0")).await.unwrap();
    let count = async |store: &Etcd| {
        let mut done = 0;
        while done < 50 {
            let entry = store.get(key).await.unwrap().unwrap();
            let now: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let next = (now + 1).to_string();
            match store.write(update(key, &next, entry.modified)).await {
                Ok(_) => done += 1,
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(count(&stores[0]), count(&stores[1]));
    let entry = stores[1].get(key).await.unwrap().unwrap();
    assert_eq!(entry.value, "100");
}

#[tokio::test]
async fn an_etcd_that_is_away_is_an_error_in_time_and_comes_back() {
    let mut server = Server::start();
    let store = connect(&server).await;
    let first = store.write(create("/registry/x/1", "a")).await.unwrap();
    let mut events = store.watch("/registry/".into(), Some(first)).await.unwrap();
    server.kill();
    let began = Instant::now();
    for failed in [
        store.get("/registry/x/1").await.err(),
        store.list(Range::default()).await.err(),
        store.write(create("/registry/x/2", "b")).await.err(),
        store.compact(first).await.err(),
    ] {
        assert!(
            matches!(failed, Some(Error::Unavailable { .. })),
            "{failed:?}"
        );
        let words = failed.unwrap().to_string();
        assert!(words.contains(&server.url), "{words}");
    }
    assert!(began.elapsed() < Duration::from_secs(13));
    // History is at hand all the same.
    let range = Range {
        at: Some(first),
        ..Range::default()
    };
    assert_eq!(store.list(range).await.unwrap().entries.len(), 1);
    server.run();
    until("it is back", async || {
        store.get("/registry/x/1").await.is_ok()
    })
    .await;
    let second = store.write(create("/registry/x/3", "c")).await.unwrap();
    // The watch has gone on without a gap.
    loop {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        if let WatchEvent::Change(change) = event.unwrap() {
            assert_eq!(change.revision(), second);
            break;
        }
    }
}

#[tokio::test]
async fn what_was_compacted_while_a_store_was_cut_off_is_not_made_up() {
    let mut server = Server::start();
    let store = connect(&server).await;
    let first = store.write(create("/registry/x/1", "a")).await.unwrap();
    let mut events = store.watch("/registry/".into(), Some(first)).await.unwrap();
    // The store is cut off by its server's absence; the other comes back first and goes on.
    server.kill();
    let options = Options {
        timeout: Duration::from_millis(500),
        ..options(&server)
    };
    let _ = store.get("/registry/x/1").await;
    server.run();
    let other = Etcd::connect(options, Arc::new(Plain)).await.unwrap();
    let mut last = first;
    for i in 0..20 {
        last = other
            .write(update("/registry/x/1", &i.to_string(), last))
            .await
            .unwrap();
    }
    other.compact(last).await.unwrap();
    until("the store is there again", async || {
        store
            .get("/registry/x/1")
            .await
            .is_ok_and(|entry| entry.is_some_and(|entry| entry.modified == last))
    })
    .await;
    // Either the watch saw every change before it was compacted, or it was cut off; never a gap.
    let mut seen = first;
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap() {
            Some(Ok(WatchEvent::Change(change))) => {
                assert_eq!(change.revision().0, seen.0 + 1);
                seen = change.revision();
                if seen == last {
                    break;
                }
            }
            Some(Ok(WatchEvent::Progress(_))) => {}
            Some(Err(Error::Slow)) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_has_a_time_to_live_goes() {
    let server = Server::start();
    let options = Options {
        leases: vec![("/registry/events/".to_owned(), Duration::from_secs(1))],
        ..options(&server)
    };
    let store = Etcd::connect(options, Arc::new(Plain)).await.unwrap();
    let mut events = store.watch("/registry/".into(), None).await.unwrap();
    store
        .write(create("/registry/events/a", "1"))
        .await
        .unwrap();
    store.write(create("/registry/pods/a", "1")).await.unwrap();
    loop {
        let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
        if let WatchEvent::Change(Change::Delete { previous, .. }) = event.unwrap() {
            assert_eq!(&*previous.key, "/registry/events/a");
            break;
        }
    }
    let page = store.list(Range::default()).await.unwrap();
    assert_eq!(page.entries.len(), 1, "what has none stays");
}

#[tokio::test]
async fn history_is_compacted_by_turns() {
    let server = Server::start();
    let options = || Options {
        compaction: Some(Duration::from_millis(300)),
        ..options(&server)
    };
    let store = Etcd::connect(options(), Arc::new(Plain)).await.unwrap();
    let _beside = Etcd::connect(options(), Arc::new(Plain)).await.unwrap();
    assert!(store.keeps_house());
    let first = store.write(create("/registry/x/1", "a")).await.unwrap();
    let second = store
        .write(update("/registry/x/1", "b", first))
        .await
        .unwrap();
    until("the first is forgotten", async || {
        let range = Range {
            at: Some(first),
            ..Range::default()
        };
        // A store that comes later has only what etcd has.
        let late = connect(&server).await;
        matches!(late.list(range).await, Err(Error::Compacted { .. }))
    })
    .await;
    let entry = store.get("/registry/x/1").await.unwrap().unwrap();
    assert_eq!(entry.modified, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_through_restarts_are_linearizable() {
    let mut server = Server::start();
    let stores: [Arc<dyn Storage>; 2] = [
        Arc::new(connect(&server).await),
        Arc::new(connect(&server).await),
    ];
    let given = std::env::var("FAIRLEAD_HISTORIES").ok();
    let rounds = given.and_then(|text| text.parse().ok()).unwrap_or(3);
    let size = Size {
        clients: 6,
        operations: 80,
        keys: 3,
    };
    for seed in 0..rounds {
        let base = stores[0].newest().await.unwrap();
        // Each history has its keys for itself.
        let standing = stores[0].list(Range::default()).await.unwrap().entries;
        let writes = standing.iter().map(|entry| Write::Delete {
            key: entry.key.to_string(),
            expected: entry.modified,
        });
        let base = match standing.len() {
            0 => base,
            _ => stores[0].write(writes.collect()).await.unwrap(),
        };
        let working = tokio::spawn({
            let store: Arc<dyn Storage> = Arc::new(Both(stores.clone(), AtomicUsize::new(0)));
            async move { drive::clients(&store, size, seed).await }
        });
        for _ in 0..2 {
            sleep(Duration::from_millis(150)).await;
            server.kill();
            sleep(Duration::from_millis(100)).await;
            server.run();
        }
        let operations = working.await.unwrap();
        let log = drive::log(&stores[1], base).await.unwrap();
        check(base.0, &operations, &log).unwrap();
        let unknown = operations
            .iter()
            .filter(|done| done.outcome == Outcome::Unknown);
        let unknown = unknown.count();
        assert!(
            unknown < operations.len() / 2 && log.len() > 40,
            "{unknown}, {}",
            log.len()
        );
    }
}

/// Clients of two servers: each operation goes to the one or the other.
struct Both([Arc<dyn Storage>; 2], AtomicUsize);

impl Both {
    fn one(&self) -> &dyn Storage {
        &*self.0[self.1.fetch_add(1, Ordering::Relaxed) % 2]
    }
}

impl Storage for Both {
    fn revision(&self) -> Revision {
        self.one().revision()
    }
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.one().get(key)
    }
    fn list(&self, range: Range) -> Answer<'_, Page> {
        self.one().list(range)
    }
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        self.one().write(writes)
    }
    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        self.one().watch(prefix, from)
    }
    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        self.one().compact(revision)
    }
}

#[tokio::test]
async fn one_of_several_endpoints_is_enough() {
    let server = Server::start();
    let options = Options {
        endpoints: vec![
            format!("http://127.0.0.1:{}", free_port()),
            server.url.clone(),
            format!("http://127.0.0.1:{}", free_port()),
        ],
        ..options(&server)
    };
    for _ in 0..4 {
        let store = Etcd::connect(options.clone(), Arc::new(Plain))
            .await
            .unwrap();
        let key = format!("/registry/x/{}", store.revision().0);
        store.write(create(&key, "a")).await.unwrap();
        assert!(store.get(&key).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn members_and_clients_show_certificates() {
    let make = |name: &str, ca: Option<&rcgen::CertifiedIssuer<'_, rcgen::KeyPair>>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params =
            rcgen::CertificateParams::new(vec!["127.0.0.1".into(), name.into()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let cert = params.signed_by(&key, ca.unwrap()).unwrap();
        (cert.pem(), key.serialize_pem())
    };
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let ca = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
    let server = Server::start_with("https", |directory| {
        let (cert, key) = make("localhost", Some(&ca));
        let (client_cert, client_key) = make("client", Some(&ca));
        let files = [
            ("ca.crt", ca.pem()),
            ("server.crt", cert),
            ("server.key", key),
            ("client.crt", client_cert),
            ("client.key", client_key),
        ];
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let file = |name: &str| directory.join(name).display().to_string();
        [
            ("--cert-file", file("server.crt")),
            ("--key-file", file("server.key")),
            ("--trusted-ca-file", file("ca.crt")),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .chain(["--client-cert-auth".to_owned()])
        .collect()
    });
    let options = Options {
        ca_file: Some(server.file("ca.crt")),
        cert_file: Some(server.file("client.crt")),
        key_file: Some(server.file("client.key")),
        ..options(&server)
    };
    let store = Etcd::connect(options.clone(), Arc::new(Plain))
        .await
        .unwrap();
    store.write(create("/registry/x/1", "a")).await.unwrap();

    let bare = Options {
        cert_file: None,
        key_file: None,
        patience: Duration::from_secs(1),
        ..options.clone()
    };
    let refused = Etcd::connect(bare, Arc::new(Plain)).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Away { .. }), "{refused}");
    for (wrong, words) in [
        (
            Options {
                ca_file: None,
                ..options.clone()
            },
            "--etcd-cafile",
        ),
        (
            Options {
                key_file: None,
                ..options.clone()
            },
            "belong together",
        ),
        (
            Options {
                ca_file: Some(server.file("none")),
                ..options.clone()
            },
            "could not read",
        ),
        (
            Options {
                endpoints: vec!["127.0.0.1:1".into()],
                ..options
            },
            "neither http",
        ),
    ] {
        let refused = Etcd::connect(wrong, Arc::new(Plain)).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[tokio::test]
async fn what_etcd_does_not_take_is_refused() {
    let server = Server::start();
    let store = connect(&server).await;
    let large = "x".repeat(2 << 20);
    let many: Vec<Write> = (0..200)
        .flat_map(|i| create(&format!("/registry/x/{i}"), "a"))
        .collect();
    for writes in [create("/registry/x", &large), many, create("else", "a")] {
        let refused = store.write(writes).await;
        assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    }
    assert!(
        store
            .list(Range::default())
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}
