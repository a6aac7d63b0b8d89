//! XDP frames: the only way of the XDP program to packet memory. Headers are looked for in the first buffer;
//! where they are not, TC sees the packet.

use core::mem::offset_of;

use abi::Counter;
use abi::protocol::UDP;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len,
    bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;
use packet::checksum::{self, difference};
use packet::parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use packet::{Address as _, Bytes, Family, Flow as _, Headers, Transport, refuse, sctp};

use super::dns::{Carrier, Query};
use super::mem::{Half, Words, bounds, field, forget, set_addresses};
use super::outlined::{self, sctp_len};
use super::xdp::transmits;

/// A packet in an XDP frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    ctx: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx }
    }

    #[inline(always)]
    pub(crate) fn of(ctx: *mut xdp_md) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    pub(crate) fn ctx(&self) -> *mut xdp_md {
        self.ctx
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        field::<_, { offset_of!(xdp_md, ingress_ifindex) }>(self.ctx)
    }

    /// Whether all of the packet is in the first buffer.
    #[inline(always)]
    pub(crate) fn is_one_buffer(&self) -> bool {
        self.first_len() == self.len()
    }

    /// Length of the first buffer.
    #[inline(always)]
    pub(crate) fn first_len(&self) -> u32 {
        let (data, end) = self.bounds();
        (end - data) as u32
    }

    /// Gives the packet another tuple, and with `forwarded` takes one off its time to live.
    ///
    /// A checksum is updated as a whole one. What a veth peer sent with `CHECKSUM_PARTIAL` holds only the
    /// pseudo-header's sum there; such a packet keeps that state on its way up the stack and to another veth,
    /// where nobody verifies it, so that the value does not matter as long as it does not leave through XDP
    /// (see `abi::devices`).
    #[inline(always)]
    pub(crate) fn rewrite<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
        forwarded: bool,
    ) -> Result<(), Counter> {
        let from = &headers.tuple;
        let addresses = difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        );
        let mut header = addresses;
        if forwarded {
            let word = self.at::<1>(headers.l3 + (F::TTL_OFFSET & !3))?;
            let old = word.word(0);
            let mut bytes = old.to_ne_bytes();
            let ttl = &mut bytes[(F::TTL_OFFSET & 3) as usize];
            if *ttl <= 1 {
                return Err(Counter::DropTtlExceeded);
            }
            *ttl -= 1;
            let new = u32::from_ne_bytes(bytes);
            word.set_word(0, new);
            header += difference(old.into(), new.into());
        }
        if let Some(offset) = F::CHECK_OFFSET {
            let check = self.half(headers.l3 + offset)?;
            check.set(checksum::updated(check.get(), header));
        }
        match headers.transport {
            Transport::Tcp => {
                let change = addresses + self.set_ports(headers, to)?;
                let check = self.half(headers.l4 + 16)?;
                check.set(checksum::updated(check.get(), change));
            }
            Transport::Udp => {
                let change = addresses + self.set_ports(headers, to)?;
                let check = self.half(headers.l4 + 6)?;
                check.set(checksum::updated_udp(check.get(), change));
            }
            Transport::Sctp => {
                let ports = self.at::<1>(headers.l4)?;
                let flips = ports.word(0) ^ to.ports();
                if flips != 0 {
                    let flipped = outlined::sctp_flipped(flips, sctp_len(headers));
                    // Looked for anew behind the call: it might have moved the packet, for all that the verifier knows.
                    self.at::<1>(headers.l4)?.set_word(0, to.ports());
                    let check = self.at::<1>(headers.l4 + sctp::CHECK_OFFSET)?;
                    check.set_word(0, sctp::updated(check.word(0), flipped));
                }
            }
            Transport::Elsewhere | Transport::Icmp | Transport::Other => {}
        }
        let at = headers.l3 + F::ADDRESSES_OFFSET;
        set_addresses::<F>(self.bounds(), at, to).ok_or(Counter::DropRewrite)
    }

    /// Writes the link addresses of the next hop.
    #[inline(always)]
    pub(crate) fn set_link(&self, destination: [u8; 6], source: [u8; 6]) -> Result<(), Counter> {
        let [d0, d1, d2, d3, d4, d5] = destination;
        let [s0, s1, s2, s3, s4, s5] = source;
        let words = self.at::<3>(0)?;
        words.set_word(0, u32::from_ne_bytes([d0, d1, d2, d3]));
        words.set_word(1, u32::from_ne_bytes([d4, d5, s0, s1]));
        words.set_word(2, u32::from_ne_bytes([s2, s3, s4, s5]));
        Ok(())
    }

    /// Whether a packet that goes on from here fits through a device; false where that is not seen at a glance, or there is
    /// no device of that index. What is to be cut into segments is TC's.
    #[inline(always)]
    pub(crate) fn fits<F: Family>(&self, headers: &Headers<F>, ifindex: u32) -> bool {
        let mut mtu = 0_u32;
        // SAFETY: the helper takes this hook's context, whose first buffer it measures, and room for a number. Kernel
        // 5.12 (34b2021cc616).
        headers.l3 + headers.bytes <= self.first_len()
            && unsafe { bpf_check_mtu(self.ctx.cast(), ifindex, &raw mut mtu, 0, 0) } == 0
    }

    /// Writes the ports and returns what a checksum over them changes by.
    #[inline(always)]
    fn set_ports<F: Family>(&self, headers: &Headers<F>, to: &F::Flow) -> Result<u64, Counter> {
        let new = to.ports();
        let ports = self.at::<1>(headers.l4)?;
        let old = ports.word(0);
        ports.set_word(0, new);
        Ok(difference(old.into(), new.into()))
    }

    #[inline(always)]
    pub(crate) fn at<const N: usize>(&self, offset: u32) -> Result<Words<N>, Counter> {
        let (data, end) = self.bounds();
        Words::at(data, end, offset).ok_or(Counter::DropRewrite)
    }

    #[inline(always)]
    pub(crate) fn half(&self, offset: u32) -> Result<Half, Counter> {
        let (data, end) = self.bounds();
        Half::at(data, end, offset).ok_or(Counter::DropRewrite)
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        bounds::<_, { offset_of!(xdp_md, data) }, { offset_of!(xdp_md, data_end) }>(self.ctx)
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.at::<N>(offset).ok().map(Words::all)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the helper takes this hook's context. Kernel 5.18 (0165cc817075).
        (unsafe { bpf_xdp_get_buff_len(self.ctx) }) as u32
    }

    #[inline(always)]
    fn holds(&self, end: u32) -> bool {
        end <= self.first_len() || end <= self.len()
    }

    #[inline(always)]
    fn merge_paths(&self, offset: u32) -> u32 {
        forget(offset, self.first_len())
    }
}

