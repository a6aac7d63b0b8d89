//! What the kernel programs would do, computed natively: the logic of `packet` over tables in memory.
//!
//! [`Memory`] holds tables; [`packet::balance()`] and [`packet::socket::decide`] run on it as they do in the kernel, and
//! [`Memory::run`] carries out on a frame what the packet programs would. Nobody sees a packet for it, and no table of
//! the kernel changes.
//!
//! This crate knows nothing of the kernel: neither how its tables are read nor what its routing says.
#![forbid(unsafe_code)]

mod carry;
mod edit;
mod memory;
mod policies;
mod slots;
mod tunnel;

pub use carry::{Program, Ran, Verdict};
pub use memory::{Memory, Start};
