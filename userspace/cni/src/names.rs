//! Names that follow from an attachment, so that nothing has to remember them.

use ipam::Attachment;

/// What an attachment's link is called on the host, and its Ethernet addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Names {
    /// The host's side.
    pub(crate) host: String,
    /// The pod's side while it is still on the host.
    pub(crate) other: String,
    /// Ethernet address of the host's side.
    pub(crate) host_address: [u8; 6],
    /// Ethernet address of the pod's side.
    pub(crate) pod_address: [u8; 6],
}

impl Names {
    /// Those of an attachment to a network.
    #[must_use]
    pub(crate) fn of(network: &str, attachment: &Attachment) -> Names {
        let of = |what: &str| {
            let parts = [what, network, &attachment.container, &attachment.ifname];
            mark(&parts.map(str::as_bytes).join(&0))
        };
        let [_, _, digits @ ..] = of("link").to_be_bytes();
        let digits: String = digits.iter().map(|octet| format!("{octet:02x}")).collect();
        Names {
            host: format!("pod{digits}"),
            other: format!("tmp{digits}"),
            host_address: address(of("host")),
            pod_address: address(of("pod")),
        }
    }
}

/// A locally administered address of one interface (IEEE 802, section 8.2). One that is set is also one that udev
/// leaves as it is.
fn address(mark: u64) -> [u8; 6] {
    let [_, _, first, rest @ ..] = mark.to_be_bytes();
    let [a, b, c, d, e] = rest;
    [first & 0xfc | 0x02, a, b, c, d, e]
}

/// FNV-1a, 64 bits, and the last step of MurmurHash3, which spreads short differences over all of them.
fn mark(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ_and_fit() {
        let mut seen = BTreeSet::new();
        for n in 0..10_000 {
            let attachment = Attachment {
                container: format!("c{n}"),
                ifname: "eth0".to_owned(),
            };
            let names = Names::of("pods", &attachment);
            assert_eq!((names.host.len(), names.other.len()), (15, 15));
            assert_eq!(names.pod_address[0] & 3, 2);
            assert_ne!(names.pod_address, names.host_address);
            assert!(seen.insert(names.host.clone()));
            assert_eq!(names, Names::of("pods", &attachment));
        }
    }
}
