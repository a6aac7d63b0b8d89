//! NetworkPolicies under `fairlead up`: its own proxy may see what they are about.

use anyhow::{Context as _, Result};
use client::{PatchKind, Path};
use serde_json::{Value, json};

use crate::stage::{GOOD, PATIENCE, Stage};

const PODS: &str = "/api/v1/namespaces/default/pods";
const POLICIES: &str = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";

#[test]
fn policies_hold_under_up() -> Result<()> {
    let stage = Stage::up(&[])?;
    let addr = stage.web.address(false).to_string();
    testbed::wait_for("the Pod to be admitted", PATIENCE, || {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "web", "image": "web"}]},
        });
        stage.api.create(PODS, pod).ok()
    })?;
    let status = json!({"status": {"phase": "Running", "podIP": addr, "podIPs": [{"ip": addr}]}});
    stage.api.talk(|client| async move {
        let path = Path::raw(&format!("{PODS}/web/status"));
        Ok(client
            .patch::<Value>(&path, PatchKind::Merge, &status)
            .await?)
    })?;
    stage.api.create(
        POLICIES,
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "closed"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]},
        }),
    )?;
    testbed::wait_for("the policy to hold", PATIENCE, || {
        let listed = stage.show(&["policy", "list"]).ok()?.stdout;
        (listed.contains("default/closed") && listed.contains("holds")).then_some(())
    })
    .with_context(|| stage.log())?;
    assert!(!stage.answers(GOOD)?, "{}", stage.log());
    stage.api.delete(&format!("{POLICIES}/closed"))?;
    testbed::wait_for("the Pod to be open again", PATIENCE, || {
        stage.answers(GOOD).ok()?.then_some(())
    })?;
    assert!(!stage.log().contains("is forbidden"), "{}", stage.log());
    stage.assert_good()
}
