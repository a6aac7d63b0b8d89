//! What becomes of objects on their way into the store: defaults, preparation, metadata, updates, deletions.

use api::meta::Stamps;
use api::service::{Family, assign_families};
use api::write::{self, Deletion, Fate, Part};
use api::{Resource, decode, decode::FieldValidation, table};
use serde_json::{Value, json};
use time::macros::datetime;

fn stamps() -> Stamps {
    Stamps {
        now: datetime!(2026-01-01 00:00:00.5 UTC),
        uid: "u-1".into(),
        suffix: "abcde".into(),
    }
}

fn cases(yaml: &str) -> Vec<Value> {
    let Value::Array(cases) = decode::untyped_yaml(yaml.as_bytes()).unwrap() else {
        panic!("a list of cases")
    };
    cases
}

fn row(case: &Value) -> &'static Resource {
    table::find(
        case["group"].as_str().unwrap_or(""),
        "v1",
        case["resource"].as_str().unwrap(),
    )
    .unwrap()
}

fn created(resource: &Resource, sent: &Value) -> Value {
    let mut object = decode::check(resource, sent.clone(), FieldValidation::Ignore)
        .unwrap()
        .object;
    write::create(resource, &mut object, "default", &stamps())
        .unwrap_or_else(|status| panic!("{status}"));
    if resource.plural == "services" {
        assign_families(&mut object, None, &[Family::V4]).unwrap();
    }
    object
}

