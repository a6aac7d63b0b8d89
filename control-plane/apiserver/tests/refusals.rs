//! Requests that are refused, against the answers that kube-apiserver gives.

mod support;

use serde_json::{Value, json};
use support::Server;

#[tokio::test]
async fn refusals_read_as_those_of_kubernetes() {
    let server = Server::new().await;
    for (name, data) in [("obs", json!({"a": "1"})), ("a", json!({}))] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        server
            .post("/api/v1/namespaces/default/configmaps", &object)
            .await
            .ok();
    }
    let mut wrong = Vec::new();
    let mut asked = 0;
    for block in include_str!("refusals.txt").split("\n\n") {
        let lines: Vec<&str> = block
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        let Some(head) = lines.first() else { continue };
        let (request, content_type) = head
            .split_once(" as ")
            .unwrap_or((head, "application/json"));
        let (method, path) = request.split_once(' ').unwrap();
        let body: String = lines
            .iter()
            .filter_map(|line| line.strip_prefix("> "))
            .collect();
        let expected: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("= "))
            .collect();
        let warning = lines
            .iter()
            .find_map(|line| line.strip_prefix("! "))
            .unwrap_or_default();

        let reply = server
            .send(method, path, &[("content-type", content_type)], body)
            .await;
        let status = reply.json();
        let details = expected
            .get(2)
            .map(|text| serde_json::from_str::<Value>(text).unwrap());
        let found = (
            format!(
                "{} {}",
                reply.code,
                status["reason"].as_str().unwrap_or_default()
            ),
            status["message"]
                .as_str()
                .unwrap_or_default()
                .replace('\n', "\\n"),
            status.get("details").cloned(),
            reply.header("warning").to_owned(),
        );
        let message = expected[1].replace("{revision}", &server.storage.revision().0.to_string());
        let wanted = (expected[0].to_owned(), message, details, warning.to_owned());
        if found != wanted {
            wrong.push(format!("{head}\n  wanted {wanted:?}\n  found  {found:?}"));
        }
        asked += 1;
    }
    assert!(asked > 40, "only {asked} requests were read from the file");
    assert!(
        wrong.is_empty(),
        "{} of {asked} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
