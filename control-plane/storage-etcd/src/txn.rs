//! A write: one transaction, which holds against what every key is expected to stand at.

use std::collections::BTreeSet;

use storage::{Error, Revision, Write};

use crate::Shared;
use crate::follow::{entry, signed};
use crate::fresh::revision;
use crate::lease::Leases;
use crate::proto::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp, TxnRequest,
};

/// The place of the first write whose key was named before it.
pub(crate) fn repetition(writes: &[Write]) -> Option<usize> {
    let mut named = BTreeSet::new();
    writes.iter().position(|write| !named.insert(write.key()))
}

/// Carries out all writes or none. No key is named twice.
pub(crate) async fn write(
    shared: &Shared,
    leases: &Leases,
    writes: &[Write],
) -> Result<Revision, Error> {
    let mut request = TxnRequest::default();
    for write in writes {
        let name = write.key();
        let key = shared.keys.outer(name)?;
        let (expected, made) = match write {
            Write::Create { value, .. } => (0, Some(value)),
            Write::Update {
                value, expected, ..
            } => (signed(*expected), Some(value)),
            Write::Delete { expected, .. } => (signed(*expected), None),
        };
        request
            .compare
            .push(Compare::modified(key.clone(), expected));
        request.failure.push(op(Request::Range(RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        })));
        request.success.push(op(match made {
            Some(value) => Request::Put(PutRequest {
                key,
                value: shared.codec.encode(name, value),
                lease: leases.of(name).await?,
            }),
            None => Request::Delete(DeleteRangeRequest { key }),
        }));
        // An update of what is not there: a revision of zero would say that it must not be.
        if expected == 0 && !matches!(write, Write::Create { .. }) {
            request
                .compare
                .push(Compare::version(shared.keys.outer(name)?, -1));
        }
    }
    let answer = shared.rpc.txn(request).await;
    let answer = answer.map_err(|status| shared.rpc.error("writing to", Revision(0), &status))?;
    if answer.succeeded {
        return Ok(revision(answer.header.as_ref()));
    }
    for (write, response) in writes.iter().zip(answer.responses) {
        let found = response
            .range
            .and_then(|range| range.kvs.into_iter().next());
        let current = found.and_then(|kv| {
            let key = shared.keys.inner(&kv.key)?;
            Some(entry(&*shared.codec, key, kv))
        });
        write.decide(current.as_ref(), Revision(0))?;
    }
    Err(Error::Unavailable {
        doing: format!("writing to etcd at {}", shared.rpc.endpoint()),
        cause: "it refused a transaction whose conditions hold".into(),
    })
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}
