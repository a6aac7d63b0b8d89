//! How fast a cold list of 50,000 Services and 50,000 EndpointSlices becomes views, and what it leaves in memory.
//!
//! Expected: decoding is bound by serde_json at some hundred MB/s, so about a second for 150 MB; resident memory is
//! that of the views, as pages are let go one by one.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use client::{Client, Event, Params, RequestBody};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};
use view::Object;
use view::objects::{EndpointSlice, Service};

const OBJECTS: usize = 50_000;
const PAGE: usize = 500;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(list::<Service>("services", &service));
    runtime.block_on(list::<EndpointSlice>("endpointslices", &slice));
}

async fn list<T: Object>(plural: &str, object: &dyn Fn(usize) -> Value) {
    let mut pages = HashMap::new();
    let mut bytes = 0;
    for start in (0..OBJECTS).step_by(PAGE) {
        let items: Vec<Value> = (start..start + PAGE).map(object).collect();
        let next = match start + PAGE < OBJECTS {
            true => (start + PAGE).to_string(),
            false => String::new(),
        };
        let page = json!({"metadata": {"resourceVersion": "7", "continue": next}, "items": items});
        let page = Bytes::from(page.to_string());
        bytes += page.len();
        pages.insert(start.to_string(), page);
    }
    let pages = Arc::new(pages);
    let client = Client::in_process(
        tower::service_fn(move |request: Request<RequestBody>| {
            let query = request.uri().query().unwrap_or_default();
            let start = query
                .split_once("continue=")
                .map_or("0", |(_, start)| start);
            let page = pages.get(start).cloned().unwrap_or_default();
            async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(page))) }
        }),
        "",
    );
    let before = resident();
    let began = Instant::now();
    let mut watch = client.watch::<T>(Params::default());
    let mut views = Vec::with_capacity(OBJECTS);
    while let Some(event) = watch.next().await {
        match event {
            Event::Applied(view) => views.push(view),
            Event::Synced => break,
            Event::Restarted | Event::Deleted { .. } => {}
        }
    }
    let took = began.elapsed();
    println!(
        "{} {plural}, {} MB of JSON: {} ms, {} MB/s, {} MB more resident",
        views.len(),
        bytes >> 20,
        took.as_millis(),
        (bytes as f64 / took.as_secs_f64() / 1e6).round(),
        (resident().saturating_sub(before)) >> 20,
    );
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or_default() * 4096
}

fn meta(number: usize, prefix: &str) -> Value {
    json!({
        "name": format!("{prefix}{number}"),
        "namespace": "default",
        "uid": format!("6f5902ac-237e-4d5b-9d2e-{number:012}"),
        "resourceVersion": (1000 + number).to_string(),
        "creationTimestamp": "2026-11-21T09:22:59Z",
        "labels": {"app": format!("app-{number}"), "kubernetes.io/service-name": format!("svc-{number}")},
        "managedFields": [{
            "apiVersion": "v1", "fieldsType": "FieldsV1", "manager": "kubectl", "operation": "Update",
            "fieldsV1": {"f:spec": {"f:ports": {".": {}, "k:{\"port\":80}": {".": {}, "f:port": {}}}}},
        }],
    })
}

fn service(number: usize) -> Value {
    let ip = format!(
        "10.{}.{}.{}",
        96 + number / 65536,
        number / 256 % 256,
        number % 256
    );
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(number, "svc-"),
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": format!("app-{number}")},
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(number: usize) -> Value {
    let endpoint = |index: usize| {
        json!({
            "addresses": [format!("10.{}.{}.{}", index, number / 256 % 256, number % 256)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{index}"),
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("pod-{number}-{index}"), "uid": "u"},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta(number, "slice-"),
        "addressType": "IPv4", "endpoints": (0..5).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}
