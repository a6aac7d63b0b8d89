//! The rings of flows that began, see [`abi::openings`]. Functions of their own, see [`super::outlined`].

use abi::{Flow4, Flow6};
use packet::Flow as _;
use packet::balance::is_young;

use super::maps::{FLOWS4, FLOWS6, OPENINGS4, OPENINGS6};

macro_rules! take_place {
    ($name:ident, $flow:ident, $openings:ident, $flows:ident) => {
        /// [`packet::Tables::take_place`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name(tuple: *const $flow) -> u32 {
            // SAFETY: the verifier holds callers to memory of this size, or none.
            let Some(tuple) = (unsafe { tuple.as_ref() }) else {
                return 0;
            };
            let Some(count) = $openings.get_ptr_mut(0) else {
                return 0;
            };
            let count = count.cast::<u64>();
            let at = next(count) as u32;
            let Some(before) = $openings.get_ptr(at) else {
                // The ring ends: this flow has no place, and goes as the table of flows has it.
                // SAFETY: an aligned word of the map's memory.
                unsafe { *count = 0 };
                return 0;
            };
            // SAFETY: the pointers come from the kernel, and their elements stay mapped until the program ends. Whoever
            // takes the place at the same moment is a whole ring behind or ahead; a key that is half another one's leads
            // to no entry, or to one that is looked at as this one is.
            unsafe {
                let before = &*before;
                if let Some(state) = $flows.get(before)
                    && is_young(state.flags)
                {
                    let answer = state.to.reversed();
                    let answered = match $flows.get(&answer) {
                        Some(state) => !is_young(state.flags),
                        None => false,
                    };
                    if !answered {
                        let _ = $flows.remove(before);
                        let _ = $flows.remove(&answer);
                    }
                }
            }
            let _ = $openings.set(at, tuple, 0);
            0
        }
    };
}

take_place!(take_place4, Flow4, OPENINGS4, FLOWS4);
take_place!(take_place6, Flow6, OPENINGS6, FLOWS6);

/// Counts one more, and gives the new number.
#[inline(always)]
fn next(count: *mut u64) -> u64 {
    let mut number: u64 = 1;
    // SAFETY: an aligned word of the map's memory. As an instruction, since Rust has those only where a target can compare
    // and swap. Kernel 5.12 (5ca419f2864a).
    unsafe {
        core::arch::asm!(
            "{number} = atomic_fetch_add((u64 *)({count} + 0), {number})",
            number = inout(reg) number,
            count = in(reg) count,
            options(nostack),
        );
    }
    number + 1
}
