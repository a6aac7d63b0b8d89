//! The tables that the programs read, as values, and the steps that change them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::{Backend, BackendId, Frontend, FrontendKey4, FrontendKey6, SourceKey};

/// A frontend's key in the table of its family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FrontendKey {
    /// In [`abi::frontends::NAME4`].
    V4(FrontendKey4),
    /// In [`abi::frontends::NAME6`].
    V6(FrontendKey6),
}

/// What the kernel holds, or should hold. Empty elements of the arrays are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Both frontends tables.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// Slot to backend, or to the first element of a table in [`spreads`](Self::spreads).
    pub rings: BTreeMap<u32, BackendId>,
    /// Elements of [`abi::spreads`].
    pub spreads: BTreeMap<u32, [u32; 2]>,
    /// Identifier to backend.
    pub backends: BTreeMap<BackendId, Backend>,
    /// Ranges of clients, by service.
    pub sources: BTreeSet<SourceKey>,
}

/// One change of the tables. Steps are applied in order; between any two of them every frontend is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write an element of the backends array.
    PutBackend(BackendId, Backend),
    /// Write consecutive elements of the rings array, from the slot `offset` on.
    PutRing {
        /// First slot.
        offset: u32,
        /// What the slots hold, in order.
        backends: Vec<BackendId>,
    },
    /// Write consecutive elements of the spreads array.
    PutSpread {
        /// First element.
        offset: u32,
        /// What they hold, in order.
        words: Arc<[[u32; 2]]>,
    },
    /// Insert a range of clients.
    PutSource(SourceKey),
    /// Insert or replace a frontend: the single update that makes a new ring take effect.
    PutFrontend(FrontendKey, Frontend),
    /// Remove a frontend.
    RemoveFrontend(FrontendKey),
    /// Remove a range of clients.
    RemoveSource(SourceKey),
    /// Empty `len` elements of the rings array.
    ClearRing {
        /// First slot.
        offset: u32,
        /// Number of slots.
        len: u32,
    },
    /// Empty `len` elements of the spreads array.
    ClearSpread {
        /// First element.
        offset: u32,
        /// Number of elements.
        len: u32,
    },
    /// Empty an element of the backends array.
    RemoveBackend(BackendId),
}

/// Where steps take effect: [`Tables`] in tests, the kernel's maps in `bpf`.
pub trait Store {
    /// What can go wrong: nothing for [`Tables`].
    type Error;

    /// Carries out the steps in order. Adjacent steps of one kind may be carried out as one batch.
    ///
    /// # Errors
    ///
    /// The first step that failed; those before it took effect.
    fn apply(&mut self, steps: &[Step]) -> Result<(), Self::Error>;
}

impl Store for Tables {
    type Error = std::convert::Infallible;

    fn apply(&mut self, steps: &[Step]) -> Result<(), Self::Error> {
        for step in steps {
            match step {
                Step::PutBackend(id, backend) => {
                    self.backends.insert(*id, *backend);
                }
                Step::PutRing { offset, backends } => {
                    self.rings.extend((*offset..).zip(backends.iter().copied()));
                }
                Step::PutSpread { offset, words } => {
                    self.spreads.extend((*offset..).zip(words.iter().copied()));
                }
                Step::ClearSpread { offset, len } => {
                    for element in *offset..*offset + *len {
                        self.spreads.remove(&element);
                    }
                }
                Step::PutSource(key) => {
                    self.sources.insert(*key);
                }
                Step::RemoveSource(key) => {
                    self.sources.remove(key);
                }
                Step::PutFrontend(key, frontend) => {
                    self.frontends.insert(*key, *frontend);
                }
                Step::RemoveFrontend(key) => {
                    self.frontends.remove(key);
                }
                Step::ClearRing { offset, len } => {
                    for slot in *offset..*offset + *len {
                        self.rings.remove(&slot);
                    }
                }
                Step::RemoveBackend(id) => {
                    self.backends.remove(id);
                }
            }
        }
        Ok(())
    }
}
