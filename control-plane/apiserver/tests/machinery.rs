//! What clients see of the machinery whatever they ask for: headers of answers, old paths, bodies in YAML.

mod support;

use serde_json::{Value, json};
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn answers_say_how_they_were_classed() {
    let server = Server::new().await;
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let uid = async |path: &str| {
        let object = server.get(&format!("{group}/{path}")).await.ok();
        object["metadata"]["uid"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let level = uid("prioritylevelconfigurations/exempt").await;
    let schema = uid("flowschemas/exempt").await;
    let reply = server.get(MAPS).await;
    assert_eq!(reply.header("x-kubernetes-pf-flowschema-uid"), schema);
    assert_eq!(reply.header("x-kubernetes-pf-prioritylevel-uid"), level);
    assert_eq!(reply.header("audit-id").len(), 36);
    // A new schema counts at once for those who see it.
    let new = json!({
        "metadata": {"name": "mine"},
        "spec": {
            "matchingPrecedence": 100, "priorityLevelConfiguration": {"name": "exempt"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "jane"}}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}],
            }],
        },
    });
    let made = server
        .post(&format!("{group}/flowschemas"), &new)
        .await
        .ok();
    let reply = server
        .send("GET", "/version", &[("impersonate-user", "jane")], "")
        .await;
    assert_eq!(
        reply.header("x-kubernetes-pf-flowschema-uid"),
        made["metadata"]["uid"]
    );
    // Nobody is of no class.
    let reply = server
        .send("GET", MAPS, &[("authorization", "Bearer x")], "")
        .await;
    assert_eq!(
        (reply.code, reply.header("x-kubernetes-pf-flowschema-uid")),
        (401, "")
    );
    assert_eq!(reply.header("audit-id").len(), 36);
}

