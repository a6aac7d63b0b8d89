//! What a socket that was balanced when it connected leads to now.

use std::net::{IpAddr, SocketAddr};

use abi::{Frontend, FrontendKey4, FrontendKey6, ReverseSocketKey, Scope, family};

use crate::{Error, View};

impl View {
    /// Whether a socket was sent to `peer` by a frontend that leads there no more. False for one that named `peer`
    /// itself.
    ///
    /// # Errors
    ///
    /// [`Error::Table`] if the kernel refuses.
    pub fn is_left_behind(
        &self,
        cookie: u64,
        protocol: u8,
        peer: SocketAddr,
    ) -> Result<bool, Error> {
        let (addr, number) = padded(peer.ip());
        let asked_for = self.reverse_sockets.get(&ReverseSocketKey {
            cookie,
            addr,
            port: peer.port().into(),
            family: number,
            _pad: [0; 5],
        })?;
        let Some(asked_for) = asked_for else {
            return Ok(false);
        };
        let (port, proto) = (asked_for.port, protocol);
        let scope = Scope::Any as u8;
        let frontend = if number == family::V4 {
            let [a, b, c, d, ..] = asked_for.addr;
            self.frontends4.get(&FrontendKey4 {
                addr: [a, b, c, d],
                port,
                proto,
                scope,
            })?
        } else {
            self.frontends6.get(&FrontendKey6 {
                addr: asked_for.addr,
                port,
                proto,
                scope,
            })?
        };
        Ok(!frontend.is_some_and(|frontend| self.leads_to(&frontend, addr, peer.port())))
    }

    fn leads_to(&self, frontend: &Frontend, addr: [u8; 16], port: u16) -> bool {
        let end = frontend.ring_offset.saturating_add(frontend.ring_len);
        (frontend.ring_offset..end).any(|slot| {
            let backend = self.backends.get(self.rings.get(slot).backend);
            backend.service == frontend.service
                && backend.addr == addr
                && backend.port.get() == port
        })
    }
}

fn padded(addr: IpAddr) -> ([u8; 16], u8) {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            ([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], family::V4)
        }
        IpAddr::V6(addr) => (addr.octets(), family::V6),
    }
}
