//! `bufsize`: bounds the datagrams of answers, so that none is cut into fragments on its way.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Request;
use crate::message::Served;

/// What passes every path that carries IPv6 (DNS Flag Day 2020).
const DEFAULT: u16 = 1232;

struct Bufsize(u16);

/// Reads `bufsize [SIZE]`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let size = match line.between(0, 1)? {
        [size] => size.number(512, 4096)?,
        _ => DEFAULT,
    };
    Ok(Some(Arc::new(Bufsize(size))))
}

impl Plugin for Bufsize {
    fn name(&self) -> &'static str {
        "bufsize"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Bounds(self.0)
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if let Some(edns) = &mut request.message.edns {
            let size = edns.max_payload().min(self.0);
            edns.set_max_payload(size);
        }
        next.serve(request)
    }
}
