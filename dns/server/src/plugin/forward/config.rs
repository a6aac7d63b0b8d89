//! The lines of `forward`.

use std::net::SocketAddr;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::ServerName;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::Semaphore;

use super::Group;
use super::Policy;
use super::doh::Method;
use super::flight::Flights;
use super::hostname;
use super::upstream::Meters;
use super::upstream::Options;
use super::upstream::Protocol;
use super::upstream::Upstream;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::metrics::Kind;
use crate::names;
use crate::plugin::settings;
use crate::plugin::setup::Setup;

/// As CoreDNS.
const UPSTREAMS_MAX: usize = 15;

/// Questions upstream at a time where `max_concurrent` does not say: each holds a socket.
pub(super) const CONCURRENT_MAX: usize = 8192;

/// Idle connections to an upstream where `max_idle_conns` does not say less: what a burst opened is soon expired.
const IDLE_MAX: usize = 1024;

const OPTIONS: &[&str] = &[
    "doh_method",
    "except",
    "expire",
    "failfast_all_unhealthy_upstreams",
    "failover",
    "force_tcp",
    "health_check",
    "max_age",
    "max_concurrent",
    "max_connect_attempts",
    "max_fails",
    "max_idle_conns",
    "next",
    "next_on_nodata",
    "policy",
    "prefer_udp",
    "random_case",
    "read_timeout",
    "resolver",
    "source_address",
    "tls",
    "tls_servername",
];

pub(super) fn group(setup: &Setup<'_>, line: &Directive) -> Result<Group, ConfigError> {
    let [from, to @ ..] = line.between(2, usize::MAX)? else {
        return Err(line.error("forward lacks arguments", "write forward FROM TO..."));
    };
    let registry = &setup.environment.metrics;
    let mut group = Group {
        from: crate::plugin::setup::zones(std::slice::from_ref(from))?,
        except: Vec::new(),
        upstreams: Vec::new(),
        policy: Policy::Random,
        turn: AtomicUsize::new(0),
        permits: Arc::new(Semaphore::new(CONCURRENT_MAX)),
        max_concurrent: None,
        attempts_max: None,
        force_tcp: false,
        prefer_udp: false,
        failfast: false,
        failover: Vec::new(),
        next: Vec::new(),
        next_on_nodata: false,
        rejected: registry
            .family(
                "coredns_forward_max_concurrent_rejects_total",
                "Counter of the number of queries rejected because the concurrent queries were at maximum.",
                Kind::Counter,
                &[],
            )
            .with(&[]),
        broken: registry
            .family(
                "coredns_forward_healthcheck_broken_total",
                "Counter of the number of complete failures of the healthchecks.",
                Kind::Counter,
                &[],
            )
            .with(&[]),
        flights: Flights::default(),
        taps: setup.draft.taps.clone(),
    };
    let mut options = Options::default();
    let mut tls = Tls::default();
    let mut resolvers = Vec::new();
    for option in &line.block {
        match option.name.text.as_str() {
            "resolver" => resolvers.extend(resolver(option)?),
            _ => read(setup, option, &mut group, &mut options, &mut tls)?,
        }
    }
    let config = tls.config(line)?;
    let meters = Meters::new(registry);
    for word in to {
        for (protocol, address) in targets(setup, word, &tls, &config, &resolvers)? {
            let upstream = Upstream::new(protocol, address, options.clone(), meters.clone());
            group.upstreams.push(Arc::new(upstream));
        }
    }
    if group.upstreams.is_empty() || group.upstreams.len() > UPSTREAMS_MAX {
        return Err(line.error(
            format!("forward: {} upstreams", group.upstreams.len()),
            format!("name 1 to {UPSTREAMS_MAX}; a resolv.conf counts as the name servers in it"),
        ));
    }
    Ok(group)
}

