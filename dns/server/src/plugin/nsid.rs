//! `nsid`: says which server answered to clients that ask (RFC 5001).

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Edns;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::opt::EdnsOption;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Request;
use crate::message::Served;

/// The option's number.
const NSID: u16 = 3;

struct Nsid(Vec<u8>);

/// The machine's name, or `localhost` where it has none.
pub(super) fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match text.trim() {
        "" => "localhost".to_owned(),
        name => name.to_owned(),
    }
}

/// Reads `nsid [DATA]`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let words: Vec<&str> = line.args.iter().map(|word| word.text.as_str()).collect();
    let data = match words.as_slice() {
        [] => hostname(),
        words => words.join(" "),
    };
    if data.len() > 512 {
        return Err(line.error("nsid: more than 512 octets", "shorten the text"));
    }
    Ok(Some(Arc::new(Nsid(data.into_bytes()))))
}

impl Plugin for Nsid {
    fn name(&self) -> &'static str {
        "nsid"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let wanted = request
                .message
                .edns
                .as_ref()
                .is_some_and(|edns| edns.option(EdnsCode::NSID).is_some());
            let mut served = next.serve(request).await;
            if wanted
                && let Ok(outcome) = &mut served
                && let Some(message) = outcome.message_mut()
            {
                message
                    .edns
                    .get_or_insert_with(Edns::new)
                    .options_mut()
                    .insert(EdnsOption::Unknown(NSID, self.0.clone()));
            }
            served
        })
    }
}
