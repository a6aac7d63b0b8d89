//! `coredns_kubernetes_rest_client_*`: requests to the API server, under the names and labels that CoreDNS has for them.

use std::sync::Arc;
use std::time::Duration;

use client::Observer;
use http::{Method, StatusCode};

use super::{Family, Kind, Registry};

/// Prometheus' own bounds, in seconds.
const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Counts and times requests.
pub(crate) struct RestClient {
    requests: Arc<Family>,
    seconds: Arc<Family>,
    held_back: Arc<Family>,
}

impl RestClient {
    pub(crate) fn new(registry: &Registry) -> Self {
        let timed =
            |name, help| registry.family(name, help, Kind::Histogram(SECONDS), &["verb", "host"]);
        Self {
            requests: registry.family(
                "coredns_kubernetes_rest_client_requests_total",
                "Counter of requests to the API server, by status code, method and host.",
                Kind::Counter,
                &["code", "method", "host"],
            ),
            seconds: timed(
                "coredns_kubernetes_rest_client_request_duration_seconds",
                "Histogram of the time (in seconds) requests to the API server took, by verb and host.",
            ),
            held_back: timed(
                "coredns_kubernetes_rest_client_rate_limiter_duration_seconds",
                "Histogram of the time (in seconds) requests to the API server were held back by the client, by verb and host.",
            ),
        }
    }
}

impl Observer for RestClient {
    fn answered(&self, method: &Method, host: &str, status: Option<StatusCode>, took: Duration) {
        let method = method.as_str();
        let code = status.as_ref().map_or("<error>", StatusCode::as_str);
        self.requests.with(&[code, method, host]).increment();
        let labels = [method, host];
        self.seconds.with(&labels).observe(took.as_secs_f64());
        // The client holds nothing back.
        self.held_back.with(&labels).observe(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_code_and_host() {
        let registry = Registry::default();
        let client = RestClient::new(&registry);
        let host = "10.96.0.1:443";
        let second = Duration::from_secs(1);
        client.answered(&Method::GET, host, Some(StatusCode::OK), second);
        client.answered(&Method::GET, host, None, second);
        let text = registry.render();
        for line in [
            r#"coredns_kubernetes_rest_client_requests_total{code="200",method="GET",host="10.96.0.1:443"} 1"#,
            r#"coredns_kubernetes_rest_client_requests_total{code="<error>",method="GET",host="10.96.0.1:443"} 1"#,
            r#"coredns_kubernetes_rest_client_request_duration_seconds_sum{verb="GET",host="10.96.0.1:443"} 2"#,
            r#"coredns_kubernetes_rest_client_rate_limiter_duration_seconds_count{verb="GET",host="10.96.0.1:443"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
