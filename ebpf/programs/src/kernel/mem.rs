//! Packet memory, a register at a time: the only unsafe access to it.
//!
//! Headers lie at any alignment. The compiler would read them byte by byte, as the kernel wants alignment on
//! the stack; the kernels that run here (x86-64, arm64) allow unaligned access to packets, so these few
//! instructions are spelt out.

use core::arch::asm;

use packet::{Address as _, Family, Flow as _};

/// Offsets of headers never come near this, and the verifier wants a bound on what is added to a pointer.
const OFFSET_MASK: u32 = 0x3fff;

/// The addresses of a packet's first byte and of the byte after its last, from the context's fields at the offsets
/// `DATA` and `END`. The fields have 32 bits and the kernel makes pointers of them: were the compiler to see them
/// as numbers, it would cut them to 32 bits again.
#[inline(always)]
pub(crate) fn bounds<T, const DATA: usize, const END: usize>(ctx: *mut T) -> (usize, usize) {
    let (data, end): (usize, usize);
    // SAFETY: the kernel's context is valid for the whole run; the verifier checks both accesses.
    unsafe {
        asm!("{0} = *(u32 *)({1} + {2})", out(reg) data, in(reg) ctx, const DATA,
            options(pure, readonly, nostack));
        asm!("{0} = *(u32 *)({1} + {2})", out(reg) end, in(reg) ctx, const END,
            options(pure, readonly, nostack));
    }
    (data, end)
}

/// The context's field of four bytes at `OFFSET`. Spelt out, because the compiler may keep the field's address in a
/// register, and the kernel allows no access to a context through a computed address.
#[inline(always)]
pub(crate) fn field<T, const OFFSET: usize>(ctx: *mut T) -> u32 {
    let value: u64;
    // SAFETY: the kernel's context is valid for the whole run; the verifier checks the access.
    unsafe {
        asm!("{0} = *(u32 *)({1} + {2})", out(reg) value, in(reg) ctx, const OFFSET,
            options(pure, readonly, nostack));
    }
    value as u32
}

/// Overwrites the context's field of four bytes at `OFFSET`.
#[inline(always)]
pub(crate) fn set_field<T, const OFFSET: usize>(ctx: *mut T, value: u32) {
    // SAFETY: as for [`field`]; the verifier knows which fields may be written.
    unsafe {
        asm!("*(u32 *)({0} + {2}) = {1}", in(reg) ctx, in(reg) u64::from(value), const OFFSET,
            options(nostack));
    }
}

/// `N` words of a packet that were found to lie inside of it.
#[derive(Clone, Copy)]
pub(crate) struct Words<const N: usize> {
    start: usize,
}

impl<const N: usize> Words<N> {
    /// The words from `offset` on, of the packet between the addresses `data` and `end`.
    #[inline(always)]
    pub(crate) fn at(data: usize, end: usize, offset: u32) -> Option<Self> {
        let start = opaque(data + (offset & OFFSET_MASK) as usize);
        (start + N * 4 <= end).then_some(Self { start })
    }

    /// All of them.
    #[inline(always)]
    pub(crate) fn all(self) -> [u32; N] {
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            words[i] = self.word(i);
            i += 1;
        }
        words
    }

    /// The word at `index`, as it lies in memory.
    #[inline(always)]
    pub(crate) fn word(self, index: usize) -> u32 {
        let word: u64;
        // SAFETY: the words lie inside of the packet, and no index past its end is asked for; the verifier
        // checks both.
        unsafe {
            asm!("{0} = *(u32 *)({1} + 0)", out(reg) word, in(reg) self.start + index * 4,
                options(pure, readonly, nostack));
        }
        word as u32
    }

    /// Overwrites the word at `index`.
    #[inline(always)]
    pub(crate) fn set_word(self, index: usize, word: u32) {
        // SAFETY: as for `word`.
        unsafe {
            asm!("*(u32 *)({1} + 0) = {0}", in(reg) u64::from(word), in(reg) self.start + index * 4,
                options(nostack));
        }
    }
}

