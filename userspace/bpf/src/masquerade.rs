//! The cluster's ranges, and whether what pods send out of them gets this node's address.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use abi::{InsideKey, Masquerade};
use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::pins::Pins;
use crate::table::{Hash, open_pinned};
use crate::{Error, spec, sys};

/// The agent's hold on what is masqueraded. What it wrote outlives it.
#[derive(Debug)]
pub struct Masquerading {
    pub(crate) inside: Hash<InsideKey, u32>,
    control: OwnedFd,
}

impl Masquerading {
    /// Of the tables that are pinned below `bpffs_root`.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] or [`Error::Missing`] where there are none yet.
    pub fn open(bpffs_root: &Path) -> Result<Self, Error> {
        Self::open_pins(&Pins::new(bpffs_root), false)
    }

    pub(crate) fn open_pins(pins: &Pins, read_only: bool) -> Result<Self, Error> {
        Ok(Masquerading {
            inside: Hash::open(pins, spec::INSIDE, read_only)?,
            control: open_pinned(pins, &spec::MASQUERADE, read_only)?.0,
        })
    }

    /// The cluster's ranges, each with a union of [`abi::masquerade::flags`].
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn inside(&self) -> Result<BTreeMap<InsideKey, u32>, Error> {
        Ok(self.inside.entries(usize::MAX)?.into_iter().collect())
    }

    /// Whether sources are translated.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn control(&self) -> Result<Masquerade, Error> {
        let mut control = Masquerade::new_zeroed();
        let fd = self.control.as_fd();
        sys::lookup(fd, 0_u32.as_bytes(), control.as_mut_bytes())
            .map_err(|source| spec::MASQUERADE.failed("read", "whether sources", source))?;
        Ok(control)
    }

    /// Makes the ranges these, and then sources translated so. In between a range that was there and is to be is there.
    ///
    /// # Errors
    ///
    /// [`Error::Full`] where there are too many ranges, [`Error::Table`].
    pub fn set(&self, ranges: &BTreeMap<InsideKey, u32>, how: Masquerade) -> Result<(), Error> {
        if how.families == 0 {
            self.set_control(how)?;
        }
        let there = self.inside()?;
        let new = ranges
            .iter()
            .filter(|(key, flags)| there.get(key) != Some(flags));
        let (keys, flags): (Vec<_>, Vec<_>) = new.map(|(key, flags)| (*key, *flags)).unzip();
        self.inside
            .insert(&keys, &flags)
            .map_err(|(_, error)| error)?;
        let gone = there.keys().filter(|key| !ranges.contains_key(key));
        let gone: Vec<_> = gone.copied().collect();
        self.inside.remove(&gone).map_err(|(_, error)| error)?;
        self.set_control(how)
    }

    fn set_control(&self, how: Masquerade) -> Result<(), Error> {
        if self.control()? == how {
            return Ok(());
        }
        sys::update(self.control.as_fd(), 0_u32.as_bytes(), how.as_bytes())
            .map_err(|source| spec::MASQUERADE.failed("write", "whether sources", source))
    }
}
