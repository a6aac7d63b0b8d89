//! What one Service object declares, checked and in our words.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Choice, FrontendKind, Protocol, Range};

use crate::annotations::{self, Weights};
use crate::finding::{Finding, port_number, usable};
use crate::objects;

/// A Service that is ours to balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Grows with the time of creation.
    pub(crate) created: u64,
    /// At most one of each family, none of them in doubt.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// External and load balancer addresses of either family, each once.
    pub(crate) further_ips: Vec<(IpAddr, FrontendKind)>,
    pub(crate) ports: Vec<Port>,
    pub(crate) affinity_secs: u32,
    /// internalTrafficPolicy is Local.
    pub(crate) internal_local: bool,
    /// externalTrafficPolicy is Local.
    pub(crate) external_local: bool,
    /// Who may use the load balancer's addresses; `None` for everybody.
    pub(crate) sources: Option<Vec<Range>>,
    /// Where load balancers ask for endpoints of this node.
    pub(crate) health_check_port: Option<u16>,
    /// How backends are chosen.
    pub(crate) choice: Choice,
    /// How many flows it may have at most; zero where it does not say.
    pub(crate) flows_max: u32,
    /// What it says of its endpoints' weights.
    pub(crate) weights: Weights,
    pub(crate) findings: Vec<Finding>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Arc<str>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    pub(crate) node_port: Option<u16>,
}

/// Objects with one of these labels are somebody else's, whatever the value.
const NOT_OURS: [&str; 2] = [
    "service.kubernetes.io/service-proxy-name",
    "service.kubernetes.io/headless",
];
/// Seconds, where `sessionAffinityConfig` says nothing (Kubernetes' default).
const AFFINITY_SECS: u32 = 10_800;

impl Declared {
    /// Reads a Service. `None` when it is not ours: headless, ExternalName, or for another proxy.
    pub(crate) fn read(service: &objects::Service) -> Option<Declared> {
        let spec = &service.spec;
        let ips: &[String] = if spec.cluster_ips.is_empty() {
            std::slice::from_ref(&spec.cluster_ip)
        } else {
            &spec.cluster_ips
        };
        let headless = matches!(ips.first().map(String::as_str), None | Some("" | "None"));
        if spec.type_ == "ExternalName" || headless || !ours(&service.metadata) {
            return None;
        }
        let external_local = spec.external_traffic_policy == "Local";
        let asks_health = external_local && spec.type_ == "LoadBalancer";
        let mut findings = Vec::new();
        let mut declared = Declared {
            choice: annotations::choice(&service.metadata, &mut findings),
            flows_max: annotations::flows_max(&service.metadata, &mut findings),
            weights: annotations::weights(&service.metadata, &mut findings),
            created: moment(service.metadata.creation_timestamp.as_deref()),
            cluster_ips: Vec::new(),
            further_ips: Vec::new(),
            ports: Vec::new(),
            affinity_secs: affinity_secs(spec),
            internal_local: spec.internal_traffic_policy == "Local",
            external_local,
            sources: None,
            health_check_port: asks_health
                .then(|| port_number(spec.health_check_node_port))
                .flatten(),
            findings,
        };
        for ip in ips {
            if let Some(addr) = declared.address("spec.clusterIPs", ip)
                && !declared
                    .cluster_ips
                    .iter()
                    .any(|a| a.is_ipv4() == addr.is_ipv4())
            {
                declared.cluster_ips.push(addr);
            }
        }
        for ip in &spec.external_ips {
            declared.further("spec.externalIPs", ip, FrontendKind::ExternalIp);
        }
        declared.load_balancer(service);
        for port in &spec.ports {
            declared.port(port);
        }
        Some(declared)
    }

