//! Classifiers as tc filters on a clsact queueing discipline, for kernels before TCX (Linux 6.6).

use std::path::Path;

use aya::programs::links::Link;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::device::Device;
use super::pin::Direction;
use crate::Error;

/// Priority and handle of our filters: fixed, so that a restarted agent replaces its own.
const PRIORITY: u16 = 0xfa1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Puts the program pinned at `pin` into our filter on a device, which is made if it is not there. The filter
/// outlives the process.
pub(crate) fn put(
    device: &Device,
    program: &'static str,
    pin: &Path,
    direction: Direction,
) -> Result<(), Error> {
    let failed = |error: ProgramError| failure(program, device, Box::new(error));
    match tc::qdisc_add_clsact(&device.name) {
        Ok(()) => {}
        Err(tc::TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        Err(error) => return Err(failure(program, device, Box::new(error))),
    }
    let mut classifier = SchedClassifier::from_pin(pin).map_err(failed)?;
    let ours = ours(device, direction).map_err(|error| failure(program, device, error))?;
    // Replaces our own filter; where there is none yet the kernel refuses, and one is made.
    let id = classifier.attach_to_link(ours).or_else(|_| {
        let options = NlOptions {
            priority: PRIORITY,
            handle: HANDLE,
            ..NlOptions::default()
        };
        classifier.attach_with_options(
            &device.name,
            attach_type(direction),
            TcAttachOptions::Netlink(options),
        )
    });
    let link = id.and_then(|id| classifier.take_link(id)).map_err(failed)?;
    // aya detaches what it drops.
    std::mem::forget(link);
    Ok(())
}

/// Removes our filter from a device. One that somebody removed before us is as gone as we want it.
pub(crate) fn remove(device: &Device, direction: Direction) {
    if let Ok(filter) = ours(device, direction) {
        let _ = filter.detach();
    }
}

/// Our filter on a device, whether it is there or not.
fn ours(device: &Device, direction: Direction) -> Result<SchedClassifierLink, Cause> {
    Ok(SchedClassifierLink::attached(
        &device.name,
        attach_type(direction),
        PRIORITY,
        HANDLE,
        None,
    )?)
}

fn attach_type(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn failure(program: &'static str, device: &Device, source: Cause) -> Error {
    Error::AttachFilter {
        program,
        to: device.name.clone(),
        source,
    }
}
