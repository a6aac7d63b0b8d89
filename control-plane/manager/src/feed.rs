//! All watches as one stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use client::{Client, Event, ListParams, Params, Path, Resource};
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{Stream, StreamExt};
use reconcile::{Bare, Key, Origin, Protected, Snapshot, Stored};
use serde::de::DeserializeOwned;
use serde_json::Value;
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
    pub(crate) fn new(client: &Client, others: &Others) -> Feed {
        let mut watches = stream::select_all([
            watch(client, Said::Namespaces),
            watch(client, Said::Nodes),
            watch(client, Said::Services),
            watch(client, Said::Pods),
            watch(client, Said::Slices),
            watch(client, Said::Endpoints),
            watch(client, Said::Accounts),
        ]);
        for origin in others.all() {
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
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Others {
    /// Those of the server itself.
    pub(crate) own: Vec<Origin>,
    /// Those that other API servers answer for. Nobody waits for them: they may be away, or never say.
    pub(crate) lent: Vec<Origin>,
}

impl Others {
    fn all(&self) -> impl Iterator<Item = &Origin> {
        self.own.iter().chain(&self.lent)
    }
}

/// What there is now. Of what cannot be asked about just now it is what was `known`.
pub(crate) async fn others(client: &Client, known: &Others) -> Result<Others, client::Error> {
    let watched = [
        Resource::of::<Service>(),
        Resource::of::<Pod>(),
        Resource::of::<Node>(),
        Resource::of::<EndpointSlice>(),
        Resource::of::<Endpoints>(),
        Resource::of::<Namespace>(),
        Resource::of::<ServiceAccount>(),
    ];
    let elsewhere = elsewhere(client).await?;
    let mut resources = client
        .resources(&["list", "watch", "delete", "patch"])
        .await?;
    resources
        .found
        .retain(|resource| !watched.contains(resource) && resource.plural != "events");
    let origins = resources.found.into_iter().map(|resource| Origin {
        group: resource.group.into(),
        version: resource.version.into(),
        plural: resource.plural.into(),
        namespaced: resource.namespaced,
    });
    let missing = |origin: &&Origin| resources.missing.contains(&version_of(origin));
    let known = known.all().filter(missing).cloned();
    let (mut lent, mut own): (Vec<Origin>, Vec<Origin>) = origins
        .chain(known)
        .partition(|origin| elsewhere.contains(&version_of(origin)));
    own.sort();
    lent.sort();
    Ok(Others { own, lent })
}

fn version_of(origin: &Origin) -> String {
    match &*origin.group {
        "" => origin.version.to_string(),
        group => format!("{group}/{}", origin.version),
    }
}

/// The versions of groups that other API servers answer for.
async fn elsewhere(client: &Client) -> Result<Vec<String>, client::Error> {
    let services = Path::raw("/apis/apiregistration.k8s.io/v1/apiservices");
    let page = client
        .list::<Value>(&services, &ListParams::default())
        .await?;
    let elsewhere = page.items.into_iter().filter_map(|service| {
        let spec = &service["spec"];
        let (group, version) = (spec["group"].as_str()?, spec["version"].as_str()?);
        spec["service"]
            .is_object()
            .then(|| format!("{group}/{version}"))
    });
    Ok(elsewhere.collect())
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
