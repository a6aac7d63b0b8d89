//! All watches as one stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use client::{Client, Event, Params};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use reconcile::{Key, Snapshot};
use view::objects::{EndpointSlice, Endpoints, Namespace, Node, Pod, Service};
use view::{Object, ServiceAccount};

/// What one of the watches said.
pub(crate) enum Said {
    Services(Event<Service>),
    Pods(Event<Pod>),
    Nodes(Event<Node>),
    Slices(Event<EndpointSlice>),
    Endpoints(Event<Endpoints>),
    Namespaces(Event<Namespace>),
    Accounts(Event<ServiceAccount>),
}

impl Said {
    /// Folds it, and returns the keys that it touches.
    pub(crate) fn fold(self, snapshot: &mut Snapshot) -> Vec<Key> {
        match self {
            Said::Services(event) => snapshot.fold_services(event),
            Said::Pods(event) => snapshot.fold_pods(event),
            Said::Nodes(event) => snapshot.fold_nodes(event),
            Said::Slices(event) => snapshot.fold_slices(event),
            Said::Endpoints(event) => snapshot.fold_endpoints(event),
            Said::Namespaces(event) => snapshot.fold_namespaces(event),
            Said::Accounts(event) => snapshot.fold_accounts(event),
        }
    }
}

/// Watches of everything that controllers look at; ends never.
pub(crate) struct Feed {
    watches: SelectAll<BoxStream<'static, Said>>,
}

impl Feed {
    pub(crate) fn new(client: &Client) -> Feed {
        let watches = stream::select_all([
            watch(client, Said::Namespaces),
            watch(client, Said::Nodes),
            watch(client, Said::Services),
            watch(client, Said::Pods),
            watch(client, Said::Slices),
            watch(client, Said::Endpoints),
            watch(client, Said::Accounts),
        ]);
        Feed { watches }
    }
}

impl Stream for Feed {
    type Item = Said;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        self.watches.poll_next_unpin(cx)
    }
}

fn watch<T: Object>(client: &Client, say: fn(Event<T>) -> Said) -> BoxStream<'static, Said> {
    client.watch::<T>(Params::default()).map(say).boxed()
}
