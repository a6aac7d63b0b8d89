//! What hangs in this network namespace's netfilter where forwarded packets pass: nftables' chains, told of by the
//! kernel whenever they change, and the tables of the old iptables and IPVS, which have to be looked for.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::net::netlink::SocketAddrNetlink;
use tokio::io::unix::AsyncFd;

use crate::Error;
use crate::iptables::is_kube_proxys;
use crate::netlink::{self, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, find};

/// Where a forwarded packet would be seen, by family, in words.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hooked {
    /// For IPv4 packets.
    pub ipv4: BTreeSet<String>,
    /// For IPv6 packets.
    pub ipv6: BTreeSet<String>,
    /// Tables and chains of nftables (iptables' included, where that is made of nftables) that kube-proxy makes.
    pub kube_proxy: BTreeSet<String>,
}

/// A conversation with nftables about the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netfilter {
    events: AsyncFd<OwnedFd>,
    chains: Hooked,
}

/// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNLGRP_NFTABLES: u32 = 7;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_HOOK_HOOKNUM: u16 = 1;
/// linux/netfilter.h: families of chains.
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_NETDEV: u8 = 5;
const NFPROTO_IPV6: u8 = 10;
/// Length of nfnetlink's header: family, version, resource.
const HEAD: usize = 4;

impl Netfilter {
    /// Starts listening. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Netfilter`] if the kernel refuses.
    pub fn open() -> Result<Netfilter, Error> {
        let listen = || {
            let socket = netlink::socket(netlink::NETFILTER)?;
            let group = SocketAddrNetlink::new(0, 1 << (NFNLGRP_NFTABLES - 1));
            rustix::net::bind(&socket, &group)?;
            rustix::fs::fcntl_setfl(&socket, OFlags::NONBLOCK)?;
            // SAFETY: the descriptor is owned by the value and stays open, and the same, for as long as that lives.
            Ok(unsafe { AsyncFd::register(socket) }?)
        };
        Ok(Netfilter {
            events: listen().map_err(failed("listen to"))?,
            chains: Hooked::default(),
        })
    }

