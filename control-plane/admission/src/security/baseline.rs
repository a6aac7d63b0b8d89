//! The checks of the baseline level.

use api::value::{at, entries, flag, list, number, text};
use serde_json::Value;

use super::{Check, Finding, Texts, names, plural, shown, where_true};
use crate::pod::containers;

/// Annotations that name the AppArmor profile of a container.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// In the order of their names in Kubernetes, which is that of refusals; those between these that the restricted level
/// has its own for are in [`REPLACED`].
pub(crate) const FIRST: &[Check] = &[app_armor, host_namespaces];
/// What the restricted level checks more strictly.
pub(crate) const REPLACED: &[Check] = &[capabilities, host_path_volumes, seccomp];
/// The others.
pub(crate) const REST: &[Check] = &[
    host_ports,
    host_probes,
    privileged,
    proc_mount,
    se_linux,
    sysctls,
    windows_host_process,
];

/// Where a finding stands among all of the level.
pub(crate) fn place(reason: &str) -> usize {
    const ORDER: &[&str] = &[
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        "non-default capabilities",
        "host namespaces",
        "hostPath volumes",
        "hostPort",
        "probe or lifecycle host",
        "privileged",
        "procMount",
        "seLinuxOptions",
        "seccompProfile",
        "forbidden sysctls",
        "hostProcess",
    ];
    ORDER
        .iter()
        .position(|known| *known == reason)
        .unwrap_or(ORDER.len())
}

fn finding(reason: &str, detail: String) -> Option<Finding> {
    Some((reason.to_owned(), detail))
}

/// `pod`, `containers "a", "b"` or both, whichever were found.
fn setters(pod: bool, containers: &[&str]) -> Option<String> {
    let mut all = Vec::new();
    if pod {
        all.push("pod".to_owned());
    }
    if !containers.is_empty() {
        all.push(shown(containers));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

fn app_armor(metadata: &Value, spec: &Value) -> Option<Finding> {
    const TYPE: &[&str] = &["securityContext", "appArmorProfile", "type"];
    let mut bad = Texts::new();
    let forbidden =
        |holder: &'_ Value| !matches!(text(holder, TYPE), "" | "RuntimeDefault" | "Localhost");
    let pod = forbidden(spec);
    let named = where_true(spec, |c| {
        !matches!(text(c, TYPE), "" | "RuntimeDefault" | "Localhost")
    });
    if pod {
        bad.insert(text(spec, TYPE));
    }
    bad.extend(
        containers(spec)
            .map(|c| text(c, TYPE))
            .filter(|kind| !matches!(*kind, "" | "RuntimeDefault" | "Localhost")),
    );
    let annotations: Vec<String> = entries(metadata, &["annotations"])
        .filter(|(key, _)| key.starts_with(APP_ARMOR))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !matches!(*value, "" | "runtime/default") && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(pod, &named).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<&str> = bad
        .iter()
        .copied()
        .chain(annotations.iter().map(String::as_str))
        .collect();
    let reason = plural(
        values.len(),
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
    );
    finding(
        reason,
        format!(
            "{} must not set AppArmor profile type to {}",
            who.join(" and "),
            names(values)
        ),
    )
}

/// Capabilities that containers have anyway.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn capabilities(_: &Value, spec: &Value) -> Option<Finding> {
    let added = |container| {
        list(container, &["securityContext", "capabilities", "add"])
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !DEFAULT_CAPABILITIES.contains(name))
    };
    let bad = where_true(spec, |container| added(container).next().is_some());
    if bad.is_empty() {
        return None;
    }
    let forbidden: Texts<'_> = containers(spec).flat_map(added).collect();
    finding(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            shown(&bad),
            names(forbidden)
        ),
    )
}

fn host_namespaces(_: &Value, spec: &Value) -> Option<Finding> {
    let set: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .iter()
        .filter(|key| flag(spec, &[key]))
        .map(|key| format!("{key}=true"))
        .collect();
    if set.is_empty() {
        return None;
    }
    finding("host namespaces", set.join(", "))
}

fn host_path_volumes(_: &Value, spec: &Value) -> Option<Finding> {
    let bad: Vec<&str> = list(spec, &["volumes"])
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| text(volume, &["name"]))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let word = plural(bad.len(), "volume", "volumes");
    finding("hostPath volumes", format!("{word} {}", names(bad)))
}

fn host_ports(_: &Value, spec: &Value) -> Option<Finding> {
    let ports = |container| {
        list(container, &["ports"])
            .iter()
            .map(|port| number(port, &["hostPort"]))
            .filter(|port| *port != 0)
    };
    let bad = where_true(spec, |container| ports(container).next().is_some());
    if bad.is_empty() {
        return None;
    }
    let forbidden: std::collections::BTreeSet<String> = containers(spec)
        .flat_map(ports)
        .map(|port| port.to_string())
        .collect();
    let told: Vec<String> = forbidden.into_iter().collect();
    finding(
        "hostPort",
        format!(
            "{} {} {} {}",
            shown(&bad),
            plural(bad.len(), "uses", "use"),
            plural(told.len(), "hostPort", "hostPorts"),
            told.join(", ")
        ),
    )
}

