//! SCTP's checksum (RFC 9260 section 6.8 and appendix A), updated without the data that it covers.
//!
//! CRC32c is linear: when some bits of a packet flip, those bits of its checksum flip which the flipped bits alone, in
//! a packet of zeros, would set. Ports are the first four bytes, so what they change is a number of 32 bits, moved on
//! by the length of the packet: a product of polynomials that costs the same for every length.

/// Length of the common header.
pub const HEADER_LEN: u32 = 12;
/// Length of the common header, of a chunk's header and of the tag that an INIT chunk begins with: what whoever sent an
/// INIT looks for in an ICMP error about it (RFC 9260 section 10.1).
pub const INIT_LEN: u32 = 20;
/// Length of the common header and of a chunk's header.
pub const CHUNK_LEN: u32 = 16;
/// Offset of the checksum in the common header.
pub const CHECK_OFFSET: u32 = 8;

/// Types of the chunks that begin and end an association (RFC 9260 section 3.2).
pub mod chunk {
    /// Begins it.
    pub const INIT: u8 = 1;
    /// Ends it at once.
    pub const ABORT: u8 = 6;
    /// Ends it.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The polynomial 0x1EDC6F41, lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Bits of a length, and of what is multiplied, that one look into a table deals with.
const STEP: usize = 4;
/// Values of as many bits.
const VALUES: usize = 1 << STEP;

/// By group of a length's bits and their value (the factor: x to the power of eight for each byte that the value stands
/// for), and by group of bits of what is multiplied and their value: the product of the two. 32 kB, so that a product is
/// eight looks and no branch: were the bits looked at one by one, the verifier would walk each way through them.
static PRODUCTS: [[[[u32; VALUES]; 32 / STEP]; VALUES]; 16 / STEP] = products();

const fn products() -> [[[[u32; VALUES]; 32 / STEP]; VALUES]; 16 / STEP] {
    let mut products = [[[[0; VALUES]; 32 / STEP]; VALUES]; 16 / STEP];
    // x^8, the factor of one byte.
    let mut unit = 1 << (31 - 8);
    let mut group = 0;
    while group < products.len() {
        let mut factor = 1 << 31; // one
        let mut value = 0;
        while value < VALUES {
            products[group][value] = multiples(factor);
            factor = product(factor, unit);
            value += 1;
        }
        unit = factor;
        group += 1;
    }
    products
}

/// The products of a factor with every value of every group of bits.
const fn multiples(factor: u32) -> [[u32; VALUES]; 32 / STEP] {
    let mut multiples = [[0; VALUES]; 32 / STEP];
    let mut group = 0;
    while group < multiples.len() {
        let mut value = 1;
        while value < VALUES {
            multiples[group][value] = product(factor, (value as u32) << (group * STEP));
            value += 1;
        }
        group += 1;
    }
    multiples
}

/// The product of two polynomials, modulo CRC32c's.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        if (a << bit) >> 31 == 1 {
            product ^= b;
        }
        b = if b & 1 == 1 {
            b >> 1 ^ POLYNOMIAL
        } else {
            b >> 1
        };
        bit += 1;
    }
    product
}

/// The bits of the checksum that flip when those of `ports` do, in a packet of `len` bytes from the common header on.
/// Both as words that lie in memory; of the length sixteen bits count.
#[inline(always)]
#[must_use]
pub fn flipped(ports: u32, len: u32) -> u32 {
    let mut bits = u32::from_le(ports);
    let mut group = 0;
    while group < PRODUCTS.len() {
        let factor = &PRODUCTS[group][nibble(len, group)];
        bits = factor[0][nibble(bits, 0)]
            ^ factor[1][nibble(bits, 1)]
            ^ factor[2][nibble(bits, 2)]
            ^ factor[3][nibble(bits, 3)]
            ^ factor[4][nibble(bits, 4)]
            ^ factor[5][nibble(bits, 5)]
            ^ factor[6][nibble(bits, 6)]
            ^ factor[7][nibble(bits, 7)];
        group += 1;
    }
    bits.to_le()
}

/// The value of a group of bits.
#[inline(always)]
fn nibble(bits: u32, group: usize) -> usize {
    (bits >> (group * STEP)) as usize & (VALUES - 1)
}

/// A checksum after its packet's first four bytes flipped by `ports`. Zero stays zero: that is what a sender leaves to
/// its device (`CHECKSUM_PARTIAL`), or has agreed upon with the receiver (RFC 9653).
#[inline(always)]
#[must_use]
pub fn updated(check: u32, flipped: u32) -> u32 {
    if check == 0 { 0 } else { check ^ flipped }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum as RFC 9260 appendix A computes it, bit by bit.
    fn in_full(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_known_values_of_crc32c() {
        // RFC 3720 appendix B.4, and the check value of the catalogues.
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&b"123456789"[..], 0xe306_9283),
            (&[0; 32], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&up, 0x46dd_794e),
            (&down, 0x113f_db5c),
        ] {
            assert_eq!(in_full(bytes), crc, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn an_update_is_what_computing_it_again_gives(
            mut packet in prop::collection::vec(any::<u8>(), 12..2000), ports in any::<[u8; 4]>(),
        ) {
            packet[8..12].fill(0);
            let before = in_full(&packet);
            let old = [packet[0], packet[1], packet[2], packet[3]];
            packet[..4].copy_from_slice(&ports);
            let change = u32::from_ne_bytes(old) ^ u32::from_ne_bytes(ports);
            let check = u32::from_ne_bytes(before.to_le_bytes());
            let expected = u32::from_ne_bytes(in_full(&packet).to_le_bytes());
            prop_assume!(check != 0);
            prop_assert_eq!(updated(check, flipped(change, packet.len() as u32)), expected);
        }
    }

    #[test]
    fn the_longest_packet_is_updated_too() {
        let mut packet = vec![7; 65_535];
        packet[8..12].fill(0);
        let before = in_full(&packet).to_le_bytes();
        packet[0] ^= 0x55;
        let after = in_full(&packet).to_le_bytes();
        let change = flipped(u32::from_ne_bytes([0x55, 0, 0, 0]), 65_535);
        assert_eq!(
            updated(u32::from_ne_bytes(before), change),
            u32::from_ne_bytes(after)
        );
    }

    #[test]
    fn a_checksum_that_is_not_there_does_not_come_to_be() {
        assert_eq!(updated(0, flipped(1, 100)), 0);
    }
}
