//! Flows that the agent writes or removes; all others are the programs' own.
//!
//! Flows of backends that are dead are forgotten: the next packet of one is given to a backend that lives, which knows no
//! such connection and resets it, or is refused where there is none. Flows that somebody else began are adopted.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use abi::{Flow4, Flow6, FlowState4, FlowState6};
use zerocopy::network_endian::U16;

use crate::pins::Pins;
use crate::table::{Element, Hash};
use crate::{Error, Flow, show, spec};

/// Forgets the flows, of an IP protocol and of any Service, that lead to one of `backends`: both directions of each.
/// Gives how many entries that were.
///
/// # Errors
///
/// [`Error::NotLoaded`] where nothing is pinned, [`Error::Table`] if the kernel refuses.
pub fn forget_flows(
    bpffs_root: &Path,
    protocol: u8,
    backends: &BTreeSet<SocketAddr>,
) -> Result<usize, Error> {
    let pins = Pins::new(bpffs_root);
    let is_dead = |addr: IpAddr, port: U16| backends.contains(&SocketAddr::new(addr, port.get()));
    macro_rules! family {
        ($spec:ident, $flow:ty, $state:ty) => {
            forget(
                &Hash::open(&pins, spec::$spec, false)?,
                |key: &$flow, state: &$state| {
                    let reply = state.flags & abi::flows::flags::REPLY != 0;
                    let (addr, port) = if reply {
                        (key.saddr, key.sport)
                    } else {
                        (state.to.daddr, state.to.dport)
                    };
                    state.service != 0 && key.proto == protocol && is_dead(addr.into(), port)
                },
            )?
        };
    }
    Ok(family!(FLOWS4, Flow4, FlowState4) + family!(FLOWS6, Flow6, FlowState6))
}

/// Writes entries of flows that began before the programs were here. One that a packet began meanwhile stays as it is.
///
/// # Errors
///
/// As [`forget_flows`], and [`Error::Full`].
pub fn adopt_flows(bpffs_root: &Path, flows: &[Flow]) -> Result<(), Error> {
    let pins = Pins::new(bpffs_root);
    let flows4: Hash<Flow4, FlowState4> = Hash::open(&pins, spec::FLOWS4, false)?;
    let flows6: Hash<Flow6, FlowState6> = Hash::open(&pins, spec::FLOWS6, false)?;
    flows.iter().try_for_each(|flow| match flow {
        Flow::V4(key, state) => flows4.insert_new(key, state),
        Flow::V6(key, state) => flows6.insert_new(key, state),
    })
}

/// Removes the elements that `is` holds of.
fn forget<K: Element + show::Show, V: Element>(
    table: &Hash<K, V>,
    is: impl Fn(&K, &V) -> bool,
) -> Result<usize, Error> {
    let mut keys: Vec<K> = Vec::new();
    table.walk(|some, values| {
        let found = some
            .iter()
            .zip(values)
            .filter(|(key, value)| is(key, value));
        keys.extend(found.map(|(key, _)| *key));
        true
    })?;
    table.remove(&keys).map_err(|(_, error)| error)?;
    Ok(keys.len())
}
