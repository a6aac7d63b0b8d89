//! What is done to a container: probes, and what follows its start and precedes its stop.

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::value::{at, list, number, text};

/// Probes and hooks of a container that runs beside others. `grace` is the Pod's grace period in seconds.
pub(super) fn check(container: &Value, grace: i64, path: &Path<'_>, found: &mut Findings) {
    let lifecycle = path.child("lifecycle");
    for key in ["postStart", "preStop"] {
        let hook = at(container, &["lifecycle", key]);
        if hook.is_object() {
            let known = ["exec", "httpGet", "tcpSocket", "sleep"];
            handler(hook, &known, grace, &lifecycle.child(key), found);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let given = at(container, &[key]);
        if !given.is_object() {
            continue;
        }
        let here = path.child(key);
        probe(given, grace, &here, found);
        if key == "readinessProbe" {
            let seconds = at(given, &["terminationGracePeriodSeconds"]);
            if !seconds.is_null() {
                let why = "must not be set for readinessProbes";
                found.invalid(&here.child("terminationGracePeriodSeconds"), seconds, why);
            }
        } else if number(given, &["successThreshold"]) != 1 {
            let count = number(given, &["successThreshold"]).into();
            found.invalid(&here.child("successThreshold"), &count, "must be 1");
        }
    }
}

/// An init container that ends has none of these.
pub(super) fn none(container: &Value, path: &Path<'_>, found: &mut Findings) {
    for key in [
        "lifecycle",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
    ] {
        if at(container, &[key]).is_object() {
            let why = "may not be set for init containers without restartPolicy=Always";
            found.forbidden(&path.child(key), why);
        }
    }
}

fn probe(probe: &Value, grace: i64, path: &Path<'_>, found: &mut Findings) {
    let known = ["exec", "httpGet", "tcpSocket", "grpc"];
    handler(probe, &known, grace, path, found);
    for key in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        found.not_negative(&path.child(key), at(probe, &[key]));
    }
    let seconds = at(probe, &["terminationGracePeriodSeconds"]);
    if seconds.as_i64().is_some_and(|seconds| seconds <= 0) {
        let here = path.child("terminationGracePeriodSeconds");
        found.invalid(&here, seconds, "must be greater than 0");
    }
}

/// Exactly one of the `known` ways.
fn handler(handler: &Value, known: &[&str], grace: i64, path: &Path<'_>, found: &mut Findings) {
    let mut taken = false;
    for key in known {
        let given = at(handler, &[key]);
        if !given.is_object() {
            continue;
        }
        let here = path.child(key);
        if taken {
            found.forbidden(&here, "may not specify more than 1 handler type");
            continue;
        }
        taken = true;
        match *key {
            "exec" if list(given, &["command"]).is_empty() => {
                found.required(&here.child("command"), "");
            }
            "httpGet" => http(given, &here, found),
            "tcpSocket" => port(at(given, &["port"]), &here, found),
            "grpc" => port(&number(given, &["port"]).into(), &here, found),
            "sleep" => {
                let seconds = number(given, &["seconds"]);
                if seconds < 0 || seconds > grace {
                    let why = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                    );
                    found.invalid(&here, &seconds.into(), why);
                }
            }
            _ => {}
        }
    }
    if !taken {
        found.required(path, "must specify a handler type");
    }
}

fn port(port: &Value, path: &Path<'_>, found: &mut Findings) {
    let here = path.child("port").to_string();
    found.extend(crate::kinds::bad_port_or_name(&here, port));
}

fn http(get: &Value, path: &Path<'_>, found: &mut Findings) {
    found.needs(get, path, "path");
    port(at(get, &["port"]), path, found);
    let scheme = text(get, &["scheme"]);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        found.unsupported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in list(get, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || !name.bytes().all(token) {
            let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', \
                       regex used for validation is '[-A-Za-z0-9]+')";
            found.invalid_text(&path.child("httpHeaders"), name, why);
        }
    }
}
