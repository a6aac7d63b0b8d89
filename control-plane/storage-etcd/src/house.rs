//! What goes on without a request: history is forgotten, and watchers are told how far the store has got.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use storage::{Error, Revision};
use tonic::Code;

use crate::Shared;
use crate::follow::signed;
use crate::fresh::revision;
use crate::proto::{Compare, PutRequest, RangeRequest, Request, RequestOp, TxnRequest};

/// The key by which the API servers on one etcd agree who compacts, and to which revision: kube-apiserver's own, so
/// that ours and it can stand side by side. Its version counts the turns.
const TURN: Bytes = Bytes::from_static(b"compact_rev_key");

/// Forgets history before the revision, in etcd and here.
pub(crate) async fn compact(shared: &Shared, to: Revision) -> Result<(), Error> {
    match shared.rpc.compact(signed(to)).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::OutOfRange && status.message().contains("future") => {
            return Err(Error::Future {
                asked: to,
                newest: shared.replica.revision(),
            });
        }
        // Somebody did so already.
        Err(status) if status.code() == Code::OutOfRange => {}
        Err(status) => return Err(shared.rpc.error("compacting", to, &status)),
    }
    shared.replica.compact(to);
    Ok(())
}

/// Takes turns with the other servers: whoever finds the turn as he left it takes the next one, writes down where
/// etcd stands, and compacts to where it stood at the turn before. Until it is dropped.
pub(crate) async fn compact_every(shared: Arc<Shared>, every: Duration) {
    let mut turn = 0;
    let mut before = Revision(0);
    loop {
        tokio::time::sleep(every).await;
        match take_turn(&shared, turn, before).await {
            Ok((next, now)) => (turn, before) = (next, now),
            Err(error) => tracing::warn!(%error, "etcd's history could not be compacted"),
        }
    }
}

/// The turn that it is now, and the revision that etcd is at.
async fn take_turn(shared: &Shared, turn: i64, to: Revision) -> Result<(i64, Revision), Error> {
    let op = |request| RequestOp {
        request: Some(request),
    };
    let request = TxnRequest {
        compare: vec![Compare::version(TURN, turn)],
        success: vec![op(Request::Put(PutRequest {
            key: TURN,
            value: to.0.to_string().into(),
            lease: 0,
        }))],
        failure: vec![op(Request::Range(RangeRequest {
            key: TURN,
            ..RangeRequest::default()
        }))],
    };
    let answer = shared.rpc.txn(request).await;
    let answer = answer.map_err(|status| shared.rpc.error("writing to", to, &status))?;
    let now = revision(answer.header.as_ref());
    if !answer.succeeded {
        let found = answer.responses.into_iter().next();
        let found = found.and_then(|response| response.range?.kvs.into_iter().next());
        return Ok((found.map_or(0, |kv| kv.version), now));
    }
    if to > Revision(0) {
        compact(shared, to).await?;
    }
    Ok((turn + 1, now))
}

/// Tells watchers from time to time how far the store has got. Until it is dropped.
pub(crate) async fn progress(shared: Arc<Shared>) {
    let mut told = shared.replica.revision();
    loop {
        tokio::time::sleep(shared.options.watch.progress).await;
        let now = shared.replica.revision();
        if now > told {
            told = now;
            shared.replica.progress();
        }
    }
}
