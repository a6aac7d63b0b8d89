//! What can go wrong, with the thing it is about and the remedy.

use std::io;
use std::path::PathBuf;

/// An error of this crate. The cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No unified cgroup hierarchy is mounted.
    #[error(
        "no cgroup2 file system is mounted: mount one with `mount -t cgroup2 none DIR` and name it with --cgroup-root \
         (`ip netns exec` hides the host's; `nsenter --net=FILE` does not)"
    )]
    NoCgroup2,
    /// A bpffs could not be mounted.
    #[error("cannot mount a bpffs at {}: as root, `mount -t bpf bpf {0}`, or name a folder on one with --bpffs-root", path.display())]
    MountBpffs {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A bpffs was to be mounted over files.
    #[error("cannot mount a bpffs at {}: it holds files, which the mount would hide; name an empty folder, or one on a bpffs, with --bpffs-root", path.display())]
    HidesFiles {
        /// Where.
        path: PathBuf,
    },
    /// A file could not be handled.
    #[error("cannot {action} {}", path.display())]
    Path {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A network namespace could not be made or entered.
    #[error("cannot {action} the network namespace {name}{}", remedy(source))]
    Netns {
        /// What was tried, as a verb.
        action: &'static str,
        /// Which one.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel could not be asked about links.
    #[error("cannot open a socket to ask the kernel about links")]
    Socket(#[source] io::Error),
    /// The kernel refused to list links or addresses.
    #[error("cannot list the {what} of this network namespace")]
    List {
        /// Links or addresses.
        what: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// The kernel refused a change of links, addresses, routes or neighbours.
    #[error("cannot {action}")]
    Change {
        /// What was tried, in words.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// IPsec could not be asked.
    #[error("cannot ask the kernel about IPsec policies: this needs root or CAP_NET_ADMIN")]
    Ipsec(#[source] io::Error),
    /// Netfilter could not be asked.
    #[error("cannot {action} nftables: this needs root or CAP_NET_ADMIN")]
    Netfilter {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// The kernel's number for what went wrong, where it gave one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Error::Change { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// What to do about a namespace: most often it is a lack of rights.
fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => ": it does not exist, or no longer",
        io::ErrorKind::PermissionDenied => ": this needs root or CAP_SYS_ADMIN",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_is_gone_is_told_from_one_that_may_not_be_entered() {
        for (kind, told) in [
            (io::ErrorKind::NotFound, "it does not exist, or no longer"),
            (
                io::ErrorKind::PermissionDenied,
                "this needs root or CAP_SYS_ADMIN",
            ),
        ] {
            let error = Error::Netns {
                action: "open",
                name: "/run/netns/none".to_owned(),
                source: kind.into(),
            };
            let begins = "cannot open the network namespace /run/netns/none: ";
            assert_eq!(error.to_string(), format!("{begins}{told}"));
        }
    }
}
