//! Which way leads off this host, and whether it passes packets on at all.

use std::collections::BTreeSet;
use std::fs;

use crate::Error;

/// Names of the devices that a default route of this thread's network namespace leads through.
#[must_use]
pub fn default_route_devices() -> BTreeSet<String> {
    let read = |name: &str| {
        // Without the file there is no such family, and no route.
        fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default()
    };
    let mut devices = default4(&read("route"));
    devices.append(&mut default6(&read("ipv6_route")));
    devices
}

/// Whether this thread's network namespace forwards packets of a family.
#[must_use]
pub fn forwards(v6: bool) -> bool {
    fs::read_to_string(forwarding(v6)).is_ok_and(|text| text.trim() != "0")
}

/// Lets this thread's network namespace forward packets of a family, if it does not.
///
/// # Errors
///
/// [`Error::Path`] without root.
pub fn forward(v6: bool) -> Result<(), Error> {
    if forwards(v6) {
        return Ok(());
    }
    fs::write(forwarding(v6), "1").map_err(|source| Error::Path {
        action: "write",
        path: forwarding(v6).into(),
        source,
    })
}

fn forwarding(v6: bool) -> &'static str {
    if v6 {
        "/proc/sys/net/ipv6/conf/all/forwarding"
    } else {
        "/proc/sys/net/ipv4/ip_forward"
    }
}

/// Lines of /proc/net/route: device, destination, gateway, flags, three counters, mask.
fn default4(table: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (device, destination, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        (*destination == "00000000" && *mask == "00000000").then(|| (*device).to_owned())
    };
    table.lines().filter_map(device).collect()
}

/// Lines of /proc/net/ipv6_route: destination, its prefix length, source and its, next hop, four numbers,
/// device. The loopback device stands for routes that refuse.
fn default6(table: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (prefix_len, device) = (fields.get(1)?, fields.get(9)?);
        (*prefix_len == "00" && *device != "lo").then(|| (*device).to_owned())
    };
    table.lines().filter_map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_default_routes_count() {
        let four = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            veth1\t0A00F40A\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n";
        assert_eq!(default4(four), BTreeSet::from(["eth0".to_owned()]));
        let zero = "0".repeat(32);
        let six = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth1\n\
             fd00000000000000000000000000000a 80 {zero} 00 {zero} 00000400 00000001 00000000 00000001    veth1\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default6(&six), BTreeSet::from(["eth1".to_owned()]));
        assert_eq!(default4("short"), BTreeSet::new());
    }
}
