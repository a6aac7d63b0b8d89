//! The kubeconfig file: where the server is, whom to trust, and who asks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki::Pki;

/// A kubeconfig for `server`, for instance `https://127.0.0.1:6443`, that trusts one of `authorities` (PEM) and
/// authenticates as the administrator by client certificate. JSON is YAML, but people read and edit this file, so it is laid out as kubectl would.
pub(crate) fn render(pki: &Pki, authorities: &str, server: &str) -> String {
    let ca = STANDARD.encode(authorities);
    let cert = STANDARD.encode(&pki.admin.cert);
    let key = STANDARD.encode(&pki.admin.key);
    let server = serde_json::Value::from(server);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: fairlead
  cluster:
    server: {server}
    certificate-authority-data: {ca}
contexts:
- name: fairlead
  context:
    cluster: fairlead
    user: fairlead-admin
current-context: fairlead
preferences: {{}}
users:
- name: fairlead-admin
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
"
    )
}
