//! An XDP program that passes everything: what a device costs that has one at all, for benches to compare with.

use std::os::fd::{AsFd, OwnedFd};

use crate::link::Device;
use crate::{Error, sys};

/// Hangs on its device until it is dropped.
#[derive(Debug)]
pub struct XdpPass {
    _link: OwnedFd,
}

impl XdpPass {
    /// Attaches to a device of this thread's network namespace, in the driver.
    ///
    /// # Errors
    ///
    /// [`Error::NoDevice`], [`Error::Attach`], [`Error::System`].
    pub fn attach(device: &str) -> Result<XdpPass, Error> {
        let device = Device::by_name(device)?;
        let program = sys::load_xdp_pass().map_err(|source| Error::System {
            action: "load a program that passes everything",
            source,
        })?;
        let kind = sys::attach::XDP;
        let link = sys::link_device(program.as_fd(), device.ifindex, kind, sys::XDP_NATIVE);
        Ok(XdpPass {
            _link: link.map_err(|source| Error::Attach {
                program: "pass",
                to: device.name,
                source,
            })?,
        })
    }
}
