//! Decisions, grants and lists over the roles that every cluster begins with.

use api::status::Status;
use authorization::{
    Attributes, Decision, Rbac, ResourceTarget, Target, User, aggregate, bootstrap, escalation,
    refusal, rules_of,
};
use serde_json::{Value, json};

fn put(rbac: &mut Rbac, object: &Value) {
    if object["kind"].as_str().unwrap().ends_with("Binding") {
        rbac.put_binding(object);
    } else {
        rbac.put_role(object);
    }
}

fn cluster() -> Rbac {
    let mut rbac = Rbac::default();
    for object in bootstrap::objects() {
        put(&mut rbac, &object);
    }
    let binding = |namespace: Option<&str>, name: &str, role: (&str, &str), subject: Value| {
        json!({
            "kind": if namespace.is_some() { "RoleBinding" } else { "ClusterRoleBinding" },
            "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject],
        })
    };
    let user = |name: &str| json!({"kind": "User", "name": name});
    for object in [
        json!({"kind": "Role", "metadata": {"name": "reader", "namespace": "a"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}),
        binding(Some("a"), "read", ("Role", "reader"), user("jane")),
        binding(Some("a"), "edits", ("ClusterRole", "edit"), user("ed")),
        binding(
            None,
            "views",
            ("ClusterRole", "view"),
            json!({"kind": "Group", "name": "viewers"}),
        ),
        binding(Some("a"), "gone", ("Role", "gone"), user("lost")),
        binding(
            Some("a"),
            "bot",
            ("Role", "reader"),
            json!({"kind": "ServiceAccount", "name": "bot"}),
        ),
    ] {
        put(&mut rbac, &object);
    }
    rbac
}

fn ask(rbac: &Rbac, user: &User, question: &str) -> Result<String, Status> {
    let words: Vec<&str> = question.split(' ').collect();
    let target = match words.as_slice() {
        [_, path] => Target::Path(path),
        [_, namespace, resource, rest @ ..] => {
            let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            Target::Resource(ResourceTarget {
                group,
                version: "v1",
                namespace: if *namespace == "-" { "" } else { namespace },
                resource,
                subresource,
                name: rest.first().unwrap_or(&""),
            })
        }
        _ => panic!("{question}"),
    };
    let attributes = Attributes {
        user,
        verb: words[0],
        target,
    };
    match rbac.decide(&attributes) {
        Decision::Allow(reason) => Ok(reason),
        Decision::NoOpinion(reason) => Err(refusal(&attributes, &reason)),
    }
}

#[test]
fn who_may_what() {
    let rbac = cluster();
    let users = [
        User::new("admin", &["system:masters", "system:authenticated"]),
        User::new("jane", &["system:authenticated"]),
        User::new("ed", &["system:authenticated"]),
        User::new("vi", &["viewers", "system:authenticated"]),
        User::service_account("a", "bot"),
        User::anonymous(),
    ];
    #[rustfmt::skip]
    let cases = [
        // Who may, of admin, jane, ed, vi, the service account and nobody in particular.
        ("get a pods p", "admin jane ed vi bot"),
        ("list - pods", "admin vi"),
        ("delete a pods p", "admin ed"),
        ("create a deployments.apps", "admin ed"),
        ("create b deployments.apps", "admin"),
        ("get a secrets s", "admin ed"),
        ("create a pods/exec p", "admin ed"),
        ("impersonate a serviceaccounts bot", "admin ed"),
        ("create - selfsubjectaccessreviews.authorization.k8s.io", "admin jane ed vi"),
        ("get /version", "admin jane ed vi bot anonymous"),
        ("get /apis/apps", "admin jane ed vi"),
        ("get /metrics", "admin"),
        ("get a nonsense x", "admin"),
    ];
    for (question, who) in cases {
        let who: Vec<&str> = who.split(' ').collect();
        for user in &users {
            let short = user.name.rsplit(':').next().unwrap();
            let expected = match (question, short) {
                // The service account above is in no group of the authenticated.
                ("get /version", "bot") => false,
                _ => who.contains(&short),
            };
            let answer = ask(&rbac, user, question);
            assert_eq!(answer.is_ok(), expected, "{short}: {question}: {answer:?}");
        }
    }
}

#[test]
fn reasons_are_told() {
    let rbac = cluster();
    let jane = User::new("jane", &[]);
    assert_eq!(
        ask(&rbac, &jane, "get a pods p").unwrap(),
        r#"RBAC: allowed by RoleBinding "read/a" of Role "reader" to User "jane""#
    );
    let vi = User::new("vi", &["viewers"]);
    assert_eq!(
        ask(&rbac, &vi, "get a pods p").unwrap(),
        r#"RBAC: allowed by ClusterRoleBinding "views" of ClusterRole "view" to Group "viewers""#
    );
    #[rustfmt::skip]
    let refusals = [
        (User::anonymous(), "list default pods",
         r#"pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace "default""#),
        (jane.clone(), "update - nodes/status n",
         r#"nodes "n" is forbidden: User "jane" cannot update resource "nodes/status" in API group "" at the cluster scope"#),
        (jane, "get a deployments.apps d",
         r#"deployments.apps "d" is forbidden: User "jane" cannot get resource "deployments" in API group "apps" in the namespace "a""#),
        (User::anonymous(), "get /api", r#"forbidden: User "system:anonymous" cannot get path "/api""#),
        (User::new("lost", &[]), "get a pods p",
         r#"pods "p" is forbidden: User "lost" cannot get resource "pods" in API group "" in the namespace "a": RBAC: role.rbac.authorization.k8s.io "gone" not found"#),
    ];
    for (user, question, expected) in refusals {
        let status = ask(&rbac, &user, question).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (403, expected));
    }
}

#[test]
fn what_is_taken_back_is_gone() {
    let mut rbac = cluster();
    let jane = User::new("jane", &[]);
    rbac.remove_binding("a", "read");
    assert!(ask(&rbac, &jane, "get a pods p").is_err());
    let ed = User::new("ed", &[]);
    rbac.remove_role("", "edit");
    assert!(ask(&rbac, &ed, "delete a pods p").is_err());
    // A binding that is put again is for its new subjects alone.
    let binding = json!({
        "kind": "ClusterRoleBinding", "metadata": {"name": "views"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "jane"}],
    });
    rbac.put_binding(&binding);
    assert!(ask(&rbac, &jane, "get b pods p").is_ok());
    assert!(ask(&rbac, &User::new("vi", &["viewers"]), "get b pods p").is_err());
}

#[test]
fn nobody_grants_what_he_does_not_hold() {
    let rbac = cluster();
    let rules = |rules: Value| rules_of(&json!({"rules": rules}));
    let ed = User::new("ed", &["devs", "system:authenticated"]);
    let held = rules(json!([
        {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["get", "create"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["a", "b"], "verbs": ["patch"]},
    ]));
    assert_eq!(escalation::refuse(&rbac, &ed, "a", &held), None);
    assert!(escalation::refuse(&rbac, &ed, "b", &held).is_some());
    let more = rules(json!([
        {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
    ]));
    assert_eq!(
        escalation::refuse(&rbac, &ed, "a", &more).unwrap(),
        "user \"ed\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
         currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}\n\
         {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
    );
    let everything = escalation::everything();
    assert!(escalation::refuse(&rbac, &ed, "a", &everything).is_some());
    let root = User::new("root", &["system:masters"]);
    assert_eq!(escalation::refuse(&rbac, &root, "a", &everything), None);
}

#[test]
fn roles_are_made_of_others() {
    let objects = bootstrap::objects();
    let mut roles: Vec<Value> = objects
        .into_iter()
        .filter(|object| object["kind"] == "ClusterRole")
        .collect();
    let find = |roles: &[Value], name: &str| {
        let found = roles.iter().find(|r| r["metadata"]["name"] == name);
        found.cloned().unwrap()
    };
    assert_eq!(aggregate::wanted(&find(&roles, "view"), roles.iter()), None);
    let mut custom = json!({
        "kind": "ClusterRole",
        "metadata": {"name": "crontabs", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["stable.example.com"], "resources": ["crontabs"], "verbs": ["get"]}],
    });
    roles.push(custom.clone());
    let view = aggregate::wanted(&find(&roles, "view"), roles.iter()).unwrap();
    assert!(view.iter().any(|rule| rule.resources == ["crontabs"]));
    assert_eq!(aggregate::wanted(&custom, roles.iter()), None);
    custom["aggregationRule"] = json!({"clusterRoleSelectors": []});
    assert_eq!(aggregate::wanted(&custom, roles.iter()), Some(vec![]));
}

#[test]
fn what_somebody_took_from_a_default_role_is_put_back() {
    let wanted = bootstrap::objects();
    assert_eq!(wanted.len(), 137);
    for object in &wanted {
        assert_eq!(bootstrap::mended(object, object), None);
    }
    let binding = wanted
        .iter()
        .find(|o| o["kind"] == "ClusterRoleBinding" && o["metadata"]["name"] == "system:discovery")
        .unwrap();
    let mut changed = binding.clone();
    changed["subjects"] = json!([{"kind": "User", "name": "me"}]);
    let mended = bootstrap::mended(&changed, binding).unwrap();
    assert_eq!(mended["subjects"].as_array().unwrap().len(), 2);
    changed["metadata"]["annotations"] =
        json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
    assert_eq!(bootstrap::mended(&changed, binding), None);
    changed["roleRef"]["name"] = "other".into();
    assert!(!bootstrap::must_replace(&changed, binding));

    let role = wanted
        .iter()
        .find(|o| o["metadata"]["name"] == "system:basic-user" && o["kind"] == "ClusterRole")
        .unwrap();
    let mut changed = role.clone();
    changed["rules"] = json!([{"apiGroups": ["x"], "resources": ["y"], "verbs": ["z"]}]);
    let mended = bootstrap::mended(&changed, role).unwrap();
    let rules = mended["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1 + role["rules"].as_array().unwrap().len());
}
