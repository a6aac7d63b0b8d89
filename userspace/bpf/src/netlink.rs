//! What only rtnetlink tells of a device: whether it is hardware, and which XDP program it carries, how.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Message types and attributes of linux/rtnetlink.h and linux/if_link.h.
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST: u16 = 1;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
/// Marks an attribute that holds attributes.
const NLA_F_NESTED: u16 = 1 << 15;
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
/// Hardware type of Ethernet, linux/if_arp.h.
const ARPHRD_ETHER: u16 = 1;

/// How an XDP program is attached: `XDP_ATTACHED_*` of linux/if_link.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum XdpAttached {
    Native,
    Generic,
    Hardware,
    /// In several ways at once.
    Several,
}

impl XdpAttached {
    /// For people, and as `ip link set` calls it.
    pub(crate) fn words(self) -> (&'static str, &'static str) {
        match self {
            XdpAttached::Native => ("in native mode", "xdpdrv"),
            XdpAttached::Generic => ("in generic mode", "xdpgeneric"),
            XdpAttached::Hardware => ("in hardware", "xdpoffload"),
            XdpAttached::Several => ("in several modes", "xdp"),
        }
    }
}

/// What rtnetlink tells of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LinkFacts {
    /// An Ethernet device that no driver of virtual ones made.
    pub(crate) hardware: bool,
    /// The XDP program: how it is attached, and its identifier.
    pub(crate) xdp: Option<(XdpAttached, u32)>,
}

/// Asks about a device of this thread's network namespace.
pub(crate) fn link(ifindex: u32) -> io::Result<LinkFacts> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is zero
    )?;
    let mut request = Vec::with_capacity(HEADER + IFINFOMSG);
    request.extend(((HEADER + IFINFOMSG) as u32).to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    request.extend([0; 8]); // sequence, port
    request.extend([0; 4]); // family, padding, type
    request.extend(ifindex.to_ne_bytes());
    request.extend([0; 8]); // flags, change mask
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answer = vec![0; 1 << 16];
    let (_, len) = rustix::net::recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    parse(&answer[..len.min(answer.len())])
}

fn parse(answer: &[u8]) -> io::Result<LinkFacts> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "short answer from rtnetlink");
    let kind = u16_at(answer, 4).ok_or_else(short)?;
    if kind != RTM_NEWLINK {
        // NLMSG_ERROR carries a negative errno.
        let errno = u32_at(answer, HEADER).ok_or_else(short)? as i32;
        return Err(io::Error::from_raw_os_error(-errno));
    }
    let hardware_type = u16_at(answer, HEADER + 2).ok_or_else(short)?;
    let attributes = answer.get(HEADER + IFINFOMSG..).ok_or_else(short)?;
    Ok(LinkFacts {
        hardware: hardware_type == ARPHRD_ETHER && find(attributes, IFLA_LINKINFO).is_none(),
        xdp: find(attributes, IFLA_XDP).and_then(xdp),
    })
}

fn xdp(attributes: &[u8]) -> Option<(XdpAttached, u32)> {
    let (attached, id) = match find(attributes, IFLA_XDP_ATTACHED)?.first()? {
        1 => (XdpAttached::Native, IFLA_XDP_DRV_PROG_ID),
        2 => (XdpAttached::Generic, IFLA_XDP_SKB_PROG_ID),
        3 => (XdpAttached::Hardware, IFLA_XDP_HW_PROG_ID),
        4 => (XdpAttached::Several, IFLA_XDP_DRV_PROG_ID),
        _ => return None,
    };
    let id = find(attributes, id).or_else(|| find(attributes, IFLA_XDP_PROG_ID))?;
    Some((attached, u32_at(id, 0)?))
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16_at(attributes, 0)?);
        let value = attributes.get(4..len)?;
        if u16_at(attributes, 2)? & !NLA_F_NESTED == kind {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + IFINFOMSG];
        bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
        bytes.extend(attributes.concat());
        bytes
    }

    #[test]
    fn the_program_of_a_device_is_read() {
        let name = attribute(3, b"veth0\0");
        let native = [
            attribute(IFLA_XDP_ATTACHED, &[1]),
            attribute(IFLA_XDP_PROG_ID, &7_u32.to_ne_bytes()),
            attribute(IFLA_XDP_DRV_PROG_ID, &9_u32.to_ne_bytes()),
        ]
        .concat();
        let plain = answer(&[name.clone(), attribute(IFLA_XDP, &attribute(2, &[0]))]);
        assert_eq!(parse(&plain).unwrap().xdp, None);
        let attached = answer(&[name, attribute(IFLA_XDP | NLA_F_NESTED, &native)]);
        assert_eq!(
            parse(&attached).unwrap().xdp,
            Some((XdpAttached::Native, 9))
        );
        for len in 0..attached.len() {
            // Cut anywhere: an error or nothing, never a panic.
            let _ = parse(&attached[..len]);
        }
    }

    #[test]
    fn virtual_devices_and_loopback_are_no_hardware() {
        for (hardware_type, info, expected) in [
            (ARPHRD_ETHER, None, true),
            (ARPHRD_ETHER, Some("veth"), false),
            (772, None, false), // ARPHRD_LOOPBACK
        ] {
            let info = info.map(|kind| attribute(IFLA_LINKINFO, &attribute(1, kind.as_bytes())));
            let mut bytes = answer(&info.into_iter().collect::<Vec<_>>());
            bytes[HEADER + 2..HEADER + 4].copy_from_slice(&hardware_type.to_ne_bytes());
            assert_eq!(parse(&bytes).unwrap().hardware, expected);
        }
    }
}
