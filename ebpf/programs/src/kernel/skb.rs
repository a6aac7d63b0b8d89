//! Socket buffers: the only way of the TC programs to packet memory.
//!
//! Reads go to the linear part directly; headers that lie elsewhere are pulled there first. Writes go through helpers,
//! which keep checksums right whatever the buffer's checksum state (`CHECKSUM_PARTIAL`, `CHECKSUM_COMPLETE`) and
//! segmentation offload.

use core::mem::offset_of;

use abi::Counter;
use abi::protocol::{TCP, UDP};
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
    BPF_FIB_LKUP_RET_FRAG_NEEDED, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    bpf_check_mtu_flags::BPF_MTU_CHK_SEGS, bpf_fib_lookup, bpf_redir_neigh,
};
use aya_ebpf::helpers::bpf_skb_vlan_pop;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_csum_update, bpf_fib_lookup as fib_lookup, bpf_l3_csum_replace,
    bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use packet::balance::masquerade;
use packet::checksum::{self, difference};
use packet::parse::{ETHERNET_LEN, TCP_LEN, UDP_LEN, VLAN_LEN};
use packet::quote::{Mended, Quote};
use packet::refuse::Undelivered;
use packet::{Address as _, Bytes, Family, Flow as _, Headers, Transport, hop, refuse, sctp};

use super::dns::{Carrier, Query};
use super::mem::{Half, Words, bounds, field, forget, set_addresses, set_field};
use super::outlined::{self, sctp_len};
use super::route::{self, Route};

/// Checksums of IPv6 need no compensation in a buffer whose whole sum the device computed. Kernel 6.16
/// (ead7f9b8de65); older ones refuse the bit.
const BPF_F_IPV6: u64 = 1 << 7;

/// What [`Skb::mark`] leaves; the field has 16 bits.
const MARK: u32 = 0xfa1d;

/// Offset of the checksum in an ICMP header.
const ICMP_CHECK_OFFSET: u32 = 2;

