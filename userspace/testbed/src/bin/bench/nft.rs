//! A ruleset of the shape that kube-proxy's nftables mode writes (KEP-3866): verdict maps from addresses to
//! service chains, a random choice there, an endpoint chain with the translation.

use std::fmt::Write as _;
use std::net::SocketAddr;

use testbed::balancer::Service;
use testbed::topology::NODE4;

/// The text for `nft -f`, in place of whatever was there. Services are IPv4; a frontend at the node's
/// address becomes a NodePort.
pub(crate) fn ruleset(services: &[Service]) -> String {
    let mut text = String::from("flush ruleset\ntable ip kube-proxy {\n");
    text.push_str(
        "  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n\
         \x20 chain masquerading {\n\
         \x20   meta mark and 0x4000 == 0 return\n\
         \x20   meta mark set meta mark xor 0x4000\n\
         \x20   masquerade fully-random\n\
         \x20 }\n",
    );
    let mut cluster = Vec::new();
    let mut node = Vec::new();
    for (index, service) in services.iter().enumerate() {
        write_service(&mut text, index, service);
        for frontend in &service.frontends {
            if frontend.ip() == NODE4 {
                node.push(format!("tcp . {} : goto external-{index}", frontend.port()));
            } else {
                cluster.push(format!(
                    "{} . tcp . {} : goto service-{index}",
                    frontend.ip(),
                    frontend.port()
                ));
            }
        }
    }
    map(
        &mut text,
        "service-ips",
        "ipv4_addr . inet_proto . inet_service",
        &cluster,
    );
    map(
        &mut text,
        "service-nodeports",
        "inet_proto . inet_service",
        &node,
    );
    map(
        &mut text,
        "no-endpoint-services",
        "ipv4_addr . inet_proto . inet_service",
        &[],
    );
    map(
        &mut text,
        "no-endpoint-nodeports",
        "inet_proto . inet_service",
        &[],
    );
    let _ = write!(
        text,
        "  set nodeport-ips {{ type ipv4_addr; elements = {{ {NODE4} }}; }}\n\
         \x20 chain services {{\n\
         \x20   ip daddr . meta l4proto . th dport vmap @service-ips\n\
         \x20   ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports\n\
         \x20 }}\n\
         \x20 chain service-endpoints-check {{\n\
         \x20   ip daddr . meta l4proto . th dport vmap @no-endpoint-services\n\
         \x20   ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports\n\
         \x20 }}\n\
         \x20 chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump service-endpoints-check; }}\n\
         \x20 chain filter-forward {{ type filter hook forward priority -110; ct state new jump service-endpoints-check; }}\n\
         \x20 chain filter-output {{ type filter hook output priority -110; ct state new jump service-endpoints-check; }}\n\
         \x20 chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}\n\
         \x20 chain nat-output {{ type nat hook output priority -100; jump services; }}\n\
         \x20 chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}\n\
         }}\n"
    );
    text
}

fn write_service(text: &mut String, index: usize, service: &Service) {
    let choices: Vec<String> = (0..service.backends.len())
        .map(|n| format!("{n} : goto endpoint-{index}-{n}"))
        .collect();
    for (n, backend) in service.backends.iter().enumerate() {
        let _ = writeln!(
            text,
            "  chain endpoint-{index}-{n} {{ ip saddr {} jump mark-for-masquerade; meta l4proto tcp dnat to {backend}; }}",
            backend.ip()
        );
    }
    let cluster: Option<&SocketAddr> = service
        .frontends
        .iter()
        .find(|frontend| frontend.ip() != NODE4);
    let _ = writeln!(text, "  chain service-{index} {{");
    if let Some(cluster) = cluster {
        let _ = writeln!(
            text,
            "    ip daddr {} tcp dport {} ip saddr != 10.244.0.0/24 jump mark-for-masquerade",
            cluster.ip(),
            cluster.port()
        );
    }
    let _ = writeln!(
        text,
        "    numgen random mod {} vmap {{ {} }}\n  }}",
        choices.len(),
        choices.join(", ")
    );
    if service.frontends.len() > 1 {
        let _ = writeln!(
            text,
            "  chain external-{index} {{ jump mark-for-masquerade; goto service-{index}; }}"
        );
    }
}

fn map(text: &mut String, name: &str, key: &str, elements: &[String]) {
    let _ = write!(text, "  map {name} {{ type {key} : verdict;");
    if !elements.is_empty() {
        let _ = write!(text, " elements = {{ {} }};", elements.join(", "));
    }
    text.push_str(" }\n");
}