#[derive(Default)]
struct Tls {
    server_name: Option<String>,
    roots: Option<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Tls {
    fn config(&mut self, line: &Directive) -> Result<Arc<ClientConfig>, ConfigError> {
        let wrong = |error: rustls::Error| {
            line.error(
                format!("forward: {error}"),
                "give a certificate and the key that belongs to it",
            )
        };
        let roots = self.roots.take().unwrap_or_else(client::system_roots);
        let builder = ClientConfig::builder_with_provider(settings::provider())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots);
        let config = match self.identity.take() {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong)?,
            None => builder.with_no_client_auth(),
        };
        Ok(Arc::new(config))
    }
}

fn read(
    setup: &Setup<'_>,
    option: &Directive,
    group: &mut Group,
    options: &mut Options,
    tls: &mut Tls,
) -> Result<(), ConfigError> {
    option.no_block()?;
    let seconds = |word: &Token, least: u64, most: u64| {
        let time = word.duration()?;
        if time < Duration::from_secs(least) || time > Duration::from_secs(most) {
            return Err(word.error(
                format!(
                    "forward: {} {} is out of bounds",
                    option.name.text, word.text
                ),
                format!("write {least}s to {most}s"),
            ));
        }
        Ok(time)
    };
    match option.name.text.as_str() {
        "except" => group
            .except
            .extend(crate::plugin::setup::zones(option.between(1, usize::MAX)?)?),
        "force_tcp" => group.force_tcp = option.exactly::<0>().map(|_| true)?,
        "prefer_udp" => group.prefer_udp = option.exactly::<0>().map(|_| true)?,
        "random_case" => options.random_case = option.exactly::<0>().map(|_| true)?,
        "next_on_nodata" => group.next_on_nodata = option.exactly::<0>().map(|_| true)?,
        "failfast_all_unhealthy_upstreams" => {
            group.failfast = option.exactly::<0>().map(|_| true)?;
        }
        "expire" => options.expire = option.exactly::<1>()?[0].duration()?,
        "max_age" => options.max_age = Some(seconds(option.exactly::<1>()?[0], 1, 86_400)?),
        "read_timeout" => {
            let time = option.exactly::<1>()?[0].duration()?;
            options.read_timeout = time.clamp(Duration::from_millis(1), Duration::from_secs(60));
        }
        "max_idle_conns" => {
            let most: usize = option.exactly::<1>()?[0].number(0, usize::MAX)?;
            options.idle_max = match most {
                0 => IDLE_MAX,
                most => most.min(IDLE_MAX),
            };
        }
        "max_connect_attempts" => {
            let most = option.exactly::<1>()?[0].number(0usize, usize::MAX)?;
            group.attempts_max = (most > 0).then_some(most);
        }
        "doh_method" => {
            let [word] = option.exactly()?;
            options.doh_method = match word.text.as_str() {
                "GET" => Method::Get,
                "POST" => Method::Post,
                other => {
                    return Err(word.error(
                        format!("forward: unknown doh_method {other}"),
                        "write GET or POST",
                    ));
                }
            };
        }
        "max_fails" => options.max_fails = option.exactly::<1>()?[0].number(0, 1_000_000)?,
        "max_concurrent" => {
            let most = option.exactly::<1>()?[0].number(0usize, 1 << 20)?;
            if most > 0 {
                group.permits = Arc::new(Semaphore::new(most));
                group.max_concurrent = Some(most);
            }
        }
        "policy" => {
            let [word] = option.exactly()?;
            group.policy = match word.text.as_str() {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                other => {
                    return Err(word.error(
                        format!("forward: unknown policy {other}"),
                        "write random, round_robin or sequential",
                    ));
                }
            };
        }
        "failover" => {
            let codes = codes(option)?;
            if codes.contains(&ResponseCode::NoError) {
                return Err(option.error(
                    "forward: failover NOERROR would throw good answers away",
                    "name codes of failures, as SERVFAIL and REFUSED",
                ));
            }
            group.failover.extend(codes);
        }
        "next" => group.next.extend(codes(option)?),
        "health_check" => health_check(option, options)?,
        "source_address" => {
            let [word] = option.exactly()?;
            let address: IpAddr = word.text.parse().map_err(|_| {
                word.error(
                    format!("forward: {} is not an address", word.text),
                    "write an address of this machine",
                )
            })?;
            options.source = Some(address);
        }
        "tls_servername" => {
            let [word] = option.exactly()?;
            tls.server_name = Some(word.text.clone());
        }
        "tls" => match option.between(0, 3)? {
            [] => {}
            [ca] => tls.roots = Some(settings::roots(ca, &setup.path(&ca.text))?),
            [cert, key, ca @ ..] => {
                let chain = settings::certificates(cert, &setup.path(&cert.text))?;
                let private =
                    PrivateKeyDer::from_pem_file(setup.path(&key.text)).map_err(|error| {
                        key.error(
                            format!("forward: {}: {error}", key.text),
                            "name a file with a private key in PEM",
                        )
                    })?;
                tls.identity = Some((chain, private));
                if let [ca] = ca {
                    tls.roots = Some(settings::roots(ca, &setup.path(&ca.text))?);
                }
            }
        },
        _ => return Err(option.unknown("forward", OPTIONS)),
    }
    Ok(())
}

