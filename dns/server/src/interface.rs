//! Addresses of this machine's interfaces, as the kernel tells them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use net::{Address, Device, Error, Rtnl};

/// Addresses that [`all`] gives at most.
const ALL_MAX: usize = 8;

/// The addresses of the interface of this name; none if there is no such interface. Link-local addresses of IPv6
/// are left out, since they need a scope to be listened on.
///
/// # Errors
///
/// When the kernel does not say.
pub fn addresses(interface: &str) -> Result<Vec<IpAddr>, Error> {
    let (devices, addresses) = ask()?;
    let device = devices.iter().find(|device| device.name == interface);
    let own = addresses
        .iter()
        .filter(|(of, _)| device.is_some_and(|device| device.ifindex == *of));
    let found: BTreeSet<IpAddr> = own.map(|(_, address)| address.addr).collect();
    Ok(found.into_iter().filter(|addr| listens(*addr)).collect())
}

/// The addresses of this machine but the loopback ones: those of networks before those that stand alone, IPv4 first,
/// at most a handful.
#[must_use]
pub fn all() -> Vec<IpAddr> {
    match ask() {
        Ok((_, addresses)) => chosen(addresses.into_iter().map(|(_, address)| address)),
        Err(error) => {
            tracing::warn!(%error, "this machine's addresses are not known");
            Vec::new()
        }
    }
}

fn ask() -> Result<(Vec<Device>, Vec<(u32, Address)>), Error> {
    let kernel = Rtnl::open()?;
    Ok((kernel.devices()?, kernel.all_addresses()?))
}

/// Addresses without a network are often not the machine's own alone: kube-proxy in its IPVS mode gives a device
/// those of all Services.
fn chosen(addresses: impl Iterator<Item = Address>) -> Vec<IpAddr> {
    let alone = |address: &Address| match address.addr {
        IpAddr::V4(_) => address.prefix_len == 32,
        IpAddr::V6(_) => address.prefix_len == 128,
    };
    let reached = addresses.filter(|address| listens(address.addr) && !address.addr.is_loopback());
    let sorted: BTreeSet<(bool, IpAddr)> = reached
        .map(|address| (alone(&address), address.addr))
        .collect();
    sorted
        .into_iter()
        .map(|(_, addr)| addr)
        .take(ALL_MAX)
        .collect()
}

fn listens(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        let (addr, prefix_len) = text.split_once('/').unwrap();
        Address {
            addr: addr.parse().unwrap(),
            prefix_len: prefix_len.parse().unwrap(),
        }
    }

    #[test]
    fn addresses_belong_to_their_interface() {
        let namespace = net::Netns::create().expect("a network namespace: run as root");
        let [lo, ve0, ve1, nobody] = namespace
            .run(|| {
                let kernel = Rtnl::open()?;
                kernel.add_veth(
                    ("ve0", [2, 0, 0, 0, 0, 1]),
                    ("ve1", [2, 0, 0, 0, 0, 2]),
                    1500,
                )?;
                for (device, text) in [
                    ("lo", "127.0.0.1/8"),
                    ("lo", "10.7.7.7/32"),
                    ("ve0", "10.61.0.5/32"),
                    ("ve0", "10.62.0.5/16"),
                    ("ve0", "fd00::5/64"),
                    ("ve0", "fe80::5/64"),
                    ("ve1", "10.62.7.5/24"),
                ] {
                    let device = kernel.device(device)?.expect("a device");
                    kernel.add_address(device.ifindex, address(text))?;
                }
                let found = ["lo", "ve0", "ve1", "ve2"].map(addresses);
                Ok::<_, Error>(found.map(|found| found.expect("an answer")))
            })
            .expect("the namespace")
            .expect("devices and addresses");
        let all = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(lo, all(&["10.7.7.7", "127.0.0.1"]));
        assert_eq!(ve0, all(&["10.61.0.5", "10.62.0.5", "fd00::5"]));
        assert_eq!(ve1, all(&["10.62.7.5"]));
        assert_eq!(nobody, all(&[]));
    }

    #[test]
    fn a_handful_of_addresses_with_networks_first() {
        let mut addresses: Vec<Address> = (1..20)
            .map(|last| address(&format!("10.96.0.{last}/32")))
            .collect();
        addresses.extend(["127.0.0.1/8", "fe80::1/64", "fd00::1/64", "192.0.2.1/24"].map(address));
        let found = chosen(addresses.into_iter());
        assert_eq!(found.len(), ALL_MAX);
        let first: [IpAddr; 3] =
            ["192.0.2.1", "fd00::1", "10.96.0.1"].map(|text| text.parse().unwrap());
        assert_eq!(found[..3], first);
    }
}
