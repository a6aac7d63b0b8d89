//! What a question is about, in words: for explanations, and for plugins that read metadata (`log`, `view`,
//! `rewrite`, `template`).

use std::net::IpAddr;

use zone::{Config, Name, PodName, Question, Snapshot};

/// The object behind an answer, in words: `Service default/web`.
pub(super) fn origin(question: &Question, config: &Config, snapshot: &Snapshot) -> Option<String> {
    let (above, zone) = held_by(question, config)?;
    let label = |n: usize| text(question, n);
    let kind = match config.multicluster.contains(zone) {
        true => "ServiceImport",
        false => "Service",
    };
    match (question.label(above.checked_sub(1)?), above) {
        (b"svc", 3..) => Some(format!("{kind} {}/{}", label(above - 2), label(above - 3))),
        (b"svc" | b"pod", 2) => Some(format!("Namespace {}", label(0))),
        (b"pod", 3) => Some(match pods(question, snapshot).as_slice() {
            [] => format!("a pod of namespace {}", label(1)),
            [PodName { namespace, name }] => format!("Pod {namespace}/{name}"),
            [PodName { namespace, name }, others @ ..] => {
                let others = others.len();
                format!("Pod {namespace}/{name} and {others} more with its address")
            }
        }),
        _ => None,
    }
}

/// The pods that a name `a-b-c-d.<namespace>.pod` is of; none where pods are not followed.
fn pods<'s>(question: &Question, snapshot: &'s Snapshot) -> Vec<&'s PodName> {
    let of_namespace = |pod: &&PodName| {
        let namespace = pod.namespace.as_bytes();
        namespace.eq_ignore_ascii_case(question.label(1))
    };
    let pods = snapshot.pods_spelled(question.label(0)).iter();
    pods.filter(of_namespace).collect()
}

/// CoreDNS's keys and their values: parts of the name, and whose pod asks where pods are followed.
pub(super) fn of(
    question: &Question,
    client: IpAddr,
    config: &Config,
    snapshot: &Snapshot,
) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if let [pod, ..] = snapshot.pods(client.to_canonical()) {
        found.push(("kubernetes/client-namespace", pod.namespace.to_string()));
        found.push(("kubernetes/client-pod-name", pod.name.to_string()));
    }
    let Some((above, _)) = held_by(question, config) else {
        return found;
    };
    // From the right: kind, namespace, service (or a pod's address), and what stands before it.
    let label = |below: usize| above.checked_sub(below).map(|n| text(question, n));
    let plain = |label: String| label.strip_prefix('_').map(str::to_owned).unwrap_or(label);
    let (mut port, mut protocol, mut endpoint) = (None, None, None);
    match above {
        4 => endpoint = label(4),
        5 => (protocol, port) = (label(4).map(plain), label(5).map(plain)),
        _ => {}
    }
    let parts = [
        ("kubernetes/kind", label(1)),
        ("kubernetes/namespace", label(2)),
        ("kubernetes/service", label(3)),
        ("kubernetes/endpoint", endpoint),
        ("kubernetes/protocol", protocol),
        ("kubernetes/port-name", port),
    ];
    found.extend(parts.map(|(key, part)| (key, part.unwrap_or_default())));
    found
}

/// Labels before the longest zone that holds the name, and that zone.
fn held_by<'c>(question: &Question, config: &'c Config) -> Option<(usize, &'c Name)> {
    let zones = config.zones.iter();
    zones
        .filter_map(|zone| Some((question.labels_above(zone.wire())?, zone)))
        .min_by_key(|(above, _)| *above)
}

fn text(question: &Question, n: usize) -> String {
    String::from_utf8_lossy(question.label(n)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_behind_an_answer() {
        let zone = |text: &str| Name::parse(text).expect("a name");
        let mut config = Config::new(vec![zone("cluster.local"), zone("clusterset.local")]);
        config.multicluster = vec![zone("clusterset.local")];
        for (name, object) in [
            ("web.default.svc.cluster.local", Some("Service default/web")),
            (
                "_http._tcp.web.default.svc.cluster.local",
                Some("Service default/web"),
            ),
            (
                "web.default.svc.clusterset.local",
                Some("ServiceImport default/web"),
            ),
            ("default.svc.cluster.local", Some("Namespace default")),
            (
                "1-2-3-4.default.pod.cluster.local",
                Some("a pod of namespace default"),
            ),
            ("web.example", None),
        ] {
            let question = Question::new(zone(name).wire(), 1).expect("a question");
            let snapshot = Snapshot::default();
            let found = origin(&question, &config, &snapshot);
            assert_eq!(found.as_deref(), object, "{name}");
        }
    }
}