/// Servers that names of upstreams are asked of.
fn resolver(option: &Directive) -> Result<Vec<SocketAddr>, ConfigError> {
    option.no_block()?;
    let servers = option.between(1, usize::MAX)?.iter();
    let servers = servers.map(|word| {
        address(&word.text, 53).ok_or_else(|| {
            word.error(
                format!("forward: {} is not an address", word.text),
                "write resolver ADDRESS[:PORT]...",
            )
        })
    });
    servers.collect()
}

fn health_check(option: &Directive, options: &mut Options) -> Result<(), ConfigError> {
    let [every, rest @ ..] = option.between(1, 4)? else {
        return Ok(());
    };
    options.probe_every = every.duration()?.max(Duration::from_millis(10));
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match (word.text.as_str(), rest.len()) {
            ("no_rec", _) => options.probe_recursion = false,
            ("domain", 1..) => {
                let domain = rest
                    .next()
                    .map(|word| word.text.as_str())
                    .unwrap_or_default();
                options.probe_name =
                    names::parse(domain).map_err(|error| word.error(error, "write domain NAME"))?;
            }
            (other, _) => {
                return Err(word.error(
                    format!("forward: unknown health_check option {other}"),
                    "known are no_rec and domain NAME",
                ));
            }
        }
    }
    Ok(())
}

fn codes(option: &Directive) -> Result<Vec<ResponseCode>, ConfigError> {
    option
        .between(1, usize::MAX)?
        .iter()
        .map(|word| {
            crate::plugin::code(&word.text).ok_or_else(|| {
                word.error(
                    format!("forward: {} is not a response code", word.text),
                    "write SERVFAIL, NXDOMAIN, REFUSED and such",
                )
            })
        })
        .collect()
}

type Target = (Protocol, SocketAddr);

