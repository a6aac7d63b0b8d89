//! On which addresses of this node NodePorts are served (`--nodeport-addresses`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use model::{Clients, Range};

/// Which addresses of a node serve NodePorts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All of them, and for the host's own sockets the loopback addresses.
    #[default]
    All,
    /// The first one of each family that the Node object names.
    Primary,
    /// Those within one of these ranges.
    Within(Vec<Range>),
}

/// What is no setting of NodePort addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadNodePortAddresses(String);

impl std::fmt::Display for BadNodePortAddresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let BadNodePortAddresses(text) = self;
        write!(
            f,
            "{text:?} is neither `primary` nor a list of ranges such as 192.0.2.0/24"
        )
    }
}

impl std::error::Error for BadNodePortAddresses {}

/// Reads `primary`, or ranges with commas between them; nothing stands for all.
impl FromStr for NodePortAddresses {
    type Err = BadNodePortAddresses;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = text.split(',').map(str::trim);
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(NodePortAddresses::All),
            ["primary"] => Ok(NodePortAddresses::Primary),
            words => {
                let ranges: Result<_, _> = words.iter().map(|word| word.parse()).collect();
                let ranges = ranges.map_err(|_| BadNodePortAddresses(text.to_owned()))?;
                Ok(NodePortAddresses::Within(ranges))
            }
        }
    }
}

impl NodePortAddresses {
    /// Those of the node's addresses, of which the Node object names `named`, that serve NodePorts.
    pub(crate) fn of(&self, all: &[IpAddr], named: &[IpAddr]) -> Vec<IpAddr> {
        match self {
            NodePortAddresses::All => all.to_vec(),
            NodePortAddresses::Primary => {
                let first = |ipv4| named.iter().find(move |addr| addr.is_ipv4() == ipv4);
                first(true)
                    .into_iter()
                    .chain(first(false))
                    .copied()
                    .collect()
            }
            NodePortAddresses::Within(ranges) => {
                let within = |addr: &&IpAddr| ranges.iter().any(|range| range.contains(**addr));
                all.iter().filter(within).copied().collect()
            }
        }
    }

    /// The loopback addresses that serve the host's own sockets.
    pub(crate) fn loopback(&self) -> Vec<IpAddr> {
        let both = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        match self {
            NodePortAddresses::All => both.to_vec(),
            NodePortAddresses::Primary => Vec::new(),
            NodePortAddresses::Within(_) => self.of(&both, &[]),
        }
    }

    /// Which of the host's sockets find a loopback address: where its whole network serves NodePorts, all that name one of
    /// it.
    pub(crate) fn loopback_clients(&self) -> Clients {
        let network = [[127, 0, 0, 0], [127, 255, 255, 255]].map(IpAddr::from);
        match self {
            NodePortAddresses::All => Clients::Host,
            NodePortAddresses::Within(_) if self.of(&network, &[]) == network => Clients::Host,
            NodePortAddresses::Within(_) | NodePortAddresses::Primary => Clients::HostExactly,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_served() {
        let addrs = |text: &str| -> Vec<IpAddr> {
            let words = text.split_whitespace();
            words.map(|word| word.parse().unwrap()).collect()
        };
        let all = addrs("192.0.2.1 192.0.2.2 198.51.100.1 fd00::1");
        let named = addrs("192.0.2.2 fd00::1 192.0.2.1");
        for (asked, served, loopback) in [
            (
                "",
                "192.0.2.1 192.0.2.2 198.51.100.1 fd00::1",
                "127.0.0.1 ::1",
            ),
            ("primary", "192.0.2.2 fd00::1", ""),
            ("192.0.2.0/24", "192.0.2.1 192.0.2.2", ""),
            ("192.0.2.1/32, fd00::/8", "192.0.2.1 fd00::1", ""),
            ("127.0.0.0/8,198.51.100.0/24", "198.51.100.1", "127.0.0.1"),
            ("0.0.0.0/0", "192.0.2.1 192.0.2.2 198.51.100.1", "127.0.0.1"),
        ] {
            let asked: NodePortAddresses = asked.parse().unwrap();
            assert_eq!(asked.of(&all, &named), addrs(served), "{asked:?}");
            assert_eq!(asked.loopback(), addrs(loopback), "{asked:?}");
        }
        for (asked, clients) in [
            ("", Clients::Host),
            ("127.0.0.0/8", Clients::Host),
            ("0.0.0.0/0", Clients::Host),
            ("127.0.0.1/32", Clients::HostExactly),
            ("127.0.0.0/9,::/0", Clients::HostExactly),
            ("primary", Clients::HostExactly),
        ] {
            let asked: NodePortAddresses = asked.parse().unwrap();
            assert_eq!(asked.loopback_clients(), clients, "{asked:?}");
        }
        for bad in ["primary,192.0.2.0/24", "192.0.2.0", "all"] {
            assert!(bad.parse::<NodePortAddresses>().is_err(), "{bad}");
        }
    }
}
