//! Which node ports are free. A cache in the same sense as that of the addresses.

use std::collections::HashSet;
use std::ops::RangeInclusive;

/// The range of node ports.
pub(crate) struct PortRange {
    ports: RangeInclusive<u16>,
    /// The first so many are left to those who ask for a port of their own, as KEP-3668 has it.
    reserved: u16,
    used: HashSet<u16>,
}

impl PortRange {
    pub(crate) fn new(ports: RangeInclusive<u16>) -> Self {
        let size = ports.end().saturating_sub(*ports.start()).saturating_add(1);
        // KEP-3668: a thirty-second, at least 16 and at most 128; a range too small for that reserves nothing.
        let reserved = if size < 32 {
            0
        } else {
            (size / 32).clamp(16, 128)
        };
        PortRange {
            ports,
            reserved,
            used: HashSet::new(),
        }
    }

    /// A free port, marked as taken: at random from the upper band, from the lower one when that is full.
    pub(crate) fn take(&mut self) -> Option<u16> {
        let (first, last) = (*self.ports.start(), *self.ports.end());
        let middle = first.saturating_add(self.reserved);
        for band in [middle..=last, first..=middle.saturating_sub(1)] {
            if band.is_empty() {
                continue;
            }
            let count = u32::from(band.end() - band.start()) + 1;
            let start = fastrand::u32(..count);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "below the size of a range of ports"
            )]
            let free = (0..count)
                .map(|step| band.start() + ((start + step) % count) as u16)
                .find(|port| !self.used.contains(port));
            if let Some(port) = free {
                self.used.insert(port);
                return Some(port);
            }
        }
        None
    }

    pub(crate) fn mark(&mut self, port: u16) {
        self.used.insert(port);
    }

    pub(crate) fn release(&mut self, port: u16) {
        self.used.remove(&port);
    }

    /// Forgets everything, before what the store holds is marked again.
    pub(crate) fn clear(&mut self) {
        self.used.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_given_out_once() {
        for (ports, count) in [
            (30000..=30099, 100),
            (5..=5, 1),
            (65535..=65535, 1),
            (0..=0, 1),
        ] {
            let mut range = PortRange::new(ports.clone());
            let mut seen = HashSet::new();
            while let Some(port) = range.take() {
                assert!(ports.contains(&port));
                assert!(seen.insert(port), "{port} twice");
            }
            assert_eq!(seen.len(), count);
            range.release(*ports.start());
            assert_eq!(range.take(), Some(*ports.start()));
        }
    }

    #[test]
    fn the_lower_band_is_left_for_last() {
        let mut range = PortRange::new(30000..=32767);
        for _ in 0..2768 - 86 {
            assert!(range.take().unwrap() >= 30086);
        }
        assert!(range.take().unwrap() < 30086);
    }
}