impl Carrier for Frame {
    const ANSWERED: Counter = Counter::XdpDnsAnswer;
    const DROP: i32 = XDP_DROP as i32;
    /// TC can send from devices that XDP cannot, if the query comes there as it is.
    const ELSEWHERE: i32 = XDP_PASS as i32;

    #[inline(always)]
    fn device(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        transmits(self.ifindex()) && self.is_one_buffer()
    }

    #[inline(always)]
    fn load(&self, offset: u32, to: &mut [u8], len: u64) -> bool {
        // SAFETY: the helper checks the offset; the verifier holds that there is room. Kernel 5.18 (3f364222d032).
        let loaded =
            unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.as_mut_ptr().cast(), len as u32) };
        loaded == 0
    }

    #[inline(always)]
    fn resize(&self, len: u32) -> bool {
        let growth = len as i32 - self.len() as i32;
        // SAFETY: the helpers check the room. What a veth peer sent often has none behind it, but all the room before
        // it that XDP asks of a device.
        unsafe {
            bpf_xdp_adjust_tail(self.ctx, growth) == 0
                || growth > 0 && bpf_xdp_adjust_head(self.ctx, -growth) == 0
        }
    }

    #[inline(always)]
    fn store_octets(&self, offset: u32, from: &[u8], len: u64) -> Result<(), Counter> {
        // SAFETY: the helper checks the offset and only reads; the verifier holds that there are as many octets. Kernel
        // 5.18 (3f364222d032).
        let stored = unsafe {
            bpf_xdp_store_bytes(
                self.ctx,
                offset,
                from.as_ptr().cast_mut().cast(),
                len as u32,
            )
        };
        if stored == 0 {
            Ok(())
        } else {
            Err(Counter::DropRewrite)
        }
    }

    /// The checksum is updated as a whole one, see [`Frame::rewrite`].
    #[inline(always)]
    fn send_back<F: Family>(
        &self,
        headers: &Headers<F>,
        query: &Query,
        udp_len: u32,
        change: u64,
    ) -> Result<i32, Counter> {
        let [n0, n1] = (udp_len as u16).to_be_bytes();
        let grown = difference(
            u16::from_ne_bytes(query.len).into(),
            u16::from_ne_bytes([n0, n1]).into(),
        );
        // The length counts twice: in the pseudo-header and in the header.
        let change = u64::from(checksum::fold(grown)) * 2 + change;
        let check = checksum::updated_udp(u16::from_ne_bytes(query.check), change);
        let [c0, c1] = check.to_ne_bytes();
        let flow = headers.tuple.reversed();
        let udp = self.at::<2>(headers.l4)?;
        udp.set_word(0, flow.ports());
        udp.set_word(1, u32::from_ne_bytes([n0, n1, c0, c1]));
        let ip = refuse::header::<F>(&flow, UDP, udp_len);
        if F::Address::WORDS == 1 {
            let words = self.at::<5>(headers.l3)?;
            for i in 0..5 {
                words.set_word(i, ip[i]);
            }
        } else {
            let words = self.at::<10>(headers.l3)?;
            for i in 0..10 {
                words.set_word(i, ip[i]);
            }
        }
        // Only what is plain is answered: the link header ends before the IP header, with its type.
        let kind = if F::CHECK_OFFSET.is_some() {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        self.half(headers.l3 - 2)?.set(kind.to_be());
        let [a, b, c] = query.link;
        let [d0, d1, d2, d3] = a.to_ne_bytes();
        let [d4, d5, s0, s1] = b.to_ne_bytes();
        let [s2, s3, s4, s5] = c.to_ne_bytes();
        self.set_link([s0, s1, s2, s3, s4, s5], [d0, d1, d2, d3, d4, d5])?;
        Ok(XDP_TX as i32)
    }
}
