//! What the kernel does not tell a program of a device. Written by the agent when it attaches to a device; read
//! where XDP would send a packet out, and where TC must know whether XDP saw a packet before.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Table of devices: hash, interface index (`u32`) to [`Device`]. A device without an entry has no flag.
pub const NAME: &str = "DEVICES";
/// Default number of entries.
pub const CAPACITY: u32 = 1_024;

/// A device that programs are attached to.
#[repr(C)]
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Device {
    /// A union of [`flags`].
    pub flags: u32,
}

/// Bits of [`Device::flags`].
pub mod flags {
    /// XDP may send from here: the driver transmits XDP frames and what arrives has whole checksums. Not so for
    /// veth: it drops the frames while the peer has no NAPI, and what the peer sent unchecksummed
    /// (`CHECKSUM_PARTIAL`) would leave so. Without the flag XDP leaves such packets to TC.
    pub const XDP_TRANSMIT: u32 = 1 << 0;
    /// Our XDP program runs on the device: what arrives at its TC program, XDP has seen, and a packet with the
    /// tuple of a translated one is one that it translated.
    pub const XDP_RUNS: u32 = 1 << 1;
    /// Answers that leave here get their service's address: our TC program sees what leaves. Pods' packets may be
    /// sent out of here past the stack.
    pub const TC_RUNS: u32 = 1 << 2;
    /// A pod's link, made by our own CNI plugin: the pod may send from its own addresses only, those whose entry among
    /// the endpoints names this link.
    pub const SOURCE_CHECKED: u32 = 1 << 3;
}
