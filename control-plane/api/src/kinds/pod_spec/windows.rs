//! What differs between the systems that nodes run.

use serde_json::Value;

use super::containers::visit;
use super::findings::{Findings, Path};
use crate::names;
use crate::value::{at, flag, list, text};

/// Bytes.
const CREDENTIAL_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// `windowsOptions` of a security context.
pub(super) fn options(context: &Value, path: &Path<'_>, found: &mut Findings) {
    let options = at(context, &["windowsOptions"]);
    if !options.is_object() {
        return;
    }
    let path = path.child("windowsOptions");
    if let Some(name) = at(options, &["gmsaCredentialSpecName"]).as_str() {
        let here = path.child("gmsaCredentialSpecName");
        found.against(&here, name, names::subdomain(name));
    }
    if let Some(spec) = at(options, &["gmsaCredentialSpec"]).as_str() {
        let here = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            let why = "gmsaCredentialSpec cannot be an empty string";
            found.invalid_text(&here, spec, why);
        } else if spec.len() > CREDENTIAL_MAX {
            let why = "gmsaCredentialSpec size must be under 64 KiB";
            found.invalid_text(&here, spec, why);
        }
    }
    if let Some(name) = at(options, &["runAsUserName"]).as_str() {
        for why in bad_user(name) {
            let why = format!("runAsUserName{why}");
            found.invalid_text(&path.child("runAsUserName"), name, why);
        }
    }
}

/// What is wrong with `DOMAIN\USER`, the domain being optional.
fn bad_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return vec![" cannot contain control characters"];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            wrong.push("'s Domain length must be under 256 characters");
        }
        let chars = domain.chars().count();
        let net_bios = (1..=15).contains(&chars)
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        if !net_bios && !names::is_subdomain(&domain.to_lowercase()) {
            wrong.push("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty");
    } else if user.len() > USER_MAX {
        wrong.push("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong.push("'s User cannot contain only periods or spaces");
    }
    if user.contains([
        '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
    ]) {
        wrong.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    wrong
}

/// Containers that run on a Windows node as its own processes: all of a Pod or none.
pub(super) fn host_process(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let of =
        |value: &Value| at(value, &["securityContext", "windowsOptions", "hostProcess"]).as_bool();
    let pod = of(spec);
    let (mut all, mut on_host) = (0, 0);
    visit(spec, path, |container, path| {
        all += 1;
        let own = of(container);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let context = path.child("securityContext");
            let options = context.child("windowsOptions");
            let why =
                format!("pod hostProcess value must be identical if both are specified, was {pod}");
            found.invalid(&options.child("hostProcess"), &own.into(), why);
        }
        on_host += usize::from(own.or(pod) == Some(true));
    });
    if on_host == 0 {
        return;
    }
    if on_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        found.invalid_text(path, "", why);
    }
    if !flag(spec, &["hostNetwork"]) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        found.invalid(&path.child("hostNetwork"), &false.into(), why);
    }
}

/// `os`, and what a Pod for it must not ask for.
pub(super) fn system(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let os = at(spec, &["os"]);
    if !os.is_object() {
        return;
    }
    let here = path.child("os");
    match text(os, &["name"]) {
        "" => found.required(&here.child("name"), "cannot be empty"),
        "linux" => not_of_windows(spec, path, found),
        "windows" => not_of_linux(spec, path, found),
        other => found.unsupported(&here, other, &["linux", "windows"]),
    }
}

fn not_of_windows(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let mut check = |value: &Value, path: &Path<'_>| {
        if at(value, &["securityContext", "windowsOptions"]).is_object() {
            let why = "windows options cannot be set for a linux pod";
            let context = path.child("securityContext");
            found.forbidden(&context.child("windowsOptions"), why);
        }
    };
    check(spec, path);
    visit(spec, path, check);
}

fn not_of_linux(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    const WHY: &str = "cannot be set for a windows pod";
    let context = at(spec, &["securityContext"]);
    let here = path.child("securityContext");
    let is_set = |value: &Value, key: &str| !at(value, &[key]).is_null();
    // In the order of refusals; those of the spec itself are among those of its context.
    for key in [
        "appArmorProfile",
        "seLinuxOptions",
        ".hostUsers",
        ".hostPID",
        ".hostIPC",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        ".shareProcessNamespace",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ] {
        let (wrong, here) = match key.strip_prefix('.') {
            Some(key @ ("hostPID" | "hostIPC")) => (flag(spec, &[key]), path.child(key)),
            Some(key) => (is_set(spec, key), path.child(key)),
            None if key == "sysctls" => (!list(context, &[key]).is_empty(), here.child(key)),
            None => (is_set(context, key), here.child(key)),
        };
        if wrong {
            found.forbidden(&here, WHY);
        }
    }
    visit(spec, path, |container, path| {
        let context = at(container, &["securityContext"]);
        let here = path.child("securityContext");
        for key in [
            "appArmorProfile",
            "seLinuxOptions",
            "seccompProfile",
            "capabilities",
            "readOnlyRootFilesystem",
            "privileged",
            "allowPrivilegeEscalation",
            "procMount",
            "runAsUser",
            "runAsGroup",
        ] {
            if is_set(context, key) {
                found.forbidden(&here.child(key), WHY);
            }
        }
    });
}
