//! Forms of answers: protobuf in and out, gzip, and the subresource `scale`.

mod support;

use std::io::Read as _;

use axum::body::Body;
use futures_util::StreamExt as _;
use http::Request;
use serde_json::{Value, json};
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "c", "image": "x"}]},
            },
        },
    })
}

#[tokio::test]
async fn what_was_sent_as_protobuf_comes_back_as_protobuf() {
    let server = Server::new().await;
    let body = api::protobuf::encode(&deployment()).unwrap();
    let headers = [("content-type", PROTOBUF), ("accept", PROTOBUF)];
    let made = server.send("POST", DEPLOYMENTS, &headers, body).await;
    assert_eq!((made.code, made.header("content-type")), (201, PROTOBUF));
    let made = api::protobuf::decode(&made.body).unwrap();
    assert_eq!(made["spec"]["replicas"], 1);
    assert_eq!(made["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");

    let path = format!("{DEPLOYMENTS}/d");
    let json = server.get(&path).await.ok();
    let read = server.get_as(&path, PROTOBUF).await;
    let read = api::protobuf::decode(&read.body).unwrap();
    // What holds nothing and is no pointer has no form of its own.
    let mut without = json.clone();
    without.as_object_mut().unwrap().remove("status");
    let container = &mut without["spec"]["template"]["spec"]["containers"][0];
    container.as_object_mut().unwrap().remove("resources");
    assert_eq!(read, without);

    let list = server.get_as(DEPLOYMENTS, PROTOBUF).await;
    let list = api::protobuf::decode(&list.body).unwrap();
    assert_eq!(list["kind"], "DeploymentList");
    assert_eq!(list["items"][0]["spec"], read["spec"]);
    let metadata = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let list = server.get_as(DEPLOYMENTS, &metadata).await;
    let list = api::protobuf::decode(&list.body).unwrap();
    assert_eq!(list["items"][0]["metadata"]["name"], "d");
    assert!(list["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn refusals_are_in_what_the_client_accepts() {
    let server = Server::new().await;
    let wanted = |status: &Value| {
        assert_eq!(
            (&status["kind"], &status["status"]),
            (&json!("Status"), &json!("Failure"))
        );
        assert_eq!(
            (&status["reason"], &status["code"]),
            (&json!("NotFound"), &json!(404))
        );
        assert_eq!(status["details"]["name"], "none");
    };
    let path = "/api/v1/namespaces/default/configmaps/none";
    let ask = async |accept: &str| server.send("GET", path, &[("accept", accept)], "").await;
    for (accept, kind) in [
        (PROTOBUF, PROTOBUF),
        (
            "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
            "application/json",
        ),
        (
            "application/json;as=Table;g=meta.k8s.io;v=v1",
            "application/json",
        ),
        ("application/yaml", "application/yaml"),
        ("text/html", "application/json"),
    ] {
        let refused = ask(accept).await;
        assert_eq!(refused.header("content-type"), kind, "{accept}");
        match kind {
            PROTOBUF => wanted(&api::protobuf::decode(&refused.body).unwrap()),
            "application/yaml" => {
                assert!(String::from_utf8_lossy(&refused.body).contains("kind: Status\n"))
            }
            _ if accept == "text/html" => assert_eq!(refused.json()["code"], 406),
            _ => wanted(&refused.json()),
        }
    }
    let invalid = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "A"}});
    let body = api::protobuf::encode(&invalid).unwrap();
    let headers = [("content-type", PROTOBUF), ("accept", PROTOBUF)];
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = server.send("POST", maps, &headers, body).await;
    let status = api::protobuf::decode(&refused.body).unwrap();
    assert_eq!((refused.code, &status["reason"]), (422, &json!("Invalid")));
    assert_eq!(status["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn a_watch_in_protobuf_is_frames() {
    let server = Server::new().await;
    server.post(MAPS, &map("a")).await.ok();
    let request = Request::builder()
        .uri(format!(
            "{MAPS}?watch=1&fieldSelector=metadata.name=a&timeoutSeconds=5"
        ))
        .header("accept", format!("{PROTOBUF};stream=watch"))
        .header(
            "authorization",
            format!("Bearer {}", server.app.admin_token()),
        );
    let response = server.raw(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        response.headers()["content-type"],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    let mut frames = response.into_body().into_data_stream();
    let frame = frames.next().await.unwrap().unwrap();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(len, frame.len() - 4);
    assert_eq!(&frame[4..11], b"\x0a\x05ADDED");
    let at = frame.windows(4).position(|w| w == b"k8s\0").unwrap();
    let object = api::protobuf::decode(&frame[at..]).unwrap();
    assert_eq!(object["metadata"]["name"], "a");
    assert_eq!(object["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn large_lists_are_packed() {
    let server = Server::new().await;
    let mut large = map("large");
    large["data"]["k"] = "x".repeat(200_000).into();
    server.post(MAPS, &large).await.ok();
    let plain = server.get(MAPS).await;
    let headers = [("accept-encoding", "gzip"), ("accept", "application/json")];
    let packed = server.send("GET", MAPS, &headers, Body::empty()).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 20_000);
    let mut read = Vec::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_end(&mut read)
        .unwrap();
    assert_eq!(read, plain.body);
}

#[tokio::test]
async fn replicas_are_set_through_scale() {
    let server = Server::new().await;
    let made = server.post(DEPLOYMENTS, &deployment()).await.ok();
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["apiVersion"], "autoscaling/v1");
    assert_eq!(scale["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(scale["spec"], json!({"replicas": 1}));
    assert_eq!(scale["status"], json!({"replicas": 0, "selector": "a=b"}));

    scale["spec"]["replicas"] = 3.into();
    let put = server.put(&path, &scale).await.ok();
    assert_eq!(put["spec"]["replicas"], 3);
    let now = server.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!(now["spec"]["replicas"], 3);
    assert_eq!(now["metadata"]["generation"], 2);
    // The version that it was read at is gone.
    assert!(
        server
            .put(&path, &scale)
            .await
            .refused(409)
            .starts_with("Operation cannot be fulfilled on")
    );

    let merge = [("content-type", "application/merge-patch+json")];
    let patched = server
        .send("PATCH", &path, &merge, r#"{"spec":{"replicas":0}}"#)
        .await
        .ok();
    assert_eq!(patched["spec"], json!({}));
    let wrong = server
        .send("PATCH", &path, &merge, r#"{"spec":{"replicas":-1}}"#)
        .await
        .refused(422);
    assert_eq!(
        wrong,
        "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    server
        .get(&format!("{DEPLOYMENTS}/none/scale"))
        .await
        .refused(404);
}
