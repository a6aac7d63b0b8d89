//! DNS cookies (RFC 7873), made as RFC 9018 says, so that servers behind one address can share a secret.

use std::io;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use zone::query::Cookie;

/// Makes server cookies. Nobody is refused for a cookie that is missing or old: the answer brings a new one.
pub(super) struct Cookies {
    secret: [u64; 2],
}

impl Cookies {
    pub(super) fn new() -> io::Result<Self> {
        let mut octets = [0; 16];
        aws_lc_rs::rand::fill(&mut octets)
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Cookies::with(octets))
    }

    fn with(secret: [u8; 16]) -> Self {
        let (first, second) = secret.split_at(8);
        let half = |octets: &[u8]| octets.iter().rev().fold(0, |n, o| n << 8 | u64::from(*o));
        Cookies {
            secret: [half(first), half(second)],
        }
    }

    /// The option's value for an answer: the client's cookie and ours.
    pub(super) fn answer(&self, cookie: &Cookie, client: IpAddr) -> [u8; 24] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // RFC 9018 section 4.3: seconds modulo 2^32, compared as serial numbers.
        let now = now.map_or(0, |since| since.as_secs() & 0xffff_ffff) as u32;
        self.at(cookie, client, now)
    }

    fn at(&self, cookie: &Cookie, client: IpAddr, now: u32) -> [u8; 24] {
        let mut out = [0; 24];
        out[..8].copy_from_slice(&cookie.client);
        out[8] = 1; // version; three octets are reserved
        out[12..16].copy_from_slice(&now.to_be_bytes());
        let mut hashed = [0; 32];
        hashed[..16].copy_from_slice(&out[..16]);
        let hashed = match client {
            IpAddr::V4(v4) => {
                hashed[16..20].copy_from_slice(&v4.octets());
                &hashed[..20]
            }
            IpAddr::V6(v6) => {
                hashed[16..].copy_from_slice(&v6.octets());
                &hashed[..]
            }
        };
        out[16..].copy_from_slice(&siphash(self.secret, hashed).to_le_bytes());
        out
    }
}

/// SipHash-2-4.
fn siphash(key: [u64; 2], octets: &[u8]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let word = |octets: &[u8]| octets.iter().rev().fold(0, |n, o| n << 8 | u64::from(*o));
    let chunks = octets.chunks_exact(8);
    let last = word(chunks.remainder()) | (octets.len() as u64) << 56;
    for m in chunks.map(word).chain([last]) {
        v[3] ^= m;
        round(&mut v);
        round(&mut v);
        v[0] ^= m;
    }
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9018 appendix A.1.
    #[test]
    fn the_standards_example() {
        let hex = |text: &str| -> Vec<u8> {
            let pairs = text.as_bytes().chunks(2);
            let pairs = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
            pairs
                .map(|pair| u8::from_str_radix(pair, 16).unwrap())
                .collect()
        };
        let secret = hex("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let cookies = Cookies::with(secret.try_into().unwrap());
        let client: [u8; 8] = hex("2464c4abcf10c957").try_into().unwrap();
        let opt = [
            &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8][..],
            &client,
        ]
        .concat();
        let head = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 1];
        let message = [&head[..], &opt].concat();
        let query = zone::Query::parse(&message).unwrap();
        let cookie = query.edns.unwrap().cookie.unwrap();
        let made = cookies.at(&cookie, "198.51.100.100".parse().unwrap(), 1_559_731_985);
        assert_eq!(
            made[..],
            hex("2464c4abcf10c957010000005cf79f111f8130c3eee29480")
        );
    }
}
