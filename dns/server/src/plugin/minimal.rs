//! `minimal`: leaves out what an answer does not need.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Request;
use crate::message::Served;

struct Minimal;

/// Reads `minimal`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    line.no_block()?;
    Ok(Some(Arc::new(Minimal)))
}

impl Plugin for Minimal {
    fn name(&self) -> &'static str {
        "minimal"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let mut served = next.serve(request).await;
            // A negative answer needs its SOA, and a referral its name servers: only answers with records shrink.
            if let Ok(outcome) = &mut served
                && let Some(message) = outcome.message_mut()
                && message.metadata.response_code == ResponseCode::NoError
                && !message.answers.is_empty()
            {
                message.authorities.clear();
                message.additionals.clear();
            }
            served
        })
    }
}
