//! One event to a thousand watchers of its type: how soon the last of them has it, and how many events a second can be
//! handed over. `cargo bench -p apiserver --bench watches`.
//!
//! Within the process, without TLS: what is measured is the server's own work. Expected on two cores: p99 below 20 ms,
//! more than 500,000 deliveries a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apiserver::{App, Config};
use axum::body::Body;
use futures_util::{StreamExt as _, stream};
use http::Request;
use serde_json::json;
use tower::ServiceExt as _;

const WATCHERS: usize = 1000;
const LATENCY_ROUNDS: usize = 200;
const BURST: usize = 2000;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn request(app: &App, method: &str, path: &str, body: Body) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {}", app.admin_token()))
        .header("content-type", "application/json");
    request.body(body).expect("a request")
}

async fn create(app: &App, name: String) {
    let map = json!({"metadata": {"name": name}, "data": {"k": "v".repeat(1000)}});
    let request = request(app, "POST", MAPS, Body::from(map.to_string()));
    let Ok(answer) = app.router().oneshot(request).await;
    assert_eq!(answer.status(), 201);
}

/// What all watchers have seen.
#[derive(Default)]
struct Seen {
    deliveries: AtomicUsize,
    /// Microseconds since the begin of the bench.
    latest: AtomicU64,
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = storage_embedded::Options::default();
    let storage =
        storage_embedded::Embedded::open(dir.path().join("store"), options).expect("a store");
    let config = Config {
        bind_address: [127, 0, 0, 1].into(),
        ..Config::new(dir.path())
    };
    let app = apiserver::build(config, Arc::new(storage))
        .await
        .expect("a server");
    let seen = Arc::new(Seen::default());
    let begin = Instant::now();
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..WATCHERS {
        let request = request(
            &app,
            "GET",
            &format!("{MAPS}?watch=true&resourceVersion={}", current(&app).await),
            Body::empty(),
        );
        let Ok(answer) = app.router().oneshot(request).await;
        let mut frames = answer.into_body().into_data_stream();
        let seen = seen.clone();
        watchers.spawn(async move {
            while let Some(Ok(frame)) = frames.next().await {
                let events = frame.iter().filter(|b| **b == b'\n').count();
                let now = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                seen.latest.fetch_max(now, Ordering::Relaxed);
                seen.deliveries.fetch_add(events, Ordering::Release);
            }
        });
    }

    let mut last = Vec::with_capacity(LATENCY_ROUNDS);
    for round in 0..LATENCY_ROUNDS {
        create(&app, format!("one-{round}")).await;
        let acknowledged = begin.elapsed();
        wait(&seen, (round + 1) * WATCHERS).await;
        let latest = Duration::from_micros(seen.latest.load(Ordering::Relaxed));
        last.push(latest.saturating_sub(acknowledged));
    }
    last.sort_unstable();
    println!(
        "an acknowledged event reaches the last of {WATCHERS} watchers: p50 {:.1} ms, p99 {:.1} ms",
        last[LATENCY_ROUNDS / 2].as_secs_f64() * 1e3,
        last[LATENCY_ROUNDS * 99 / 100].as_secs_f64() * 1e3
    );

    let before = seen.deliveries.load(Ordering::Acquire);
    let start = Instant::now();
    let writes = stream::iter(0..BURST).map(|i| create(&app, format!("many-{i}")));
    writes.buffer_unordered(64).collect::<Vec<()>>().await;
    let written = start.elapsed();
    wait(&seen, before + BURST * WATCHERS).await;
    let took = start.elapsed();
    println!(
        "{BURST} creates by 64 writers in {:.2} s; {} deliveries in {:.2} s: {:.0} a second",
        written.as_secs_f64(),
        BURST * WATCHERS,
        took.as_secs_f64(),
        (BURST * WATCHERS) as f64 / took.as_secs_f64()
    );
    watchers.abort_all();
}

async fn current(app: &App) -> String {
    let request = request(app, "GET", &format!("{MAPS}?limit=1"), Body::empty());
    let Ok(answer) = app.router().oneshot(request).await;
    let body = axum::body::to_bytes(answer.into_body(), 1 << 20)
        .await
        .expect("a list");
    let list: serde_json::Value = serde_json::from_slice(&body).expect("a list");
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

async fn wait(seen: &Seen, deliveries: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.deliveries.load(Ordering::Acquire) < deliveries {
        assert!(Instant::now() < deadline, "events are missing");
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
