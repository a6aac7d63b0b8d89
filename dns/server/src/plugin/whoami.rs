//! `whoami`: answers every name with the client's address, port and transport.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::SRV;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

struct Whoami;

/// Reads `whoami`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    line.no_block()?;
    Ok(Some(Arc::new(Whoami)))
}

impl Plugin for Whoami {
    fn name(&self) -> &'static str {
        "whoami"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, _next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            let address = match request.client.ip().to_canonical() {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            let (name, class) = (request.name().clone(), request.class());
            let record = |name: Name, data: RData| {
                let mut record = Record::from_rdata(name, 0, data);
                record.dns_class = class;
                record
            };
            message.add_additional(record(name.clone(), address));
            let proto = format!("_{}", request.transport.proto());
            if let Ok(service) = name.prepend_label(proto.as_bytes()) {
                let port = SRV::new(0, 0, request.client.port(), Name::root());
                message.add_additional(record(service, RData::SRV(port)));
            }
            Ok(Outcome::answer("whoami", message))
        })
    }
}
