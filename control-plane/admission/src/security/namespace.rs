//! A namespace whose Pods are to be held to a stricter level: those that are there stay, and whoever changes the label is
//! told which of them would be refused by now.

use std::collections::BTreeMap;

use api::field::quoted;
use api::meta;
use api::value::at;
use serde_json::Value;

use super::{Level, findings, policy};

/// The most Pods that are looked at, as in Kubernetes.
const PODS_MAX: usize = 3000;

/// The level that a namespace is newly held to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tightened {
    level: Level,
    version: String,
}

impl Tightened {
    /// `None` where the change of the namespace holds no Pod to more than before.
    pub fn of(new: &Value, old: &Value) -> Option<Self> {
        let enforced =
            |namespace: &Value| policy(at(namespace, &["metadata", "labels"]), "enforce");
        let ((level, version), (before, version_before)) = (enforced(new), enforced(old));
        let relaxed = version == version_before && level <= before;
        (level > Level::Privileged && !relaxed).then_some(Tightened { level, version })
    }

    /// What the client is told: Pods that violate alike in one line.
    pub fn warnings(
        &self,
        namespace: &str,
        count: usize,
        pods: impl Iterator<Item = Value>,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        if count > PODS_MAX {
            warnings.push(format!(
                "new PodSecurity enforce level only checked against the first {PODS_MAX} of {count} existing pods"
            ));
        }
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for pod in pods.take(PODS_MAX) {
            let findings = findings(self.level, &pod["metadata"], &pod["spec"]);
            if findings.is_empty() {
                continue;
            }
            let reasons: Vec<String> = findings.into_iter().map(|(reason, _)| reason).collect();
            let first = || (meta::name(&pod).to_owned(), 0);
            found.entry(reasons.join(", ")).or_insert_with(first).1 += 1;
        }
        if found.is_empty() {
            return warnings;
        }
        let level = format!("{}:{}", self.level.name(), self.version);
        warnings.push(format!(
            "existing pods in namespace {} violate the new PodSecurity enforce level {}",
            quoted(namespace),
            quoted(&level)
        ));
        let mut told: Vec<String> = found
            .into_iter()
            .map(|(reasons, (name, pods))| match pods {
                1 => format!("{name}: {reasons}"),
                2 => format!("{name} (and 1 other pod): {reasons}"),
                more => format!("{name} (and {} other pods): {reasons}", more - 1),
            })
            .collect();
        told.sort_unstable();
        warnings.append(&mut told);
        warnings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(labels: &[(&str, &str)]) -> Value {
        let mut namespace = json!({"metadata": {"name": "a", "labels": {}}});
        for (key, value) in labels {
            namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{key}")] =
                (*value).into();
        }
        namespace
    }

    #[test]
    fn when_pods_are_looked_at() {
        let none: &[(&str, &str)] = &[];
        let (baseline, restricted) = (&[("enforce", "baseline")], &[("enforce", "restricted")]);
        let versioned = &[("enforce", "baseline"), ("enforce-version", "v1.30")];
        for (old, new, looked) in [
            (none, &restricted[..], true),
            (&baseline[..], &restricted[..], true),
            (&restricted[..], &baseline[..], false),
            (&restricted[..], &restricted[..], false),
            (&restricted[..], &versioned[..], true),
            (&restricted[..], none, false),
            (none, &[("warn", "restricted")][..], false),
        ] {
            let tightened = Tightened::of(&namespace(new), &namespace(old));
            assert_eq!(tightened.is_some(), looked, "{old:?} {new:?}");
        }
    }

    #[test]
    fn pods_that_violate_alike_are_told_together() {
        let pod = |name: &str, host_network: bool| {
            json!({
                "metadata": {"name": name},
                "spec": {"hostNetwork": host_network, "containers": [{"name": "c"}]},
            })
        };
        let pods = [
            pod("a", true),
            pod("b", false),
            pod("c", true),
            pod("d", true),
        ];
        let tightened = Tightened::of(&namespace(&[("enforce", "baseline")]), &namespace(&[]));
        let warnings = tightened.unwrap().warnings("n", 4, pods.into_iter());
        assert_eq!(
            warnings,
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 2 other pods): host namespaces",
            ]
        );
    }
}
