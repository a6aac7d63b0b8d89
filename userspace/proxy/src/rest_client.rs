//! `rest_client_*`: requests to the API server, under the names and labels that client-go has for them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use client::Observer;

use crate::histogram::Histogram;

/// client-go's own bounds, in seconds.
const SECONDS: [f64; 12] = [
    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
];

/// Counts and times requests.
#[derive(Debug, Default)]
pub(crate) struct RestClient(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    /// By status code, method and host.
    requests: BTreeMap<[String; 3], u64>,
    /// By verb and host.
    seconds: BTreeMap<[String; 2], Histogram>,
}

impl Observer for RestClient {
    fn answered(&self, method: &Method, host: &str, status: Option<StatusCode>, took: Duration) {
        let RestClient(figures) = self;
        let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        let code = status.as_ref().map_or("<error>", StatusCode::as_str);
        let key = [code, method.as_str(), host].map(str::to_owned);
        *figures.requests.entry(key).or_default() += 1;
        let seconds = figures
            .seconds
            .entry([method.as_str(), host].map(str::to_owned));
        let seconds = seconds.or_insert_with(|| Histogram::new(SECONDS.to_vec()));
        seconds.observe(took.as_secs_f64());
    }
}

impl RestClient {
    /// As Prometheus reads it.
    pub(crate) fn text(&self) -> String {
        let RestClient(figures) = self;
        let figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from(
            "# HELP rest_client_requests_total Requests to the API server by status code, method and host.\n\
             # TYPE rest_client_requests_total counter\n",
        );
        for ([code, method, host], count) in &figures.requests {
            let _ = writeln!(
                text,
                "rest_client_requests_total{{code=\"{code}\",host=\"{host}\",method=\"{method}\"}} {count}"
            );
        }
        let name = "rest_client_request_duration_seconds";
        let _ = writeln!(
            text,
            "# HELP {name} Seconds until the API server answered, by verb and host.\n# TYPE {name} histogram"
        );
        for ([verb, host], seconds) in &figures.seconds {
            let labels = format!("host=\"{host}\",verb=\"{verb}\",");
            seconds.write(&mut text, name, &labels);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_code_and_timed_by_verb() {
        let client = RestClient::default();
        let host = "10.96.0.1:443";
        let took = Duration::from_millis(500);
        client.answered(&Method::GET, host, Some(StatusCode::OK), took);
        client.answered(&Method::GET, host, Some(StatusCode::OK), took);
        client.answered(&Method::POST, host, None, took);
        let text = client.text();
        for line in [
            r#"rest_client_requests_total{code="200",host="10.96.0.1:443",method="GET"} 2"#,
            r#"rest_client_requests_total{code="<error>",host="10.96.0.1:443",method="POST"} 1"#,
            r#"rest_client_request_duration_seconds_bucket{host="10.96.0.1:443",verb="GET",le="0.25"} 0"#,
            r#"rest_client_request_duration_seconds_bucket{host="10.96.0.1:443",verb="GET",le="0.5"} 2"#,
            r#"rest_client_request_duration_seconds_sum{host="10.96.0.1:443",verb="GET"} 1"#,
            r#"rest_client_request_duration_seconds_count{host="10.96.0.1:443",verb="POST"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
