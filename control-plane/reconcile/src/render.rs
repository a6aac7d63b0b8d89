//! Slices and Endpoints as the JSON that is sent.

use serde_json::{Map, Value, json};
use view::objects::{
    Endpoint, EndpointAddress, EndpointHint, EndpointPort, EndpointSubset, ObjectMeta,
    ObjectReference,
};

use crate::fill::{Content, Owner};

/// Annotation: when what the object follows last changed; from it one measures how long programming takes.
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A new slice, or the next version of the one that `meta` is of.
pub(crate) fn slice_object(
    meta: Option<&ObjectMeta>,
    content: &Content,
    owner: &Owner<'_>,
) -> Value {
    let mut annotations = owner.annotations.clone();
    if let Some(changed_at) = owner.changed_at {
        annotations.insert(LAST_CHANGE.to_owned(), changed_at.to_owned());
    }
    let mut metadata = json!({
        "namespace": &*owner.name.namespace,
        "labels": owner.labels,
        "ownerReferences": [{
            "apiVersion": "v1",
            "kind": owner.kind,
            "name": &*owner.name.name,
            "uid": owner.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    });
    if !annotations.is_empty() {
        metadata["annotations"] = json!(annotations);
    }
    match meta {
        Some(meta) => identify(&mut metadata, meta),
        None => metadata["generateName"] = json!(format!("{}-", owner.name.name)),
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": content.address_type,
        "endpoints": content.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": content.ports.iter().map(|port| self::port(port, true)).collect::<Vec<_>>(),
    })
}

/// What makes a replacement the next version of an object.
pub(crate) fn identify(metadata: &mut Value, meta: &ObjectMeta) {
    metadata["name"] = json!(meta.name);
    metadata["uid"] = json!(meta.uid);
    metadata["resourceVersion"] = json!(meta.resource_version);
    if !meta.finalizers.is_empty() {
        metadata["finalizers"] = json!(meta.finalizers);
    }
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let mut conditions = Map::new();
    for (name, condition) in [
        ("ready", endpoint.conditions.ready),
        ("serving", endpoint.conditions.serving),
        ("terminating", endpoint.conditions.terminating),
    ] {
        if let Some(condition) = condition {
            conditions.insert(name.to_owned(), json!(condition));
        }
    }
    let mut object = json!({"addresses": endpoint.addresses, "conditions": conditions});
    put(&mut object, "hostname", endpoint.hostname.as_deref());
    put(&mut object, "nodeName", endpoint.node_name.as_deref());
    put(&mut object, "zone", endpoint.zone.as_deref());
    let named = |hints: &[EndpointHint]| -> Value {
        hints
            .iter()
            .map(|hint| json!({"name": hint.name}))
            .collect()
    };
    for (name, hints) in [
        ("forZones", &endpoint.hints.for_zones),
        ("forNodes", &endpoint.hints.for_nodes),
    ] {
        if !hints.is_empty() {
            object["hints"][name] = named(hints);
        }
    }
    if let Some(target) = &endpoint.target_ref {
        object["targetRef"] = reference(target);
    }
    object
}

/// In a slice an empty name is written, in Endpoints it is left out.
fn port(port: &EndpointPort, name_always: bool) -> Value {
    let mut object = json!({});
    if name_always || !port.name.is_empty() {
        object["name"] = json!(port.name);
    }
    if let Some(number) = port.port {
        object["port"] = json!(number);
    }
    put(
        &mut object,
        "protocol",
        Some(port.protocol.as_str()).filter(|text| !text.is_empty()),
    );
    put(&mut object, "appProtocol", port.app_protocol.as_deref());
    object
}

/// `subsets` of Endpoints.
pub(crate) fn subsets(subsets: &[EndpointSubset]) -> Value {
    let subsets = subsets.iter().map(|subset| {
        let mut object = json!({});
        for (name, addresses) in [
            ("addresses", &subset.addresses),
            ("notReadyAddresses", &subset.not_ready_addresses),
        ] {
            if !addresses.is_empty() {
                object[name] = addresses.iter().map(address).collect();
            }
        }
        if !subset.ports.is_empty() {
            object["ports"] = subset
                .ports
                .iter()
                .map(|port| self::port(port, false))
                .collect();
        }
        object
    });
    subsets.collect()
}

fn address(address: &EndpointAddress) -> Value {
    let mut object = json!({"ip": address.ip});
    put(&mut object, "hostname", address.hostname.as_deref());
    put(&mut object, "nodeName", address.node_name.as_deref());
    if let Some(target) = &address.target_ref {
        object["targetRef"] = reference(target);
    }
    object
}

fn reference(target: &ObjectReference) -> Value {
    let mut object = json!({});
    for (name, text) in [
        ("kind", &target.kind),
        ("namespace", &target.namespace),
        ("name", &target.name),
        ("uid", &target.uid),
    ] {
        put(
            &mut object,
            name,
            Some(text.as_str()).filter(|text| !text.is_empty()),
        );
    }
    object
}

fn put(object: &mut Value, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        object[name] = json!(text);
    }
}
