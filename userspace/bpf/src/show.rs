//! Keys as people write them, for errors.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use abi::{
    AffinityKey, Flow4, Flow6, FragmentKey, FrontendKey4, FrontendKey6, InsideKey,
    ReverseSocketKey, SourceKey, family, protocol,
};
use zerocopy::IntoBytes as _;

/// A key as people write it.
pub(crate) trait Show {
    /// `10.0.0.1:80/TCP` and the like.
    fn show(&self) -> String;
}

fn proto(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".to_owned(),
        protocol::UDP => "UDP".to_owned(),
        protocol::SCTP => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

fn v4(addr: [u8; 4], port: u16) -> SocketAddr {
    (Ipv4Addr::from(addr), port).into()
}

fn v6(addr: [u8; 16], port: u16) -> SocketAddr {
    (Ipv6Addr::from(addr), port).into()
}

fn scope(scope: u8) -> &'static str {
    if scope == abi::Scope::External as u8 {
        " from outside"
    } else {
        ""
    }
}

impl Show for [u8; 4] {
    fn show(&self) -> String {
        Ipv4Addr::from(*self).to_string()
    }
}

impl Show for [u8; 16] {
    fn show(&self) -> String {
        Ipv6Addr::from(*self).to_string()
    }
}

impl Show for FrontendKey4 {
    fn show(&self) -> String {
        let address = v4(self.addr, self.port.get());
        format!("{address}/{}{}", proto(self.proto), scope(self.scope))
    }
}

impl Show for FrontendKey6 {
    fn show(&self) -> String {
        let address = v6(self.addr, self.port.get());
        format!("{address}/{}{}", proto(self.proto), scope(self.scope))
    }
}

impl Show for SourceKey {
    fn show(&self) -> String {
        let range = plan::text::source_range(self);
        format!("{range} of service {}", self.service)
    }
}

impl Show for InsideKey {
    fn show(&self) -> String {
        let [a, b, c, d, ..] = self.addr;
        let addr = if self.family == u32::from(family::V4) {
            IpAddr::from([a, b, c, d])
        } else {
            IpAddr::from(self.addr)
        };
        let bits = self.prefix_len.saturating_sub(abi::masquerade::FAMILY_BITS);
        format!("{addr}/{bits}")
    }
}

impl Show for abi::MemberKey {
    fn show(&self) -> String {
        format!("{}/{}", Ipv6Addr::from(self.addr), self.prefix_len)
    }
}

impl Show for abi::PolicyLinkKey {
    fn show(&self) -> String {
        format!("link {}", self.ifindex)
    }
}

impl Show for abi::PolicyPeerKey {
    fn show(&self) -> String {
        let addr = Ipv6Addr::from(self.addr).to_canonical();
        format!("{addr}, {} bits", self.prefix_len)
    }
}

impl Show for abi::PolicyVerdictKey {
    fn show(&self) -> String {
        format!("identity {} of set {}", self.identity, self.set)
    }
}

impl Show for abi::PolicyPortKey {
    fn show(&self) -> String {
        let port = self.port.get();
        format!("{port}/{} of profile {}", proto(self.proto), self.profile)
    }
}

impl Show for abi::PolicyHeldKey {
    fn show(&self) -> String {
        format!("a policy at link {}", self.ifindex)
    }
}

impl Show for Flow4 {
    fn show(&self) -> String {
        let (from, to) = (
            v4(self.saddr, self.sport.get()),
            v4(self.daddr, self.dport.get()),
        );
        format!("{from} to {to}/{}", proto(self.proto))
    }
}

impl Show for Flow6 {
    fn show(&self) -> String {
        let (from, to) = (
            v6(self.saddr, self.sport.get()),
            v6(self.daddr, self.dport.get()),
        );
        format!("{from} to {to}/{}", proto(self.proto))
    }
}

impl Show for AffinityKey {
    fn show(&self) -> String {
        format!("a client of service {}", self.service)
    }
}

impl Show for FragmentKey {
    fn show(&self) -> String {
        format!("fragments with identification {:02x?}", self.id)
    }
}

impl Show for abi::DnsName {
    fn show(&self) -> String {
        let mut rest = self.words.as_bytes();
        let mut text = String::new();
        while let Some((length, after)) = rest.split_first()
            && let Some((label, after)) = after.split_at_checked(usize::from(*length))
            && !label.is_empty()
        {
            text.push_str(&String::from_utf8_lossy(label));
            text.push('.');
            rest = after;
        }
        text
    }
}

impl Show for u64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for u32 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for ReverseSocketKey {
    fn show(&self) -> String {
        let [a, b, c, d, ..] = self.addr;
        let address = if self.family == family::V4 {
            v4([a, b, c, d], self.port.get())
        } else {
            v6(self.addr, self.port.get())
        };
        format!("socket {} to {address}", self.cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_read_as_people_write_them() {
        let four = FrontendKey4 {
            addr: [10, 96, 0, 1],
            port: 443.into(),
            proto: protocol::TCP,
            scope: 0,
        };
        assert_eq!(four.show(), "10.96.0.1:443/TCP");
        let six = FrontendKey6 {
            addr: Ipv6Addr::LOCALHOST.octets(),
            port: 53.into(),
            proto: protocol::UDP,
            scope: abi::Scope::External as u8,
        };
        assert_eq!(six.show(), "[::1]:53/UDP from outside");
        let name = abi::DnsName::new(b"\x03web\x07default\x00").unwrap();
        assert_eq!(name.show(), "web.default.");
    }
}
