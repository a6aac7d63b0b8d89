//! What is said of volumes that work no more, or whose files are in each other's way.

use std::collections::BTreeSet;

use serde_json::Value;

use super::pod_spec::findings::Path;
use super::pod_warnings::fraction;
use crate::field::quoted;
use crate::value::{at, list, text};

/// Sources, the names by which they are told of, and what is said.
const OLD: &[(&str, &str, &str)] = &[
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "flocker",
        "flocker",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "quobyte",
        "quobyte",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "rbd",
        "rbd",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
];

/// Looks at the volumes of the spec at `path`.
pub(super) fn check(spec: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let path = path.child("volumes");
    let volumes = list(spec, &["volumes"]);
    for (i, volume) in volumes.iter().enumerate() {
        let here = path.index(i);
        for (key, known_as, words) in OLD {
            if at(volume, &[key]).is_object() {
                said.push(format!("{}: {words}", here.child(known_as)));
            }
        }
        let ephemeral = here.child("ephemeral");
        let template = ephemeral.child("volumeClaimTemplate");
        claim(
            at(volume, &["ephemeral", "volumeClaimTemplate", "spec"]),
            &template.child("spec"),
            said,
        );
    }
    for volume in volumes {
        let name = quoted(text(volume, &["name"]));
        for (key, kind, named) in [
            ("configMap", "ConfigMap", Some("name")),
            ("secret", "Secret", Some("secretName")),
            ("downwardAPI", "DownwardAPI", None),
        ] {
            let source = at(volume, &[key]);
            if let Some(files) = files(source) {
                let what = called(kind, source, named);
                overlaps(
                    &files,
                    &format!("volume {name} ({what}): overlapping paths"),
                    said,
                );
            }
        }
        projected(&name, at(volume, &["projected"]), said);
    }
}

/// The spec of a claim: fractions of bytes.
pub(super) fn claim(spec: &Value, path: &Path<'_>, said: &mut Vec<String>) {
    let resources = path.child("resources");
    for part in ["requests", "limits"] {
        if let Some(words) = fraction(at(spec, &["resources", part, "storage"])) {
            said.push(format!("{}: {words}", resources.child(part).key("storage")));
        }
    }
}

fn files(source: &Value) -> Option<Vec<&str>> {
    let items = at(source, &["items"]).as_array()?;
    Some(items.iter().map(|item| text(item, &["path"])).collect())
}

fn called(kind: &str, source: &Value, named: Option<&str>) -> String {
    match named {
        Some(key) => format!("{kind} {}", quoted(text(source, &[key]))),
        None => kind.to_owned(),
    }
}

fn projected(volume: &str, source: &Value, said: &mut Vec<String>) {
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for source in list(source, &["sources"]) {
        let Some((key, inner)) = [
            "configMap",
            "secret",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
        ]
        .iter()
        .map(|key| (*key, at(source, &[key])))
        .find(|(_, inner)| inner.is_object()) else {
            if crate::value::is_empty(source) {
                said.push(format!(
                    "volume {volume} (Projected) has no sources provided"
                ));
            }
            continue;
        };
        let what = match key {
            "configMap" => called("ConfigMap", inner, Some("name")),
            "secret" => called("Secret", inner, Some("name")),
            "downwardAPI" => called("DownwardAPI", inner, None),
            "serviceAccountToken" => called("ServiceAccountToken", inner, None),
            _ if at(inner, &["name"]).is_string() => {
                called("ClusterTrustBundle", inner, Some("name"))
            }
            _ => called("ClusterTrustBundle", inner, Some("signerName")),
        };
        let paths = match key {
            "serviceAccountToken" | "clusterTrustBundle" => vec![text(inner, &["path"])],
            _ => files(inner).unwrap_or_default(),
        };
        let words = format!("volume {volume} (Projected {what}): overlapping paths");
        overlaps(&paths, &words, said);
        let own: BTreeSet<&str> = paths.into_iter().collect();
        let mut both: Vec<&str> = own.iter().chain(&all).copied().collect();
        both.sort_unstable();
        overlaps(&both, &words, said);
        all.extend(own);
    }
}

/// Files that stand where another stands, or where another needs a directory.
fn overlaps(paths: &[&str], words: &str, said: &mut Vec<String>) {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for path in paths {
        let path = path.trim_end_matches('/');
        let other = seen.iter().find(|other| {
            !path.is_empty()
                && !other.is_empty()
                && (format!("{other}/").starts_with(path) || format!("{path}/").starts_with(*other))
        });
        if let Some(other) = other {
            said.push(format!("{words}: {} with {}", quoted(path), quoted(other)));
        }
        seen.insert(path);
    }
}

#[cfg(test)]
mod tests {
    use crate::kinds::pod_warnings::{of_pod, of_workload};
    use serde_json::json;

    #[test]
    fn each_says_its_sentence() {
        for (spec, expected) in [
            (
                json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
                "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            ),
            (
                json!({"imagePullSecrets": [{"name": ""}]}),
                "spec.imagePullSecrets[0].name: invalid empty name \"\"",
            ),
            (
                json!({"terminationGracePeriodSeconds": -1}),
                "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            ),
            (
                json!({"containers": [{"resources": {"requests": {"memory": "100m"}}}]}),
                "spec.containers[0].resources.requests[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            ),
            (
                json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}]}),
                "spec.containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply",
            ),
            (
                json!({"containers": [{"ports": [{"containerPort": 80}, {"containerPort": 80}]}]}),
                "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            ),
            (
                json!({"volumes": [{"name": "a", "glusterfs": {}}]}),
                "spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+",
            ),
            (
                json!({"volumes": [{"name": "a", "configMap": {"name": "x", "items": [{"path": "p"}, {"path": "p/q"}]}}]}),
                "volume \"a\" (ConfigMap \"x\"): overlapping paths: \"p/q\" with \"p\"",
            ),
        ] {
            assert_eq!(
                of_pod(&json!({"metadata": {"name": "p"}, "spec": spec}), None),
                [expected]
            );
            let object = json!({"spec": {"template": {"spec": spec}}});
            let deeper = expected.replace("spec.", "spec.template.spec.");
            assert_eq!(of_workload(&object, None), [deeper]);
            assert_eq!(of_workload(&object, Some(&object)), Vec::<String>::new());
        }
        let dotted = of_pod(&json!({"metadata": {"name": "a.b"}}), None);
        assert_eq!(
            dotted,
            [
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
            ]
        );
        let good = json!({"containers": [{"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}]});
        assert_eq!(
            of_pod(&json!({"metadata": {"name": "p"}, "spec": good}), None),
            Vec::<String>::new()
        );
    }
}
