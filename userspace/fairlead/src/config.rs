//! `fairlead up --config FILE`: a YAML mapping of long flags to values, put before the flags of the command line
//! so that those win. `fairlead proxy --config FILE`: kube-proxy's own configuration, as far as it means something
//! here.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory as _;
use serde_json::Value;

use crate::cli::Cli;

/// The flags of a configuration file, as arguments.
pub(crate) fn arguments(file: &Path) -> anyhow::Result<Vec<OsString>> {
    flags(&read(file)?, takes_value).with_context(|| format!("configuration {}", file.display()))
}

/// What a KubeProxyConfiguration asks for, as arguments.
pub(crate) fn of_kube_proxy(file: &Path) -> anyhow::Result<Vec<OsString>> {
    kube_proxy_flags(&read(file)?).with_context(|| format!("configuration {}", file.display()))
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| {
        format!(
            "read the configuration {} that --config names",
            file.display()
        )
    })
}

fn kube_proxy_flags(text: &str) -> anyhow::Result<Vec<OsString>> {
    let value: Value = serde_saphyr::from_str(text).context("malformed YAML")?;
    let version = value["apiVersion"].as_str().unwrap_or_default();
    let kind = value["kind"].as_str().unwrap_or_default();
    if kind != "KubeProxyConfiguration" || !version.starts_with("kubeproxy.config.k8s.io/") {
        anyhow::bail!(
            "want apiVersion kubeproxy.config.k8s.io/v1alpha1 and kind KubeProxyConfiguration, not {version:?} and {kind:?}"
        );
    }
    let mut out = Vec::new();
    for (pointer, flag) in [
        ("/clientConnection/kubeconfig", "kubeconfig"),
        ("/hostnameOverride", "node-name"),
        ("/nodePortAddresses", "nodeport-addresses"),
        ("/healthzBindAddress", "healthz-bind-address"),
        ("/metricsBindAddress", "metrics-bind-address"),
    ] {
        let text = match value.pointer(pointer) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| scalar(pointer, item))
                .collect::<anyhow::Result<Vec<_>>>()?
                .join(","),
            Some(other) => scalar(pointer, other)?,
        };
        let text = match pointer {
            "/hostnameOverride" => text.trim().to_lowercase(),
            "/healthzBindAddress" => with_port(text, 10256),
            "/metricsBindAddress" => with_port(text, 10249),
            _ => text,
        };
        if !text.is_empty() {
            out.push(format!("--{flag}={text}").into());
        }
    }
    Ok(out)
}

/// kube-proxy takes an address without a port, too, and has one of its own for it.
fn with_port(address: String, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port).to_string(),
        Err(_) => address,
    }
}

/// Whether a flag is given a value, `true` or `false`, rather than given or not.
fn takes_value(flag: &str) -> bool {
    Cli::command()
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .any(|argument| argument.get_long() == Some(flag) && argument.get_action().takes_values())
}

/// `takes_value` says of a flag whether it is given a value rather than given or not.
fn flags(text: &str, takes_value: impl Fn(&str) -> bool) -> anyhow::Result<Vec<OsString>> {
    let value: Option<Value> = serde_saphyr::from_str(text).context("malformed YAML")?;
    let Some(Value::Object(fields)) = value else {
        return match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => {
                anyhow::bail!("want a mapping of flags to values, for instance `secure-port: 6443`")
            }
        };
    };
    let mut out = Vec::new();
    for (name, value) in fields {
        let text = match &value {
            Value::Bool(value) if takes_value(&name) => Some(value.to_string()),
            Value::Bool(true) => None,
            Value::Bool(false) | Value::Null => continue,
            Value::Array(items) => Some(
                items
                    .iter()
                    .map(|item| scalar(&name, item))
                    .collect::<anyhow::Result<Vec<_>>>()?
                    .join(","),
            ),
            other => Some(scalar(&name, other)?),
        };
        out.push(match text {
            None => format!("--{name}").into(),
            Some(text) => format!("--{name}={text}").into(),
        });
    }
    Ok(out)
}

fn scalar(name: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            anyhow::bail!("{name}: want a text, a number, or a list of them")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{flags, kube_proxy_flags};

    #[test]
    fn a_mapping_becomes_flags() {
        let cases = [
            ("", "[]"),
            ("secure-port: 6443", r#"["--secure-port=6443"]"#),
            ("devices: [eth0, eth1]", r#"["--devices=eth0,eth1"]"#),
            ("a: true\nb: false\nc: null", r#"["--a"]"#),
            ("anonymous-auth: false", r#"["--anonymous-auth=false"]"#),
            ("anonymous-auth: true", r#"["--anonymous-auth=true"]"#),
        ];
        for (yaml, want) in cases {
            assert_eq!(
                format!("{:?}", flags(yaml, super::takes_value).unwrap()),
                want,
                "{yaml}"
            );
        }
        for bad in ["- a", "x: {y: 1}", "a: [", "a: [[1]]"] {
            assert!(flags(bad, |_| false).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_configuration_of_kube_proxy_becomes_flags() {
        let yaml = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    clientConnection: {kubeconfig: /k}\nhostnameOverride: a\nmode: nftables\n\
                    nodePortAddresses: [192.0.2.0/24, 'fd00::/8']\nhealthzBindAddress: 0.0.0.0:10256\n\
                    metricsBindAddress: \"\"\nconntrack: {maxPerCore: 1}";
        let want = r#"["--kubeconfig=/k", "--node-name=a", "--nodeport-addresses=192.0.2.0/24,fd00::/8", "--healthz-bind-address=0.0.0.0:10256"]"#;
        assert_eq!(format!("{:?}", kube_proxy_flags(yaml).unwrap()), want);
        let yaml = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    hostnameOverride: ' N3 '\nhealthzBindAddress: 192.0.2.3\nmetricsBindAddress: '::'";
        let want = r#"["--node-name=n3", "--healthz-bind-address=192.0.2.3:10256", "--metrics-bind-address=[::]:10249"]"#;
        assert_eq!(format!("{:?}", kube_proxy_flags(yaml).unwrap()), want);
        for bad in ["", "kind: KubeProxyConfiguration", "a: ["] {
            assert!(kube_proxy_flags(bad).is_err(), "{bad}");
        }
    }
}
