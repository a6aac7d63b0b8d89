//! The checks of the restricted level beyond, or in the place of, those of the baseline.

use api::value::{at, list, text};
use serde_json::Value;

use super::baseline::{SECCOMP, own_users, proc_mount_always};
use super::{Check, Finding, Texts, names, plural, shown, where_true};
use crate::pod::containers;

/// In the order of their names in Kubernetes.
pub(crate) const ALL: &[Check] = &[
    privilege_escalation,
    capabilities,
    proc_mount_always,
    volumes,
    run_as_non_root,
    run_as_user,
    seccomp,
];

fn finding(reason: &str, detail: String) -> Option<Finding> {
    Some((reason.to_owned(), detail))
}

fn is_windows(spec: &Value) -> bool {
    text(spec, &["os", "name"]) == "windows"
}

fn privilege_escalation(_: &Value, spec: &Value) -> Option<Finding> {
    const PATH: &[&str] = &["securityContext", "allowPrivilegeEscalation"];
    if is_windows(spec) {
        return None;
    }
    let bad = where_true(spec, |c| at(c, PATH) != &Value::Bool(false));
    if bad.is_empty() {
        return None;
    }
    finding(
        "allowPrivilegeEscalation != false",
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            shown(&bad)
        ),
    )
}

fn capabilities(_: &Value, spec: &Value) -> Option<Finding> {
    if is_windows(spec) {
        return None;
    }
    const PATH: &[&str] = &["securityContext", "capabilities"];
    let keeps = where_true(spec, |container| {
        let dropped = list(at(container, PATH), &["drop"]);
        !dropped.iter().any(|name| name == "ALL")
    });
    let added = |container| {
        list(at(container, PATH), &["add"])
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "NET_BIND_SERVICE")
    };
    let adds = where_true(spec, |container| added(container).next().is_some());
    let mut told = Vec::new();
    if !keeps.is_empty() {
        told.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            shown(&keeps)
        ));
    }
    if !adds.is_empty() {
        let forbidden: Texts<'_> = containers(spec).flat_map(added).collect();
        told.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            shown(&adds),
            names(forbidden)
        ));
    }
    if told.is_empty() {
        return None;
    }
    finding("unrestricted capabilities", told.join("; "))
}

fn volumes(_: &Value, spec: &Value) -> Option<Finding> {
    const ALLOWED: &[&str] = &[
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let kind = |volume: &'_ Value| -> Option<String> {
        let fields = volume.as_object()?;
        let found = fields.keys().find(|key| !ALLOWED.contains(&key.as_str()));
        found.cloned()
    };
    let bad: Vec<(&str, String)> = list(spec, &["volumes"])
        .iter()
        .filter_map(|volume| Some((text(volume, &["name"]), kind(volume)?)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: Texts<'_> = bad.iter().map(|(_, kind)| kind.as_str()).collect();
    finding(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural(bad.len(), "volume", "volumes"),
            names(bad.iter().map(|(name, _)| *name)),
            plural(bad.len(), "uses", "use"),
            plural(
                kinds.len(),
                "restricted volume type",
                "restricted volume types"
            ),
            names(kinds)
        ),
    )
}

fn run_as_non_root(_: &Value, spec: &Value) -> Option<Finding> {
    const REASON: &str = "runAsNonRoot != true";
    const PATH: &[&str] = &["securityContext", "runAsNonRoot"];
    if own_users(spec) {
        return None;
    }
    let pod = at(spec, PATH).as_bool();
    let refusing = where_true(spec, |c| at(c, PATH) == &Value::Bool(false));
    let silent = where_true(spec, |c| !at(c, PATH).is_boolean());
    let mut told = Vec::new();
    if pod == Some(false) {
        told.push("pod".to_owned());
    }
    if !refusing.is_empty() {
        told.push(shown(&refusing));
    }
    if !told.is_empty() {
        return finding(
            REASON,
            format!(
                "{} must not set securityContext.runAsNonRoot=false",
                told.join(" and ")
            ),
        );
    }
    if pod == Some(true) || silent.is_empty() {
        return None;
    }
    finding(
        REASON,
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            shown(&silent)
        ),
    )
}

fn run_as_user(_: &Value, spec: &Value) -> Option<Finding> {
    const PATH: &[&str] = &["securityContext", "runAsUser"];
    if own_users(spec) {
        return None;
    }
    let root = |holder| at(holder, PATH).as_i64() == Some(0);
    let bad = where_true(spec, root);
    let mut told = Vec::new();
    if root(spec) {
        told.push("pod".to_owned());
    }
    if !bad.is_empty() {
        told.push(shown(&bad));
    }
    if told.is_empty() {
        return None;
    }
    finding(
        "runAsUser=0",
        format!("{} must not set runAsUser=0", told.join(" and ")),
    )
}

fn seccomp(_: &Value, spec: &Value) -> Option<Finding> {
    if is_windows(spec) {
        return None;
    }
    let kind = |holder| text(holder, SECCOMP);
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let forbidden = |holder| !kind(holder).is_empty() && !allowed(kind(holder));
    let bad = where_true(spec, forbidden);
    let mut told = Vec::new();
    if forbidden(spec) {
        told.push("pod".to_owned());
    }
    if !bad.is_empty() {
        told.push(shown(&bad));
    }
    if !told.is_empty() {
        let kinds: Texts<'_> = std::iter::once(spec)
            .chain(containers(spec))
            .filter(|holder| forbidden(holder))
            .map(kind)
            .collect();
        return finding(
            "seccompProfile",
            format!(
                "{} must not set securityContext.seccompProfile.type to {}",
                told.join(" and "),
                names(kinds)
            ),
        );
    }
    let silent = where_true(spec, |container| kind(container).is_empty());
    if allowed(kind(spec)) || silent.is_empty() {
        return None;
    }
    finding(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            shown(&silent)
        ),
    )
}
