//! Kubeconfigs, good and bad: what goes wrong is said with file and field.
#![forbid(unsafe_code)]

use std::error::Error as _;

use client::{Client, KubeconfigError};

const GOOD: &str = "\
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: local
  cluster:
    server: https://127.0.0.1:6443
    insecure-skip-tls-verify: true
contexts:
- name: here
  context: {cluster: local, user: admin, namespace: web}
- name: there
  context: {cluster: elsewhere, user: admin}
users:
- name: admin
  user: {token: secret}
";

fn open(text: &str) -> Result<Client, KubeconfigError> {
    Client::from_kubeconfig_text(text, "/etc/k.conf")
}

fn problem(text: &str) -> String {
    match open(text) {
        Ok(client) => format!("none, a client for {}", client.server()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_good_one() {
    let client = open(GOOD).unwrap();
    assert_eq!(client.server(), "https://127.0.0.1:6443/");
    assert_eq!(client.namespace(), "web");
    let json = r#"{"current-context": "c", "clusters": [{"name": "a", "cluster": {"server": "http://h/prefix/"}}],
        "contexts": [{"name": "c", "context": {"cluster": "a"}}]}"#;
    let client = open(json).unwrap();
    assert_eq!(
        (client.server(), client.namespace()),
        ("http://h/prefix", "default")
    );
}

#[test]
fn bad_ones() {
    let at = |field: &str, problem: &str| format!("kubeconfig /etc/k.conf: {field}: {problem}");
    let cluster = "clusters[local].cluster";
    let user = "users[admin].user";
    for (replace, with, expected) in [
        (
            "current-context: here",
            "",
            at(
                "current-context",
                "is not set; kubectl config use-context sets it",
            ),
        ),
        (
            "current-context: here",
            "current-context: nowhere",
            at(
                "current-context",
                "names \"nowhere\", but contexts has here, there",
            ),
        ),
        (
            "current-context: here",
            "current-context: there",
            at(
                "contexts[there].context.cluster",
                "names \"elsewhere\", but clusters has local",
            ),
        ),
        (
            "users:\n- name: admin\n  user: {token: secret}",
            "users: []",
            at(
                "contexts[here].context.user",
                "names \"admin\", but users is empty",
            ),
        ),
        (
            "https://127.0.0.1:6443",
            "''",
            at(
                &format!("{cluster}.server"),
                "is not set; it is an address such as https://10.0.0.1:6443",
            ),
        ),
        (
            "https://127",
            "ftp://127",
            at(
                &format!("{cluster}.server"),
                "\"ftp://127.0.0.1:6443\" must begin with https:// or http://",
            ),
        ),
        (
            "insecure-skip-tls-verify: true",
            "certificate-authority: ca.crt",
            at(
                &format!("{cluster}.certificate-authority"),
                "cannot read /etc/ca.crt: No such file or directory (os error 2)",
            ),
        ),
        (
            "insecure-skip-tls-verify: true",
            "certificate-authority-data: '%%%'",
            at(
                &format!("{cluster}.certificate-authority-data"),
                "is not base64: Invalid symbol 37, offset 0.",
            ),
        ),
        (
            "insecure-skip-tls-verify: true",
            "certificate-authority-data: aGVsbG8=",
            at(
                &format!("{cluster}.certificate-authority-data"),
                "holds no certificate in PEM",
            ),
        ),
        (
            "skip-tls-verify: true",
            "skip-tls-verify: true\n    certificate-authority-data: aGVsbG8=",
            at(
                &format!("{cluster}.insecure-skip-tls-verify"),
                "cannot be true beside a certificate-authority; remove one of them",
            ),
        ),
        (
            "skip-tls-verify: true",
            "skip-tls-verify: true\n    proxy-url: http://p",
            at(&format!("{cluster}.proxy-url"), "proxies are not supported"),
        ),
        (
            "token: secret",
            "tokenFile: /nowhere/token",
            at(
                &format!("{user}.tokenFile"),
                "cannot read /nowhere/token: No such file or directory (os error 2)",
            ),
        ),
        (
            "token: secret",
            "client-key-data: aGVsbG8=",
            at(
                &format!("{user}.client-key-data"),
                "is set, but client-certificate is not",
            ),
        ),
        (
            "token: secret",
            "exec: {command: aws}",
            at(
                &format!("{user}.exec"),
                "helper programs are not supported; use a token, a tokenFile or a client certificate",
            ),
        ),
        (
            "token: secret",
            "token: \"two\\nlines\"",
            at("token", "holds more than one line or is not text"),
        ),
    ] {
        assert!(GOOD.contains(replace), "{replace}");
        assert_eq!(problem(&GOOD.replace(replace, with)), expected);
    }
}

#[test]
fn what_is_no_kubeconfig() {
    let error = open("clusters: 7").err().unwrap();
    assert_eq!(
        error.to_string(),
        "kubeconfig /etc/k.conf: not a kubeconfig"
    );
    assert!(
        error.source().unwrap().to_string().contains("line 1"),
        "{:?}",
        error.source()
    );
    let error = Client::from_kubeconfig("/nowhere/config").err().unwrap();
    assert_eq!(
        error.to_string(),
        "kubeconfig /nowhere/config: cannot be read"
    );
}
