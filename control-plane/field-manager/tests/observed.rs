//! The sequence of writes that a real kube-apiserver was watched through, entry for entry.

use field_manager::{Refusal, Type, Writer, apply, track};
use serde_json::{Value, json};

const API_VERSION: &str = "apps/v1";

fn deployment() -> Type<'static> {
    Type::built_in(api::schema::find("io.k8s.api.apps.v1.Deployment").unwrap())
}

/// What Kubernetes fills in.
fn fill(object: &mut Value) {
    let mut set = |pointer: &str, key: &str, default: Value| {
        if let Some(Value::Object(map)) = object.pointer_mut(pointer) {
            map.entry(key).or_insert(default);
        }
    };
    set("/spec", "progressDeadlineSeconds", json!(600));
    set("/spec", "replicas", json!(1));
    set("/spec", "revisionHistoryLimit", json!(10));
    set(
        "/spec",
        "strategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}),
    );
    let pod = [
        ("dnsPolicy", json!("ClusterFirst")),
        ("restartPolicy", json!("Always")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("terminationGracePeriodSeconds", json!(30)),
    ];
    for (key, default) in pod {
        set("/spec/template/spec", key, default);
    }
    let container = [
        ("imagePullPolicy", json!("Always")),
        ("resources", json!({})),
        ("terminationMessagePath", json!("/dev/termination-log")),
        ("terminationMessagePolicy", json!("File")),
    ];
    for (key, default) in container {
        set("/spec/template/spec/containers/0", key, default);
    }
    set(
        "/spec/template/spec/containers/0/ports/0",
        "protocol",
        json!("TCP"),
    );
}

fn manifest(b: &str) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "Deployment",
        "metadata": {"name": "ssa", "namespace": "default", "labels": {"a": "1"}},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "ssa"}},
            "template": {"metadata": {"labels": {"app": "ssa"}}, "spec": {"containers": [{
                "name": "c", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": b}],
                "ports": [{"containerPort": 80, "name": "http"}],
            }]}},
        },
    })
}

/// One env variable of the container, by a manager who cares for nothing else.
fn only(env: &Value) -> Value {
    json!({
        "apiVersion": API_VERSION, "kind": "Deployment", "metadata": {"name": "ssa", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}},
    })
}

fn writer<'a>(manager: &'a str, subresource: &'a str, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        subresource,
        api_version: API_VERSION,
        now,
        without_status: subresource != "status",
    }
}

struct Cluster {
    object: Value,
    seconds: u32,
}

impl Cluster {
    fn update(&mut self, manager: &str, subresource: &str, change: impl FnOnce(&mut Value)) {
        let mut new = self.object.clone();
        change(&mut new);
        let now = self.now();
        track(
            deployment(),
            Some(&self.object),
            &mut new,
            &writer(manager, subresource, &now),
        );
        self.object = new;
    }

    fn apply(&mut self, manager: &str, config: &Value, force: bool) -> Result<(), Refusal> {
        let now = self.now();
        let who = writer(manager, "", &now);
        let mut new = apply(deployment(), &self.object, config, &who, force)?;
        fill(&mut new);
        self.object = new;
        // A second time changes nothing, not even a time.
        let later = writer(manager, "", "2030-01-01T00:00:00Z");
        let mut again = apply(deployment(), &self.object, config, &later, false).unwrap();
        fill(&mut again);
        assert_eq!(again, self.object);
        Ok(())
    }

    fn now(&self) -> String {
        format!("2026-01-01T00:00:{:02}Z", self.seconds)
    }

    /// What kubectl does after the first server-side apply: the records of client-side apply become the applier's.
    fn migrate(&mut self, manager: &str) {
        let entries = self.object["metadata"]["managedFields"].as_array().unwrap();
        let by = |name: &str| entries.iter().find(|e| e["manager"] == name).cloned();
        let Some(client_side) = by("kubectl-client-side-apply") else {
            return;
        };
        let mut own = by(manager).unwrap();
        let fields = |entry: &Value| field_manager::Set::decode(&entry["fieldsV1"]).unwrap();
        let mut all = fields(&own);
        all.extend(fields(&client_side));
        own["fieldsV1"] = all.encode();
        let mut kept: Vec<Value> = entries
            .iter()
            .filter(|e| e["manager"] != "kubectl-client-side-apply" && e["manager"] != manager)
            .cloned()
            .collect();
        kept.push(own);
        self.update("kubectl", "", |new| {
            new["metadata"]["managedFields"] = kept.into();
        });
    }

