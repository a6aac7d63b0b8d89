//! `chaos`: says which server this is, in class CH (RFC 4892).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::TXT;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

struct Chaos {
    version: String,
    authors: Vec<String>,
    hostname: String,
}

/// Reads `chaos [VERSION] [AUTHOR...]`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let mut words = line.args.iter().map(|word| word.text.clone());
    let version = words
        .next()
        .unwrap_or_else(|| concat!("Fairlead-", env!("CARGO_PKG_VERSION")).to_owned());
    let hostname = super::nsid::hostname();
    for text in line.args.iter().chain([]) {
        if text.text.len() > 255 {
            return Err(text.error(
                "chaos: a text is longer than 255 octets",
                "shorten it: one string of a TXT record holds no more",
            ));
        }
    }
    Ok(Some(Arc::new(Chaos {
        version,
        authors: words.collect(),
        hostname,
    })))
}

impl Plugin for Chaos {
    fn name(&self) -> &'static str {
        "chaos"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if request.class() != DNSClass::CH || request.kind() != RecordType::TXT {
            return next.serve(request);
        }
        let texts = match request.name().to_lowercase().to_ascii().as_str() {
            "version.bind." | "version.server." => vec![self.version.clone()],
            "authors.bind." => self.authors.clone(),
            "hostname.bind." | "id.server." => vec![self.hostname.clone()],
            _ => return next.serve(request),
        };
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            for text in texts {
                let data = RData::TXT(TXT::new(vec![text]));
                let mut record = Record::from_rdata(request.name().clone(), 0, data);
                record.dns_class = DNSClass::CH;
                message.add_answer(record);
            }
            Ok(Outcome::answer("chaos", message))
        })
    }
}
