//! What watches say, in one stream.

use client::{Client, Params};
use futures_util::{Stream, StreamExt, stream};
use view::{Event, PodRanges, Services, objects};

use crate::Settings;

/// What a watch said.
pub(crate) enum Input {
    Service(Event<objects::Service>),
    Slice(Event<objects::EndpointSlice>),
    Node(Event<objects::Node>),
    Pod(Event<objects::Pod>),
}

impl Input {
    /// Says whether the Nodes' addresses may be others now.
    pub(crate) fn fold(self, services: &mut Services, nodes: &mut PodRanges) -> bool {
        let mut moved = false;
        match self {
            Input::Service(event) => services.service(event),
            Input::Slice(event) => services.slice(event),
            Input::Node(event) => {
                moved = nodes.node(event.clone());
                services.node(event);
            }
            Input::Pod(event) => services.pod(event),
        }
        moved
    }
}

/// Follows Services, EndpointSlices and Nodes; with [`Settings::host_ports`] the Pods of this node as well.
pub(crate) fn inputs(client: &Client, settings: &Settings) -> impl Stream<Item = Input> + use<> {
    let services = client.watch(Params::default()).map(Input::Service);
    let slices = client.watch(Params::default()).map(Input::Slice);
    let nodes = client.watch(Params::default()).map(Input::Node);
    let here = Params {
        field_selector: format!("spec.nodeName={}", settings.node_name),
        ..Params::default()
    };
    let pods = settings
        .host_ports
        .then(|| client.watch(here).map(Input::Pod));
    let pods = stream::iter(pods).flatten();
    stream::select(
        stream::select(services, slices),
        stream::select(nodes, pods),
    )
}