    fn load_balancer(&mut self, service: &objects::Service) {
        let ingress = &service.status.load_balancer.ingress;
        if service.spec.type_ != "LoadBalancer" || ingress.is_empty() {
            return;
        }
        for point in ingress {
            if !point.ip.is_empty() && point.ip_mode != "Proxy" {
                self.further("status.loadBalancer", &point.ip, FrontendKind::LoadBalancer);
            }
        }
        if service.spec.load_balancer_source_ranges.is_empty() {
            return;
        }
        let mut sources: Vec<Range> = Vec::new();
        for text in &service.spec.load_balancer_source_ranges {
            match text.trim().parse() {
                Ok(range) if sources.contains(&range) => {}
                Ok(range) => sources.push(range),
                Err(_) => self.findings.push(Finding::Range {
                    at: "spec.loadBalancerSourceRanges",
                    range: text.clone(),
                }),
            }
        }
        self.sources = Some(sources);
    }

    /// Who may use the load balancer's addresses of one family; none for everybody. Ranges of the other family say
    /// nothing about this one, as in kube-proxy; ranges that cannot be read admit nobody.
    pub(crate) fn sources_of(&self, ipv4: bool) -> Vec<Range> {
        let Some(sources) = &self.sources else {
            return Vec::new();
        };
        let of_family = |range: &&Range| range.addr().is_ipv4() == ipv4;
        if sources.is_empty() {
            return Self::nobody(ipv4);
        }
        sources.iter().filter(of_family).copied().collect()
    }

    /// A range that no client has an address of.
    fn nobody(ipv4: bool) -> Vec<Range> {
        let unspecified: IpAddr = if ipv4 {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        Range::new(unspecified, if ipv4 { 32 } else { 128 })
            .into_iter()
            .collect()
    }

    fn further(&mut self, at: &str, ip: &str, kind: FrontendKind) {
        if let Some(addr) = self.address(at, ip)
            && !self.further_ips.iter().any(|(known, _)| *known == addr)
        {
            self.further_ips.push((addr, kind));
        }
    }

    fn address(&mut self, at: &str, ip: &str) -> Option<IpAddr> {
        usable(ip)
            .map_err(|reason| {
                self.findings.push(Finding::Address {
                    at: at.to_owned(),
                    address: ip.to_owned(),
                    reason,
                });
            })
            .ok()
    }

    fn port(&mut self, port: &objects::ServicePort) {
        let at = "spec.ports";
        let Some(protocol) = protocol(&port.protocol) else {
            return self.findings.push(Finding::Protocol {
                at: at.to_owned(),
                protocol: port.protocol.clone(),
            });
        };
        let Some(number) = port_number(port.port) else {
            return self.findings.push(Finding::Port {
                at: at.to_owned(),
                port: port.port,
            });
        };
        let node_port = port_number(port.node_port);
        if node_port.is_none() && port.node_port != 0 {
            self.findings.push(Finding::Port {
                at: at.to_owned(),
                port: port.node_port,
            });
        }
        self.ports.push(Port {
            name: port.name.as_str().into(),
            protocol,
            port: number,
            node_port,
        });
    }
}

/// Whether an object is left to us by its labels.
pub(crate) fn ours(meta: &objects::ObjectMeta) -> bool {
    !NOT_OURS
        .iter()
        .any(|label| meta.labels.contains_key(*label))
}

/// Reads a protocol; `None` when it is not balanced.
pub(crate) fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "" | "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn affinity_secs(spec: &objects::ServiceSpec) -> u32 {
    if spec.session_affinity != "ClientIP" {
        return 0;
    }
    let secs = spec.session_affinity_config.client_ip.timeout_seconds;
    secs.and_then(|secs| u32::try_from(secs).ok())
        .filter(|secs| *secs != 0)
        .unwrap_or(AFFINITY_SECS)
}

/// The digits of an RFC 3339 time in UTC, to the second: they sort as the time does.
pub(crate) fn moment(timestamp: Option<&str>) -> u64 {
    let digits = timestamp
        .unwrap_or_default()
        .bytes()
        .filter(u8::is_ascii_digit);
    digits
        .take(14)
        .fold(0, |n, digit| n * 10 + u64::from(digit - b'0'))
}
