//! Which revision is the newest: asked of etcd once for all who wait for the answer.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use storage::{Error, Revision};
use tokio::sync::{mpsc, oneshot};

use crate::Shared;
use crate::proto::RangeRequest;

type Reply = oneshot::Sender<Result<Revision, Error>>;

/// Where readers ask. As many wait as there are requests under way.
pub(crate) struct Fresh(mpsc::UnboundedSender<Reply>);

impl Fresh {
    /// And the task that asks etcd.
    pub(crate) fn new(shared: Arc<Shared>) -> (Self, impl Future<Output = ()> + Send) {
        let (ask, mut asked) = mpsc::unbounded_channel::<Reply>();
        let asking = async move {
            let mut waiting = Vec::new();
            // Whoever comes while a question is under way waits for the next one: the answer must be of a moment after
            // it was asked for.
            while asked.recv_many(&mut waiting, usize::MAX).await > 0 {
                waiting.retain(|reply: &Reply| !reply.is_closed());
                if waiting.is_empty() {
                    continue;
                }
                let newest = newest(&shared).await;
                for reply in waiting.drain(..) {
                    let _ = reply.send(newest.clone());
                }
            }
        };
        (Self(ask), asking)
    }

    /// The newest revision of all that was acknowledged before the call; the replica has it.
    pub(crate) async fn newest(&self) -> Result<Revision, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::Unavailable {
            doing: "reading from etcd".to_owned(),
            cause: Arc::from("the store has been closed"),
        };
        self.0.send(reply).map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn newest(shared: &Shared) -> Result<Revision, Error> {
    // A read of one key that is never there: the answer's header is what is wanted. It is a linearizable one.
    let request = RangeRequest {
        key: Bytes::from_static(b"\0"),
        keys_only: true,
        ..RangeRequest::default()
    };
    let answer = shared.rpc.range(request).await;
    let answer = answer.map_err(|status| shared.rpc.error("reading from", Revision(0), &status))?;
    let revision = revision(answer.header.as_ref());
    shared.caught_up(revision).await?;
    Ok(revision)
}

/// The revision in an answer's header.
pub(crate) fn revision(header: Option<&crate::proto::ResponseHeader>) -> Revision {
    Revision(header.map_or(0, |header| header.revision).unsigned_abs())
}
