//! All watches as one stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use client::{Client, Event, Params, Resource};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use reconcile::{Bare, Key, Origin, Protected, Snapshot, Stored};
use serde::de::DeserializeOwned;
use view::objects::{EndpointSlice, Endpoints, Namespace, Node, Pod, Service};
use view::{Object, ServiceAccount};

use crate::perform::resource_at;

/// What one of the watches said.
pub(crate) enum Said {
    Services(Event<Service>),
    Pods(Event<Pod>),
    Nodes(Event<Node>),
    Slices(Event<EndpointSlice>),
    Endpoints(Event<Endpoints>),
    Namespaces(Event<Namespace>),
    Accounts(Event<ServiceAccount>),
    Others(Origin, Event<Bare>),
    Stored(Origin, Event<Stored>),
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
            Said::Others(origin, event) => snapshot.fold_others(&origin, event),
            Said::Stored(origin, event) => snapshot.fold_stored(&origin, event),
        }
    }
}

/// Watches of everything that controllers look at; ends never.
pub(crate) struct Feed {
    watches: SelectAll<BoxStream<'static, Said>>,
}

impl Feed {
    /// Watches what controllers look at, and `others` for the sake of ownership, and of protection where their
    /// objects are protected.
    pub(crate) fn new(client: &Client, others: &[Origin]) -> Feed {
        let mut watches = stream::select_all([
            watch(client, Said::Namespaces),
            watch(client, Said::Nodes),
            watch(client, Said::Services),
            watch(client, Said::Pods),
            watch(client, Said::Slices),
            watch(client, Said::Endpoints),
            watch(client, Said::Accounts),
        ]);
        for origin in others {
            watches.push(match Protected::at(origin) {
                Some(_) => watch_at(client, origin, Said::Stored),
                None => watch_at(client, origin, Said::Others),
            });
        }
        Feed { watches }
    }
}

/// The resources beside those of [`Said`] whose objects may own or be owned. Events come and go too fast to be worth
/// it, as upstream has it too.
pub(crate) async fn others(client: &Client) -> Result<Vec<Origin>, client::Error> {
    let watched = [
        Resource::of::<Service>(),
        Resource::of::<Pod>(),
        Resource::of::<Node>(),
        Resource::of::<EndpointSlice>(),
        Resource::of::<Endpoints>(),
        Resource::of::<Namespace>(),
        Resource::of::<ServiceAccount>(),
    ];
    let mut resources = client
        .resources(&["list", "watch", "delete", "patch"])
        .await?;
    resources.retain(|resource| !watched.contains(resource) && resource.plural != "events");
    let origins = resources.into_iter().map(|resource| Origin {
        group: resource.group.into(),
        version: resource.version.into(),
        plural: resource.plural.into(),
        namespaced: resource.namespaced,
    });
    Ok(origins.collect())
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

fn watch_at<T: DeserializeOwned + Send + 'static>(
    client: &Client,
    origin: &Origin,
    say: fn(Origin, Event<T>) -> Said,
) -> BoxStream<'static, Said> {
    let watch = client.watch_resource::<T>(&resource_at(origin), Params::default());
    let origin = origin.clone();
    watch.map(move |event| say(origin.clone(), event)).boxed()
}
