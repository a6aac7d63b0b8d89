//! A frame that is changed as the kernel's helpers change it.

use packet::balance::masquerade;
use packet::checksum::{difference, kernel_difference};
use packet::quote::{Mended, Quote};
use packet::{Address, Bytes as _, Family, Flow as _, Headers, Transport, refuse, sctp};

use crate::carry::{Run, Verdict};

impl Run<'_> {
    /// Gives a packet its new tuple, as the kernel's helpers do: each change of a checksum by itself.
    pub(crate) fn rewrite<F: Family>(&mut self, headers: &Headers<F>, to: &F::Flow) {
        let from = &headers.tuple;
        let addresses = kernel_difference(difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        ));
        if let Some(offset) = F::CHECK_OFFSET {
            self.replace(headers.l3 + offset, addresses, false);
        }
        let check = match headers.transport {
            Transport::Tcp => Some((headers.l4 + 16, false)),
            Transport::Udp => Some((headers.l4 + 6, true)),
            Transport::Sctp => {
                self.rewrite_sctp(headers, to);
                None
            }
            Transport::Elsewhere | Transport::Icmp | Transport::Other => None,
        };
        if let Some((check, mangled)) = check {
            self.replace(check, addresses, mangled);
            let (old, new) = (from.ports(), to.ports());
            if old != new {
                let ports = kernel_difference(difference(old.into(), new.into()));
                self.replace(check, ports, mangled);
                self.store(headers.l4, &new.to_ne_bytes());
            }
        }
        self.store_addresses::<F>(headers.l3, to.saddr(), to.daddr());
    }

    /// The same of an echo message, whose identifier stands for its port.
    pub(crate) fn rewrite_echo<F: Family>(&mut self, headers: &Headers<F>, to: &F::Flow) {
        let from = &headers.tuple;
        let addresses = kernel_difference(difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        ));
        let check = headers.l4 + masquerade::CHECK_OFFSET;
        match F::CHECK_OFFSET {
            Some(offset) => self.replace(headers.l3 + offset, addresses, false),
            None => self.replace(check, addresses, false),
        }
        let (old, new) = (
            masquerade::identifier::<F>(from),
            masquerade::identifier::<F>(to),
        );
        let change = kernel_difference(difference(old.into(), new.into()));
        self.replace(check, change, false);
        let at = headers.l4 + masquerade::IDENTIFIER_OFFSET;
        self.store(at, &new.to_ne_bytes());
        self.store_addresses::<F>(headers.l3, to.saddr(), to.daddr());
    }

    /// The ports of an SCTP packet, and its checksum, which covers no address.
    pub(crate) fn rewrite_sctp<F: Family>(&mut self, headers: &Headers<F>, to: &F::Flow) {
        let flips = headers.tuple.ports() ^ to.ports();
        if flips == 0 {
            return;
        }
        let len = headers.bytes - (headers.l4 - headers.l3);
        let at = headers.l4 + sctp::CHECK_OFFSET;
        if let Some([check]) = self.frame.as_slice().words::<1>(at) {
            let check = sctp::updated(check, sctp::flipped(flips, len));
            self.store(at, &check.to_ne_bytes());
        }
        self.store(headers.l4, &to.ports().to_ne_bytes());
    }

    pub(crate) fn mend_bytes<F: Family>(
        &mut self,
        headers: &Headers<F>,
        quote: &Quote<F>,
        mended: &Mended<F>,
    ) {
        let between = |from: (F::Address, F::Address), to: (F::Address, F::Address)| {
            difference(from.0.sum() + from.1.sum(), to.0.sum() + to.1.sum())
        };
        let (old, new) = (&quote.tuple, &mended.tuple);
        let addresses = between((old.saddr(), old.daddr()), (new.saddr(), new.daddr()));
        let mut seen = difference(old.ports().into(), new.ports().into());
        match F::CHECK_OFFSET {
            Some(offset) => self.replace(quote.l3 + offset, kernel_difference(addresses), false),
            None => seen += addresses,
        }
        let check = headers.l4 + 2;
        self.replace(check, kernel_difference(seen), false);
        if new.proto() == F::ICMP {
            self.store(quote.l4, &new.sport().to_bytes());
        } else {
            self.store(quote.l4, &new.ports().to_ne_bytes());
        }
        self.store_addresses::<F>(quote.l3, new.saddr(), new.daddr());
        let outer = (headers.tuple.saddr(), headers.tuple.daddr());
        let outer = kernel_difference(between(outer, (mended.saddr, mended.daddr)));
        match F::CHECK_OFFSET {
            Some(offset) => self.replace(headers.l3 + offset, outer, false),
            None => self.replace(check, outer, false),
        }
        self.store_addresses::<F>(headers.l3, mended.saddr, mended.daddr);
    }

    /// Sends the frame back where it came from.
    pub(crate) fn bounce(&mut self) -> Verdict {
        let (destination, source) = self.frame[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        Verdict::Sent
    }

    pub(crate) fn half(&self, at: u32) -> u16 {
        let at = at as usize;
        self.frame
            .get(at..at + 2)
            .map_or(0, |half| u16::from_ne_bytes([half[0], half[1]]))
    }

    /// `csum_replace_by_diff` of the kernel, with its one's complement of 32 bits. `mangled` is `BPF_F_MARK_MANGLED_0`.
    pub(crate) fn replace(&mut self, at: u32, change: u64, mangled: bool) {
        let check = self.half(at);
        if mangled && check == 0 {
            return;
        }
        let (sum, carry) = (change as u32).overflowing_add(!u32::from(check));
        let sum = sum.wrapping_add(u32::from(carry));
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let check = match !(sum as u16) {
            0 if mangled => 0xffff,
            check => check,
        };
        self.store(at, &check.to_ne_bytes());
    }

    pub(crate) fn store(&mut self, at: u32, bytes: &[u8]) {
        let at = at as usize;
        if let Some(room) = self.frame.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    pub(crate) fn store_words(&mut self, at: u32, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.store(at, &bytes);
    }

    pub(crate) fn store_header<F: Family>(&mut self, l3: u32, header: &[u32; 10]) {
        self.store_words(l3, &header[..refuse::header_words::<F>()]);
    }

    pub(crate) fn store_addresses<F: Family>(
        &mut self,
        l3: u32,
        saddr: F::Address,
        daddr: F::Address,
    ) {
        let (saddr, daddr) = (saddr.words(), daddr.words());
        let words = words_of::<F::Address>(saddr, daddr);
        self.store_words(l3 + F::ADDRESSES_OFFSET, &words);
    }
}

/// The words of two addresses, one behind the other.
fn words_of<A: Address>(saddr: [u32; 4], daddr: [u32; 4]) -> Vec<u32> {
    [&saddr[..A::WORDS], &daddr[..A::WORDS]].concat()
}
