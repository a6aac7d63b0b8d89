//! `local`: answers what should never leave the machine: `localhost` below any domain, and the reverse zones of
//! addresses that mean this host (RFC 6303, RFC 6761).

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::NS;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::rdata::SOA;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Kind;
use crate::metrics::Series;
use crate::names;

const TTL: u32 = 604_800;

struct Local {
    zones: Vec<Name>,
    loopback: Name,
    localhost: Name,
    stray: Arc<Series>,
}

/// Reads `local`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    line.no_block()?;
    let name = |text| names::parse(text).map_err(|error| line.error(error, "report this"));
    let mut zones = Vec::new();
    for zone in [
        "localhost.",
        "0.in-addr.arpa.",
        "127.in-addr.arpa.",
        "255.in-addr.arpa.",
    ] {
        zones.push(name(zone)?);
    }
    let stray = setup.environment.metrics.family(
        "coredns_local_localhost_requests_total",
        "Counter of localhost.<domain> requests.",
        Kind::Counter,
        &[],
    );
    Ok(Some(Arc::new(Local {
        zones,
        loopback: name("1.0.0.127.in-addr.arpa.")?,
        localhost: name("localhost.")?,
        stray: stray.with(&[]),
    })))
}

impl Plugin for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if request.class() != DNSClass::IN {
            return next.serve(request);
        }
        let name = request.name().to_lowercase();
        let stray = name.iter().len() > 1 && name.iter().next() == Some(b"localhost".as_slice());
        let zone = match matching(&self.zones, &name) {
            Some(zone) => zone,
            None if stray => {
                self.stray.increment();
                &self.localhost
            }
            None => return next.serve(request),
        };
        let found = match request.kind() {
            RecordType::A if stray || name == self.localhost => {
                Some(RData::A(Ipv4Addr::LOCALHOST.into()))
            }
            RecordType::AAAA if stray || name == self.localhost => {
                Some(RData::AAAA(Ipv6Addr::LOCALHOST.into()))
            }
            RecordType::PTR if name == self.loopback => {
                Some(RData::PTR(PTR(self.localhost.clone())))
            }
            RecordType::SOA if name == *zone => Some(self.soa()),
            RecordType::NS if name == *zone => Some(RData::NS(NS(self.localhost.clone()))),
            _ => None,
        };
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            match found {
                Some(data) => {
                    message.add_answer(Record::from_rdata(request.name().clone(), TTL, data))
                }
                None => message.add_authority(Record::from_rdata(zone.clone(), TTL, self.soa())),
            };
            Ok(Outcome::answer("local", message))
        })
    }
}

impl Local {
    fn soa(&self) -> RData {
        let owner = self.localhost.clone();
        RData::SOA(SOA::new(
            owner.clone(),
            owner,
            1,
            36_000,
            3_600,
            36_000,
            36_000,
        ))
    }
}