/// A packet in a socket buffer.
#[derive(Clone, Copy)]
pub(crate) struct Skb {
    skb: *mut __sk_buff,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }

    #[inline(always)]
    pub(crate) fn of(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        bounds::<_, { offset_of!(__sk_buff, data) }, { offset_of!(__sk_buff, data_end) }>(self.skb)
    }

    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        field::<_, { offset_of!(__sk_buff, ifindex) }>(self.skb)
    }

    /// Where the packet arrived at this host; zero where the host itself sent it.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        field::<_, { offset_of!(__sk_buff, ingress_ifindex) }>(self.skb)
    }

    /// The kernel's context, for helpers.
    #[inline(always)]
    pub(crate) fn ctx(&self) -> *mut __sk_buff {
        self.skb
    }

    /// Tells `device_egress`, to which the packet is sent next, that there is nothing left to do with it. The field is
    /// what classifiers pass to each other, and is cleared there.
    #[inline(always)]
    pub(crate) fn mark(&self) {
        set_field::<_, { offset_of!(__sk_buff, tc_index) }>(self.skb, MARK);
    }

    /// Takes the mark off, and returns whether it was there.
    #[inline(always)]
    pub(crate) fn take_mark(&self) -> bool {
        let marked = field::<_, { offset_of!(__sk_buff, tc_index) }>(self.skb) == MARK;
        if marked {
            set_field::<_, { offset_of!(__sk_buff, tc_index) }>(self.skb, 0);
        }
        marked
    }

    /// Whether the link header addressed the packet to the device where it is seen, and no VLAN tag says that it
    /// belongs to another one.
    #[inline(always)]
    pub(crate) fn is_for_this_device(&self) -> bool {
        const PACKET_HOST: u32 = 0;
        field::<_, { offset_of!(__sk_buff, pkt_type) }>(self.skb) == PACKET_HOST
            && !self.is_tagged()
    }

    /// Whether a VLAN tag lies beside the packet.
    #[inline(always)]
    fn is_tagged(&self) -> bool {
        field::<_, { offset_of!(__sk_buff, vlan_present) }>(self.skb) != 0
    }

    /// Gives the packet another tuple.
    #[inline(always)]
    pub(crate) fn rewrite<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
    ) -> Result<(), Counter> {
        let from = &headers.tuple;
        let addresses = difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        );
        if let Some(offset) = F::CHECK_OFFSET {
            let change = checksum::kernel_difference(addresses);
            // SAFETY: the helper checks the offset.
            done(unsafe { bpf_l3_csum_replace(self.skb, headers.l3 + offset, 0, change, 0) })?;
        }
        if headers.transport == Transport::Sctp {
            return self.rewrite_sctp(headers, to);
        }
        if self.update_transport(headers, to, addresses)? {
            self.store(headers.l4, &to.ports(), 0)?;
        }
        self.store(
            headers.l3 + F::ADDRESSES_OFFSET,
            &(to.saddr(), to.daddr()),
            0,
        )
    }

    /// As [`rewrite`](Self::rewrite), with the headers written where they lie, which takes half as many calls. Of a program
    /// that does so the kernel looks at every packet, whether the headers are its own: not for those that hardly ever
    /// write.
    #[inline(always)]
    pub(crate) fn rewrite_in_place<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
    ) -> Result<(), Counter> {
        let from = &headers.tuple;
        let addresses = difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        );
        if let Some(offset) = F::CHECK_OFFSET {
            let (data, end) = self.bounds();
            let check = Half::at(data, end, headers.l3 + offset).ok_or(Counter::DropRewrite)?;
            check.set(checksum::updated(check.get(), addresses));
        }
        if headers.transport == Transport::Sctp {
            return self.rewrite_sctp(headers, to);
        }
        if self.update_transport(headers, to, addresses)? {
            self.at::<1>(headers.l4)?.set_word(0, to.ports());
        }
        let at = headers.l3 + F::ADDRESSES_OFFSET;
        set_addresses::<F>(self.bounds(), at, to).ok_or(Counter::DropRewrite)
    }

    /// Updates the checksum of TCP or UDP for a new tuple, whose addresses change it by `addresses`. Returns whether the
    /// ports change too, and are to be written.
    #[inline(always)]
    fn update_transport<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
        addresses: u64,
    ) -> Result<bool, Counter> {
        let (check, flags) = match headers.transport {
            Transport::Tcp => (headers.l4 + 16, 0),
            Transport::Udp => (headers.l4 + 6, u64::from(BPF_F_MARK_MANGLED_0)),
            _ => return Ok(false),
        };
        let addresses = checksum::kernel_difference(addresses);
        self.l4_addresses::<F>(check, addresses, flags | u64::from(BPF_F_PSEUDO_HDR))?;
        let (old, new) = (headers.tuple.ports(), to.ports());
        if old != new {
            let ports = checksum::kernel_difference(difference(old.into(), new.into()));
            // SAFETY: the helper checks the offset.
            done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, ports, flags) })?;
        }
        Ok(old != new)
    }

    #[inline(always)]
    fn at<const N: usize>(&self, offset: u32) -> Result<Words<N>, Counter> {
        let (data, end) = self.bounds();
        Words::at(data, end, offset).ok_or(Counter::DropRewrite)
    }

    /// The rest of [`rewrite`](Self::rewrite): SCTP's checksum covers no address, and is none that a device sums up.
    #[inline(always)]
    fn rewrite_sctp<F: Family>(&self, headers: &Headers<F>, to: &F::Flow) -> Result<(), Counter> {
        let summed = u64::from(BPF_F_RECOMPUTE_CSUM);
        let flips = headers.tuple.ports() ^ to.ports();
        if flips != 0 {
            let at = headers.l4 + sctp::CHECK_OFFSET;
            let [check] = self.words::<1>(at).ok_or(Counter::DropRewrite)?;
            let flipped = outlined::sctp_flipped(flips, sctp_len(headers));
            self.store(at, &sctp::updated(check, flipped), summed)?;
            self.store(headers.l4, &to.ports(), summed)?;
        }
        // IPv4's own checksum has made up for its addresses.
        let flags = if F::CHECK_OFFSET.is_some() { 0 } else { summed };
        self.store(
            headers.l3 + F::ADDRESSES_OFFSET,
            &(to.saddr(), to.daddr()),
            flags,
        )
    }

    /// Gives an echo message another tuple: its identifier stands for its port.
    #[inline(always)]
    pub(crate) fn rewrite_echo<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
    ) -> Result<(), Counter> {
        let from = &headers.tuple;
        let addresses = difference(
            from.saddr().sum() + from.daddr().sum(),
            to.saddr().sum() + to.daddr().sum(),
        );
        let addresses = checksum::kernel_difference(addresses);
        let check = headers.l4 + masquerade::CHECK_OFFSET;
        match F::CHECK_OFFSET {
            // SAFETY: the helper checks the offset.
            Some(offset) => done(unsafe {
                bpf_l3_csum_replace(self.skb, headers.l3 + offset, 0, addresses, 0)
            })?,
            None => self.l4_addresses::<F>(check, addresses, u64::from(BPF_F_PSEUDO_HDR))?,
        }
        let old = masquerade::identifier::<F>(from);
        let new = masquerade::identifier::<F>(to);
        let change = checksum::kernel_difference(difference(old.into(), new.into()));
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, change, 0) })?;
        self.store(headers.l4 + masquerade::IDENTIFIER_OFFSET, &new, 0)?;
        self.store(
            headers.l3 + F::ADDRESSES_OFFSET,
            &(to.saddr(), to.daddr()),
            0,
        )
    }

    /// Makes an ICMP error about a packet of a flow one about the packet that its receiver sent. The transport checksum
    /// of what is quoted stays: nobody checks that of a packet that is there in part.
    #[inline(always)]
    pub(crate) fn mend<F: Family>(
        &self,
        headers: &Headers<F>,
        quote: &Quote<F>,
        mended: &Mended<F>,
        of_echo: bool,
    ) -> Result<(), Counter> {
        let between = |from: (F::Address, F::Address), to: (F::Address, F::Address)| {
            difference(from.0.sum() + from.1.sum(), to.0.sum() + to.1.sum())
        };
        let (old, new) = (&quote.tuple, &mended.tuple);
        let (old_ports, new_ports) = (old.ports(), new.ports());
        let addresses = between((old.saddr(), old.daddr()), (new.saddr(), new.daddr()));
        // What the error's own checksum sees: of IPv4, the quoted header's checksum makes up for its addresses.
        let mut seen = difference(old_ports.into(), new_ports.into());
        match F::CHECK_OFFSET {
            Some(offset) => {
                let change = checksum::kernel_difference(addresses);
                // SAFETY: the helper checks the offset.
                done(unsafe { bpf_l3_csum_replace(self.skb, quote.l3 + offset, 0, change, 0) })?;
            }
            None => seen += addresses,
        }
        let check = headers.l4 + ICMP_CHECK_OFFSET;
        let seen = checksum::kernel_difference(seen);
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, seen, 0) })?;
        if of_echo {
            self.store(quote.l4, &new.sport(), 0)?;
        } else {
            self.store(quote.l4, &new_ports, 0)?;
        }
        self.store(
            quote.l3 + F::ADDRESSES_OFFSET,
            &(new.saddr(), new.daddr()),
            0,
        )?;
        let outer = (headers.tuple.saddr(), headers.tuple.daddr());
        let outer = between(outer, (mended.saddr, mended.daddr));
        let outer = checksum::kernel_difference(outer);
        match F::CHECK_OFFSET {
            // SAFETY: the helper checks the offset.
            Some(offset) => {
                done(unsafe { bpf_l3_csum_replace(self.skb, headers.l3 + offset, 0, outer, 0) })?
            }
            None => self.l4_addresses::<F>(check, outer, u64::from(BPF_F_PSEUDO_HDR))?,
        }
        self.store(
            headers.l3 + F::ADDRESSES_OFFSET,
            &(mended.saddr, mended.daddr),
            0,
        )
    }

    /// Takes one off the time to live, as whoever forwards must.
    #[inline(always)]
    pub(crate) fn decrement_ttl<F: Family>(&self, headers: &Headers<F>) -> Result<(), Counter> {
        let offset = headers.l3 + F::TTL_OFFSET;
        let at = headers.l3 + (F::TTL_OFFSET & !3);
        let word = self.words::<1>(at).ok_or(Counter::DropRewrite)?[0];
        let ttl = word.to_ne_bytes()[(F::TTL_OFFSET & 3) as usize];
        if ttl <= 1 {
            return Err(Counter::DropTtlExceeded);
        }
        let ttl_left = [ttl - 1];
        match F::CHECK_OFFSET {
            Some(check) => {
                let (old, new) = (
                    u16::from_ne_bytes([ttl, 0]),
                    u16::from_ne_bytes([ttl_left[0], 0]),
                );
                let change = checksum::kernel_difference(difference(old.into(), new.into()));
                // SAFETY: the helper checks the offset.
                done(unsafe { bpf_l3_csum_replace(self.skb, headers.l3 + check, 0, change, 0) })?;
                self.store(offset, &ttl_left, 0)
            }
            None => self.store(offset, &ttl_left, u64::from(BPF_F_RECOMPUTE_CSUM)),
        }
    }

    /// Makes one hop of the packet's way: takes one off its time to live, which is more than one, and gives it the
    /// link addresses of the next link.
    #[inline(always)]
    pub(crate) fn hop<F: Family>(
        &self,
        l3: u32,
        source: [u8; 6],
        destination: [u8; 6],
    ) -> Result<(), Counter> {
        self.set_link(hop::link(source, destination))
            .ok_or(Counter::DropRewrite)?;
        self.age::<F>(l3)
    }

    /// Takes one off a time to live that is more than one.
    #[inline(always)]
    pub(crate) fn age<F: Family>(&self, l3: u32) -> Result<(), Counter> {
        let ttl = self.at::<1>(l3 + (F::TTL_OFFSET & !3))?;
        let old = ttl.word(0);
        let new = hop::one_less::<F>(old);
        ttl.set_word(0, new);
        if F::CHECK_OFFSET.is_none() {
            // Without a checksum of its own the header counts in the sum that a device may have computed.
            let change = checksum::kernel_difference(difference(old.into(), new.into()));
            // SAFETY: the helper takes this hook's context; where there is no such sum it does nothing.
            unsafe { bpf_csum_update(self.skb, change as u32) };
        }
        Ok(())
    }

    /// Writes a link header's addresses, as [`hop::link`] makes them.
    #[inline(always)]
    pub(crate) fn set_link(&self, addresses: [u32; 3]) -> Option<()> {
        let (data, end) = self.bounds();
        let link = Words::<3>::at(data, end, 0)?;
        let [a, b, c] = addresses;
        link.set_word(0, a);
        link.set_word(1, b);
        link.set_word(2, c);
        Some(())
    }

    /// Whether the packet, and every segment that it is made of, fits through a device; false where there is none of
    /// that index.
    #[inline(always)]
    pub(crate) fn fits(&self, ifindex: u32) -> bool {
        let mut mtu = 0_u32;
        let segments = u64::from(BPF_MTU_CHK_SEGS);
        // SAFETY: the helper takes this hook's context and room for a number. Kernel 5.12 (34b2021cc616).
        let result = unsafe { bpf_check_mtu(self.skb.cast(), ifindex, &raw mut mtu, 0, segments) };
        result == 0
    }

    /// Takes the tags off a packet whose IP header is at `l3`: a VLAN's tag says where it came from, not where it goes.
    #[inline(always)]
    pub(crate) fn untag(&self, l3: u32) -> Result<(), Counter> {
        if l3 > ETHERNET_LEN || self.is_tagged() {
            // SAFETY: the helper takes this hook's context.
            done(unsafe { bpf_skb_vlan_pop(self.skb) })?;
        }
        if l3 > ETHERNET_LEN && self.is_tagged() || l3 > ETHERNET_LEN + VLAN_LEN {
            // SAFETY: as above.
            done(unsafe { bpf_skb_vlan_pop(self.skb) })?;
        }
        Ok(())
    }

    /// Sends the packet on by this node's routes, past the checks that routing makes of an arriving packet's
    /// source.
    #[inline(always)]
    pub(crate) fn forward<F: Family>(&self, l3: u32, to: &F::Flow) -> Result<i32, Counter> {
        self.untag(l3)?;
        let mut query = route::query::<F>(to, self.ifindex());
        // SAFETY: the helper takes this hook's context and the query with its size.
        let answer = unsafe {
            fib_lookup(
                self.skb.cast(),
                &raw mut query,
                size_of::<bpf_fib_lookup>() as i32,
                0,
            )
        };
        match route::answer(answer) {
            Route::Known | Route::NoNeighbour => Ok(redirect_to(&query)),
            Route::None => Err(Counter::DropNoRoute),
        }
    }

    /// Length of the TCP header at `l4`: its fourth word begins with it, in words.
    #[inline(always)]
    fn tcp_header_len(&self, l4: u32) -> u32 {
        match self.words::<1>(l4 + 12) {
            Some([word]) => u32::from(word.to_ne_bytes()[0] >> 4) * 4,
            None => TCP_LEN,
        }
    }

    /// Turns a TCP packet into a reset, and sends it back.
    #[inline(always)]
    pub(crate) fn reset<F: Family>(&self, headers: &Headers<F>) -> Result<i32, Counter> {
        let segment = self.words::<5>(headers.l4).ok_or(Counter::DropRewrite)?;
        let Some(answer) = refuse::reset(headers, &segment) else {
            return Err(Counter::TcNoEndpoint);
        };
        let l4 = headers.l3 + refuse::header_len::<F>();
        // SAFETY: the helper checks the length.
        done(unsafe { bpf_skb_change_tail(self.skb, l4 + TCP_LEN, 0) })?;
        let flow = headers.tuple.reversed();
        self.store_header::<F>(headers.l3, &refuse::header::<F>(&flow, TCP, TCP_LEN))?;
        self.store(l4, &answer, 0)?;
        self.bounce()
    }

    /// Puts an ICMP error in front of a packet, cuts it behind its transport header, and sends it back.
    #[inline(always)]
    pub(crate) fn undelivered<F: Family>(
        &self,
        headers: &Headers<F>,
        why: Undelivered,
    ) -> Result<i32, Counter> {
        let own_len = refuse::header_len::<F>();
        let mut quoted = match refuse::quoted_transport_len(headers) {
            TCP_LEN => self
                .words::<5>(headers.l4)
                .map(|words| checksum::sum(&words)),
            _ => self
                .words::<2>(headers.l4)
                .map(|words| checksum::sum(&words)),
        }
        .ok_or(Counter::DropRewrite)?;
        if F::CHECK_OFFSET.is_none() {
            if headers.l4 - headers.l3 != own_len {
                return Err(Counter::TcNoEndpoint);
            }
            let ip = self.words::<10>(headers.l3).ok_or(Counter::DropRewrite)?;
            quoted += checksum::sum(&ip);
        }
        let icmp = refuse::undelivered(headers, why, quoted);
        let room = own_len + refuse::ICMP_LEN;
        let quoted_len = refuse::quoted_len(headers);
        // Cut first: what is one packet may grow, what the device would cut into segments may not.
        // SAFETY: the helper checks the length.
        done(unsafe { bpf_skb_change_tail(self.skb, headers.l3 + quoted_len, 0) })?;
        // SAFETY: the helper checks the length.
        done(unsafe { bpf_skb_adjust_room(self.skb, room as i32, BPF_ADJ_ROOM_MAC, 0) })?;
        let flow = headers.tuple.reversed();
        self.store_header::<F>(
            headers.l3,
            &refuse::header::<F>(&flow, F::ICMP, refuse::ICMP_LEN + quoted_len),
        )?;
        self.store(headers.l3 + own_len, &icmp, 0)?;
        self.bounce()
    }

    /// The longest packet that the way on of the tuple `to` takes, where this one is longer and may not be cut into
    /// fragments; zero otherwise.
    #[inline(never)]
    pub(crate) fn too_big<F: Family>(&self, headers: &Headers<F>, to: &F::Flow) -> u32 {
        // Every link takes that much (RFC 791, RFC 8200).
        let is_v4 = F::CHECK_OFFSET.is_some();
        if headers.bytes <= if is_v4 { 576 } else { 1280 } {
            return 0;
        }
        if is_v4 {
            const MAY_NOT: u8 = 0x40;
            match self.words::<1>(headers.l3 + 4) {
                Some([word]) if word.to_ne_bytes()[2] & MAY_NOT != 0 => {}
                _ => return 0,
            }
        }
        let Some((mut query, _)) = self.sized_query(headers, to) else {
            return 0;
        };
        // SAFETY: the helper takes this hook's context and the query with its size.
        let answer = unsafe {
            fib_lookup(
                self.skb.cast(),
                &raw mut query,
                size_of::<bpf_fib_lookup>() as i32,
                0,
            )
        };
        if answer == i64::from(BPF_FIB_LKUP_RET_FRAG_NEEDED) {
            // SAFETY: a number, which the helper has put there with this answer.
            unsafe { query.__bindgen_anon_1.mtu_result }.into()
        } else {
            0
        }
    }

    /// A question for the route of a packet of this length, and the length. `None` for one that no packet has on a wire.
    #[inline(always)]
    pub(crate) fn sized_query<F: Family>(
        &self,
        headers: &Headers<F>,
        to: &F::Flow,
    ) -> Option<(bpf_fib_lookup, u32)> {
        let mut query = route::query::<F>(to, self.ifindex());
        let len = self.len_on_wire(headers);
        query.__bindgen_anon_1.tot_len = u16::try_from(len).ok()?;
        Some((query, len))
    }

    /// [`hop::len_on_wire`].
    #[inline(always)]
    pub(crate) fn len_on_wire<F: Family>(&self, headers: &Headers<F>) -> u32 {
        let segment = field::<_, { offset_of!(__sk_buff, gso_size) }>(self.skb);
        let transport_len = match headers.transport {
            Transport::Tcp => self.tcp_header_len(headers.l4),
            _ => UDP_LEN,
        };
        hop::len_on_wire(headers, segment, transport_len)
    }

    #[inline(always)]
    fn store_header<F: Family>(&self, l3: u32, header: &[u32; 10]) -> Result<(), Counter> {
        if F::CHECK_OFFSET.is_some() {
            let [a, b, c, d, e, ..] = *header;
            self.store(l3, &[a, b, c, d, e], 0)
        } else {
            self.store(l3, header, 0)
        }
    }

    /// Sends the packet back where it came from.
    #[inline(always)]
    pub(crate) fn bounce(&self) -> Result<i32, Counter> {
        let Some([a, b, c]) = self.words::<3>(0) else {
            return Err(Counter::DropRewrite);
        };
        let [d0, d1, d2, d3] = a.to_ne_bytes();
        let [d4, d5, s0, s1] = b.to_ne_bytes();
        let [s2, s3, s4, s5] = c.to_ne_bytes();
        self.store(0, &[s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5], 0)?;
        // SAFETY: the helper takes numbers.
        Ok(unsafe { bpf_redirect(self.ifindex(), 0) } as i32)
    }

    /// Overwrites the packet from `offset` on.
    #[inline(always)]
    pub(crate) fn store<T>(&self, offset: u32, value: &T, flags: u64) -> Result<(), Counter> {
        // SAFETY: the helper checks the offset and reads the value's size from it.
        done(unsafe {
            bpf_skb_store_bytes(
                self.skb,
                offset,
                core::ptr::from_ref(value).cast(),
                size_of::<T>() as u32,
                flags,
            )
        })
    }

    #[inline(always)]
    fn l4_addresses<F: Family>(&self, check: u32, change: u64, flags: u64) -> Result<(), Counter> {
        if F::CHECK_OFFSET.is_none() {
            // SAFETY: the helper checks the offset.
            let result =
                unsafe { bpf_l4_csum_replace(self.skb, check, 0, change, flags | BPF_F_IPV6) };
            if result == 0 {
                return Ok(());
            }
        }
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, change, flags) })
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let (data, end) = self.bounds();
        if let Some(words) = Words::<N>::at(data, end, offset) {
            return Some(words.all());
        }
        // Hardly ever: drivers and the stack put headers into the linear part.
        // SAFETY: the helper checks the length.
        if unsafe { bpf_skb_pull_data(self.skb, offset + N as u32 * 4) } != 0 {
            return None;
        }
        let (data, end) = self.bounds();
        Words::<N>::at(data, end, offset).map(Words::all)
    }

    #[inline(always)]
    fn len(&self) -> u32 {
        field::<_, { offset_of!(__sk_buff, len) }>(self.skb)
    }

    #[inline(always)]
    fn merge_paths(&self, offset: u32) -> u32 {
        forget(offset, self.len())
    }
}

