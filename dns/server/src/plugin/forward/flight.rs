//! Equal questions at the same time travel as one: a burst of clients with one name costs one question upstream.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::future::Shared;
use hickory_proto::op::Message;
use hickory_proto::op::OpCode;

use super::upstream::How;
use crate::message::Failure;
use crate::names;

/// An answer, and the upstream that gave it.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) message: Message,
    pub(super) upstream: Arc<str>,
}

pub(super) type Answer = Result<Told, Failure>;
type Flight = Shared<BoxFuture<'static, Answer>>;

/// What makes two questions equal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: Vec<u8>,
    kind: u16,
    class: u16,
    /// RD, CD, AD, EDNS and DO.
    flags: [bool; 5],
    payload: u16,
    how: How,
}

/// The key of a query, if it is one that may travel with others: its answer depends on the question and flags alone.
pub(super) fn key(query: &Message, how: How) -> Option<Key> {
    let [question] = query.queries.as_slice() else {
        return None;
    };
    let options = query
        .edns
        .as_ref()
        .is_some_and(|edns| !edns.options().as_ref().is_empty());
    if options || query.metadata.op_code != OpCode::Query {
        return None;
    }
    Some(Key {
        name: names::wire(question.name()),
        kind: question.query_type().into(),
        class: question.query_class().into(),
        flags: [
            query.metadata.recursion_desired,
            query.metadata.checking_disabled,
            query.metadata.authentic_data,
            query.edns.is_some(),
            query
                .edns
                .as_ref()
                .is_some_and(|edns| edns.flags().dnssec_ok),
        ],
        payload: query.max_payload(),
        how,
    })
}

/// The questions on their way.
#[derive(Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Key, Flight>>>);

impl Flights {
    /// The answer of the flight with this key, begun if there is none, and if `begin` lets it.
    pub(super) async fn join<F>(
        &self,
        key: Key,
        begin: impl FnOnce() -> Result<F, Failure>,
    ) -> Answer
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let flight = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let table = Arc::clone(&self.0);
                    let asked = begin()?;
                    let landed = key.clone();
                    // A task of its own: the flight goes on when the client that began it gives up.
                    let task = tokio::spawn(async move {
                        // Taken out also when the exchange panics.
                        let _remove = Remove(table, landed);
                        asked.await
                    });
                    let flight = task
                        .map(|joined| {
                            joined.unwrap_or_else(|error| {
                                Err(Failure::new("forward", error.to_string()))
                            })
                        })
                        .boxed()
                        .shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }
}

struct Remove(Arc<Mutex<HashMap<Key, Flight>>>, Key);

impl Drop for Remove {
    fn drop(&mut self) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.1);
    }
}
