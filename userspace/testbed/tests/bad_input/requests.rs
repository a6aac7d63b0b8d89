//! What the API refuses, byte by byte, and what it accepts and the node cannot serve.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};
use testbed::wait_for;

use crate::https::Https;
use crate::stage::{self, GOOD, PATIENCE, SERVICES, SLICES, Stage, slice};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";

/// One request that is refused.
struct Refused {
    /// Method and path.
    line: String,
    content_type: &'static str,
    body: Vec<u8>,
    /// HTTP status.
    code: u16,
    /// Words of the message: the thing, and what would be right.
    words: &'static [&'static str],
}

fn refused(
    line: &str,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
    code: u16,
    words: &'static [&'static str],
) -> Refused {
    Refused {
        line: line.to_owned(),
        content_type,
        body: body.into(),
        code,
        words,
    }
}

fn post(collection: &str, object: &Value, code: u16, words: &'static [&'static str]) -> Refused {
    let line = format!("POST {collection}");
    refused(&line, JSON, object.to_string(), code, words)
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}});
    service["spec"] = spec;
    service
}

/// Requests in every way of being wrong. Port 30080 is taken.
fn table() -> Vec<Refused> {
    let services = format!("POST {SERVICES}");
    let strict = format!("POST {SERVICES}?fieldValidation=Strict");
    let port = json!([{"port": 80}]);
    let mut table = vec![
        refused(&services, JSON, "", 400, &["empty"]),
        refused(
            &services,
            JSON,
            "{\"apiVersion\": \"v1\", ",
            400,
            &["json parse error", "unexpected end"],
        ),
        refused(&services, JSON, "[1, 2, 3]", 400, &["object"]),
        refused(&services, JSON, "null", 400, &[]),
        refused(&services, JSON, [0xff, 0xfe, 0x00], 400, &[]),
        refused(&services, JSON, "[".repeat(100_000), 400, &[]),
        refused(
            &services,
            YAML,
            "a: [1, 2\nb: }",
            400,
            &["error converting YAML to JSON", "line 2"],
        ),
        refused(&services, YAML, "a: &a [*a]", 400, &[]),
        refused(&services, "text/plain", "{}", 415, &["application/json"]),
        refused(
            &services,
            JSON,
            r#"{"kind": "Service"}"#,
            422,
            &["metadata.name", "Required"],
        ),
        refused(
            &services,
            JSON,
            r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}"#,
            400,
            &["Pod"],
        ),
        refused(
            &strict,
            JSON,
            service("x", json!({"ports": port, "portz": 1})).to_string(),
            400,
            &["strict decoding error", "unknown field \"spec.portz\""],
        ),
        refused(
            &strict,
            JSON,
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x", "name": "y"}}"#,
            400,
            &["duplicate field \"metadata.name\""],
        ),
        refused(
            &format!("PUT {SERVICES}/good"),
            JSON,
            service("other", json!({"ports": port})).to_string(),
            400,
            &["other", "good"],
        ),
        refused(
            &format!("PATCH {SERVICES}/good"),
            "application/merge-patch+json",
            "{\"spec\": ",
            400,
            &[],
        ),
        refused(
            &format!("PATCH {SERVICES}/good"),
            "application/json-patch+json",
            r#"[{"op": "remove", "path": "/spec/nothing"}]"#,
            422,
            &["rejected"],
        ),
        refused(
            &format!("PATCH {SERVICES}/good"),
            "application/merge-patch+json",
            r#"{"spec": {"ports": [{"port": 0}]}}"#,
            422,
            &["spec.ports[0].port", "between 1 and 65535"],
        ),
    ];
    table.extend([
        post(
            SERVICES,
            &service("x", json!({"clusterIP": "192.0.2.1", "ports": port})),
            422,
            &[
                "spec.clusterIPs",
                "192.0.2.1",
                "does not match the current range",
            ],
        ),
        post(
            SERVICES,
            &service("x", json!({"clusterIP": GOOD.ip(), "ports": port})),
            422,
            &["spec.clusterIPs", "10.96.0.30", "already allocated"],
        ),
        post(
            SERVICES,
            &service("x", json!({"clusterIP": "ten", "ports": port})),
            422,
            &["spec.clusterIPs", "ten"],
        ),
        post(
            SERVICES,
            &service(
                "x",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            ),
            422,
            &["spec.ports[0].nodePort", "30080", "already allocated"],
        ),
        post(
            SERVICES,
            &service(
                "x",
                json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}),
            ),
            422,
            &["spec.ports[0].nodePort", "30000-32767"],
        ),
        post(
            SERVICES,
            &service("x", json!({"ports": [{"port": 65536}]})),
            422,
            &["spec.ports[0].port", "65536", "between 1 and 65535"],
        ),
        post(
            SERVICES,
            &service("x", json!({"ports": [{"port": 99_999_999_999_i64}]})),
            400,
            &["port"],
        ),
        post(
            SERVICES,
            &service("x", json!({"ports": [{"port": "http"}]})),
            400,
            &["port"],
        ),
        post(
            SERVICES,
            &service("No_Name", json!({"ports": port})),
            422,
            &["metadata.name", "No_Name"],
        ),
    ]);
    for address in [
        "ten",
        "",
        "127.0.0.1",
        "169.254.0.1",
        "224.0.0.1",
        "0.0.0.0",
        "::1",
        "010.1.1.256",
    ] {
        table.push(post(
            SLICES,
            &slice("x", "IPv4", &[address], 80),
            422,
            &["endpoints[0].addresses[0]"],
        ));
    }
    table.extend([
        post(
            SLICES,
            &slice("x", "IPv6", &["10.0.0.1"], 80),
            422,
            &["IPv6"],
        ),
        post(
            SLICES,
            &slice("x", "IPvX", &["10.0.0.1"], 80),
            422,
            &["addressType", "IPvX", "FQDN"],
        ),
        post(
            SLICES,
            &slice("x", "IPv4", &["10.0.0.1"], 65536),
            422,
            &["ports[0].port"],
        ),
        post(
            SLICES,
            &slice("x", "IPv4", &[], 80),
            422,
            &["endpoints[0].addresses"],
        ),
    ]);
    table
}

