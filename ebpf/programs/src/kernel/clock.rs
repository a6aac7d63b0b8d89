//! The time, as exact as a tick of the kernel's clock. Each CPU asks for it once a tick: what is asked of a packet is the
//! number of the tick alone, which the kernel makes a read of memory (a call of a helper takes as long as a look-up).

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};

use super::maps::CLOCK;

/// Elements of CLOCK: what of the time is remembered.
const SECS: u32 = 0;
const MILLIS: u32 = 1;

/// Seconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn secs() -> u32 {
    now(SECS)
}

/// Milliseconds of 2^20 nanoseconds of `CLOCK_MONOTONIC`, the low 32 bits.
#[inline(always)]
pub(crate) fn millis() -> u32 {
    now(MILLIS)
}

#[inline(always)]
fn now(unit: u32) -> u32 {
    // SAFETY: the helper takes nothing and cannot fail. Kernel 5.6 (5576b991e9c1).
    let tick = (unsafe { bpf_jiffies64() }) << 32;
    let word = CLOCK.get_ptr_mut(unit);
    // SAFETY, here and below: the pointer comes from the kernel, and its element, of this CPU alone, stays mapped until the
    // program ends. Tick and time are one aligned word, read and written whole, as a packet may interrupt a socket hook.
    if let Some(word) = word {
        let known = unsafe { word.read_volatile() };
        if known & (u64::MAX << 32) == tick {
            return known as u32;
        }
    }
    // SAFETY: the helper takes nothing and cannot fail. Kernel 5.11 (d05512618056).
    let ns = unsafe { bpf_ktime_get_coarse_ns() };
    let now = if unit == SECS {
        (ns / 1_000_000_000) as u32
    } else {
        (ns >> 20) as u32
    };
    if let Some(word) = word {
        unsafe { word.write_volatile(tick | u64::from(now)) };
    }
    now
}
