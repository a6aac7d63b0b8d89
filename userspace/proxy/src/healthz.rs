//! What kube-proxy answers to load balancers and kubelets of the node: `/healthz` and `/livez` (`--healthz-bind-address`).

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::status::Status;
use crate::{Error, Settings};

/// Serves the node's own pages in the background, as long as the process lives.
pub(crate) async fn serve(address: SocketAddr, settings: &Settings) -> Result<(), Error> {
    let failed = |source| Error::Healthz { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    info!(address = %listener.local_addr().map_err(failed)?, "serves health");
    let pages = Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(settings.status.subscribe());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, pages).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "health is no longer served"
            );
        }
    });
    Ok(())
}

/// Whether new connections should come to this node.
async fn healthz(State(status): State<watch::Receiver<Status>>) -> Response {
    let (healthy, mut body, eligible) = read(&status);
    body["nodeEligible"] = json!(eligible);
    let answer = answer(healthy && eligible, &body);
    count(&HEALTHZ, &answer);
    answer
}

/// Whether this process does its work.
async fn livez(State(status): State<watch::Receiver<Status>>) -> Response {
    let (healthy, body, _) = read(&status);
    let answer = answer(healthy, &body);
    count(&LIVEZ, &answer);
    answer
}

/// Answers of a page: good ones and others.
type Answers = [AtomicU64; 2];

static HEALTHZ: Answers = [AtomicU64::new(0), AtomicU64::new(0)];
static LIVEZ: Answers = [AtomicU64::new(0), AtomicU64::new(0)];

fn count(answers: &Answers, answer: &Response) {
    let [good, bad] = answers;
    let kind = if answer.status() == StatusCode::OK {
        good
    } else {
        bad
    };
    kind.fetch_add(1, Ordering::Relaxed);
}

/// How often the node's pages were asked for, under kube-proxy's names.
pub(crate) fn metrics() -> String {
    let mut text = String::new();
    for (name, page, answers) in [
        ("kubeproxy_proxy_healthz_total", "healthz", &HEALTHZ),
        ("kubeproxy_proxy_livez_total", "livez", &LIVEZ),
    ] {
        let _ = writeln!(
            text,
            "# HELP {name} [ALPHA] Answers of /{page} by HTTP status."
        );
        let _ = writeln!(text, "# TYPE {name} counter");
        for (code, count) in [200, 503].iter().zip(answers) {
            match count.load(Ordering::Relaxed) {
                0 => {}
                count => {
                    let _ = writeln!(text, "{name}{{code=\"{code}\"}} {count}");
                }
            }
        }
    }
    text
}

/// Whether the proxy is healthy, in words as well, and whether the node stays. Both families are programmed in one turn.
fn read(status: &watch::Receiver<Status>) -> (bool, Value, bool) {
    let status = status.borrow();
    let now = SystemTime::now();
    let healthy = status.kube_proxy.is_healthy(now);
    // A healthy proxy with nothing to do counts as up to date: that is what is asked.
    let updated = if healthy {
        Some(now)
    } else {
        status.kube_proxy.last_synced()
    };
    let mut body = json!({
        "lastUpdated": shown(updated),
        "currentTime": shown(Some(now)),
        "healthy": healthy,
    });
    if let Some(synced) = status.kube_proxy.last_synced() {
        let family = json!({"lastUpdated": shown(Some(synced)), "healthy": healthy});
        body["status"] = json!({"IPv4": family, "IPv6": family});
    }
    (healthy, body, !status.node_leaving)
}

fn answer(good: bool, body: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (code(good), headers, body.to_string()).into_response()
}

/// What stands for good and bad in a health check.
pub(crate) fn code(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// As Go writes a time in JSON: RFC 3339, with as much of a second as there is; the first year stands for never.
fn shown(time: Option<SystemTime>) -> String {
    let time = time.map(|time| OffsetDateTime::from(time).format(&Rfc3339));
    match time {
        Some(Ok(time)) => time,
        Some(Err(_)) | None => "0001-01-01T00:00:00Z".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_time_reads_as_go_writes_it() {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 5_000);
        assert_eq!(shown(Some(time)), "2023-11-14T22:13:20.000005Z");
        assert_eq!(shown(None), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn health_is_told_of_the_whole_and_of_each_family() {
        let status = watch::Sender::new(Status::default());
        let (healthy, body, stays) = read(&status.subscribe());
        assert!(!healthy && stays);
        assert_eq!(body["lastUpdated"], "0001-01-01T00:00:00Z");
        assert_eq!(body["healthy"], false);
        assert!(body["status"].is_null(), "nothing is programmed");
        status.send_modify(|status| {
            status.node_leaving = true;
            let none = crate::NoLocalEndpoints::default();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            status.kube_proxy.synced(time, Duration::ZERO, true, none);
        });
        let (healthy, body, stays) = read(&status.subscribe());
        assert!(healthy && !stays);
        assert_eq!(body["lastUpdated"], body["currentTime"]);
        let family = json!({"lastUpdated": "2023-11-14T22:13:20Z", "healthy": true});
        assert_eq!(body["status"], json!({"IPv4": family, "IPv6": family}));
    }
}
