//! What every cluster begins with: its namespaces, and the Service `kubernetes` through which Pods reach the server.

use api::meta;
use http::{Method, Request};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::masters::Address;
use crate::{Error, State, object, router};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

/// Made at the first start.
pub(crate) const NAMESPACES: [&str; 4] =
    ["kube-system", "default", "kube-public", "kube-node-lease"];

/// Where the Service `kubernetes` and its endpoints stand in the store.
pub(crate) const KEYS: [&str; 3] = [
    "/registry/services/specs/default/kubernetes",
    "/registry/services/endpoints/default/kubernetes",
    "/registry/endpointslices/default/kubernetes",
];

/// Makes what is missing. The Service takes the first address of the first range.
pub(crate) async fn namespaces_and_service(state: &Arc<State>) -> Result<(), Error> {
    for name in NAMESPACES {
        let key = state.namespaces.key("", name);
        if !exists(state, &key).await? {
            let namespace =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let made = send(state, Method::POST, "/api/v1/namespaces", &namespace).await;
            unless_there(state, &key, made).await?;
        }
    }
    let services = "/api/v1/namespaces/default/services";
    if !exists(state, KEYS[0]).await? {
        let address = state.allocator.api_address().to_string();
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "type": "ClusterIP", "sessionAffinity": "None",
                "clusterIP": address, "clusterIPs": [address],
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": target_port(state)}],
            },
        });
        let made = send(state, Method::POST, services, &service).await;
        unless_there(state, KEYS[0], made).await?;
    }
    Ok(())
}

/// Points the Service `kubernetes` at the servers. An EndpointSlice has one port for all: should they differ, it has
/// those that share the port of the first.
pub(crate) async fn endpoints(
    state: &Arc<State>,
    addresses: &BTreeSet<Address>,
) -> Result<(), Error> {
    let Some((address, port)) = addresses.first().copied() else {
        return Ok(());
    };
    if address.is_loopback() {
        // An endpoint may not be a loopback address: nobody else would reach it.
        tracing::warn!(
            %address,
            "Pods can't reach the API server: it is advertised at a loopback address; give --advertise-address or --bind-address"
        );
        return Ok(());
    }
    let mut ports: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for (address, port) in addresses {
        ports.entry(*port).or_default().push(address.to_string());
    }
    let same = addresses
        .iter()
        .filter(|(other, at)| *at == port && other.is_ipv4() == address.is_ipv4());
    let same: Vec<Value> = same
        .map(|(ip, _)| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}}))
        .collect();
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": ports.into_iter().map(|(port, addresses)| json!({
            "addresses": addresses.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>(),
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        })).collect::<Vec<_>>(),
    });
    put(state, "/api/v1/namespaces/default/endpoints", &endpoints).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if matches!(address, IpAddr::V4(_)) { "IPv4" } else { "IPv6" },
        "endpoints": same,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    put(
        state,
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
        &slice,
    )
    .await?;
    let service = state
        .storage
        .get(KEYS[0])
        .await
        .map_err(|source| Error::Storage {
            doing: "reading a Service",
            source,
        })?;
    if let (Some(entry), Some(row)) = (service, api::table::find("", "v1", "services")) {
        let mut service = object::decode(row, &entry);
        if service["spec"]["ports"][0]["targetPort"] != port {
            service["spec"]["ports"][0]["targetPort"] = port.into();
            put(state, "/api/v1/namespaces/default/services", &service).await?;
        }
    }
    Ok(())
}

fn target_port(state: &State) -> u16 {
    match state.config.port {
        0 => 443,
        port => port,
    }
}

/// What was refused because another server on the same store made it in the same moment is made.
async fn unless_there(state: &State, key: &str, made: Result<(), Error>) -> Result<(), Error> {
    match made {
        Err(_) if exists(state, key).await? => Ok(()),
        made => made,
    }
}

async fn exists(state: &State, key: &str) -> Result<bool, Error> {
    let found = state.storage.get(key).await;
    Ok(found
        .map_err(|source| Error::Storage {
            doing: "reading what the cluster begins with",
            source,
        })?
        .is_some())
}

/// Makes the object, or puts it in the place of the one that is there. An object that a PUT makes would have to say
/// so in the table; these kinds need not.
async fn put(state: &Arc<State>, collection: &str, object: &Value) -> Result<(), Error> {
    let path = format!("{collection}/{}", meta::name(object));
    match send(state, Method::PUT, &path, object).await {
        Err(Error::Bootstrap { .. }) => send(state, Method::POST, collection, object).await,
        done => done,
    }
}

/// Through the front door, so that the same rules hold.
pub(crate) async fn send(
    state: &Arc<State>,
    method: Method,
    path: &str,
    object: &Value,
) -> Result<(), Error> {
    let fail = |why: String| Error::Bootstrap {
        what: format!("{method} {path}"),
        why,
    };
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header("authorization", format!("Bearer {}", state.tokens.admin()))
        .header("content-type", "application/json")
        .extension(crate::handlers::Own)
        .body(axum::body::Body::from(object.to_string()))
        .map_err(|error| fail(error.to_string()))?;
    let response = match router::router(state.clone()).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if response.status().is_success() {
        return Ok(());
    }
    let body = axum::body::to_bytes(response.into_body(), 1 << 16)
        .await
        .unwrap_or_default();
    let refusal: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(fail(api::value::text(&refusal, &["message"]).to_owned()))
}