    /// Waits until nftables changed.
    pub async fn changed(&self) {
        loop {
            let Ok(mut ready) = self.events.readable().await else {
                return std::future::pending().await;
            };
            let mut buffer = [0_u8; 1 << 13];
            let mut any = false;
            loop {
                let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
                match rustix::net::recv(self.events.get_ref(), buffer.as_mut_slice(), flags) {
                    Ok(_) => any = true,
                    Err(Errno::AGAIN) => break,
                    // What overran was changes, too.
                    Err(Errno::NOBUFS) => any = true,
                    Err(Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            ready.clear_ready();
            if any {
                return;
            }
        }
    }

    /// Reads nftables' chains anew, as after a [`change`](Netfilter::changed).
    ///
    /// # Errors
    ///
    /// [`Error::Netfilter`] if the kernel refuses.
    pub fn read_chains(&mut self) -> Result<(), Error> {
        self.chains = chains().map_err(failed("list the chains of"))?;
        Ok(())
    }

    /// What hangs there: nftables' chains as last read, and the rest as it is now. Cheap: a few small files.
    #[must_use]
    pub fn hooked(&self) -> Hooked {
        let mut hooked = self.chains.clone();
        let lines = |name: &str, skip: usize| -> Vec<String> {
            // Without the file there is no such thing.
            let text = fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            let text = text.unwrap_or_default();
            text.lines().skip(skip).map(str::to_owned).collect()
        };
        let table = |name: String| format!("iptables table {name}");
        hooked
            .ipv4
            .extend(lines("ip_tables_names", 0).into_iter().map(table));
        hooked
            .ipv6
            .extend(lines("ip6_tables_names", 0).into_iter().map(table));
        // Three lines of heading, then services.
        if !lines("ip_vs", 3).is_empty() {
            hooked.ipv4.insert("IPVS".to_owned());
            hooked.ipv6.insert("IPVS".to_owned());
        }
        hooked
    }
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Netfilter { action, source }
}

/// Lists every base chain; begins anew while the list changes.
fn chains() -> io::Result<Hooked> {
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        if let Some(hooked) = dump()? {
            return Ok(hooked);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "the list changed each time that it was read",
    ))
}

/// `None` where the list changed meanwhile.
fn dump() -> io::Result<Option<Hooked>> {
    let socket = match netlink::socket(netlink::NETFILTER) {
        Ok(socket) => socket,
        // A kernel without netfilter.
        Err(Errno::PROTONOSUPPORT) => return Ok(Some(Hooked::default())),
        Err(error) => return Err(error.into()),
    };
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
    let every_family = [0; HEAD];
    netlink::send(&socket, &netlink::request(kind, NLM_F_DUMP, &every_family))?;
    let mut hooked = Hooked::default();
    let mut buffer = vec![0_u8; 1 << 16];
    loop {
        match read(netlink::receive(&socket, &mut buffer)?, &mut hooked)? {
            Read::More => {}
            Read::Done => return Ok(Some(hooked)),
            Read::Again => return Ok(None),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    More,
    Done,
    Again,
}

/// Reads the messages of one datagram.
fn read(bytes: &[u8], hooked: &mut Hooked) -> io::Result<Read> {
    for message in netlink::messages(bytes) {
        let message = message?;
        if message.flags & NLM_F_DUMP_INTR != 0 {
            return Ok(Read::Again);
        }
        match message.kind {
            NLMSG_DONE => return Ok(Read::Done),
            NLMSG_ERROR => {
                // A kernel without nftables.
                return match Errno::from_raw_os_error(message.errno()?) {
                    Errno::INVAL | Errno::OPNOTSUPP | Errno::PROTONOSUPPORT => Ok(Read::Done),
                    Errno::INTR | Errno::AGAIN => Ok(Read::Again),
                    error => Err(error.into()),
                };
            }
            kind if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN => {
                if let Some(([family, ..], attributes)) = message.body.split_first_chunk::<HEAD>() {
                    chain(*family, attributes, hooked);
                }
            }
            _ => {}
        }
    }
    Ok(Read::More)
}

/// Takes note of a chain if forwarded packets pass it, or kube-proxy made it.
fn chain(family: u8, attributes: &[u8], hooked: &mut Hooked) {
    hooked.kube_proxy.extend(of_kube_proxy(
        &text(attributes, NFTA_CHAIN_TABLE),
        &text(attributes, NFTA_CHAIN_NAME),
    ));
    let Some(hook) = find(attributes, NFTA_CHAIN_HOOK)
        .and_then(|hook| find(hook, NFTA_HOOK_HOOKNUM))
        .and_then(|number| Some(u32::from_be_bytes(number.try_into().ok()?)))
    else {
        return; // only other chains lead there
    };
    let (name, where_) = match (family, hook) {
        (NFPROTO_IPV4 | NFPROTO_IPV6 | NFPROTO_INET, 0) => (family, "prerouting"),
        (NFPROTO_IPV4 | NFPROTO_IPV6 | NFPROTO_INET, 2) => (family, "forward"),
        (NFPROTO_IPV4 | NFPROTO_IPV6 | NFPROTO_INET, 4) => (family, "postrouting"),
        (NFPROTO_INET, 5) | (NFPROTO_NETDEV, 0) => (family, "ingress"),
        (NFPROTO_NETDEV, 1) => (family, "egress"),
        _ => return,
    };
    let family_name = match name {
        NFPROTO_IPV4 => "ip",
        NFPROTO_IPV6 => "ip6",
        NFPROTO_INET => "inet",
        _ => "netdev",
    };
    let words = format!(
        "nftables chain {family_name} {} {} ({where_})",
        text(attributes, NFTA_CHAIN_TABLE),
        text(attributes, NFTA_CHAIN_NAME)
    );
    if name != NFPROTO_IPV6 {
        hooked.ipv4.insert(words.clone());
    }
    if name != NFPROTO_IPV4 {
        hooked.ipv6.insert(words);
    }
}

/// An attribute that holds a name.
fn text(attributes: &[u8], kind: u16) -> String {
    let bytes = find(attributes, kind).unwrap_or_default();
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// What kube-proxy has made where a chain of this table is: its own table in mode nftables, a chain in mode iptables or
/// ipvs.
fn of_kube_proxy(table: &str, chain: &str) -> Option<String> {
    if table == "kube-proxy" {
        Some("nftables table kube-proxy".to_owned())
    } else if is_kube_proxys(chain) {
        Some(format!("iptables chain {chain} of table {table}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attribute, nested, request};

    fn new_chain(family: u8, hook: Option<u32>) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(attribute(NFTA_CHAIN_TABLE, b"t\0"));
        body.extend(attribute(NFTA_CHAIN_NAME, b"c\0"));
        if let Some(hook) = hook {
            let number = attribute(NFTA_HOOK_HOOKNUM, &hook.to_be_bytes());
            body.extend(nested(NFTA_CHAIN_HOOK, &[number]));
        }
        request(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN, 2, &body)
    }

    #[test]
    fn chains_that_forwarded_packets_pass_are_named() {
        let cases = [
            (NFPROTO_IPV4, Some(2), Some("ip t c (forward)"), None),
            (NFPROTO_IPV6, Some(0), None, Some("ip6 t c (prerouting)")),
            (
                NFPROTO_INET,
                Some(4),
                Some("inet t c (postrouting)"),
                Some("inet t c (postrouting)"),
            ),
            (
                NFPROTO_NETDEV,
                Some(0),
                Some("netdev t c (ingress)"),
                Some("netdev t c (ingress)"),
            ),
            (NFPROTO_INET, Some(1), None, None),
            (NFPROTO_INET, Some(3), None, None),
            (NFPROTO_INET, None, None, None),
            (7, Some(2), None, None), // bridge
        ];
        for (family, hook, four, six) in cases {
            let mut hooked = Hooked::default();
            let bytes = new_chain(family, hook);
            assert_eq!(read(&bytes, &mut hooked).unwrap(), Read::More);
            let expected = |word: Option<&str>| -> BTreeSet<String> {
                word.map(|word| format!("nftables chain {word}"))
                    .into_iter()
                    .collect()
            };
            assert_eq!(hooked.ipv4, expected(four), "{family} {hook:?}");
            assert_eq!(hooked.ipv6, expected(six), "{family} {hook:?}");
            for len in 0..bytes.len() {
                // Cut anywhere: an error or nothing, never a panic.
                let _ = read(&bytes[..len], &mut Hooked::default());
            }
        }
    }

    #[test]
    fn what_kube_proxy_made_is_told_from_what_others_did() {
        let made = Some("nftables table kube-proxy".to_owned());
        assert_eq!(of_kube_proxy("kube-proxy", "nat-prerouting"), made);
        let made = Some("iptables chain KUBE-SERVICES of table nat".to_owned());
        assert_eq!(of_kube_proxy("nat", "KUBE-SERVICES"), made);
        for (table, chain) in [
            ("nat", "PREROUTING"),
            ("filter", "KUBE-FIREWALL"),
            ("t", "c"),
        ] {
            assert_eq!(of_kube_proxy(table, chain), None, "{table} {chain}");
        }
    }

    #[test]
    fn ends_and_errors_are_told_apart() {
        let error = |errno: i32| request(NLMSG_ERROR, 0, &(-errno).to_ne_bytes());
        let read = |bytes: Vec<u8>| read(&bytes, &mut Hooked::default());
        assert_eq!(read(request(NLMSG_DONE, 2, &[0; 4])).unwrap(), Read::Done);
        assert_eq!(
            read(request(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, &[0; 4])).unwrap(),
            Read::Again
        );
        assert_eq!(read(error(22)).unwrap(), Read::Done);
        assert_eq!(read(error(1)).unwrap_err().raw_os_error(), Some(1));
    }
}
