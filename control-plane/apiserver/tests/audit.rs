//! What the audit log tells of requests.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{AuditConfig, LogConfig};
use serde_json::{Value, json};
use storage::memory::Memory;
use support::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: (&str, &str) = ("content-type", "application/json");

async fn with_policy(dir: &Path, rules: &str) -> Server {
    let policy = dir.join("policy.yaml");
    let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}");
    std::fs::write(&policy, text).unwrap();
    let audit = AuditConfig {
        policy_file: Some(policy),
        log: Some(LogConfig {
            path: dir.join("audit.log"),
            ..LogConfig::default()
        }),
        webhook_file: None,
    };
    Server::with(Arc::new(Memory::new()), |config| config.audit = audit).await
}

/// The events of one request, once its last one is there.
async fn events(dir: &Path, id: &str, last: &str) -> Vec<Value> {
    for _ in 0..500 {
        let text = std::fs::read_to_string(dir.join("audit.log")).unwrap_or_default();
        // The last line may be half written.
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|event: &Value| event["auditID"] == id)
            .collect();
        if events.iter().any(|event| event["stage"] == last) {
            return events;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no event {last} of {id}");
}

#[tokio::test]
async fn requests_are_recorded_as_far_as_the_policy_says() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "omitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
        - {level: None, nonResourceURLs: ['/healthz*']}\n\
        - {level: RequestResponse, resources: [{resources: [configmaps]}], verbs: [create, patch]}\n\
        - {level: Metadata}\n";
    let server = with_policy(dir.path(), rules).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let headers = [
        JSON,
        ("audit-id", "one"),
        ("user-agent", "me/1"),
        ("x-forwarded-for", "9.9.9.9"),
    ];
    let path = format!("{MAPS}?fieldManager=x");
    let reply = server.send("POST", &path, &headers, map.to_string()).await;
    let made = reply.ok();
    assert_eq!(reply.header("audit-id"), "one");
    let mut found = events(dir.path(), "one", "ResponseComplete").await;
    assert_eq!(found.len(), 1, "{found:?}");
    let event = found.remove(0);
    for (key, expected) in [
        ("level", json!("RequestResponse")),
        ("requestURI", json!(path)),
        ("verb", json!("create")),
        ("userAgent", json!("me/1")),
        ("sourceIPs", json!(["9.9.9.9"])),
        (
            "objectRef",
            json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}),
        ),
        ("responseStatus", json!({"metadata": {}, "code": 201})),
        ("requestObject", map),
    ] {
        assert_eq!(event[key], expected, "{key}");
    }
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    assert_eq!(
        event["responseObject"]["metadata"]["uid"],
        made["metadata"]["uid"]
    );
    assert_eq!(
        event["responseObject"]["metadata"]["managedFields"],
        Value::Null
    );
    assert!(
        event["user"]["groups"]
            .as_array()
            .unwrap()
            .contains(&json!("system:masters"))
    );

    // Without bodies; a refusal says why, and a deletion what it did.
    let get = server
        .send("GET", &format!("{MAPS}/none"), &[("audit-id", "two")], "")
        .await;
    get.refused(404);
    let event = &events(dir.path(), "two", "ResponseComplete").await[0];
    let status = &event["responseStatus"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(404), &json!("NotFound"))
    );
    assert_eq!(status["details"]["name"], "none");
    assert_eq!(event["responseObject"], Value::Null);
    server
        .send("DELETE", &format!("{MAPS}/a"), &[("audit-id", "three")], "")
        .await
        .ok();
    let event = &events(dir.path(), "three", "ResponseComplete").await[0];
    assert_eq!(event["responseStatus"]["status"], "Success");

    // Nobody, somebody for somebody else, and what nobody wants to know.
    let wrong = [("audit-id", "four"), ("authorization", "Bearer x")];
    server.send("GET", MAPS, &wrong, "").await.refused(401);
    let event = &events(dir.path(), "four", "ResponseStarted").await[0];
    let status =
        json!({"metadata": {}, "message": "Authentication failed, attempted: bearer", "code": 401});
    assert_eq!(event["responseStatus"], status);
    let other = [("audit-id", "five"), ("impersonate-user", "jane")];
    server.send("GET", MAPS, &other, "").await.refused(403);
    let event = &events(dir.path(), "five", "ResponseComplete").await[0];
    assert_eq!(event["impersonatedUser"]["username"], "jane");
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    let quiet = server
        .send("GET", "/healthz", &[("audit-id", "six")], "")
        .await;
    assert_eq!(quiet.header("audit-id"), "six");
    server
        .send("GET", "/version", &[("audit-id", "seven")], "")
        .await
        .ok();
    let seven = events(dir.path(), "seven", "ResponseComplete").await;
    assert_eq!(seven[0]["objectRef"], Value::Null);
    let text = std::fs::read_to_string(dir.path().join("audit.log")).unwrap();
    assert!(!text.contains("\"six\""), "{text}");
}

