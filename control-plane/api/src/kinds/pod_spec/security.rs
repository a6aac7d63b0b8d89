//! Under what rights a Pod and its containers run.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use super::{paths, windows};
use crate::field::{Fault, FieldError};
use crate::value::{at, entries, flag, list, text};

const PROFILE_TYPES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The `securityContext` of a container.
pub(super) fn container(context: &Value, host_users: bool, path: &Path<'_>, found: &mut Findings) {
    if !context.is_object() {
        return;
    }
    for key in ["runAsUser", "runAsGroup"] {
        id(at(context, &[key]), &path.child(key), found);
    }
    if let Some(mount) = at(context, &["procMount"]).as_str() {
        let here = path.child("procMount");
        if !matches!(mount, "Default" | "Unmasked") {
            found.unsupported(&here, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            let why = "`hostUsers` must be false to use `Unmasked`";
            found.invalid_text(&here, mount, why);
        }
    }
    seccomp(context, path, found);
    if at(context, &["allowPrivilegeEscalation"]).as_bool() == Some(false) {
        let mut refuse = |why: &str| {
            let shown = Fault::Invalid(shown(context));
            found.push(FieldError::new(path, shown, why));
        };
        if flag(context, &["privileged"]) {
            refuse("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        for capability in list(context, &["capabilities", "add"]) {
            if capability.as_str() == Some("CAP_SYS_ADMIN") {
                refuse(
                    "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
                );
            }
        }
    }
    windows::options(context, path, found);
    app_armor(context, path, found);
}

/// The `securityContext` of the Pod.
pub(super) fn pod(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let context = at(spec, &["securityContext"]);
    let path = path.child("securityContext");
    for key in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(at(context, &[key]), &path.child(key), found);
    }
    let groups = path.child("supplementalGroups");
    for (i, group) in list(context, &["supplementalGroups"]).iter().enumerate() {
        id(group, &groups.index(i), found);
    }
    if flag(spec, &["shareProcessNamespace"]) && flag(spec, &["hostPID"]) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        found.invalid(&path.child("shareProcessNamespace"), &true.into(), why);
    }
    sysctls(spec, &path.child("sysctls"), found);
    let one_of = |key: &str, known: &[&str], found: &mut Findings| {
        found.one_of_given(&path.child(key), at(context, &[key]), known);
    };
    one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"], found);
    seccomp(context, &path, found);
    windows::options(context, &path, found);
    app_armor(context, &path, found);
    one_of("supplementalGroupsPolicy", &["Merge", "Strict"], found);
    one_of("seLinuxChangePolicy", &["MountOption", "Recursive"], found);
}

/// A user or group.
pub(super) fn id(id: &Value, path: &Path<'_>, found: &mut Findings) {
    found.between(path, id, 0, i64::from(i32::MAX));
}

fn seccomp(context: &Value, path: &Path<'_>, found: &mut Findings) {
    let profile = at(context, &["seccompProfile"]);
    if !profile.is_object() {
        return;
    }
    let path = path.child("seccompProfile");
    let kind = text(profile, &["type"]);
    if kind.is_empty() {
        let why = "type is required when seccompProfile is set";
        found.required(&path.child("type"), why);
    } else if !PROFILE_TYPES.contains(&kind) {
        found.unsupported(&path.child("type"), kind, PROFILE_TYPES);
    }
    let here = path.child("localhostProfile");
    match at(profile, &["localhostProfile"]).as_str() {
        None if kind == "Localhost" => {
            found.required(&here, "must be set when seccomp type is Localhost");
        }
        Some(file) if kind == "Localhost" => paths::descending(found, &here, file),
        Some(_) => {
            let shown = Fault::Invalid(internal(profile, PROFILE));
            let why = "can only be set when seccomp type is Localhost";
            found.push(FieldError::new(&here, shown, why));
        }
        None => {}
    }
}

/// The longest path without its end.
const FILE_MAX: usize = 4095;