/// The upstreams that a word names: an address with or without scheme and port, or a resolv.conf.
fn targets(
    setup: &Setup<'_>,
    word: &Token,
    tls: &Tls,
    config: &Arc<ClientConfig>,
    resolvers: &[SocketAddr],
) -> Result<Vec<Target>, ConfigError> {
    let remedy = "write ADDRESS[:PORT], dns://ADDRESS, tls://ADDRESS[%NAME][:PORT], https://ADDRESS[:PORT][/PATH][%NAME], a host's name in the place of ADDRESS, or the path of a resolv.conf";
    let wrong = |what: String| word.error(format!("forward: {what}"), remedy);
    // An address, or those of a host.
    let addresses = |text: &str, port: u16| match address(text, port) {
        Some(address) => Ok(vec![address]),
        None => hostname::addresses(text, port, resolvers)
            .map_err(|error| wrong(format!("{text} is not an address, and as a name: {error}"))),
    };
    let (scheme, rest) = word.text.split_once("://").unwrap_or(("", &word.text));
    let (rest, named) = match rest.split_once('%') {
        Some((rest, name)) if scheme != "dns" && !scheme.is_empty() => {
            (rest, Some(name.to_owned()))
        }
        _ => (rest, tls.server_name.clone()),
    };
    match scheme {
        "" | "dns" => {
            if let Some(address) = address(rest, 53) {
                return Ok(vec![(Protocol::Plain, address)]);
            }
            let path = setup.path(rest);
            let found = match std::fs::read_to_string(&path) {
                Ok(text) => {
                    let found = resolv_conf(&text);
                    if found.is_empty() {
                        return Err(wrong(format!("{rest} names no name server")));
                    }
                    found
                }
                Err(error) if rest.contains('/') => {
                    return Err(wrong(format!(
                        "{rest} is not an address, and as a file: {error}"
                    )));
                }
                Err(_) => addresses(rest, 53)?,
            };
            let plain = |address| (Protocol::Plain, address);
            Ok(found.into_iter().map(plain).collect())
        }
        "tls" => {
            // The port stands behind the name where there is one.
            let named_port = named.as_deref().and_then(|named| named.split_once(':'));
            let (named, port) = match named_port {
                Some((name, port)) => {
                    let port = port
                        .parse::<u16>()
                        .map_err(|_| wrong(format!("{port} is no port")))?;
                    (Some(name), port)
                }
                None => (named.as_deref(), 853),
            };
            let host = hostname::of(rest);
            let found = addresses(rest, port)?.into_iter().map(|address| {
                let name = server_name(named.or(host), address).map_err(wrong)?;
                Ok((Protocol::Tls(Arc::clone(config), name), address))
            });
            found.collect()
        }
        "https" => {
            let (host, path) = match rest.find('/') {
                Some(slash) => rest.split_at(slash),
                None => (rest, "/dns-query"),
            };
            let mut h2 = (**config).clone();
            h2.alpn_protocols = vec![b"h2".to_vec()];
            let h2 = Arc::new(h2);
            let name = named.as_deref().or(hostname::of(host));
            let found = addresses(host, 443)?.into_iter().map(|address| {
                let authority = name.map_or_else(|| address.to_string(), str::to_owned);
                let uri = format!("https://{authority}{path}");
                let name = server_name(name, address).map_err(wrong)?;
                Ok((Protocol::Https(Arc::clone(&h2), name, uri), address))
            });
            found.collect()
        }
        other => Err(wrong(format!("the scheme {other}:// is not known"))),
    }
}

fn server_name(named: Option<&str>, address: SocketAddr) -> Result<ServerName<'static>, String> {
    match named {
        Some(name) => {
            ServerName::try_from(name.to_owned()).map_err(|error| format!("{name}: {error}"))
        }
        None => Ok(ServerName::IpAddress(address.ip().into())),
    }
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let plain = text.parse().ok().or_else(|| {
        let ip: IpAddr = bare.parse().ok()?;
        Some(SocketAddr::new(ip, port))
    });
    plain.or_else(|| scoped(text, port))
}

/// A link-local address with its interface, in brackets before a port (RFC 4007 section 11).
fn scoped(text: &str, port: u16) -> Option<SocketAddr> {
    let (text, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (text, "") => (text, port),
            (text, rest) => (text, rest.strip_prefix(':')?.parse().ok()?),
        },
        None => (text, port),
    };
    let (ip, interface) = text.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = interface.parse().ok().or_else(|| {
        let inside =
            !interface.is_empty() && !interface.contains('/') && !interface.starts_with('.');
        let path = format!("/sys/class/net/{interface}/ifindex");
        let number = inside.then(|| std::fs::read_to_string(path).ok())??;
        number.trim().parse().ok()
    })?;
    Some(SocketAddrV6::new(ip, port, 0, scope).into())
}

/// The name servers of a resolv.conf(5).
fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("nameserver")).then_some(())?;
            let text = words.next()?;
            // An interface that is gone takes only its scope along.
            let bare = || text.split('%').next()?.parse().ok();
            address(text, 53).or_else(|| Some(SocketAddr::new(bare()?, 53)))
        })
        .collect()
}

impl Default for Options {
    fn default() -> Self {
        Self {
            expire: Duration::from_secs(10),
            max_age: None,
            read_timeout: Duration::from_secs(2),
            idle_max: IDLE_MAX,
            max_fails: 2,
            probe_every: Duration::from_millis(500),
            probe_recursion: true,
            probe_name: Name::root(),
            random_case: false,
            source: None,
            doh_method: Method::default(),
        }
    }
}
