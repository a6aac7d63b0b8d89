//! Whether a packet is more than its pod may send or get: a leaky bucket, which a packet may overfill, so that even the
//! largest buffer of segments passes a small one.

use abi::limits::Bucket;

const SECOND_NS: u64 = 1_000_000_000;

/// When a bucket will have leaked out once `len` octets more are in it; `None` where it is full.
#[inline(always)]
#[must_use]
pub fn take(bucket: &Bucket, len: u32, now_ns: u64) -> Option<u64> {
    let empty_at_ns = if bucket.empty_at_ns > now_ns {
        bucket.empty_at_ns
    } else {
        now_ns
    };
    if bucket.bytes_per_sec == 0 {
        return Some(empty_at_ns);
    }
    if empty_at_ns - now_ns >= bucket.burst_ns {
        return None;
    }
    // A length has 32 bits, so the product has 62.
    Some(empty_at_ns + len as u64 * SECOND_NS / bucket.bytes_per_sec)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Octets that pass in some milliseconds of packets that come one behind the other.
    fn passed(bucket: &mut Bucket, len: u32, every_ns: u64, for_ms: u64) -> u64 {
        let mut passed = 0;
        let mut now_ns = 5 * SECOND_NS;
        let end_ns = now_ns + for_ms * 1_000_000;
        while now_ns < end_ns {
            if let Some(empty_at_ns) = take(bucket, len, now_ns) {
                bucket.empty_at_ns = empty_at_ns;
                passed += u64::from(len);
            }
            now_ns += every_ns;
        }
        passed
    }

    #[test]
    fn as_much_passes_as_may() {
        for (bytes_per_sec, burst_ns, len) in [
            (125_000, 100_000_000, 1_500),
            (125_000, 1, 1_500),
            (1_250_000, 200_000_000, 64_000),
            (100, 10_000_000, 60),
        ] {
            let mut bucket = Bucket {
                bytes_per_sec,
                burst_ns,
                empty_at_ns: 0,
            };
            let found = passed(&mut bucket, len, 10_000, 10_000);
            let least = bytes_per_sec * 10;
            let most = least + burst_ns * bytes_per_sec / SECOND_NS + 2 * u64::from(len);
            assert!((least..=most).contains(&found), "{found} of {least}");
            // Silence fills nothing up beyond the burst.
            bucket.empty_at_ns = 0;
            let again = passed(&mut bucket, len, 10_000, 1);
            assert!(again <= most - least + bytes_per_sec / 1_000 + u64::from(len));
        }
        let mut without = Bucket::default();
        assert_eq!(passed(&mut without, 1_500, 1_000_000, 1_000), 1_500_000);
        let extreme = Bucket {
            bytes_per_sec: 1,
            burst_ns: u64::MAX,
            empty_at_ns: 0,
        };
        assert_eq!(
            take(&extreme, u32::MAX, SECOND_NS),
            Some((u64::from(u32::MAX) + 1) * SECOND_NS)
        );
    }
}
