//! `any`: the least answer to a question for all types (RFC 8482).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::HINFO;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

struct Any;

/// Reads `any`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    line.no_block()?;
    Ok(Some(Arc::new(Any)))
}

impl Plugin for Any {
    fn name(&self) -> &'static str {
        "any"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if request.kind() != RecordType::ANY {
            return next.serve(request);
        }
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            let hinfo = HINFO::new("ANY obsoleted".to_owned(), "See RFC 8482".to_owned());
            message.add_answer(Record::from_rdata(
                request.name().clone(),
                8482,
                RData::HINFO(hinfo),
            ));
            Ok(Outcome::answer("any", message))
        })
    }
}
