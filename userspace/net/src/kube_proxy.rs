//! What kube-proxy leaves in netfilter, removed without the connections that it translated: those are the kernel's
//! connection tracking to translate, which it does for as long as there is a chain of NAT, and some rule that asks for
//! connection tracking. A table of our own has both, and decides nothing, until somebody removes it.

use std::io;

use rustix::io::Errno;
use rustix::net::RecvFlags;

use crate::netlink::{
    self, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLMSG_ERROR, attribute, nested, request,
};

/// Our table.
const HOLD: &str = "fairlead-nat-hold";
/// kube-proxy's table in mode nftables.
const THEIRS: &str = "kube-proxy";

/// linux/netfilter/nfnetlink.h and nf_tables.h.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_CT_DREG: u16 = 1;
const NFTA_CT_KEY: u16 = 2;
const NFT_REG_1: u32 = 1;
const NFT_CT_STATE: u32 = 0;
/// linux/netfilter.h: the families of tables that kube-proxy makes.
const FAMILIES: [u8; 2] = [2, 10];
/// Base chains of NAT: name, hook and priority (linux/netfilter_ipv4.h).
const CHAINS: [(&str, u32, i32); 4] = [
    ("prerouting", 0, -100),
    ("input", 1, 100),
    ("output", 3, -100),
    ("postrouting", 4, 100),
];

/// Removes kube-proxy's tables of nftables from the namespace of the calling thread; connections that they translated
/// live on. Gives how many there were.
///
/// # Errors
///
/// When the kernel refuses.
pub fn remove_kube_proxy_tables() -> io::Result<usize> {
    let mut removed = 0;
    for family in FAMILIES {
        // The new chains first: the kernel forgets translations when there is no chain left.
        match batch(&[hold(family), vec![delete(family, THEIRS)]].concat()) {
            Ok(()) => removed += 1,
            // All of a batch happens, or nothing.
            Err(error) if is_none(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(removed)
}

/// Keeps the translations of connections that are there, of one family, whoever removes what rules of NAT.
///
/// # Errors
///
/// When the kernel refuses, or has no nftables.
pub(crate) fn hold_translations(v6: bool) -> io::Result<()> {
    batch(&hold(FAMILIES[usize::from(v6)]))
}

/// Ends what [`remove_kube_proxy_tables`] keeps alive in the namespace of the calling thread. Gives of how many families
/// something was.
///
/// # Errors
///
/// When the kernel refuses.
pub fn release_translations() -> io::Result<usize> {
    let mut released = 0;
    for family in FAMILIES {
        match batch(&[delete(family, HOLD)]) {
            Ok(()) => released += 1,
            Err(error) if is_none(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(released)
}

/// No such table, or a kernel without nftables or that family.
fn is_none(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)
    )
}

/// Messages that make the table and its chains, where they are not there.
fn hold(family: u8) -> Vec<Vec<u8>> {
    let mut messages = vec![message(
        NFT_MSG_NEWTABLE,
        NLM_F_CREATE,
        family,
        &name(NFTA_TABLE_NAME, HOLD),
    )];
    for (chain, hook, priority) in CHAINS {
        let hook = [
            attribute(NFTA_HOOK_HOOKNUM, &hook.to_be_bytes()),
            attribute(NFTA_HOOK_PRIORITY, &priority.to_be_bytes()),
        ];
        let body = [
            name(NFTA_CHAIN_TABLE, HOLD),
            name(NFTA_CHAIN_NAME, chain),
            nested(NFTA_CHAIN_HOOK, &hook),
            name(NFTA_CHAIN_TYPE, "nat"),
        ];
        let body = body.concat();
        messages.push(message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, family, &body));
    }
    messages.push(asks(family));
    messages
}

/// A rule that reads a connection's state and decides nothing.
fn asks(family: u8) -> Vec<u8> {
    let reads = nested(
        NFTA_LIST_ELEM,
        &[
            name(NFTA_EXPR_NAME, "ct"),
            nested(
                NFTA_EXPR_DATA,
                &[
                    attribute(NFTA_CT_DREG, &NFT_REG_1.to_be_bytes()),
                    attribute(NFTA_CT_KEY, &NFT_CT_STATE.to_be_bytes()),
                ],
            ),
        ],
    );
    let (chain, ..) = CHAINS[0];
    let body = [
        name(NFTA_RULE_TABLE, HOLD),
        name(NFTA_RULE_CHAIN, chain),
        nested(NFTA_RULE_EXPRESSIONS, &[reads]),
    ];
    let flags = NLM_F_CREATE | NLM_F_APPEND;
    message(NFT_MSG_NEWRULE, flags, family, &body.concat())
}

fn delete(family: u8, table: &str) -> Vec<u8> {
    message(NFT_MSG_DELTABLE, 0, family, &name(NFTA_TABLE_NAME, table))
}

fn message(kind: u16, flags: u16, family: u8, body: &[u8]) -> Vec<u8> {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
    request(
        kind,
        flags | NLM_F_ACK,
        &[&[family, 0, 0, 0], body].concat(),
    )
}

fn name(kind: u16, text: &str) -> Vec<u8> {
    attribute(kind, &[text.as_bytes(), &[0]].concat())
}

/// Carries out messages as one transaction. Each is answered, with an error or none.
fn batch(messages: &[Vec<u8>]) -> io::Result<()> {
    let socket = netlink::socket(netlink::NETFILTER)?;
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let end = |kind: u16| request(kind, 0, &[0, 0, high, low]);
    let bytes = [
        end(NFNL_MSG_BATCH_BEGIN),
        messages.concat(),
        end(NFNL_MSG_BATCH_END),
    ];
    netlink::send(&socket, &bytes.concat())?;
    // The kernel has worked when the call returns: what is to be read is there.
    let mut buffer = vec![0_u8; 1 << 14];
    let mut failed = None;
    loop {
        match rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
            Ok((len, _)) => failed = failed.or(first_error(&buffer[..len])),
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The first error among the answers of a datagram.
fn first_error(bytes: &[u8]) -> Option<io::Error> {
    netlink::messages(bytes).find_map(|message| {
        let errno = message.and_then(|message| match message.kind {
            NLMSG_ERROR => message.errno(),
            _ => Ok(0),
        });
        match errno {
            Ok(0) => None,
            Ok(errno) => Some(io::Error::from_raw_os_error(errno)),
            Err(error) => Some(error),
        }
    })
}
