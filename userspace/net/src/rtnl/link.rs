//! Links made, moved and removed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{AddressMessageBuilder, LinkMessageBuilder, LinkUnspec, LinkVxlan};

use super::{Rtnl, failed};
use crate::{Address, Error};

/// A link, as it is set up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its index in this namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The driver's kind (`veth`, `bridge`, `vxlan`, ...); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Set administratively up.
    pub up: bool,
    /// It carries packets: up, and its carrier was seen. The kernel sees that a moment after the other end is up, and
    /// drops what is sent before.
    pub running: bool,
    /// Largest packet in octets.
    pub mtu: u32,
    /// Hardware address; empty where there is none.
    pub hardware_address: Vec<u8>,
    /// Index of what it is paired with or stacked on, in the namespace where that is; zero for none.
    pub peer: u32,
}

/// A VXLAN device: one end of a tunnel whose other ends are told one by one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vxlan {
    /// Name.
    pub name: String,
    /// Its Ethernet address.
    pub hardware_address: [u8; 6],
    /// VXLAN network identifier.
    pub vni: u32,
    /// UDP port, on both sides.
    pub port: u16,
    /// Address that what it sends comes from.
    pub local: IpAddr,
    /// Largest packet inside, in octets.
    pub mtu: u32,
}

impl Rtnl {
    /// The link of that name, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn device(&self, name: &str) -> Result<Option<Device>, Error> {
        let mut question = LinkMessage::default();
        question
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        self.one_device(question)
            .map_err(failed(format!("look at the link {name}")))
    }

    /// The link with that index, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn device_at(&self, ifindex: u32) -> Result<Option<Device>, Error> {
        let mut question = LinkMessage::default();
        question.header.index = ifindex;
        self.one_device(question)
            .map_err(failed(format!("look at the link with index {ifindex}")))
    }

    fn one_device(&self, question: LinkMessage) -> io::Result<Option<Device>> {
        let mut found = None;
        let asked = self.list(Message::GetLink(question), true, |message| {
            if let Message::NewLink(message) = message {
                found = Some(device(&message));
            }
        });
        match asked {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every link.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        let mut found = Vec::new();
        let question = Message::GetLink(LinkMessage::default());
        self.list(question, false, |message| {
            if let Message::NewLink(message) = message {
                found.push(device(&message));
            }
        })
        .map_err(failed("list links"))?;
        Ok(found)
    }

    /// Makes a veth pair, both ends here and down: name and Ethernet address of each.
    ///
    /// # Errors
    ///
    /// [`Error::Change`], with `EEXIST` where one of the names is taken.
    pub fn add_veth(
        &self,
        here: (&str, [u8; 6]),
        other: (&str, [u8; 6]),
        mtu: u32,
    ) -> Result<(), Error> {
        let end = |(name, address): (&str, [u8; 6])| {
            LinkMessageBuilder::<LinkUnspec>::default()
                .name(name)
                .address(address.to_vec())
                .mtu(mtu)
                .build()
        };
        let mut pair = end(here);
        pair.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(other)))),
        ]));
        self.change(Message::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed(format!("make the veth pair {}", here.0)))
    }

    /// Makes a VXLAN device that learns nothing by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Change`], with `EEXIST` where there is such a device.
    pub fn add_vxlan(&self, vxlan: &Vxlan) -> Result<(), Error> {
        let mut message = LinkVxlan::new(&vxlan.name, vxlan.vni)
            .port(vxlan.port)
            .learning(false)
            .mtu(vxlan.mtu)
            .address(vxlan.hardware_address.to_vec());
        message = match vxlan.local {
            IpAddr::V4(local) => message.local(local),
            IpAddr::V6(local) => message.local6(local),
        };
        self.change(Message::NewLink(message.build()), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(failed(format!("make the VXLAN device {}", vxlan.name)))
    }

    /// Moves a link into another namespace, under another name.
    ///
    /// # Errors
    ///
    /// [`Error::Change`], with `EEXIST` where the name is taken there.
    pub fn move_device(&self, ifindex: u32, to: impl AsFd, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(ifindex)
            .name(name)
            .setns_by_fd(to.as_fd().as_raw_fd())
            .build();
        self.change(Message::SetLink(message), 0)
            .map_err(failed(format!(
                "move a link, as {name}, into its namespace"
            )))
    }

    /// Sets a link up.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn set_up(&self, ifindex: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        self.change(Message::SetLink(message), 0)
            .map_err(failed("set a link up"))
    }

    /// Gives a link another MTU.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn set_mtu(&self, ifindex: u32, mtu: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(ifindex).mtu(mtu).build();
        self.change(Message::SetLink(message), 0)
            .map_err(failed(format!("set an MTU of {mtu}")))
    }

    /// Removes a link; one that is gone is as gone as it should be.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn remove_device(&self, ifindex: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = ifindex;
        match self.change(Message::DelLink(message), 0) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(failed("remove a link")),
        }
    }

    /// Gives a link an address that is used at once: IPv6 asks nobody whether it is taken. No route comes with it.
    ///
    /// # Errors
    ///
    /// [`Error::Change`], with `EEXIST` where the link has it.
    pub fn add_address(&self, ifindex: u32, address: Address) -> Result<(), Error> {
        self.put_address(ifindex, address, AddressScope::Universe)
    }

    /// Has a link answer whoever asks for an address there (ARP, Neighbor Solicitation). The host never takes such an
    /// address for its source, and knows it on this link alone.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn answer_for(&self, ifindex: u32, addr: IpAddr) -> Result<(), Error> {
        let prefix_len = if addr.is_ipv4() { 32 } else { 128 };
        self.put_address(ifindex, Address { addr, prefix_len }, AddressScope::Host)
    }

    fn put_address(
        &self,
        ifindex: u32,
        address: Address,
        scope: AddressScope,
    ) -> Result<(), Error> {
        let len = address.prefix_len;
        let mut message = match address.addr {
            IpAddr::V4(addr) => AddressMessageBuilder::<Ipv4Addr>::new()
                .address(addr, len)
                .index(ifindex)
                .build(),
            IpAddr::V6(addr) => AddressMessageBuilder::<Ipv6Addr>::new()
                .address(addr, len)
                .index(ifindex)
                .build(),
        };
        message.header.scope = scope;
        let mut flags = AddressFlags::Permanent | AddressFlags::Noprefixroute;
        if address.addr.is_ipv6() {
            flags |= AddressFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        self.change(Message::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(failed(format!("add the address {}/{len}", address.addr)))
    }

    /// The addresses of a link.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn addresses(&self, ifindex: u32) -> Result<Vec<Address>, Error> {
        let all = self.all_addresses()?.into_iter();
        Ok(all
            .filter(|(at, _)| *at == ifindex)
            .map(|(_, address)| address)
            .collect())
    }

    /// The addresses of every link, with its index.
    ///
    /// # Errors
    ///
    /// [`Error::Change`] if the kernel refuses.
    pub fn all_addresses(&self) -> Result<Vec<(u32, Address)>, Error> {
        let mut found = Vec::new();
        let question = Message::GetAddress(AddressMessage::default());
        self.list(question, false, |message| {
            if let Message::NewAddress(message) = message {
                let address = crate::links::address(&message);
                found.extend(address.map(|address| (message.header.index, address)));
            }
        })
        .map_err(failed("list addresses"))?;
        Ok(found)
    }
}

fn device(message: &LinkMessage) -> Device {
    let mut device = Device {
        ifindex: message.header.index,
        name: String::new(),
        kind: None,
        up: message.header.flags.contains(LinkFlags::Up),
        running: message.header.flags.contains(LinkFlags::Running),
        mtu: 0,
        hardware_address: Vec::new(),
        peer: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Link(peer) => device.peer = *peer,
            LinkAttribute::Address(bytes) => device.hardware_address.clone_from(bytes),
            LinkAttribute::LinkInfo(infos) => {
                device.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    device
}
