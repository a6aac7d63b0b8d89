//! `health`: `/health` says OK while the process lives. With `lameduck` it goes on answering for a while after the
//! end was asked for, so that clients find another server in peace. The process asks itself every second: a slow
//! answer tells of a process that has too much to do.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hyper::StatusCode;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::fast::Fast;
use crate::http::Route;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Kind;
use crate::metrics::Series;

/// Reads `health [ADDRESS] { lameduck DURATION }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let address = match line.between(0, 1)? {
        [address] => address.listen(8080)?,
        _ => (std::net::Ipv6Addr::UNSPECIFIED, 8080).into(),
    };
    for option in &line.block {
        match option.name.text.as_str() {
            "lameduck" => {
                let [time] = option.exactly()?;
                let time = time.duration()?.min(LAMEDUCK_MAX);
                // Several blocks may say it: the longest holds.
                setup.whole.lameduck = setup.whole.lameduck.max(time);
            }
            _ => return Err(option.unknown("health", &["lameduck"])),
        }
    }
    setup.whole.routes.push(Route {
        address,
        path: "/health",
        handler: Arc::new(|| (StatusCode::OK, "OK".to_owned())),
        tls: None,
    });
    let metrics = &setup.environment.metrics;
    Ok(Some(Arc::new(Health {
        address,
        seconds: metrics
            .family(
                "coredns_health_request_duration_seconds",
                "Histogram of the time (in seconds) each request took.",
                Kind::Histogram(HEALTH_SECONDS),
                &[],
            )
            .with(&[]),
        failures: metrics
            .family(
                "coredns_health_request_failures_total",
                "The number of times the health check failed.",
                Kind::Counter,
                &[],
            )
            .with(&[]),
        task: Mutex::default(),
    })))
}

/// CoreDNS's bounds for requests to itself, in seconds: 0.25 ms, tenfold each.
const HEALTH_SECONDS: &[f64] = &[0.000_25, 0.002_5, 0.025, 0.25, 2.5];

/// How often the process asks itself, and how long it waits.
const EVERY: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// Nobody waits longer for a process to end.
const LAMEDUCK_MAX: Duration = Duration::from_secs(3600);

struct Health {
    address: SocketAddr,
    seconds: Arc<Series>,
    failures: Arc<Series>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Plugin for Health {
    fn name(&self) -> &'static str {
        "health"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        next.serve(request)
    }

    fn fast(&self) -> Fast {
        Fast::Passes
    }

    fn start(&self) {
        let address = match self.address.ip() {
            // The unspecified IPv6 address listens on both families, also on hosts that have but one.
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        let address = SocketAddr::new(address, self.address.port());
        let (seconds, failures) = (Arc::clone(&self.seconds), Arc::clone(&self.failures));
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let asked = Instant::now();
                match timeout(PATIENCE, ask(address)).await {
                    Ok(Ok(())) => seconds.observe(asked.elapsed().as_secs_f64()),
                    Ok(Err(_)) | Err(_) => failures.increment(),
                }
            }
        });
        let mut kept = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = kept.replace(task) {
            before.abort();
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
    }
}

async fn ask(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await?;
    match head.ends_with(b" 200") {
        true => Ok(()),
        false => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
