//! The suite over a real etcd: one server for all stores of a test, each below a prefix of its own.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use storage::conformance;
use storage::memory::WatchLimits;
use storage::{Answer, Codec, Entry, Error, Page, Range, Revision, Storage, WatchEvent, Write};
use storage_etcd::testing::Server;
use storage_etcd::{Etcd, Options};
use tokio::runtime::{Builder, Runtime};

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

/// Ends with the last store that uses it: what is static is never dropped.
static SERVER: LazyLock<std::sync::Mutex<std::sync::Weak<Server>>> =
    LazyLock::new(std::sync::Mutex::default);
static PREFIX: AtomicU32 = AtomicU32::new(0);

/// A store and what it runs on.
struct Running {
    store: Option<Etcd>,
    runtime: Option<Runtime>,
    _server: Arc<Server>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.store = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn server() -> Arc<Server> {
    let mut known = SERVER.lock().unwrap();
    let server = known.upgrade().unwrap_or_else(|| Arc::new(Server::start()));
    *known = Arc::downgrade(&server);
    server
}

fn make(watch: WatchLimits) -> Arc<dyn Storage> {
    let server = server();
    let options = Options {
        root: String::new(),
        prefix: format!("/store-{}", PREFIX.fetch_add(1, Ordering::Relaxed)),
        watch,
        compaction: None,
        ..Options::new(vec![server.url.clone()])
    };
    // Some cases make stores within a runtime of their own, which must not be blocked by another.
    let making = std::thread::spawn(move || {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(Etcd::connect(options, Arc::new(Plain)));
        (store.unwrap(), runtime)
    });
    let (store, runtime) = making.join().unwrap();
    Arc::new(Running {
        store: Some(store),
        runtime: Some(runtime),
        _server: server,
    })
}

impl Running {
    fn store(&self) -> &Etcd {
        self.store.as_ref().unwrap()
    }
}

impl Storage for Running {
    fn revision(&self) -> Revision {
        self.store().revision()
    }
    fn newest(&self) -> Answer<'_, Revision> {
        self.store().newest()
    }
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Entry>> {
        self.store().get(key)
    }
    fn list(&self, range: Range) -> Answer<'_, Page> {
        self.store().list(range)
    }
    fn write(&self, writes: Vec<Write>) -> Answer<'_, Revision> {
        self.store().write(writes)
    }
    fn watch(
        &self,
        prefix: String,
        from: Option<Revision>,
    ) -> Answer<'_, BoxStream<'static, Result<WatchEvent, Error>>> {
        self.store().watch(prefix, from)
    }
    fn compact(&self, revision: Revision) -> Answer<'_, ()> {
        self.store().compact(revision)
    }
}

conformance::tests!(make);
