//! `prometheus`: counts and times what passes, under CoreDNS's names, and shows them at `/metrics`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RecordType;
use hyper::StatusCode;
use rustls::ServerConfig;

use super::Next;
use super::Plugin;
use super::clients::Clients;
use super::settings;
use super::setup::Made;
use super::setup::Setup;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::http::Route;
use crate::instance::Environment;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;
use crate::metrics::OCTETS;
use crate::metrics::Registry;
use crate::metrics::SECONDS;

/// The families of queries and answers.
pub struct Families {
    pub(crate) requests: Arc<Family>,
    pub(crate) seconds: Arc<Family>,
    pub(crate) request_octets: Arc<Family>,
    pub(crate) response_octets: Arc<Family>,
    pub(crate) responses: Arc<Family>,
    pub(crate) dnssec: Arc<Family>,
    panics: Arc<Family>,
}

/// One answered query, as metrics see it.
pub struct Observation<'a> {
    /// The block's name.
    pub server: &'a str,
    /// The block's zone.
    pub zone: &'a str,
    /// The block's view.
    pub view: &'a str,
    /// `udp` or `tcp`.
    pub proto: &'a str,
    /// True for IPv6.
    pub v6: bool,
    /// The type asked for.
    pub kind: RecordType,
    /// True if the client wanted DNSSEC records.
    pub dnssec_ok: bool,
    /// Octets of the query.
    pub request_octets: usize,
    /// Octets of the answer; 0 where it has not been written yet and is only estimated.
    pub response_octets: usize,
    /// The answer's code.
    pub code: ResponseCode,
    /// Who made the answer.
    pub plugin: &'a str,
    /// From arrival to answer, in seconds.
    pub seconds: f64,
}

impl Families {
    /// The families in a registry.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.family(
                "coredns_dns_requests_total",
                "Counter of DNS requests made per zone, protocol and family.",
                Kind::Counter,
                &["server", "zone", "view", "proto", "family", "type"],
            ),
            seconds: registry.family(
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone.",
                Kind::Histogram(SECONDS),
                &["server", "zone", "view", "type"],
            ),
            request_octets: registry.family(
                "coredns_dns_request_size_bytes",
                "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol.",
                Kind::Histogram(OCTETS),
                &["server", "zone", "view", "proto"],
            ),
            response_octets: registry.family(
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes.",
                Kind::Histogram(OCTETS),
                &["server", "zone", "view", "proto"],
            ),
            responses: registry.family(
                "coredns_dns_responses_total",
                "Counter of response status codes.",
                Kind::Counter,
                &["server", "zone", "view", "rcode", "plugin"],
            ),
            dnssec: registry.family(
                "coredns_dns_do_requests_total",
                "Counter of DNS requests with DO bit set per zone.",
                Kind::Counter,
                &["server", "zone", "view"],
            ),
            panics: registry.family(
                "coredns_panics_total",
                "A metrics that counts the number of panics.",
                Kind::Counter,
                &[],
            ),
        }
    }

    /// Counts one answered query.
    pub fn observe(&self, seen: &Observation<'_>) {
        let block = [seen.server, seen.zone, seen.view];
        let [server, zone, view] = block;
        let family = if seen.v6 { "2" } else { "1" };
        let kind = kind_label(seen.kind);
        self.requests
            .with(&[server, zone, view, seen.proto, family, kind])
            .increment();
        self.seconds
            .with(&[server, zone, view, kind])
            .observe(seen.seconds);
        let sized = [server, zone, view, seen.proto];
        #[expect(clippy::cast_precision_loss, reason = "sizes of messages are small")]
        {
            self.request_octets
                .with(&sized)
                .observe(seen.request_octets as f64);
            self.response_octets
                .with(&sized)
                .observe(seen.response_octets as f64);
        }
        self.responses
            .with(&[server, zone, view, code_label(seen.code), seen.plugin])
            .increment();
        if seen.dnssec_ok {
            self.dnssec.with(&block).increment();
        }
    }
}

/// The type's label: those that are common by name, the others as one.
#[must_use]
pub fn kind_label(kind: RecordType) -> &'static str {
    match kind {
        RecordType::A => "A",
        RecordType::AAAA => "AAAA",
        RecordType::CNAME => "CNAME",
        RecordType::DNSKEY => "DNSKEY",
        RecordType::DS => "DS",
        RecordType::HTTPS => "HTTPS",
        RecordType::MX => "MX",
        RecordType::NS => "NS",
        RecordType::NSEC => "NSEC",
        RecordType::NSEC3 => "NSEC3",
        RecordType::PTR => "PTR",
        RecordType::RRSIG => "RRSIG",
        RecordType::SOA => "SOA",
        RecordType::SRV => "SRV",
        RecordType::TXT => "TXT",
        RecordType::AXFR => "AXFR",
        RecordType::IXFR => "IXFR",
        RecordType::ANY => "ANY",
        _ => "other",
    }
}

/// The code's label, as zone files and CoreDNS write it.
#[must_use]
pub fn code_label(code: ResponseCode) -> &'static str {
    match code {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::FormErr => "FORMERR",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::YXDomain => "YXDOMAIN",
        ResponseCode::YXRRSet => "YXRRSET",
        ResponseCode::NXRRSet => "NXRRSET",
        ResponseCode::NotAuth => "NOTAUTH",
        ResponseCode::NotZone => "NOTZONE",
        ResponseCode::BADVERS => "BADSIG",
        ResponseCode::BADCOOKIE => "BADCOOKIE",
        _ => "other",
    }
}