#[tokio::test]
async fn a_watch_is_recorded_at_its_begin_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_policy(dir.path(), "rules: [{level: Metadata}]\n").await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
    server.send("GET", &path, &[("audit-id", "w")], "").await;
    let found = events(dir.path(), "w", "ResponseComplete").await;
    let stages: Vec<&Value> = found.iter().map(|event| &event["stage"]).collect();
    assert_eq!(
        stages,
        ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    );
    assert_eq!(found[2]["verb"], "watch");
    assert_eq!(found[2]["responseStatus"]["code"], 200);
}

#[tokio::test]
async fn a_wrong_policy_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy.yaml");
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- level: All\n";
    std::fs::write(&policy, text).unwrap();
    let config = apiserver::Config {
        audit: AuditConfig {
            policy_file: Some(policy),
            ..AuditConfig::default()
        },
        ..support::config(dir.path())
    };
    let built = apiserver::build(config, Arc::new(Memory::new())).await;
    let error = built.err().expect("it is refused").to_string();
    assert!(
        error.contains("policy.yaml: line 4: there is no level \"All\""),
        "{error}"
    );
}

#[tokio::test]
async fn events_are_sent_to_a_webhook() {
    let dir = tempfile::tempdir().unwrap();
    let hook = support::hook::Hook::start(&[], |_, _| (200, json!({}))).await;
    let kubeconfig = json!({
        "clusters": [{"name": "a", "cluster": {
            "server": format!("https://{}/events", hook.address), "certificate-authority-data": hook.ca_bundle,
        }}],
    });
    let (policy, file) = (
        dir.path().join("policy.yaml"),
        dir.path().join("webhook.yaml"),
    );
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let text = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, nonResourceURLs: [/version]}]\n";
    std::fs::write(&policy, text).unwrap();
    let audit = AuditConfig {
        policy_file: Some(policy),
        log: None,
        webhook_file: Some(file),
    };
    let server = Server::with(Arc::new(Memory::new()), |config| config.audit = audit).await;
    server.get("/version").await.ok();
    let mut sent = Vec::new();
    for _ in 0..1000 {
        sent = hook.asked.lock().unwrap().clone();
        if !sent.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(sent[0]["kind"], "EventList", "{sent:?}");
    let stages: Vec<&Value> = sent[0]["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["stage"])
        .collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    assert!(
        metrics.contains("\napiserver_audit_event_total 2\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn policies_speak_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let server = with_policy(dir.path(), "rules: [{level: Metadata}]\n").await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    let policy = json!({
        "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
            }]},
            "validations": [{"expression": "object.metadata.name != 'bad'", "message": "not so"}],
            "auditAnnotations": [{"key": "name", "valueExpression": "'it is ' + object.metadata.name"}],
        },
    });
    let binding = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Audit"]}});
    server
        .post(&format!("{group}/validatingadmissionpolicies"), &policy)
        .await
        .ok();
    server
        .post(
            &format!("{group}/validatingadmissionpolicybindings"),
            &binding,
        )
        .await
        .ok();
    let map = json!({"metadata": {"name": "bad"}}).to_string();
    server
        .send("POST", MAPS, &[JSON, ("audit-id", "a")], map)
        .await
        .ok();
    let found = events(dir.path(), "a", "ResponseComplete").await;
    let said = &found.last().unwrap()["annotations"];
    assert_eq!(said["p/name"], "it is bad");
    let failure = r#"[{"message":"not so","policy":"p","binding":"b","expressionIndex":0,"validationActions":["Audit"]}]"#;
    assert_eq!(
        said["validation.policy.admission.k8s.io/validation_failure"],
        failure
    );
}
