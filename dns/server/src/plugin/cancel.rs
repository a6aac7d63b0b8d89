//! `cancel`: gives up on a query that takes too long, so that no client's retry finds the first still at work.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Failure;
use crate::message::Request;
use crate::message::Served;

/// As CoreDNS: a hair more than the five seconds after which resolvers ask again.
const DEFAULT: Duration = Duration::from_millis(5001);

struct Cancel(Duration);

/// Reads `cancel [TIMEOUT]`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let time = match line.between(0, 1)? {
        [time] => time.duration()?,
        _ => DEFAULT,
    };
    Ok(Some(Arc::new(Cancel(time))))
}

impl Plugin for Cancel {
    fn name(&self) -> &'static str {
        "cancel"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Passes
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            match tokio::time::timeout(self.0, next.serve(request)).await {
                Ok(served) => served,
                Err(_) => Err(Failure::new(
                    "cancel",
                    format!("no answer within {:?}", self.0),
                )),
            }
        })
    }
}