impl Carrier for Skb {
    const ANSWERED: Counter = Counter::TcDnsAnswer;
    const DROP: i32 = TC_ACT_SHOT as i32;
    const ELSEWHERE: i32 = super::dns::LEFT;

    #[inline(always)]
    fn device(&self) -> u32 {
        self.ifindex()
    }

    #[inline(always)]
    fn may_answer(&self) -> bool {
        self.is_for_this_device()
    }

    #[inline(always)]
    fn load(&self, offset: u32, to: &mut [u8], len: u64) -> bool {
        // SAFETY: the helper checks the offset; the verifier holds that there is room.
        let loaded = unsafe {
            bpf_skb_load_bytes(self.skb.cast(), offset, to.as_mut_ptr().cast(), len as u32)
        };
        loaded == 0
    }

    #[inline(always)]
    fn resize(&self, len: u32) -> bool {
        // SAFETY: the helper checks the length.
        (unsafe { bpf_skb_change_tail(self.skb, len, 0) }) == 0
    }

    #[inline(always)]
    fn store_octets(&self, offset: u32, from: &[u8], len: u64) -> Result<(), Counter> {
        // SAFETY: the helper checks the offset; the verifier holds that there are as many octets.
        done(unsafe { bpf_skb_store_bytes(self.skb, offset, from.as_ptr().cast(), len as u32, 0) })
    }