/// Overwrites the addresses in the IP header of the packet between `data` and `end`; `offset` is that of the first one.
/// `None` where they do not lie inside of it.
#[inline(always)]
pub(crate) fn set_addresses<F: Family>(
    (data, end): (usize, usize),
    offset: u32,
    to: &F::Flow,
) -> Option<()> {
    let (saddr, daddr) = (to.saddr().words(), to.daddr().words());
    if F::Address::WORDS == 1 {
        let words = Words::<2>::at(data, end, offset)?;
        words.set_word(0, saddr[0]);
        words.set_word(1, daddr[0]);
    } else {
        let words = Words::<8>::at(data, end, offset)?;
        for i in 0..4 {
            words.set_word(i, saddr[i]);
            words.set_word(4 + i, daddr[i]);
        }
    }
    Some(())
}

/// Two bytes of a packet that were found to lie inside of it.
#[derive(Clone, Copy)]
pub(crate) struct Half {
    start: usize,
}

impl Half {
    /// The two bytes at `offset`, of the packet between the addresses `data` and `end`.
    #[inline(always)]
    pub(crate) fn at(data: usize, end: usize, offset: u32) -> Option<Self> {
        let start = opaque(data + (offset & OFFSET_MASK) as usize);
        (start + 2 <= end).then_some(Self { start })
    }

    /// The two bytes, as they lie in memory.
    #[inline(always)]
    pub(crate) fn get(self) -> u16 {
        let half: u64;
        // SAFETY: the bytes lie inside of the packet; the verifier checks it.
        unsafe {
            asm!("{0} = *(u16 *)({1} + 0)", out(reg) half, in(reg) self.start,
                options(pure, readonly, nostack));
        }
        half as u16
    }

    /// Overwrites them.
    #[inline(always)]
    pub(crate) fn set(self, half: u16) {
        // SAFETY: as for `get`.
        unsafe {
            asm!("*(u16 *)({1} + 0) = {0}", in(reg) u64::from(half), in(reg) self.start,
                options(nostack));
        }
    }
}

/// The same offset, of a packet of `len` bytes; the verifier sees any, and walks what follows once for all paths
/// that lead there. No packet is so long that the shift moves anything, but the verifier does not know, and it
/// does not follow a shift by an unknown number.
#[inline(always)]
pub(crate) fn forget(offset: u32, len: u32) -> u32 {
    offset.wrapping_shl(len >> 27) & OFFSET_MASK
}

/// The same number, of which neither the compiler nor the verifier knows any more where it comes from, so that what follows
/// is walked once for all paths that lead there; see [`forget`] for `len`.
#[inline(always)]
pub(crate) fn blur(number: u32, len: u32) -> u32 {
    let mut number = u64::from(number);
    // SAFETY: changes a register.
    unsafe {
        asm!("{0} <<= {1}", inout(reg) number, in(reg) u64::from(len >> 27), options(pure, nomem, nostack));
    };
    number as u32
}

/// A number of octets below 256 in a register of its own, so that the verifier knows its bounds when a helper takes it;
/// of 64 bits, because it does not follow them through a conversion.
#[inline(always)]
pub(crate) fn octets(len: u32) -> u64 {
    let mut len = u64::from(len);
    // SAFETY: changes a register.
    unsafe { asm!("{0} &= 255", inout(reg) len, options(pure, nomem, nostack)) };
    len
}

/// Keeps the compiler from splitting the address in two: the verifier knows a range only for the very register
/// that was compared.
#[inline(always)]
fn opaque(address: usize) -> usize {
    let mut address = address;
    // SAFETY: moves a register to itself. (Assembly without an instruction would leave two lines of debug
    // information on one instruction, which the kernel refuses.)
    unsafe { asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack)) };
    address
}
