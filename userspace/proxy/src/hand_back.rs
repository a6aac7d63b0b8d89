//! The way back to kube-proxy: what our programs translated, the kernel's connection tracking translates from now on, by
//! kube-proxy's choice of a backend for none of it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use abi::flows::flags;
use abi::{ServiceId, protocol};
use bpf::{Datapath, Flow};
use net::{Conntrack, Translated};

use crate::{Error, takeover};

/// What is no entry of a connection to translate: answers, what ends, what nobody answers by way of this node.
const OTHERS: u32 = flags::REPLY | flags::CLOSING | flags::TAKEN | flags::NESTED | flags::TUNNELLED;

/// Gives the connections that the flow tables hold to connection tracking, if kube-proxy's rules are in place to take the
/// new ones: before our programs go. Gives how many, and how many the kernel refused. SCTP's are not among them: connection
/// tracking wants to know their tags. Must be called in a tokio runtime.
///
/// # Errors
///
/// When the tables or kube-proxy's rules cannot be read, or connection tracking cannot be asked.
pub fn hand_back(bpffs_root: &Path) -> Result<[usize; 2], Error> {
    if takeover::rules()?.is_empty() {
        return Ok([0; 2]);
    }
    let mut connections = Vec::new();
    Datapath::inspect(bpffs_root)?.walk_flows(|flows| {
        connections.extend(flows.filter_map(|flow| translated(&flow)));
        true
    })?;
    let failed = |source| Error::Takeover {
        action: "ask connection tracking",
        source,
    };
    let conntrack = Conntrack::open().map_err(failed)?;
    let refused = connections
        .iter()
        .filter(|connection| conntrack.translate(connection).is_err());
    let refused = refused.count();
    Ok([connections.len() - refused, refused])
}

fn translated(flow: &Flow) -> Option<Translated> {
    let at = |addr: IpAddr, port: u16| SocketAddr::new(addr, port);
    let (proto, service, of, ends): (u8, ServiceId, u32, _) = match flow {
        Flow::V4(from, state) => {
            let ends = [from, &state.to].map(|tuple| {
                let source = at(tuple.saddr.into(), tuple.sport.get());
                [source, at(tuple.daddr.into(), tuple.dport.get())]
            });
            (from.proto, state.service, state.flags, ends)
        }
        Flow::V6(from, state) => {
            let ends = [from, &state.to].map(|tuple| {
                let source = at(tuple.saddr.into(), tuple.sport.get());
                [source, at(tuple.daddr.into(), tuple.dport.get())]
            });
            (from.proto, state.service, state.flags, ends)
        }
    };
    let [before, behind] = ends;
    let is_ours = service != 0 && of & OTHERS == 0 && before != behind;
    let tracked = matches!(proto, protocol::TCP | protocol::UDP);
    (is_ours && tracked).then(|| Translated::new(proto, before, behind))
}
