//! Which flows and events are shown, by names and addresses.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::cluster::Names;
use crate::cli::TrafficFilter;

/// A filter with its names looked up.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    services: Option<Vec<u32>>,
    pods: Option<Vec<IpAddr>>,
    address: Option<IpNet>,
    protocol: Option<u8>,
}

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) service: u32,
    pub(crate) protocol: u8,
    /// The ends of a packet as it was and as it becomes.
    pub(crate) ends: [SocketAddr; 4],
}

impl Filter {
    /// Looks the names up.
    ///
    /// # Errors
    ///
    /// For a name that nothing has.
    pub(crate) fn new(asked: &TrafficFilter, names: &Names) -> anyhow::Result<Filter> {
        let told = "name the API server with --kubeconfig, which knows names";
        let services = match &asked.service {
            None => None,
            Some(word) => match names.services_named(word) {
                none if none.is_empty() && names.is_empty() => {
                    anyhow::bail!(
                        "--service {word}: {told}, or give the number that `fairlead service list` shows"
                    )
                }
                none if none.is_empty() => anyhow::bail!(
                    "--service {word}: no Service of that name is in the tables; `fairlead service list` shows those there are"
                ),
                ids => Some(ids),
            },
        };
        let pods = match &asked.pod {
            None => None,
            Some(word) => match names.pods_named(word) {
                none if none.is_empty() && names.is_empty() => {
                    anyhow::bail!("--pod {word}: {told}, or give the Pod's address to --address")
                }
                none if none.is_empty() => anyhow::bail!(
                    "--pod {word}: no Pod of that name has an address of its own; `kubectl get pods -A -o wide` shows those that have"
                ),
                addresses => Some(addresses),
            },
        };
        Ok(Filter {
            services,
            pods,
            address: asked.address,
            protocol: asked.protocol,
        })
    }

    /// Whether it is shown.
    pub(crate) fn shows(&self, seen: Seen) -> bool {
        let any = |test: &dyn Fn(&IpAddr) -> bool| seen.ends.iter().any(|end| test(&end.ip()));
        self.protocol
            .is_none_or(|protocol| protocol == seen.protocol)
            && self
                .services
                .as_ref()
                .is_none_or(|ids| ids.contains(&seen.service))
            && self
                .pods
                .as_ref()
                .is_none_or(|pods| any(&|addr| pods.contains(addr)))
            && self
                .address
                .is_none_or(|net| any(&|addr| net.contains(addr)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_asked_for_must_hold() {
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let end = |text: &str| SocketAddr::new(addr(text), 80);
        let seen = Seen {
            service: 3,
            protocol: 6,
            ends: ["10.244.0.7", "10.96.0.10", "10.244.0.7", "fd00::1"].map(end),
        };
        let filter =
            |services: Option<&[u32]>, pod: Option<&str>, net: Option<&str>, protocol| Filter {
                services: services.map(<[u32]>::to_vec),
                pods: pod.map(|pod| vec![addr(pod)]),
                address: net.map(|net| net.parse().unwrap()),
                protocol,
            };
        for (filter, shown) in [
            (Filter::default(), true),
            (filter(Some(&[2, 3]), None, None, None), true),
            (filter(Some(&[2]), None, None, None), false),
            (filter(None, Some("10.244.0.7"), None, Some(6)), true),
            (filter(None, Some("10.244.0.7"), None, Some(17)), false),
            (filter(None, Some("10.244.0.8"), None, None), false),
            (filter(None, None, Some("10.96.0.0/12"), None), true),
            (filter(None, None, Some("fd00::/64"), None), true),
            (filter(None, None, Some("10.0.0.0/16"), None), false),
            (filter(Some(&[3]), None, Some("10.0.0.0/16"), None), false),
        ] {
            assert_eq!(filter.shows(seen), shown, "{filter:?}");
        }
    }
}