#[tokio::test]
async fn watches_by_their_old_paths() {
    let server = Server::new().await;
    for name in ["a", "b"] {
        server
            .post(MAPS, &json!({"metadata": {"name": name}}))
            .await
            .ok();
    }
    let names = async |path: &str| -> Vec<String> {
        let reply = server.get(&format!("{path}?timeoutSeconds=1")).await;
        assert_eq!(reply.code, 200, "{path}");
        let text = String::from_utf8(reply.body).unwrap();
        let events = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        events
            .map(|event| {
                event["object"]["metadata"]["name"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect()
    };
    let all = "/api/v1/watch/namespaces/default/configmaps";
    assert_eq!(names(all).await, ["a", "b"]);
    assert_eq!(names(&format!("{all}/b")).await, ["b"]);
    assert_eq!(names("/api/v1/watch/namespaces/default").await, ["default"]);
    assert_eq!(names("/apis/apps/v1/watch/deployments").await, [""; 0]);
    let refused = server.post(all, &json!({"metadata": {"name": "c"}})).await;
    refused.refused(405);
}

#[tokio::test]
async fn a_patch_cannot_change_the_uid() {
    let server = Server::new().await;
    server
        .post(MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .ok();
    let patch = async |kind: &str, body: &str| {
        let kind = format!("application/{kind}");
        server
            .send(
                "PATCH",
                &format!("{MAPS}/a"),
                &[("content-type", &kind)],
                body.to_owned(),
            )
            .await
    };
    for (kind, body) in [
        ("merge-patch+json", r#"{"metadata":{"uid":"x"}}"#),
        ("strategic-merge-patch+json", r#"{"metadata":{"uid":"x"}}"#),
        (
            "json-patch+json",
            r#"[{"op":"replace","path":"/metadata/uid","value":"x"}]"#,
        ),
    ] {
        let refused = patch(kind, body).await;
        let why =
            "ConfigMap \"a\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable";
        assert_eq!(refused.refused(422), why, "{kind}");
        assert_eq!(refused.json()["reason"], "Invalid");
    }
}

#[tokio::test]
async fn bodies_in_yaml() {
    let server = Server::new().await;
    let twice = "metadata:\n  name: x\n  name: z\n";
    let words = "yaml: unmarshal errors:\n  line 3: key \"name\" already set in map";
    let post = async |validation: &str, body: &str| {
        let path = format!("{MAPS}?dryRun=All&fieldValidation={validation}");
        server
            .send(
                "POST",
                &path,
                &[("content-type", "application/yaml")],
                body.to_owned(),
            )
            .await
    };
    let reply = post("Ignore", twice).await;
    assert_eq!(reply.ok()["metadata"]["name"], "z");
    assert_eq!(reply.header("warning"), "");
    let reply = post("Warn", twice).await;
    reply.ok();
    assert_eq!(
        reply.header("warning"),
        format!(
            "299 - \"{}\"",
            words.replace('\n', " ").replace('"', "\\\"")
        )
    );
    let refused = post("Strict", twice).await.refused(400);
    assert!(
        refused.ends_with(&format!("strict decoding error: {words}")),
        "{refused}"
    );
    let first = post(
        "Strict",
        "metadata:\n  name: x\n---\nmetadata:\n  name: z\n",
    )
    .await;
    assert_eq!(first.ok()["metadata"]["name"], "x");
}

#[tokio::test]
async fn configurations_that_are_no_object_of_the_kind() {
    let server = Server::new().await;
    for (body, why) in [
        (
            r#"{"metadata":{"name":"a"}}"#,
            "invalid object type: /, Kind=",
        ),
        (
            "[1]",
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go \
             value of type map[string]interface {}",
        ),
    ] {
        let headers = [("content-type", "application/apply-patch+yaml")];
        let path = format!("{MAPS}/a?fieldManager=m");
        let refused = server.send("PATCH", &path, &headers, body).await;
        assert_eq!(refused.refused(400), why);
    }
}

#[tokio::test]
async fn bodies_in_json() {
    let server = Server::new().await;
    let body = r#"{"metadata":{"name":"a"},"data":{"k":"\ud800x"}}"#;
    let headers = [("content-type", "application/json")];
    let made = server.send("POST", MAPS, &headers, body).await.ok();
    assert_eq!(made["data"]["k"], "\u{fffd}x");
    let pods = "/api/v1/namespaces/default/pods";
    let body = r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i"}],"activeDeadlineSeconds":99999999999999999999}}"#;
    let refused = server.send("POST", pods, &headers, body).await.refused(400);
    assert!(
        refused.contains("cannot unmarshal number 99999999999999999999 into"),
        "{refused}"
    );
}

#[tokio::test]
async fn groups_that_somebody_else_should_answer_for() {
    let server = Server::new().await;
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    let there = json!({
        "metadata": {"name": "v1.agg.x"},
        "spec": {
            "group": "agg.x", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": "a", "name": "b"}, "insecureSkipTLSVerify": true,
        },
    });
    server.post(services, &there).await.ok();
    for path in [
        "/apis/agg.x/v1",
        "/apis/agg.x/v1/things",
        "/apis/agg.x/v1/namespaces/a/things/b",
    ] {
        let reply = server.get(path).await;
        assert_eq!(
            (reply.code, reply.body.as_slice()),
            (503, &b"service unavailable\n"[..]),
            "{path}"
        );
    }
    assert_eq!(server.get("/apis/agg.x/v2").await.code, 404);
}

#[tokio::test]
async fn a_binding_names_its_pod() {
    let server = Server::new().await;
    let path = "/api/v1/namespaces/default/pods/p/binding";
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let refused = server.post(path, &binding).await.refused(400);
    assert_eq!(refused, "name in URL does not match name in Binding object");
}

#[tokio::test]
async fn a_job_has_the_labels_of_its_pods() {
    let server = Server::new().await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": {"spec": pod}}});
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let made = server.post(jobs, &job).await.ok();
    let labels = &made["metadata"]["labels"];
    assert_eq!(labels["job-name"], "j");
    assert_eq!(*labels, made["spec"]["template"]["metadata"]["labels"]);
    let found = server
        .get(&format!("{jobs}?labelSelector=job-name%3Dj"))
        .await;
    assert_eq!(found.ok()["items"][0]["metadata"]["name"], "j");
}
