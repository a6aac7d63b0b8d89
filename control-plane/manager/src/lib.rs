//! Runs the controllers: queues, clocks and retries.
//!
//! [`run`] folds watches into one [`Snapshot`], decides about each key that a change touches, and writes what was
//! decided. Deciding is `reconcile`'s; here is everything that waits. While nothing changes nothing runs.
#![forbid(unsafe_code)]

mod feed;
mod leaving;
mod perform;
mod queue;

use std::future::{Future, ready};
use std::task::Poll;
use std::time::Duration;

use client::{Backoff, Client};
use futures_util::{FutureExt, StreamExt, poll};
use reconcile::{Key, Snapshot, Write, reconcile};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::feed::{Feed, Others};
use crate::perform::{Answer, Error, perform};
use crate::queue::Queue;

/// Keys that are written at once. Writes of one key follow each other.
const WORKERS_MAX: usize = 32;

/// Changes folded before something is decided, so that a burst is decided about once.
const BURST_MAX: usize = 1000;

/// The longest wait for a server that does not say what it has.
const DISCOVERY_WAIT_MAX: Duration = Duration::from_secs(10);

/// How often the server is asked whether it has other resources than before.
const DISCOVERY_EVERY: Duration = Duration::from_secs(2);

/// Runs every controller against an API server until `shutdown` resolves. Loss of the server is waited out.
pub async fn run(client: Client, shutdown: impl Future<Output = ()>) {
    let mut shutdown = std::pin::pin!(shutdown);
    // Resources come and go with their definitions; with other resources everything begins anew.
    loop {
        let others = tokio::select! {
            () = &mut shutdown => return,
            others = discover(&client) => others,
        };
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            () = changed(&client, &others) => {}
            () = follow(client.clone(), &others) => {}
        }
    }
}

/// Resolves when the server has other resources than these.
async fn changed(client: &Client, others: &Others) {
    loop {
        tokio::time::sleep(DISCOVERY_EVERY).await;
        match feed::others(client, others).await {
            Ok(now) if now != *others => return,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "cannot ask what the server has"),
        }
    }
}

/// Runs every controller over these resources.
async fn follow(client: Client, others: &Others) {
    let mut snapshot = Snapshot::default();
    snapshot.expect(others.own.iter().cloned());
    snapshot.allow(others.lent.iter().cloned());
    let mut manager = Manager {
        feed: Feed::new(&client, others),
        client,
        snapshot,
        queue: Queue::default(),
        workers: JoinSet::new(),
    };
    loop {
        let due = manager.queue.next_due();
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(said) = manager.feed.next() => manager.listen(said),
            Some(work) = manager.workers.join_next() => match work {
                Ok(work) => manager.finish(work),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {} // aborted: only by our own end
            },
            () = sleep => manager.queue.wake(Instant::now()),
        }
        manager.decide().await;
    }
}

/// Asks what the server has, until it answers.
async fn discover(client: &Client) -> Others {
    let mut backoff = Backoff::new(DISCOVERY_WAIT_MAX);
    loop {
        match feed::others(client, &Others::default()).await {
            Ok(others) => return others,
            Err(error) => {
                let delay = backoff.next_delay();
                tracing::warn!(%error, retry_ms = delay.as_millis(), "cannot ask what the server has");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

struct Manager {
    client: Client,
    feed: Feed,
    snapshot: Snapshot,
    queue: Queue,
    workers: JoinSet<Work>,
}

/// What became of the writes of a key.
struct Work {
    key: Key,
    /// [`Snapshot::lists`] when it began.
    lists: u64,
    answers: Vec<Answer>,
    result: Result<(), (Write, Error)>,
}

impl Manager {
    /// Folds what a watch said, and what else the watches have ready.
    fn listen(&mut self, said: feed::Said) {
        self.fold(said);
        for _ in 0..BURST_MAX {
            match self.feed.next().now_or_never() {
                Some(Some(said)) => self.fold(said),
                Some(None) | None => return,
            }
        }
    }

    fn fold(&mut self, said: feed::Said) {
        for key in said.fold(&mut self.snapshot) {
            self.queue.push(key);
        }
    }

    /// Decides about what is queued, as far as there are workers for it.
    async fn decide(&mut self) {
        if self.workers.is_empty() {
            self.snapshot.quiesce();
        }
        if !self.snapshot.is_complete() {
            return;
        }
        while self.workers.len() < WORKERS_MAX
            && let Some(key) = self.queue.pop()
        {
            let writes = reconcile(&key, &self.snapshot);
            if writes.is_empty() {
                self.queue.succeeded(&key);
            } else {
                let lists = self.snapshot.lists();
                let mut work = Box::pin(write(self.client.clone(), key, lists, writes));
                // Begun here, in the queue's order: what a runtime does first with tasks is its own affair, and
                // traffic waits for EndpointSlices while nobody waits for Endpoints.
                match poll!(&mut work) {
                    Poll::Ready(done) => self.workers.spawn(ready(done)),
                    Poll::Pending => self.workers.spawn(work),
                };
            }
        }
    }

    /// What the server answered is known at once; the watch may say it again later.
    fn finish(&mut self, work: Work) {
        let current = work.lists == self.snapshot.lists();
        if !current {
            self.queue.push(work.key.clone());
        }
        for answer in work.answers.into_iter().filter(|_| current) {
            for key in answer.fold(&mut self.snapshot) {
                self.queue.push(key);
            }
        }
        match work.result {
            Ok(()) => self.queue.succeeded(&work.key),
            Err((write, error)) => {
                let delay = self.queue.failed(&work.key, Instant::now());
                report(&write, &error, delay);
            }
        }
    }
}

async fn write(client: Client, key: Key, lists: u64, writes: Vec<Write>) -> Work {
    let mut answers = Vec::new();
    for write in writes {
        tracing::debug!(%write, "writing");
        match perform(&client, &write).await {
            Ok(answer) => answers.extend(answer),
            Err(error) => {
                let result = Err((write, error));
                return Work {
                    key,
                    lists,
                    answers,
                    result,
                };
            }
        }
    }
    let result = Ok(());
    Work {
        key,
        lists,
        answers,
        result,
    }
}

/// That somebody else was faster is part of the trade; anything else is news.
fn report(write: &Write, error: &Error, delay: Duration) {
    let retry_ms = delay.as_millis();
    if error.is_expected() {
        tracing::debug!(%write, %error, retry_ms, "to be decided again");
    } else {
        tracing::warn!(%write, %error, retry_ms, "write failed");
    }
}
