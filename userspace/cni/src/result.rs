//! What ADD made, in the form of the version that was asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::version::Version;

/// What ADD made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcome {
    /// The host's side of the link and the pod's.
    pub(crate) interfaces: Vec<Interface>,
    /// Addresses, all of them the pod's side's.
    pub(crate) ips: Vec<Ip>,
    /// `dns` of the configuration.
    pub(crate) dns: Option<Value>,
}

/// An end of the link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Its Ethernet address.
    pub(crate) mac: [u8; 6],
    /// Its MTU.
    pub(crate) mtu: u32,
    /// Path of the pod's network namespace; none for the host's side.
    pub(crate) sandbox: Option<String>,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ip {
    /// The address, alone on its link.
    pub(crate) address: IpAddr,
    /// The next hop for everything else.
    pub(crate) gateway: IpAddr,
    /// Which of the interfaces has it.
    pub(crate) interface: usize,
}

impl Outcome {
    /// What the runtime reads.
    #[must_use]
    pub(crate) fn json(&self, version: Version, name: &str) -> Value {
        let interfaces = self.interfaces.iter().map(|interface| {
            let mut json = json!({"name": interface.name, "mac": mac(&interface.mac)});
            if version >= Version::V1_1_0 {
                json["mtu"] = json!(interface.mtu);
            }
            if let Some(sandbox) = &interface.sandbox {
                json["sandbox"] = json!(sandbox);
            }
            json
        });
        let ips = self.ips.iter().map(|ip| {
            let mut json = json!({
                "address": IpNet::from(ip.address).to_string(),
                "gateway": ip.gateway,
                "interface": ip.interface,
            });
            if version < Version::V1_0_0 {
                json["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
            }
            json
        });
        let routes = self.ips.iter().map(|ip| {
            let to = if ip.address.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            json!({"dst": to, "gw": ip.gateway})
        });
        json!({
            "cniVersion": name,
            "interfaces": interfaces.collect::<Vec<_>>(),
            "ips": ips.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            "dns": self.dns.clone().unwrap_or_else(|| json!({})),
        })
    }
}

/// Addresses in a result of any version that is spoken here.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| {
        let text = ip["address"].as_str()?;
        let addr = text.split_once('/').map_or(text, |(addr, _)| addr);
        addr.parse().ok()
    })
    .collect()
}

/// Ethernet addresses of interfaces in a result, by their names.
pub(crate) fn ethernet_addresses(result: &Value) -> BTreeMap<String, String> {
    let interfaces = result["interfaces"].as_array().into_iter().flatten();
    let named = interfaces.filter_map(|interface| {
        let text = |field: &str| Some(interface[field].as_str()?.to_owned());
        Some((text("name")?, text("mac")?))
    });
    named.filter(|(_, mac)| !mac.is_empty()).collect()
}

pub(crate) fn mac(octets: &[u8]) -> String {
    let words: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    words.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_has_its_form() {
        let outcome = Outcome {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                mac: [2, 0, 0, 0, 0, 10],
                mtu: 1450,
                sandbox: Some("/run/netns/a".to_owned()),
            }],
            ips: vec![Ip {
                address: [10, 244, 0, 5].into(),
                gateway: [169, 254, 1, 1].into(),
                interface: 0,
            }],
            dns: None,
        };
        for (version, name) in Version::ALL {
            let json = outcome.json(version, name);
            let ip = &json["ips"][0];
            assert_eq!(json["cniVersion"], name);
            assert_eq!(ip["address"], "10.244.0.5/32");
            assert_eq!(ip["version"] == "4", version < Version::V1_0_0, "{name}");
            let mtu = &json["interfaces"][0]["mtu"];
            assert_eq!(mtu == 1450, version >= Version::V1_1_0, "{name}");
            assert_eq!(json["routes"][0]["dst"], "0.0.0.0/0");
            assert_eq!(addresses(&json), [IpAddr::from([10, 244, 0, 5])]);
        }
        for odd in [
            json!(null),
            json!({"ips": 5}),
            json!({"ips": [{}, {"address": "x"}]}),
        ] {
            assert_eq!(addresses(&odd), Vec::<IpAddr>::new());
        }
    }
}
