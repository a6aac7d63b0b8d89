//! Devices, as this thread's network namespace knows them.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

use super::pin::{DevicePin, Way};
use crate::Error;

/// A device of this thread's network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) netns: u64,
}

impl Device {
    pub(crate) fn by_name(name: &str) -> Result<Device, Error> {
        let missing = || Error::NoDevice {
            device: name.to_owned(),
        };
        let ifindex = netdevice::name_to_index(query_socket()?, name).map_err(|_| missing())?;
        Ok(Device {
            name: name.to_owned(),
            ifindex,
            netns: netns()?,
        })
    }

    pub(crate) fn by_index(ifindex: u32) -> Result<Device, Error> {
        let name =
            netdevice::index_to_name(query_socket()?, ifindex).map_err(|_| Error::NoDevice {
                device: format!("with index {ifindex}"),
            })?;
        Ok(Device {
            name,
            ifindex,
            netns: netns()?,
        })
    }

    /// The name under which an attachment to it is pinned.
    pub(crate) fn pin(&self, way: Way) -> DevicePin {
        DevicePin {
            way,
            netns: self.netns,
            ifindex: self.ifindex,
            device: self.name.clone(),
        }
    }
}

fn query_socket() -> Result<OwnedFd, Error> {
    rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| Error::System {
        action: "open a socket to ask for devices",
        source: error.into(),
    })
}

/// Inode number of this thread's network namespace.
pub(crate) fn netns() -> Result<u64, Error> {
    let path = Path::new("/proc/thread-self/ns/net");
    rustix::fs::stat(path)
        .map(|stat| stat.st_ino)
        .map_err(|error| Error::path("look at", path)(error.into()))
}
