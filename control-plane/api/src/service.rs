//! What a Service asks the cluster for: address families, cluster addresses, node ports. The giving itself needs to
//! know what is taken and belongs to the server; this module says what is wanted and how a refusal reads.

use serde_json::{Value, json};

use crate::field::FieldError;
use crate::net;
use crate::value::{self, at, list, number, object_mut, set, text};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// As in `ipFamilies`.
    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// From `ipFamilies`.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }

    /// Of an address in text.
    pub fn of(address: &str) -> Option<Self> {
        net::parse_ip(address).map(|ip| if ip.is_ipv4() { Family::V4 } else { Family::V6 })
    }
}

/// `spec.type`; ClusterIP where absent.
pub fn kind(object: &Value) -> &str {
    match text(object, &["spec", "type"]) {
        "" => "ClusterIP",
        kind => kind,
    }
}

/// Whether the Service wants no address of its own: `clusterIP: None`.
pub fn is_headless(object: &Value) -> bool {
    text(object, &["spec", "clusterIP"]) == "None"
        || list(object, &["spec", "clusterIPs"]).first() == Some(&"None".into())
}

/// Whether the Service has cluster addresses, or says `None` in their place.
pub fn needs_cluster_ip(object: &Value) -> bool {
    matches!(kind(object), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether its ports get node ports.
pub fn needs_node_ports(object: &Value) -> bool {
    match kind(object) {
        "NodePort" => true,
        "LoadBalancer" => at(object, &["spec", "allocateLoadBalancerNodePorts"])
            .as_bool()
            .unwrap_or(true),
        _ => false,
    }
}

/// Whether it gets a node port on which balancers ask for health.
pub fn needs_health_check_port(object: &Value) -> bool {
    kind(object) == "LoadBalancer" && text(object, &["spec", "externalTrafficPolicy"]) == "Local"
}

/// Whether clients outside of the cluster can reach it.
pub fn externally_accessible(spec: &Value) -> bool {
    match text(spec, &["type"]) {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" | "" => !list(spec, &["externalIPs"]).is_empty(),
        _ => false,
    }
}

/// A cluster address to be found: its family, and the address itself where the author named one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WantedAddress {
    /// Family.
    pub family: Family,
    /// As the author wrote it.
    pub named: Option<String>,
}

/// The cluster addresses that a Service is to have, in the order of `clusterIPs`. To be asked after
/// [`assign_families`].
pub fn wanted_addresses(object: &Value) -> Vec<WantedAddress> {
    if !needs_cluster_ip(object) || is_headless(object) {
        return Vec::new();
    }
    let named = list(object, &["spec", "clusterIPs"]);
    list(object, &["spec", "ipFamilies"])
        .iter()
        .enumerate()
        .filter_map(|(i, family)| {
            let named = named
                .get(i)
                .and_then(Value::as_str)
                .filter(|a| !a.is_empty())
                .map(str::to_owned);
            Some(WantedAddress {
                family: Family::parse(family.as_str()?)?,
                named,
            })
        })
        .collect()
}

/// Writes the addresses that were found.
pub fn set_addresses(object: &mut Value, addresses: &[String]) {
    if let (Some(spec), Some(first)) = (object_mut(object, "spec"), addresses.first()) {
        set(spec, "clusterIP", first.clone());
        set(spec, "clusterIPs", addresses.to_vec());
    }
}

/// Decides `ipFamilies` and `ipFamilyPolicy`. `server` is the families that the cluster has, the default one first.
///
/// # Errors
/// The Service asks for a family that the cluster does not have, or contradicts itself.
pub fn assign_families(
    object: &mut Value,
    old: Option<&Value>,
    server: &[Family],
) -> Result<(), Vec<FieldError>> {
    if !needs_cluster_ip(object) {
        return Ok(());
    }
    let headless = is_headless(object);
    let has_selector = value::entries(object, &["spec", "selector"])
        .next()
        .is_some();
    let Some(spec) = object_mut(object, "spec") else {
        return Ok(());
    };
    if let Some(old) = old.filter(|old| needs_cluster_ip(old)) {
        for key in ["ipFamilyPolicy", "ipFamilies"] {
            if value::is_empty(at(spec, &[key])) {
                value::keep(spec, at(old, &["spec"]), key);
            }
        }
    }
    let addresses = list(spec, &["clusterIPs"]).to_vec();
    let mut families: Vec<Family> = list(spec, &["ipFamilies"])
        .iter()
        .filter_map(|f| Family::parse(f.as_str()?))
        .collect();
    for address in addresses.iter().skip(families.len()) {
        families.extend(address.as_str().and_then(Family::of));
    }
    let asked = text(spec, &["ipFamilyPolicy"]).to_owned();
    let several = addresses.len() == 2 || families.len() == 2;
    let default = server.first().copied().unwrap_or(Family::V4);
    if headless && !has_selector {
        // Its author fills in the endpoints, of whatever family: the cluster's own families don't matter.
        let policy = if asked.is_empty() {
            "RequireDualStack".to_owned()
        } else {
            asked
        };
        if families.is_empty() {
            families.push(default);
        }
        if policy != "SingleStack" && families.len() == 1 {
            families.push(families[0].other());
        }
        write_families(spec, &policy, &families);
        return Ok(());
    }
    let policy = match asked.as_str() {
        "" if several => "RequireDualStack",
        "" => "SingleStack",
        asked => asked,
    }
    .to_owned();
    let mut wrong = Vec::new();
    if policy == "RequireDualStack" && server.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        wrong.push(FieldError::invalid_text(
            "spec.ipFamilyPolicy",
            &policy,
            why,
        ));
    }
    if policy == "SingleStack" && several {
        let what = if addresses.len() == 2 {
            "cluster IPs"
        } else {
            "IP families"
        };
        let why = format!(
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
        );
        wrong.push(FieldError::invalid_text(
            "spec.ipFamilyPolicy",
            &policy,
            why,
        ));
    }
    for (i, family) in families.iter().enumerate() {
        if !server.contains(family) {
            let shown: Value = families.iter().map(|f| f.name()).collect();
            wrong.push(FieldError::invalid(
                format!("spec.ipFamilies[{i}]"),
                &shown,
                "not configured on this cluster",
            ));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if families.is_empty() {
        families.push(default);
    }
    if policy == "SingleStack" {
        families.truncate(1);
    } else if families.len() == 1 && server.contains(&families[0].other()) {
        families.push(families[0].other());
    }
    write_families(spec, &policy, &families);
    Ok(())
}

fn write_families(spec: &mut Value, policy: &str, families: &[Family]) {
    set(spec, "ipFamilyPolicy", policy);
    set(
        spec,
        "ipFamilies",
        families.iter().map(|f| f.name()).collect::<Vec<_>>(),
    );
}

/// On an update, what the author left out is what was given before: addresses, node ports, the health check port.
pub fn keep_allocated(new: &mut Value, old: &Value) {
    let old_spec = at(old, &["spec"]);
    if needs_cluster_ip(old)
        && needs_cluster_ip(new)
        && let Some(spec) = object_mut(new, "spec")
    {
        if text(spec, &["clusterIP"]).is_empty() && list(spec, &["clusterIPs"]).is_empty() {
            value::keep(spec, old_spec, "clusterIP");
        }
        if list(spec, &["clusterIPs"]).is_empty()
            && at(spec, &["clusterIP"]) == at(old_spec, &["clusterIP"])
        {
            value::keep(spec, old_spec, "clusterIPs");
        }
        for key in ["ipFamilies", "ipFamilyPolicy"] {
            if value::is_empty(at(spec, &[key])) {
                value::keep(spec, old_spec, key);
            }
        }
    }
    if needs_node_ports(old) && needs_node_ports(new) {
        keep_node_ports(new, old);
    }
    if needs_health_check_port(old)
        && needs_health_check_port(new)
        && let Some(spec) =
            object_mut(new, "spec").filter(|s| number(s, &["healthCheckNodePort"]) == 0)
    {
        value::keep(spec, old_spec, "healthCheckNodePort");
    }
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    let key = |port: &Value| {
        (
            text(port, &["protocol"]).to_owned(),
            number(port, &["port"]),
        )
    };
    let before = list(old, &["spec", "ports"]);
    let taken: Vec<(String, i64)> = list(new, &["spec", "ports"])
        .iter()
        .filter(|p| number(p, &["nodePort"]) != 0)
        .map(|p| (text(p, &["protocol"]).to_owned(), number(p, &["nodePort"])))
        .collect();
    let Some(spec) = object_mut(new, "spec") else {
        return;
    };
    for port in value::items_mut(spec, "ports").filter(|p| number(p, &["nodePort"]) == 0) {
        let matching = before
            .iter()
            .find(|b| key(b) == key(port))
            .map_or(0, |b| number(b, &["nodePort"]));
        let free = !taken.contains(&(text(port, &["protocol"]).to_owned(), matching));
        if matching != 0 && free {
            set(port, "nodePort", matching);
        }
    }
}

/// Drops what only the old type had, where the author merely left it standing.
pub fn drop_of_other_type(new: &mut Value, old: &Value) {
    let same = |new: &Value, key: &str| at(new, &["spec", key]) == at(old, &["spec", key]);
    let mut gone: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if same(new, "clusterIP") && same(new, "clusterIPs") {
            gone.extend(["clusterIP", "clusterIPs"]);
        }
        gone.extend(
            ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]
                .into_iter()
                .filter(|key| same(new, key)),
        );
    }
    if needs_health_check_port(old)
        && !needs_health_check_port(new)
        && same(new, "healthCheckNodePort")
    {
        gone.push("healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(new) != "LoadBalancer" {
        let of_balancers = ["allocateLoadBalancerNodePorts", "loadBalancerClass"];
        gone.extend(of_balancers.into_iter().filter(|key| same(new, key)));
    }
    let reachable =
        externally_accessible(at(old, &["spec"])) && !externally_accessible(at(new, &["spec"]));
    if reachable && same(new, "externalTrafficPolicy") {
        gone.push("externalTrafficPolicy");
    }
    let ports = |object: &Value| -> Vec<i64> {
        list(object, &["spec", "ports"])
            .iter()
            .map(|p| number(p, &["nodePort"]))
            .filter(|p| *p != 0)
            .collect()
    };
    let drop_node_ports =
        needs_node_ports(old) && !needs_node_ports(new) && ports(new) == ports(old);
    let Some(spec) = object_mut(new, "spec") else {
        return;
    };
    for key in gone {
        value::remove(spec, key);
    }
    if drop_node_ports {
        for port in value::items_mut(spec, "ports") {
            value::remove(port, "nodePort");
        }
    }
}

/// The refusal of named cluster addresses, of which `address` could not be had.
pub fn address_refused(object: &Value, address: &str, why: AddressRefusal) -> FieldError {
    let why = match why {
        AddressRefusal::OutOfRange => "the provided network does not match the current range",
        AddressRefusal::Taken => "provided IP is already allocated",
    };
    let shown = at(object, &["spec", "clusterIPs"]);
    let shown = if shown.is_null() {
        json!([address])
    } else {
        shown.clone()
    };
    FieldError::invalid(
        "spec.clusterIPs",
        &shown,
        format!("failed to allocate IP {address}: {why}"),
    )
}

/// Why an address could not be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRefusal {
    /// Not in the cluster's ranges.
    OutOfRange,
    /// Another Service has it.
    Taken,
}

/// The refusal of the node port of `ports[index]`; `first` and `last` are the range where it lies outside of it.
pub fn node_port_refused(index: usize, port: i64, outside_of: Option<(u16, u16)>) -> FieldError {
    let why = match outside_of {
        Some((first, last)) => {
            format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            )
        }
        None => "provided port is already allocated".to_owned(),
    };
    FieldError::invalid(format!("spec.ports[{index}].nodePort"), &port.into(), why)
}
