//! Ports of translated sources.

use zerocopy::network_endian::U16;

use crate::Shared;

/// The ports that translated sources may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    first: u16,
    count: u32,
}

impl PortRange {
    #[inline(always)]
    pub(crate) fn of<T: Shared>(tables: &T) -> Self {
        match tables.node() {
            Some(node) => Self::new(node.snat_port_min.get(), node.snat_port_max.get()),
            None => Self::new(0, 0),
        }
    }

    /// The range from `first` to `last`; where that is none (a node not configured yet), the default range.
    #[inline(always)]
    #[must_use]
    pub const fn new(first: u16, last: u16) -> Self {
        let default = abi::config::SNAT_PORTS;
        let (first, last) = if first == 0 || last < first {
            (*default.start(), *default.end())
        } else {
            (first, last)
        };
        Self {
            first,
            count: last as u32 - first as u32 + 1,
        }
    }

    /// The port to try at the given attempt: a random one, then others far from it.
    #[inline(always)]
    #[must_use]
    pub const fn candidate(self, random: u32, attempt: u32) -> U16 {
        // 2^32 divided by the golden ratio: consecutive multiples spread evenly.
        let random = random.wrapping_add(attempt.wrapping_mul(0x9e37_79b9));
        let offset = ((random as u64 * self.count as u64) >> 32) as u16;
        U16::from_bytes((self.first.wrapping_add(offset)).to_be_bytes())
    }
}
