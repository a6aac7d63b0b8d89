//! `[sig-api-machinery] AggregatedDiscovery`, `Discovery` and `server version`.

use serde_json::{Value, json};

use super::{define, definition};
use crate::support::Server;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn open() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// `group/version/resource` of everything in an aggregated document.
fn resources(document: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for group in document["items"].as_array().unwrap() {
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                all.push(format!(
                    "{}/{}/{}",
                    group["metadata"]["name"].as_str().unwrap_or(""),
                    version["version"].as_str().unwrap(),
                    resource["resource"].as_str().unwrap()
                ));
            }
        }
    }
    all
}

/// [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface [Conformance]
/// [sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers [Conformance]
#[tokio::test]
async fn aggregated() {
    let server = Server::new().await;
    let mut all = Vec::new();
    for path in ["/api", "/apis"] {
        let reply = server.get_as(path, AGGREGATED).await;
        assert!(
            reply
                .header("content-type")
                .contains("g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
        );
        let document = reply.ok();
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        assert_eq!(document["apiVersion"], "apidiscovery.k8s.io/v2");
        all.extend(resources(&document));
    }
    for expected in [
        "/v1/namespaces",
        "/v1/pods",
        "/v1/services",
        "/v1/serviceaccounts",
        "apps/v1/deployments",
        "apiextensions.k8s.io/v1/customresourcedefinitions",
        "authentication.k8s.io/v1/tokenreviews",
        "authorization.k8s.io/v1/subjectaccessreviews",
        "batch/v1/jobs",
        "policy/v1/poddisruptionbudgets",
    ] {
        assert!(all.iter().any(|found| found == expected), "{expected}");
    }
    for accept in ["application/json", "application/json;as=Nope", "*/*"] {
        let plain = server.get_as("/apis", accept).await;
        if plain.code == 200 {
            assert_eq!(plain.json()["kind"], "APIGroupList", "{accept}");
        }
    }
}

/// [sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface for CRDs [Conformance]
/// [sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery request for CRDs [Conformance]
#[tokio::test]
async fn aggregated_definitions() {
    let server = Server::new().await;
    define(&server, &definition("e2e.example.com", open())).await;
    let document = server.get_as("/apis", AGGREGATED).await.ok();
    assert!(resources(&document).contains(&"e2e.example.com/v1/foos".to_owned()));
    let group = document["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["metadata"]["name"] == "e2e.example.com")
        .unwrap();
    let resource = &group["versions"][0]["resources"][0];
    assert_eq!(
        resource["responseKind"],
        json!({"group": "e2e.example.com", "version": "v1", "kind": "Foo"})
    );
    assert_eq!(
        (&resource["scope"], &resource["singularResource"]),
        (&json!("Namespaced"), &json!("foo"))
    );
}

/// [sig-api-machinery] CustomResourceDefinition resources [Privileged:ClusterAdmin] should include custom resource definition resources in discovery documents [Conformance]
#[tokio::test]
async fn definitions_are_found() {
    let server = Server::new().await;
    let groups = server.get("/apis").await.ok();
    let group = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|group| group["name"] == "apiextensions.k8s.io")
        .unwrap();
    assert!(
        group["versions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|version| version["groupVersion"] == "apiextensions.k8s.io/v1")
    );
    let found = server.get("/apis/apiextensions.k8s.io").await.ok();
    assert_eq!(found["preferredVersion"]["version"], "v1");
    let list = server.get("/apis/apiextensions.k8s.io/v1").await.ok();
    assert!(
        list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .any(|resource| resource["name"] == "customresourcedefinitions")
    );
}

/// [sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup [Conformance]
/// [sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]
#[tokio::test]
async fn every_group() {
    let server = Server::new().await;
    let groups = server.get("/apis").await.ok();
    for group in groups["groups"].as_array().unwrap() {
        let name = group["name"].as_str().unwrap();
        let preferred = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let versions: Vec<&str> = group["versions"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|version| version["groupVersion"].as_str())
            .collect();
        assert!(versions.contains(&preferred), "{name}");
        let own = server.get(&format!("/apis/{name}")).await.ok();
        assert_eq!(own["preferredVersion"], group["preferredVersion"]);
        for version in versions {
            let list = server.get(&format!("/apis/{version}")).await.ok();
            assert_eq!(list["kind"], "APIResourceList");
            assert_eq!(list["groupVersion"], version);
            assert!(
                !list["resources"].as_array().unwrap().is_empty(),
                "{version}"
            );
        }
    }
}

/// [sig-api-machinery] server version should find the server version [Conformance]
/// [sig-cli] Kubectl client Kubectl version should check is all data is printed [Conformance]
#[tokio::test]
async fn version() {
    let server = Server::new().await;
    let version = server.get("/version").await.ok();
    assert_eq!(version["major"], "1");
    let minor = version["minor"].as_str().unwrap();
    assert!(
        minor.trim_end_matches('+').parse::<u32>().is_ok(),
        "{minor}"
    );
    for key in [
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ] {
        assert!(version[key].is_string(), "{key}");
    }
}

/// [sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]
/// [sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info [Conformance]
#[tokio::test]
async fn what_kubectl_asks_for() {
    let server = Server::new().await;
    assert_eq!(server.get("/api").await.ok()["versions"], json!(["v1"]));
    let path = "/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue";
    assert_eq!(server.get(path).await.ok()["kind"], "ServiceList");
}