    fn entries(&self) -> Vec<Value> {
        let mut entries = self.object["metadata"]["managedFields"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        for entry in &mut entries {
            entry.as_object_mut().unwrap().remove("time").unwrap();
        }
        entries
    }
}

fn status(object: &mut Value, counts: &[&str]) {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "t", "lastUpdateTime": "t"});
    object["status"] = json!({
        "conditions": [condition("Progressing"), condition("Available")], "observedGeneration": object["status"]["observedGeneration"].as_i64().unwrap_or(0) + 1,
        "terminatingReplicas": 0,
    });
    for count in counts {
        object["status"][count] = json!(1);
    }
}

#[test]
fn the_observed_sequence_is_reproduced() {
    let observed = include_str!("data/observed.txt");
    let mut sections = observed.split("\n## ").skip(1).map(|section| {
        let mut lines = section.lines();
        let title = lines.next().unwrap();
        let entries: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
        (title, entries)
    });
    let mut check = |cluster: &Cluster| {
        let (title, entries) = sections.next().unwrap();
        let found = cluster.entries();
        for (found, expected) in found.iter().zip(&entries) {
            assert_eq!(found, expected, "{title}");
        }
        assert_eq!(found.len(), entries.len(), "{title}");
    };

    let mut created = manifest("2");
    created["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": manifest("2").to_string()});
    created["metadata"]["uid"] = "u".into();
    fill(&mut created);
    let mut cluster = Cluster {
        object: created,
        seconds: 0,
    };
    let now = cluster.now();
    let client_side = writer("kubectl-client-side-apply", "", &now);
    track(deployment(), None, &mut cluster.object, &client_side);
    cluster.update("kube-controller-manager", "status", |object| {
        object["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1".into();
        status(object, &[]);
    });
    check(&cluster);

    let refused = cluster
        .apply("two", &manifest("3"), false)
        .unwrap_err()
        .status();
    assert_eq!(
        (refused.code, &*refused.reason, refused.message.as_str()),
        (
            409,
            "Conflict",
            "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: \
             .spec.template.spec.containers[name=\"c\"].env[name=\"B\"].value"
        )
    );
    cluster.apply("two", &manifest("3"), true).unwrap();
    cluster.migrate("two");
    cluster.apply("two", &manifest("3"), false).unwrap();
    check(&cluster);

    cluster
        .apply("three", &only(&json!([{"name": "C", "value": "1"}])), false)
        .unwrap();
    assert_eq!(
        cluster
            .object
            .pointer("/spec/template/spec/containers/0/env/2/name"),
        Some(&json!("C"))
    );
    check(&cluster);
    cluster.apply("three", &only(&json!([])), false).unwrap();
    assert_eq!(
        cluster
            .object
            .pointer("/spec/template/spec/containers/0/env/2"),
        None
    );
    check(&cluster);

    cluster.seconds += 1;
    cluster.update("kubectl-patch", "scale", |object| {
        object["spec"]["replicas"] = json!(1);
    });
    cluster.seconds += 1;
    let counts = ["replicas", "unavailableReplicas", "updatedReplicas"];
    cluster.update("kube-controller-manager", "status", |object| {
        status(object, &counts);
    });
    check(&cluster);

    cluster.seconds += 1;
    cluster.update("kubectl-label", "", |object| {
        object["metadata"]["labels"]["z"] = "1".into();
    });
    check(&cluster);

    cluster.seconds += 1;
    cluster.apply("kubectl", &manifest("2"), true).unwrap();
    cluster.seconds += 1;
    cluster.update("kube-controller-manager", "status", |object| {
        status(object, &[]);
    });
    check(&cluster);
    assert_eq!(cluster.object["spec"]["replicas"], 0);
}
