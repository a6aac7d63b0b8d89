//! Reading a packet: the one thing that differs between a socket buffer, an XDP frame and a slice.

/// A packet that starts with its link header.
pub trait Bytes {
    /// Reads `N` words of four bytes from `offset` on, each as it lies in memory (network order); `None` where
    /// the packet is shorter.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// Length of the whole packet in bytes, link header included.
    fn len(&self) -> u32;

    /// Whether nothing is there.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the packet reaches to `end`.
    #[inline(always)]
    fn holds(&self, end: u32) -> bool {
        end <= self.len()
    }

    /// The same offset. The kernel's packets use it to make the verifier forget which header combination led to
    /// an offset, so that it walks what follows once and not once for each combination.
    #[inline(always)]
    fn merge_paths(&self, offset: u32) -> u32 {
        offset
    }
}

impl Bytes for [u8] {
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let from = self.get(offset as usize..)?;
        let mut words = [0; N];
        for (i, word) in words.iter_mut().enumerate() {
            let four = from.get(i * 4..i * 4 + 4)?;
            *word = u32::from_ne_bytes([four[0], four[1], four[2], four[3]]);
        }
        Some(words)
    }

    fn len(&self) -> u32 {
        u32::try_from(<[u8]>::len(self)).unwrap_or(u32::MAX)
    }
}