    /// Checksums are updated, not computed: a buffer whose checksum is left to a device keeps that state, and a query
    /// that was damaged on its way does not become an answer that looks whole.
    #[inline(always)]
    fn send_back<F: Family>(
        &self,
        headers: &Headers<F>,
        query: &Query,
        udp_len: u32,
        change: u64,
    ) -> Result<i32, Counter> {
        let flow = headers.tuple.reversed();
        let [p0, p1, p2, p3] = flow.ports().to_ne_bytes();
        let [n0, n1] = (udp_len as u16).to_be_bytes();
        self.store(headers.l4, &[p0, p1, p2, p3, n0, n1], 0)?;
        let grown = difference(
            u16::from_ne_bytes(query.len).into(),
            u16::from_ne_bytes([n0, n1]).into(),
        );
        // The length counts twice: in the pseudo-header and in the header.
        let flags = u64::from(BPF_F_MARK_MANGLED_0);
        let pseudo = checksum::kernel_difference(grown);
        let rest = checksum::kernel_difference(grown + change);
        let check = headers.l4 + 6;
        let pseudo_flags = flags | u64::from(BPF_F_PSEUDO_HDR);
        // SAFETY: the helper checks the offset.
        done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, pseudo, pseudo_flags) })?;
        // SAFETY: as above.
        done(unsafe { bpf_l4_csum_replace(self.skb, check, 0, rest, flags) })?;
        self.store_header::<F>(headers.l3, &refuse::header::<F>(&flow, UDP, udp_len))?;
        self.bounce()
    }
}

/// Sends a packet to the next hop that the routing table has answered with.
#[inline(always)]
pub(crate) fn redirect_to(answered: &bpf_fib_lookup) -> i32 {
    let next = route::next_hop(answered.family.into(), route::next_address(answered));
    redirect(answered.ifindex, next)
}

/// Sends a packet to a next hop at a device. The kernel finds or asks for the neighbour itself, and sees to it that a
/// known one is still there.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32, mut next: bpf_redir_neigh) -> i32 {
    // SAFETY: the helper takes numbers and the next hop with its size. Kernel 5.10 (ba452c9e996d).
    (unsafe {
        bpf_redirect_neigh(
            ifindex,
            &raw mut next,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        )
    }) as i32
}

#[inline(always)]
pub(crate) fn done(result: i64) -> Result<(), Counter> {
    if result == 0 {
        Ok(())
    } else {
        Err(Counter::DropRewrite)
    }
}