#[test]
fn what_the_api_refuses_changes_nothing() -> Result<()> {
    let stage = Stage::up(&[])?;
    stage.api.create(
        SERVICES,
        service(
            "taken",
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
        ),
    )?;
    let held = (stage.api.count(SERVICES)?, stage.api.count(SLICES)?);
    let https = Https::of(&stage::data_dir(&stage.node))?;
    let mut wrong = Vec::new();
    for case in table() {
        let body: String = String::from_utf8_lossy(&case.body)
            .chars()
            .take(200)
            .collect();
        let answer = https.send(
            stage.node.netns(),
            &case.line,
            case.content_type,
            &case.body,
        )?;
        let message = answer.message();
        let missing = case.words.iter().find(|word| !message.contains(**word));
        if answer.code != case.code || message.is_empty() || missing.is_some() {
            wrong.push(format!(
                "{} {body}\n  wanted {} {:?}\n  got    {} {message:?}",
                case.line, case.code, case.words, answer.code
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((stage.api.count(SERVICES)?, stage.api.count(SLICES)?), held);
    stage.assert_good()
}

/// Names for addresses are allowed by the API, and no address is to be had from them.
#[test]
fn what_the_node_cannot_serve_costs_no_other_service() -> Result<()> {
    let stage = Stage::up(&[])?;
    let pod = stage.web.address(false).to_string();
    let spec = |last: u8| json!({"clusterIP": format!("10.96.1.{last}"), "ports": [{"port": 80}]});
    stage.api.create(SERVICES, service("named", spec(1)))?;
    stage
        .api
        .create(SLICES, slice("named", "FQDN", &["web.example"], 8080))?;
    stage.api.create(
        SERVICES,
        service(
            "sctp",
            json!({"clusterIP": "10.96.1.2", "ports": [{"port": 80, "protocol": "SCTP"}]}),
        ),
    )?;
    stage.api.create(SERVICES, service("later", spec(3)))?;
    stage
        .api
        .create(SLICES, slice("later", "IPv4", &[&pod], 8080))?;
    let later = SocketAddr::new([10, 96, 1, 3].into(), 80);
    wait_for("the last of them", PATIENCE, || {
        stage.answers(later).ok()?.then_some(())
    })?;
    assert!(!stage.answers(SocketAddr::new([10, 96, 1, 1].into(), 80))?);
    stage.assert_good()
}

/// Of Services beyond what the tables hold, each is named with the flag that makes room; those that are in go on,
/// and room that comes free is used.
#[test]
fn a_full_table_refuses_the_services_that_do_not_fit() -> Result<()> {
    let stage = Stage::up(&["--frontends-max=16", "--tables-max=0"])?;
    let pod = stage.web.address(false).to_string();
    for index in 1..=20_u8 {
        let name = format!("crowd-{index:02}");
        let address = format!("10.96.1.{index}");
        let spec = json!({"clusterIP": address, "ports": [{"port": 80}]});
        stage.api.create(SERVICES, service(&name, spec))?;
        stage
            .api
            .create(SLICES, slice(&name, "IPv4", &[&pod], 8080))?;
    }
    let target = |index: u8| SocketAddr::new([10, 96, 1, index].into(), 80);
    stage.running()?.logged("crowd-20")?;
    let log = stage.log();
    let line = log
        .lines()
        .find(|line| line.contains("crowd-20"))
        .unwrap_or_default();
    for word in [
        "default/crowd-20",
        "FRONTENDS4",
        "16",
        "raise --frontends-max or --tables-max, or remove Services",
    ] {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
    assert!(!stage.answers(target(20))?);
    assert!(stage.answers(target(1))?);
    stage.assert_good()?;
    let status = stage.show(&["status"])?;
    status.assert_done();
    assert!(
        status.stdout.contains("raise --frontends-max"),
        "{status:?}"
    );
    for index in 1..=15 {
        stage.api.delete(&format!("{SERVICES}/crowd-{index:02}"))?;
    }
    wait_for("the room to be used", PATIENCE, || {
        stage.answers(target(20)).ok()?.then_some(())
    })?;
    stage.assert_good()
}