fn host_probes(_: &Value, spec: &Value) -> Option<Finding> {
    const HANDLERS: &[&[&str]] = &[
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let hosts = |container| {
        HANDLERS
            .iter()
            .map(move |path| at(container, path))
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|kind| text(handler, &[kind, "host"])))
            .filter(|host| !host.is_empty())
    };
    let bad: Texts<'_> = where_true(spec, |container| hosts(container).next().is_some())
        .into_iter()
        .collect();
    if bad.is_empty() {
        return None;
    }
    let forbidden: Texts<'_> = containers(spec).flat_map(hosts).collect();
    let bad: Vec<&str> = bad.into_iter().collect();
    finding(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            shown(&bad),
            plural(bad.len(), "uses", "use"),
            plural(
                forbidden.len(),
                "probe or lifecycle host",
                "probe or lifecycle hosts"
            ),
            names(forbidden)
        ),
    )
}

fn privileged(_: &Value, spec: &Value) -> Option<Finding> {
    let bad = where_true(spec, |c| flag(c, &["securityContext", "privileged"]));
    if bad.is_empty() {
        return None;
    }
    finding(
        "privileged",
        format!(
            "{} must not set securityContext.privileged=true",
            shown(&bad)
        ),
    )
}

/// Whether the Pod's users are not those of the host.
pub(crate) fn own_users(spec: &Value) -> bool {
    at(spec, &["hostUsers"]) == &Value::Bool(false)
}

fn proc_mount(_: &Value, spec: &Value) -> Option<Finding> {
    const PATH: &[&str] = &["securityContext", "procMount"];
    if own_users(spec) {
        return None;
    }
    unmasked(spec, PATH)
}

/// The same where the Pod has users of its own too: the restricted level asks for more.
pub(crate) fn proc_mount_always(_: &Value, spec: &Value) -> Option<Finding> {
    if own_users(spec) {
        unmasked(spec, &["securityContext", "procMount"])
    } else {
        None
    }
}

fn unmasked(spec: &Value, path: &[&str]) -> Option<Finding> {
    let kind = |container| text(container, path);
    let bad = where_true(spec, |container| !matches!(kind(container), "" | "Default"));
    if bad.is_empty() {
        return None;
    }
    let kinds: Texts<'_> = containers(spec)
        .map(kind)
        .filter(|kind| !matches!(*kind, "" | "Default"))
        .collect();
    finding(
        "procMount",
        format!(
            "{} must not set securityContext.procMount to {}",
            shown(&bad),
            names(kinds)
        ),
    )
}

fn se_linux(_: &Value, spec: &Value) -> Option<Finding> {
    const ALLOWED: &[&str] = &[
        "",
        "container_t",
        "container_init_t",
        "container_kvm_t",
        "container_engine_t",
    ];
    let options = |holder| at(holder, &["securityContext", "seLinuxOptions"]);
    let forbidden = |holder| {
        let options = options(holder);
        !ALLOWED.contains(&text(options, &["type"]))
            || !text(options, &["user"]).is_empty()
            || !text(options, &["role"]).is_empty()
    };
    let who = setters(forbidden(spec), &where_true(spec, forbidden))?;
    let all = || std::iter::once(spec).chain(containers(spec)).map(options);
    let kinds: Texts<'_> = all()
        .map(|options| text(options, &["type"]))
        .filter(|kind| !ALLOWED.contains(kind))
        .collect();
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!(
            "{} {}",
            plural(kinds.len(), "type", "types"),
            names(kinds)
        ));
    }
    for key in ["user", "role"] {
        if all().any(|options| !text(options, &[key]).is_empty()) {
            what.push(format!("{key} may not be set"));
        }
    }
    finding(
        "seLinuxOptions",
        format!(
            "{who} set forbidden securityContext.seLinuxOptions: {}",
            what.join("; ")
        ),
    )
}

pub(crate) const SECCOMP: &[&str] = &["securityContext", "seccompProfile", "type"];

fn seccomp(_: &Value, spec: &Value) -> Option<Finding> {
    let forbidden = |holder| !matches!(text(holder, SECCOMP), "" | "RuntimeDefault" | "Localhost");
    let who = setters(forbidden(spec), &where_true(spec, forbidden))?;
    let kinds: Texts<'_> = std::iter::once(spec)
        .chain(containers(spec))
        .filter(|holder| forbidden(holder))
        .map(|holder| text(holder, SECCOMP))
        .collect();
    finding(
        "seccompProfile",
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            names(kinds)
        ),
    )
}

/// Kernel parameters that are kept apart for each Pod.
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

fn sysctls(_: &Value, spec: &Value) -> Option<Finding> {
    let bad: Vec<&str> = list(spec, &["securityContext", "sysctls"])
        .iter()
        .map(|sysctl| text(sysctl, &["name"]))
        .filter(|name| !SYSCTLS.contains(name))
        .collect();
    if bad.is_empty() {
        return None;
    }
    finding("forbidden sysctls", bad.join(", "))
}

fn windows_host_process(_: &Value, spec: &Value) -> Option<Finding> {
    const PATH: &[&str] = &["securityContext", "windowsOptions", "hostProcess"];
    let who = setters(flag(spec, PATH), &where_true(spec, |c| flag(c, PATH)))?;
    finding(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
