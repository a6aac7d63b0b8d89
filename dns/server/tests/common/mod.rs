//! A cluster whose API server is a function of the test's process.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use client::Client;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

/// Where objects of a kind are listed.
const LISTS: [(&str, &str); 4] = [
    ("Service", "/api/v1/services"),
    ("Namespace", "/api/v1/namespaces"),
    ("Pod", "/api/v1/pods"),
    ("EndpointSlice", "/apis/discovery.k8s.io/v1/endpointslices"),
];

/// Lists the objects of a YAML stream; its watches never say anything.
pub(crate) fn api(yaml: &str) -> Client {
    let objects: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("objects");
    let mut lists: HashMap<&str, Vec<Value>> = HashMap::new();
    for object in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let found = LISTS.iter().find(|(of, _)| *of == kind);
        let (_, path) = found.unwrap_or_else(|| panic!("no list of {kind}"));
        lists.entry(path).or_default().push(object);
    }
    let lists = Arc::new(lists);
    let service = tower::service_fn(move |request: http::Request<Full<Bytes>>| {
        let lists = Arc::clone(&lists);
        async move {
            let watch = request.uri().query().unwrap_or_default();
            let body = if watch.contains("watch=true") {
                let silence = futures_util::stream::pending::<
                    Result<http_body::Frame<Bytes>, std::convert::Infallible>,
                >();
                http_body_util::StreamBody::new(silence).boxed_unsync()
            } else {
                let items = lists.get(request.uri().path()).cloned().unwrap_or_default();
                let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
                Full::new(Bytes::from(list.to_string())).boxed_unsync()
            };
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        }
    });
    Client::in_process(service, "")
}
