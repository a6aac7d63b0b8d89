//! What kept a service from all that it wants.

use std::fmt;

use model::ServiceKey;

use crate::FrontendKey;

/// Why a part of a service is not in the tables. Everything else of it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A table has no room. The port stays as it was, and is written when room comes.
    Full {
        /// Which.
        table: Table,
        /// Its number of elements.
        capacity: u32,
    },
    /// An older service has the address and port.
    Taken {
        /// Which.
        frontend: FrontendKey,
        /// Whose.
        by: ServiceKey,
    },
}

/// A table that can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// [`abi::frontends::NAME4`].
    Frontends4,
    /// [`abi::frontends::NAME6`].
    Frontends6,
    /// [`abi::rings::NAME`].
    Rings,
    /// [`abi::backends::NAME`].
    Backends,
    /// [`abi::sources::NAME`].
    Sources,
    /// [`abi::spreads::NAME`].
    Spreads,
}

impl Table {
    /// The table that a frontend is in.
    #[must_use]
    pub fn of(key: &FrontendKey) -> Table {
        match key {
            FrontendKey::V4(_) => Table::Frontends4,
            FrontendKey::V6(_) => Table::Frontends6,
        }
    }

    /// Its name in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Table::Frontends4 => abi::frontends::NAME4,
            Table::Frontends6 => abi::frontends::NAME6,
            Table::Rings => abi::rings::NAME,
            Table::Backends => abi::backends::NAME,
            Table::Sources => abi::sources::NAME,
            Table::Spreads => abi::spreads::NAME,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Full { table, capacity } => {
                write!(f, "table {} is full ({capacity} elements)", table.name())
            }
            Problem::Taken { frontend, by } => {
                write!(f, "{frontend} belongs to the older Service {by}")
            }
        }
    }
}