struct Prometheus {
    families: Families,
    zones: Vec<(Name, String)>,
}

/// Reads `prometheus [ADDRESS] { runtime_metrics; tls CONFIG_FILE }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let address = match line.between(0, 1)? {
        [address] => address.listen(9153)?,
        _ => ([127, 0, 0, 1], 9153).into(),
    };
    let mut tls = None;
    for option in &line.block {
        match option.name.text.as_str() {
            // Of Go's runtime, which is not here.
            "runtime_metrics" => {
                option.exactly::<0>()?;
            }
            "tls" => tls = Some(web_config(setup, option)?),
            _ => return Err(option.unknown("prometheus", &["runtime_metrics", "tls"])),
        }
    }
    let registry = &setup.environment.metrics;
    registry
        .family(
            "coredns_build_info",
            "A metric with a constant '1' value labeled by version, revision, and goversion from which CoreDNS was built.",
            Kind::Gauge,
            &["version", "revision", "goversion"],
        )
        .with(&[concat!("fairlead-", env!("CARGO_PKG_VERSION")), "", ""])
        .set(1.0);
    let families = Families::new(registry);
    // A counter that has not counted yet is shown, so that alerts on it can be written.
    families.panics.with(&[]).add(0);
    let environment: std::sync::Weak<Environment> = Arc::downgrade(setup.environment);
    setup.whole.routes.push(Route {
        address,
        path: "/metrics",
        handler: Arc::new(move || match environment.upgrade() {
            Some(environment) => (StatusCode::OK, environment.metrics.render_with_process()),
            None => (StatusCode::SERVICE_UNAVAILABLE, String::new()),
        }),
        tls,
    });
    Ok(Some(Arc::new(Prometheus {
        families,
        zones: setup
            .zones
            .iter()
            .map(|zone| (zone.clone(), zone.to_string()))
            .collect(),
    })))
}

/// The certificate that a web configuration file of Prometheus names:
///
/// ```yaml
/// tls_server_config:
///   cert_file: server.crt
///   key_file: server.key
///   client_auth_type: RequireAndVerifyClientCert
///   client_ca_file: ca.crt
/// ```
fn web_config(setup: &Setup<'_>, option: &Directive) -> Result<Arc<ServerConfig>, ConfigError> {
    let [file] = option.exactly()?;
    let wrong = |what: String| {
        file.error(
            format!("prometheus: {}: {what}", file.text),
            "name a file with tls_server_config, and in it cert_file and key_file",
        )
    };
    let path = setup.path(&file.text);
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let config: WebConfig =
        serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let config = config.tls_server_config;
    // Files are named from the folder of the file that names them.
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let token = |name: &str| Token {
        text: folder.join(name).display().to_string(),
        ..(*file).clone()
    };
    let words = [token(&config.cert_file), token(&config.key_file)];
    let ca = config.client_ca_file.as_deref().map(token);
    let known = |required| match &ca {
        Some(ca) => Ok(Clients::Known {
            roots: settings::roots(ca, &setup.path(&ca.text))?,
            required,
        }),
        None => Err(wrong("client_auth_type without client_ca_file".to_owned())),
    };
    let clients = match config.client_auth_type.as_str() {
        "" | "NoClientCert" => Clients::Unasked,
        "RequestClientCert" => Clients::Anyone { required: false },
        "RequireAnyClientCert" => Clients::Anyone { required: true },
        "VerifyClientCertIfGiven" => known(false)?,
        "RequireAndVerifyClientCert" => known(true)?,
        other => return Err(wrong(format!("unknown client_auth_type {other}"))),
    };
    settings::server_config(setup, option, &words, clients)
}

#[derive(serde::Deserialize)]
struct WebConfig {
    tls_server_config: TlsServerConfig,
}

#[derive(serde::Deserialize)]
struct TlsServerConfig {
    cert_file: String,
    key_file: String,
    #[serde(default)]
    client_auth_type: String,
    client_ca_file: Option<String>,
}

impl Plugin for Prometheus {
    fn name(&self) -> &'static str {
        "prometheus"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Counts
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let zone = self
                .zones
                .iter()
                .filter(|(zone, _)| zone.zone_of(request.name()))
                .max_by_key(|(zone, _)| crate::names::labels(zone))
                .map_or("dropped", |(_, text)| text);
            let (kind, dnssec_ok) = (request.kind(), request.dnssec_ok());
            let served = next.serve(request).await;
            let (code, plugin, octets) = match &served {
                Ok(Outcome::Answer(response)) => (
                    response.message.metadata.response_code,
                    response.plugin,
                    size(&response.message),
                ),
                Ok(Outcome::Stream(messages)) => (
                    ResponseCode::NoError,
                    "transfer",
                    messages.iter().map(size).sum(),
                ),
                Ok(Outcome::Silence(_)) => return served,
                Err(failure) => (failure.code, "", 12),
            };
            self.families.observe(&Observation {
                server: &request.server,
                zone,
                view: &request.view,
                proto: request.transport.proto(),
                v6: request.client.ip().to_canonical().is_ipv6(),
                kind,
                dnssec_ok,
                request_octets: request.raw.len(),
                response_octets: octets,
                code,
                plugin,
                seconds: Instant::now()
                    .saturating_duration_since(request.arrived)
                    .as_secs_f64(),
            });
            served
        })
    }
}

/// Octets of a message once written.
fn size(message: &Message) -> usize {
    message.to_vec().map_or(0, |octets| octets.len())
}