fn app_armor(context: &Value, path: &Path<'_>, found: &mut Findings) {
    let profile = at(context, &["appArmorProfile"]);
    if !profile.is_object() {
        return;
    }
    let path = path.child("appArmorProfile");
    let here = path.child("localhostProfile");
    let file = at(profile, &["localhostProfile"]).as_str();
    match (text(profile, &["type"]), file) {
        ("Localhost", None | Some("")) => {
            found.required(&here, "must be set when AppArmor type is Localhost");
        }
        ("Localhost", Some(file)) => {
            if file.trim() != file {
                found.invalid_text(&here, file, "must not be padded with whitespace");
            }
            if file.len() > FILE_MAX {
                found.push(FieldError::too_long(&here, FILE_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(file)) => {
            let why = "can only be set when AppArmor type is Localhost";
            found.invalid_text(&here, file, why);
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => {
            let why = "type is required when appArmorProfile is set";
            found.required(&path.child("type"), why);
        }
        (other, _) => found.unsupported(&path.child("type"), other, PROFILE_TYPES),
    }
}

/// The names that a kernel's parameters have: words between dots or slashes.
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const SYSCTL_MAX: usize = 253;

fn sysctls(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_word = |word: &str| {
        word.starts_with(alphanumeric)
            && word.ends_with(alphanumeric)
            && word
                .chars()
                .all(|c| alphanumeric(c) || matches!(c, '-' | '_'))
    };
    for (i, sysctl) in list(spec, &["securityContext", "sysctls"])
        .iter()
        .enumerate()
    {
        let item = path.index(i);
        let here = item.child("name");
        let name = text(sysctl, &["name"]);
        if name.is_empty() {
            found.required(&here, "");
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_word) {
            let why = format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL}");
            found.invalid_text(&here, name, why);
        } else if !seen.insert(name) {
            found.duplicate(&here, name);
        }
        for (flag_name, namespace) in [
            ("hostNetwork", is_net as fn(&str) -> bool),
            ("hostIPC", is_ipc),
        ] {
            if flag(spec, &[flag_name]) && namespace(name) {
                let why = format!("may not be specified when '{flag_name}' is true");
                found.invalid_text(&here, name, why);
            }
        }
    }
}

/// A parameter of a network namespace.
fn is_net(name: &str) -> bool {
    name.starts_with("net.") || name.starts_with("net/")
}

/// A parameter of a namespace of System V IPC and POSIX queues.
fn is_ipc(name: &str) -> bool {
    let name = name.replace('/', ".");
    name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name == "kernel.sem"
        || name.starts_with("fs.mqueue.")
}

/// User namespaces go with none of the node's namespaces.
pub(super) fn host_users(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    if at(spec, &["hostUsers"]).as_bool() != Some(false) {
        return;
    }
    for (key, known_as) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if flag(spec, &[key]) {
            let why = "when `pod.Spec.HostUsers` is false";
            found.forbidden(&path.child(known_as), why);
        }
    }
}

/// A field as the API names it, as refusals name it, and what is within.
struct Shown(&'static str, &'static str, &'static [Shown]);

const PROFILE: &[Shown] = &[
    Shown("type", "Type", &[]),
    Shown("localhostProfile", "LocalhostProfile", &[]),
];

const CONTEXT: &[Shown] = &[
    Shown(
        "capabilities",
        "Capabilities",
        &[Shown("add", "Add", &[]), Shown("drop", "Drop", &[])],
    ),
    Shown("privileged", "Privileged", &[]),
    Shown(
        "seLinuxOptions",
        "SELinuxOptions",
        &[
            Shown("user", "User", &[]),
            Shown("role", "Role", &[]),
            Shown("type", "Type", &[]),
            Shown("level", "Level", &[]),
        ],
    ),
    Shown(
        "windowsOptions",
        "WindowsOptions",
        &[
            Shown("gmsaCredentialSpecName", "GMSACredentialSpecName", &[]),
            Shown("gmsaCredentialSpec", "GMSACredentialSpec", &[]),
            Shown("runAsUserName", "RunAsUserName", &[]),
            Shown("hostProcess", "HostProcess", &[]),
        ],
    ),
    Shown("runAsUser", "RunAsUser", &[]),
    Shown("runAsGroup", "RunAsGroup", &[]),
    Shown("runAsNonRoot", "RunAsNonRoot", &[]),
    Shown("readOnlyRootFilesystem", "ReadOnlyRootFilesystem", &[]),
    Shown("allowPrivilegeEscalation", "AllowPrivilegeEscalation", &[]),
    Shown("procMount", "ProcMount", &[]),
    Shown("seccompProfile", "SeccompProfile", PROFILE),
    Shown("appArmorProfile", "AppArmorProfile", PROFILE),
];

/// A container's context as refusals show it: all fields, set or not.
fn shown(context: &Value) -> String {
    internal(context, CONTEXT)
}

fn internal(value: &Value, fields: &[Shown]) -> String {
    let parts: Vec<String> = fields
        .iter()
        .map(|Shown(key, name, within)| {
            let value = at(value, &[key]);
            let shown = match value {
                Value::Object(_) if !within.is_empty() => internal(value, within),
                value => value.to_string(),
            };
            format!("\"{name}\":{shown}")
        })
        .collect();
    format!("{{{}}}", parts.join(","))
}

/// Seccomp by annotation: the profile must be one, and say what the field says.
pub(super) fn seccomp_annotations(
    annotations: &Value,
    spec: &Value,
    (annotations_at, spec_at): (&Path<'_>, &Path<'_>),
    found: &mut Findings,
) {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    for (key, profile) in entries(annotations, &[]) {
        if key == POD || key.starts_with(CONTAINER) {
            let profile = profile.as_str().unwrap_or("");
            let here = annotations_at.child(key);
            match profile.strip_prefix("localhost/") {
                Some(file) => paths::descending(found, &here, file),
                None if matches!(profile, "runtime/default" | "docker/default" | "unconfined") => {}
                None => found.invalid_text(&here, profile, "must be a valid seccomp profile"),
            }
        }
    }
    if !entries(annotations, &[]).any(|(key, _)| key == POD || key.starts_with(CONTAINER)) {
        return;
    }
    let context = at(spec, &["securityContext"]);
    let here = spec_at.child("securityContext");
    agree(at(annotations, &[POD]), context, &here, found);
    super::containers::visit(spec, spec_at, |container, path| {
        let key = format!("{CONTAINER}{}", text(container, &["name"]));
        let context = at(container, &["securityContext"]);
        let here = path.child("securityContext");
        agree(at(annotations, &[&key]), context, &here, found);
    });
}

fn agree(annotation: &Value, context: &Value, path: &Path<'_>, found: &mut Findings) {
    let profile = at(context, &["seccompProfile"]);
    let Some(annotation) = annotation.as_str().filter(|_| profile.is_object()) else {
        return;
    };
    let path = path.child("seccompProfile");
    let file = text(profile, &["localhostProfile"]);
    let (fits, field, what) = match (text(profile, &["type"]), annotation) {
        ("Unconfined", annotation) => (annotation == "unconfined", "type", "type"),
        ("RuntimeDefault", annotation) => (
            matches!(annotation, "runtime/default" | "docker/default"),
            "type",
            "type",
        ),
        ("Localhost", annotation) => match annotation.strip_prefix("localhost/") {
            None => (false, "type", "type"),
            Some(named) => (named == file, "localhostProfile", "profile"),
        },
        _ => return,
    };
    if !fits {
        let why = format!("seccomp {what} in annotation and field must match");
        found.forbidden(&path.child(field), why);
    }
}
