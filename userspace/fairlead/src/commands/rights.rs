//! What the proxy of `up` may do beyond what a kube-proxy may: see what NetworkPolicies are about.

use anyhow::Context as _;
use client::{Client, PatchKind, Path};
use serde_json::{Value, json};

const NAME: &str = "fairlead:network-policy";
const GROUP: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Grants it to the user that the proxy is. What stood there under our name is brought up to date.
pub(crate) async fn grant(client: &Client) -> anyhow::Result<()> {
    let may_see = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [
            may_see("", &["namespaces", "pods"]),
            may_see("networking.k8s.io", &["networkpolicies"]),
            may_see("policy.networking.k8s.io", &["clusternetworkpolicies"]),
        ],
    });
    put(client, "clusterroles", &role).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "system:kube-proxy"}],
    });
    put(client, "clusterrolebindings", &binding).await
}

async fn put(client: &Client, plural: &str, object: &Value) -> anyhow::Result<()> {
    let all = format!("{GROUP}/{plural}");
    let written = match client.create::<Value>(&Path::raw(&all), object).await {
        Err(error) if error.is_already_exists() => {
            let path = Path::raw(&format!("{all}/{NAME}"));
            client.patch::<Value>(&path, PatchKind::Merge, object).await
        }
        written => written,
    };
    written
        .map(drop)
        .with_context(|| format!("write {plural}/{NAME}"))
}
