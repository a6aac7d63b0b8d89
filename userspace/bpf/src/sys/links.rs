//! Links: attachments with a life of their own, which can be pinned, found again and given a new program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{Command, IdAttr, address_mut, bpf, info, owned};

/// Attach types, `enum bpf_attach_type` of linux/bpf.h.
pub(crate) mod attach {
    pub(crate) const CGROUP_INET_INGRESS: u32 = 0;
    pub(crate) const CGROUP_INET_EGRESS: u32 = 1;
    pub(crate) const INET4_CONNECT: u32 = 10;
    pub(crate) const INET6_CONNECT: u32 = 11;
    pub(crate) const UDP4_SENDMSG: u32 = 14;
    pub(crate) const UDP6_SENDMSG: u32 = 15;
    pub(crate) const UDP4_RECVMSG: u32 = 19;
    pub(crate) const UDP6_RECVMSG: u32 = 20;
    pub(crate) const INET4_GETPEERNAME: u32 = 29;
    pub(crate) const INET6_GETPEERNAME: u32 = 30;
    pub(crate) const INET_SOCK_RELEASE: u32 = 34;
    pub(crate) const XDP: u32 = 37;
    pub(crate) const TCX_INGRESS: u32 = 46;
    pub(crate) const TCX_EGRESS: u32 = 47;
}
/// Kinds of link, `enum bpf_link_type`.
mod link_type {
    pub(super) const CGROUP: u32 = 3;
    pub(super) const XDP: u32 = 6;
    pub(super) const TCX: u32 = 11;
}
/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` of linux/if_link.h.
pub(crate) const XDP_GENERIC: u32 = 1 << 1;
pub(crate) const XDP_NATIVE: u32 = 1 << 2;
/// Every link of this machine that this process may look at.
pub(crate) fn links() -> impl Iterator<Item = LinkInfo> {
    let mut id = 0;
    std::iter::from_fn(move || {
        let mut attr = IdAttr {
            id,
            next: 0,
            flags: 0,
        };
        bpf(Command::LinkNextId, &mut attr).ok()?;
        id = attr.next;
        Some(id)
    })
    .filter_map(|id| {
        let mut attr = IdAttr {
            id,
            next: 0,
            flags: 0,
        };
        let fd = bpf(Command::LinkById, &mut attr).map(owned).ok()?;
        link_info(fd.as_fd()).ok()
    })
}

/// `struct bpf_link_info` for the kinds that we make.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    target: u64,
    _more: u64,
}

/// What a link hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A cgroup, by its identifier: the inode number of its directory. Zero once the cgroup is gone.
    Cgroup(u64),
    /// A device, by its index. Zero once the device is gone.
    Device(u32),
    /// Something that is not ours.
    Other,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    pub(crate) id: u32,
    pub(crate) program_id: u32,
    pub(crate) target: Target,
}

/// What the kernel says of a link.
pub(crate) fn link_info(fd: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let raw: RawLinkInfo = info(fd)?;
    let target = match raw.kind {
        link_type::CGROUP => Target::Cgroup(raw.target),
        link_type::XDP | link_type::TCX => {
            let [ifindex, _]: [u32; 2] = zerocopy::transmute!(raw.target);
            Target::Device(ifindex)
        }
        _ => Target::Other,
    };
    Ok(LinkInfo {
        id: raw.id,
        program_id: raw.program_id,
        target,
    })
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkCreateAttr {
    program: u32,
    /// A descriptor of a cgroup, or the index of a device.
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    _pad: u32,
    expected_revision: u64,
}

fn link_create(
    program: BorrowedFd<'_>,
    target: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        program: program.as_raw_fd() as u32,
        target,
        attach_type,
        flags,
        relative: 0,
        _pad: 0,
        expected_revision: 0,
    };
    bpf(Command::LinkCreate, &mut attr).map(owned)
}

/// Attaches a program to a cgroup, beside whatever else is attached there.
pub(crate) fn link_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    link_create(program, cgroup.as_raw_fd() as u32, attach_type, 0)
}

/// Attaches a program to a device: TCX after those already attached (Linux 6.6), or XDP in the mode of `flags`
///.
pub(crate) fn link_device(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    link_create(program, ifindex, attach_type, flags)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkUpdateAttr {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Replaces the program of a link; no packet or connect finds neither.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        old_program: 0,
    };
    bpf(Command::LinkUpdate, &mut attr).map(drop)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct LinkDetachAttr {
    link: u32,
}

/// Detaches a link at once. Removing the last pin does so too, but a moment later.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkDetachAttr {
        link: link.as_raw_fd() as u32,
    };
    bpf(Command::LinkDetach, &mut attr).map(drop)
}

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    program_ids: u64,
    count: u32,
    _pad: u32,
    program_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

/// A program that is attached somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attached {
    /// Identifier of the program.
    pub(crate) program: u32,
    /// Identifier of the link that holds it there; zero without one, or where the kernel does not tell.
    pub(crate) link: u32,
}

/// `BPF_F_QUERY_EFFECTIVE`: with what the cgroups above have.
pub(crate) const EFFECTIVE: u32 = 1;

/// What is attached to a cgroup (by its descriptor) or with TCX to a device (by its index), in the order in which it
/// runs.
pub(crate) fn query(target: u32, attach_type: u32, flags: u32) -> io::Result<Vec<Attached>> {
    let mut programs = [0_u32; 64];
    let mut links = [0_u32; 64];
    let mut attr = QueryAttr {
        target,
        attach_type,
        query_flags: flags,
        attach_flags: 0,
        program_ids: address_mut(programs.as_mut_bytes()),
        count: programs.len() as u32,
        _pad: 0,
        program_flags: 0,
        // The kernel tells no links of a cgroup.
        link_ids: if flags == 0 {
            address_mut(links.as_mut_bytes())
        } else {
            0
        },
        link_flags: 0,
        revision: 0,
    };
    bpf(Command::Query, &mut attr)?;
    let all = programs.into_iter().zip(links);
    let all = all.map(|(program, link)| Attached { program, link });
    Ok(all.take(attr.count as usize).collect())
}

/// Identifiers of the links attached to a device with TCX, in the order in which they run; the device is looked
/// up in this thread's network namespace. Programs attached without a link show as zero.
pub(crate) fn query_tcx(ifindex: u32, attach_type: u32) -> io::Result<Vec<u32>> {
    let attached = query(ifindex, attach_type, 0)?;
    Ok(attached.into_iter().map(|attached| attached.link).collect())
}
