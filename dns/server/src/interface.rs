//! Addresses of this machine's interfaces, as `/proc` and `/sys` tell them.

use std::net::IpAddr;
use std::net::Ipv6Addr;

/// The addresses of the interface of this name; none if there is no such interface.
#[must_use]
pub fn addresses(interface: &str) -> Vec<IpAddr> {
    let mut found = v6(interface);
    found.extend(v4(interface));
    found
}

/// The addresses of this machine but the loopback ones: IPv4 first, at most a handful of each family.
#[must_use]
pub fn all() -> Vec<IpAddr> {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten();
    let names = interfaces.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut found: Vec<IpAddr> = names
        .filter(|name| name != "lo")
        .take(64)
        .flat_map(|name| addresses(&name))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.truncate(8);
    found
}

/// Lines of `/proc/net/if_inet6`: address, index, prefix length, scope, flags, name. Link-local addresses are left
/// out, since they need a scope to be listened on.
fn v6(interface: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u128::from_str_radix(words.next()?, 16).ok()?;
            let address = Ipv6Addr::from(address);
            let named = words.nth(4)? == interface;
            (named && !address.is_unicast_link_local()).then_some(IpAddr::V6(address))
        })
        .collect()
}

/// IPv4 addresses of an interface have no file of their own: the table of local routes names addresses, and a
/// socket that is asked for its interface tells whose they are.
fn v4(interface: &str) -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut last = None;
    let mut local: Vec<std::net::Ipv4Addr> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = last
            && !local.contains(&address)
        {
            local.push(address);
        }
    }
    local
        .into_iter()
        .filter(|address| belongs(interface, *address))
        .map(IpAddr::V4)
        .collect()
}

fn belongs(interface: &str, address: std::net::Ipv4Addr) -> bool {
    if interface == "lo" {
        return address.is_loopback();
    }
    // A route's line holds the interface, then destination and mask in hexadecimal of host order.
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    routes.lines().skip(1).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| {
            let word = words.get(index)?;
            u32::from_str_radix(word, 16).ok().map(u32::swap_bytes)
        };
        let (Some(destination), Some(mask)) = (number(1), number(7)) else {
            return false;
        };
        words.first() == Some(&interface) && mask != 0 && u32::from(address) & mask == destination
    })
}