#[test]
fn creations() {
    let cases = cases(include_str!("data/created.yaml"));
    assert!(cases.len() > 10);
    for case in cases {
        let resource = row(&case);
        let mut met = created(resource, &case["sent"]);
        let metadata = met["metadata"].take();
        met.as_object_mut()
            .unwrap()
            .retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        assert_eq!(met, case["stored"], "{}", case["sent"]);
        assert_eq!(metadata["uid"], "u-1");
        assert_eq!(metadata["creationTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(metadata.get("namespace").is_some(), resource.namespaced);
        assert_eq!(
            metadata.get("generation").is_some(),
            resource.has_generation
        );
        assert_eq!(metadata.get("labels"), case.get("labels"));
    }
}

#[test]
fn names_are_generated() {
    let config_maps = table::find("", "v1", "configmaps").unwrap();
    let made = created(
        config_maps,
        &json!({"metadata": {"generateName": "web-", "resourceVersion": "", "uid": "mine"}}),
    );
    assert_eq!(made["metadata"]["name"], "web-abcde");
    assert_eq!(made["metadata"]["uid"], "u-1");
    let made = created(
        config_maps,
        &json!({"metadata": {"generateName": "a".repeat(70)}}),
    );
    assert_eq!(made["metadata"]["name"].as_str().unwrap().len(), 63);
}

#[test]
fn updates() {
    let cases = cases(include_str!("data/updates.yaml"));
    assert!(cases.len() > 15);
    for case in cases {
        let resource = row(&case);
        let fill = |value: &Value| {
            let mut object = value.clone();
            let metadata = api::value::object_mut(&mut object, "metadata").unwrap();
            api::value::set(metadata, "name", "x");
            (resource.default)(&mut object);
            object
        };
        let mut old = fill(&case["old"]);
        if resource.namespaced {
            old["metadata"]["namespace"] = "default".into();
        }
        let mut new = fill(&case["new"]);
        let faults: Vec<String> = match write::update(resource, &mut new, &old, Part::Main) {
            Ok(()) => Vec::new(),
            Err(status) => {
                assert_eq!(status.code, 422, "{status}");
                let causes = status.details.unwrap().causes;
                causes
                    .into_iter()
                    .map(|c| format!("{}: {}", c.field, c.message))
                    // Differences follow on lines of their own, for people.
                    .filter_map(|fault| fault.lines().next().map(str::to_owned))
                    .collect()
            }
        };
        assert_eq!(json!(faults), case["faults"], "{}", case["new"]);
        if let Some(status) = case.get("status") {
            assert_eq!(new["status"], *status, "{}", case["new"]);
        }
    }
}

#[test]
fn names_and_places_cannot_be_changed() {
    let config_maps = table::find("", "v1", "configmaps").unwrap();
    let old = json!({"metadata": {"name": "obs", "namespace": "default", "uid": "u", "resourceVersion": "5"}});
    for (metadata, code, message) in [
        (
            json!({"name": "other"}),
            400,
            "the name of the object (other) does not match the name on the URL (obs)",
        ),
        (
            json!({"name": "obs", "namespace": "x"}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            json!({"name": "obs", "uid": "v"}),
            409,
            "Operation cannot be fulfilled on configmaps \"obs\": Precondition failed: UID in precondition: v, UID in object meta: u",
        ),
    ] {
        let mut new = json!({"metadata": metadata});
        let status = write::update(config_maps, &mut new, &old, Part::Main).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message));
    }
    let leases = table::find("coordination.k8s.io", "v1", "leases").unwrap();
    let status = write::update(
        leases,
        &mut json!({"metadata": {"name": "obs"}}),
        &old,
        Part::Main,
    )
    .unwrap_err();
    assert_eq!(
        status.message,
        "Lease.coordination.k8s.io \"obs\" is invalid: metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    );
}

#[test]
fn generation_counts_wishes() {
    let ingresses = table::find("networking.k8s.io", "v1", "ingresses").unwrap();
    let old = created(
        ingresses,
        &json!({"metadata": {"name": "i"}, "spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}}),
    );
    let after = |change: fn(&mut Value), part| {
        let mut new = old.clone();
        change(&mut new);
        write::update(ingresses, &mut new, &old, part).unwrap();
        new
    };
    let generation = |object: &Value| object["metadata"]["generation"].as_i64().unwrap();
    assert_eq!(generation(&after(|_| {}, Part::Main)), 1);
    assert_eq!(
        generation(&after(
            |o| o["metadata"]["labels"] = json!({"a": "b"}),
            Part::Main
        )),
        1
    );
    assert_eq!(
        generation(&after(
            |o| o["metadata"]["generation"] = 9.into(),
            Part::Main
        )),
        1
    );
    assert_eq!(
        generation(&after(
            |o| o["spec"]["ingressClassName"] = "x".into(),
            Part::Main
        )),
        2
    );
    let status = |o: &mut Value| {
        o["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        o["spec"]["ingressClassName"] = "x".into();
    };
    let met = after(status, Part::Status);
    assert_eq!((generation(&met), &met["spec"]), (1, &old["spec"]));
    assert_eq!(
        met["status"]["loadBalancer"]["ingress"][0]["ip"],
        "192.0.2.1"
    );
    let met = after(status, Part::Main);
    assert_eq!((generation(&met), &met["status"]), (2, &old["status"]));
}

#[test]
fn finalizers_of_a_namespace_change_through_finalize_alone() {
    let namespaces = table::find("", "v1", "namespaces").unwrap();
    let old = created(namespaces, &json!({"metadata": {"name": "x"}}));
    let mut new = old.clone();
    new["spec"]["finalizers"] = json!([]);
    write::update(namespaces, &mut new, &old, Part::Main).unwrap();
    assert_eq!(new["spec"]["finalizers"], json!(["kubernetes"]));
    new["spec"]["finalizers"] = json!([]);
    write::update(namespaces, &mut new, &old, Part::Finalize).unwrap();
    assert_eq!(new["spec"], json!({}));
}

#[test]
fn deletions() {
    let now = datetime!(2026-01-02 00:00 UTC);
    let fate = |plural: &str, object: Value, options: Value| {
        Deletion::parse(&options).unwrap().fate(
            table::find("", "v1", plural).unwrap(),
            &object,
            now,
        )
    };
    let marked = |fate: Fate| match fate {
        Fate::Mark(object) => *object,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        fate("configmaps", json!({"metadata": {"name": "x"}}), json!({})),
        Fate::Remove
    );
    let held = marked(fate(
        "configmaps",
        json!({"metadata": {"finalizers": ["a/b"]}}),
        json!({}),
    ));
    assert_eq!(
        held["metadata"]["deletionTimestamp"],
        "2026-01-02T00:00:00Z"
    );
    assert_eq!(fate("configmaps", held, json!({})), Fate::Waits);
    let owner = marked(fate(
        "configmaps",
        json!({"metadata": {}}),
        json!({"propagationPolicy": "Foreground"}),
    ));
    assert_eq!(
        owner["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );

    let running = json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 45}, "status": {"phase": "Running"}});
    let ending = marked(fate("pods", running.clone(), json!({})));
    assert_eq!(
        ending["metadata"]["deletionTimestamp"],
        "2026-01-02T00:00:45Z"
    );
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 45);
    assert_eq!(ending["metadata"]["generation"], 2);
    let sooner = marked(fate(
        "pods",
        ending.clone(),
        json!({"gracePeriodSeconds": 5}),
    ));
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    assert_eq!(
        fate("pods", ending.clone(), json!({"gracePeriodSeconds": 90})),
        Fate::Waits
    );
    assert_eq!(
        fate("pods", ending, json!({"gracePeriodSeconds": 0})),
        Fate::Remove
    );
    assert_eq!(
        fate("pods", running, json!({"gracePeriodSeconds": 0})),
        Fate::Remove
    );
    assert_eq!(
        fate(
            "pods",
            json!({"metadata": {}, "status": {"phase": "Pending"}}),
            json!({})
        ),
        Fate::Remove
    );

    let patient = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": i64::MAX}, "status": {"phase": "Running"}});
    assert_eq!(
        marked(fate("pods", patient, json!({})))["metadata"]["deletionTimestamp"],
        "9999-12-31T23:59:59Z"
    );

    let namespaces = table::find("", "v1", "namespaces").unwrap();
    let emptied = marked(fate(
        "namespaces",
        json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}}),
        json!({}),
    ));
    assert_eq!(emptied["status"]["phase"], "Terminating");
    assert!(!write::is_done(namespaces, &emptied));
    let mut done = emptied;
    done["spec"] = json!({});
    assert!(write::is_done(namespaces, &done));

    let wrong = Deletion::parse(&json!({"propagationPolicy": "Sideways"})).unwrap_err();
    assert_eq!(wrong.code, 422);
    let options = Deletion::parse(&json!({"preconditions": {"uid": "a"}})).unwrap();
    assert_eq!(
        options
            .check(namespaces, &json!({"metadata": {"name": "x", "uid": "b"}}))
            .unwrap_err()
            .code,
        409
    );
}
