//! What the socket hooks decide on: IPv4 inside of IPv6 sockets, and a choice that stays with a socket.

/// The IPv4 address inside of an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), which is how an IPv6
/// socket speaks to an IPv4 peer.
#[inline(always)]
#[must_use]
pub fn mapped(words: [u32; 4]) -> Option<[u8; 4]> {
    let [a, b, c, d] = words;
    (a == 0 && b == 0 && c == PREFIX).then(|| d.to_ne_bytes())
}

/// The words of the IPv4-mapped IPv6 address of an IPv4 address.
#[inline(always)]
#[must_use]
pub const fn map(addr: [u8; 4]) -> [u32; 4] {
    [0, 0, PREFIX, u32::from_ne_bytes(addr)]
}

const PREFIX: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// A number that stands in for chance and is the same whenever this socket speaks to this frontend, so that an
/// unconnected UDP socket stays with its backend while the ring stays as it is. `addr_sum` and `port` are the
/// frontend's.
#[inline(always)]
#[must_use]
pub const fn steady(cookie: u64, addr_sum: u64, port: u16) -> u32 {
    // splitmix64's finisher: every input bit reaches every output bit.
    let mut z = cookie
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(addr_sum.rotate_left(32))
        .wrapping_add(port as u64);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mapped_addresses_hold_an_ipv4_address() {
        let words = |text: &str| -> [u32; 4] {
            let addr: std::net::Ipv6Addr = text.parse().expect("an address");
            zerocopy::transmute!(addr.octets())
        };
        assert_eq!(mapped(words("::ffff:10.96.0.1")), Some([10, 96, 0, 1]));
        assert_eq!(map([10, 96, 0, 1]), words("::ffff:10.96.0.1"));
        for other in [
            "::10.96.0.1",
            "fd00::1",
            "::1",
            "::fffe:10.96.0.1",
            "1::ffff:0:1",
        ] {
            assert_eq!(mapped(words(other)), None, "{other}");
        }
    }

    #[test]
    fn sockets_spread_and_each_stays() {
        let mut count = [0u32; 4];
        for cookie in 0..4000 {
            let random = steady(cookie, 0x0a60_0001, 53);
            assert_eq!(random, steady(cookie, 0x0a60_0001, 53));
            count[crate::choose::slot(0, 4, random) as usize] += 1;
        }
        assert!(
            count.iter().all(|count| (900..1100).contains(count)),
            "{count:?}"
        );
    }
}
