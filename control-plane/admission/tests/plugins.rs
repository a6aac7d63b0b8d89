//! What plugins change and refuse, case by case.

use std::collections::BTreeMap;
use std::sync::Arc;

use admission::{Attributes, Lookup, Operation, Warnings, enabled, mutate, quota, validate};
use api::status::Status;
use authorization::User;
use serde_json::{Value, json};

#[derive(Default)]
struct World(BTreeMap<(String, String, String), Arc<Value>>);

impl World {
    fn new() -> Self {
        let mut world = World::default();
        world.put("namespaces", json!({"metadata": {"name": "a"}}));
        world.put(
            "serviceaccounts",
            json!({"metadata": {"name": "default", "namespace": "a"}}),
        );
        world
    }

    fn put(&mut self, resource: &str, object: Value) {
        let part = |key: &str| {
            object["metadata"][key]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let key = (resource.to_owned(), part("namespace"), part("name"));
        self.0.insert(key, Arc::new(object));
    }
}

impl Lookup for World {
    fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0
            .get(&(resource.into(), namespace.into(), name.into()))
            .cloned()
    }

    fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.0
            .iter()
            .filter(|(key, _)| key.0 == resource && (namespace.is_empty() || key.1 == namespace))
            .map(|(_, object)| object.clone())
            .collect()
    }

    fn decide(&self, attributes: &authorization::Attributes<'_>) -> authorization::Decision {
        if attributes.user.is("signers") {
            authorization::Decision::Allow(String::new())
        } else {
            authorization::Decision::NoOpinion(String::new())
        }
    }
}

fn admit(
    world: &World,
    operation: Operation,
    path: &str,
    mut object: Value,
    old: Option<&Value>,
) -> Result<(Value, Warnings), Status> {
    let (resource, group) = path.split_once('.').unwrap_or((path, ""));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let user = User::new("u", &[]);
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let namespace = if matches!(resource, "namespaces" | "nodes" | "priorityclasses") {
        ""
    } else {
        "a"
    };
    let attributes = Attributes {
        operation,
        user: &user,
        group,
        resource,
        subresource,
        namespace,
        name: &name,
        suffix: "x7k2p",
    };
    let plugins = enabled(&[]).unwrap();
    let mut warnings = Warnings::new();
    mutate(&plugins, &attributes, &mut object, old, world)?;
    validate(&plugins, &attributes, &object, old, world, &mut warnings)?;
    Ok((object, warnings))
}

fn create(world: &World, path: &str, object: Value) -> Result<(Value, Warnings), Status> {
    admit(world, Operation::Create, path, object, None)
}

fn pod(spec: Value) -> Value {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"containers": [{"name": "c"}]}});
    for (key, value) in spec.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn refused(answer: Result<(Value, Warnings), Status>) -> String {
    answer.map(|(object, _)| object).unwrap_err().message
}

#[test]
fn a_pod_gets_what_every_pod_gets() {
    let (pod, _) = create(&World::new(), "pods", pod(json!({}))).unwrap();
    let spec = &pod["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": "kube-api-access-x7k2p", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}])
    );
    let sources = spec["volumes"][0]["projected"]["sources"]
        .as_array()
        .unwrap();
    assert_eq!(sources.len(), 3);
    assert_eq!(sources[0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&spec["priority"], &spec["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    // Nothing comes twice.
    let (again, _) = create(&World::new(), "pods", pod.clone()).unwrap();
    assert_eq!(again, pod);
}

#[test]
fn accounts_of_pods() {
    let mut world = World::new();
    world.put(
        "serviceaccounts",
        json!({"metadata": {"name": "quiet", "namespace": "a"}, "automountServiceAccountToken": false,
            "imagePullSecrets": [{"name": "pull"}]}),
    );
    let quiet = pod(json!({"serviceAccountName": "quiet"}));
    let (quiet, _) = create(&world, "pods", quiet).unwrap();
    assert!(quiet["spec"]["volumes"].is_null());
    assert_eq!(quiet["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let wanted = pod(json!({"serviceAccountName": "quiet", "automountServiceAccountToken": true}));
    assert!(create(&world, "pods", wanted).unwrap().0["spec"]["volumes"].is_array());
    let missing = pod(json!({"serviceAccountName": "none"}));
    assert_eq!(
        refused(create(&world, "pods", missing)),
        "pods \"p\" is forbidden: error looking up service account a/none: serviceaccount \"none\" not found"
    );
    world.put(
        "serviceaccounts",
        json!({"metadata": {"name": "strict", "namespace": "a",
            "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}}, "secrets": [{"name": "s"}]}),
    );
    let mounts = |secret: &str| {
        pod(
            json!({"serviceAccountName": "strict", "volumes": [{"name": "v", "secret": {"secretName": secret}}]}),
        )
    };
    assert!(create(&world, "pods", mounts("s")).is_ok());
    assert_eq!(
        refused(create(&world, "pods", mounts("t"))),
        "pods \"p\" is forbidden: volume with secret.secretName=\"t\" is not allowed because service account strict does \
         not reference that secret"
    );
}

#[test]
fn namespaces_that_are_absent_or_end() {
    let mut world = World::new();
    let config = || json!({"metadata": {"name": "c"}});
    assert!(create(&world, "configmaps", config()).is_ok());
    world.put(
        "namespaces",
        json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}}),
    );
    let refusal = create(&world, "configmaps", config()).unwrap_err();
    assert_eq!(
        refusal.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace a because it is being terminated"
    );
    assert_eq!(
        refusal.details.unwrap().causes[0].reason,
        "NamespaceTerminating"
    );
    assert_eq!(
        refused(create(&World::default(), "configmaps", config())),
        "namespaces \"a\" not found"
    );
    let default = json!({"metadata": {"name": "default"}});
    assert_eq!(
        refused(admit(
            &world,
            Operation::Delete,
            "namespaces",
            default,
            None
        )),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
}

#[test]
fn limits_are_filled_in_and_held() {
    let mut world = World::new();
    world.put(
        "limitranges",
        json!({"metadata": {"name": "l", "namespace": "a"}, "spec": {"limits": [
            {"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"},
             "max": {"cpu": "2"}, "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "10"}},
            {"type": "Pod", "max": {"cpu": "3"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}},
        ]}}),
    );
    let (filled, _) = create(&world, "pods", pod(json!({}))).unwrap();
    assert_eq!(
        filled["spec"]["containers"][0]["resources"],
        json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}})
    );
    assert_eq!(
        filled["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let with = |requests: &str, limits: &str| {
        let resources = json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}});
        pod(json!({"containers": [{"name": "c", "resources": resources}]}))
    };
    #[rustfmt::skip]
    let cases = [
        ("1", "3", "[maximum cpu usage per Container is 2, but limit is 3]"),
        ("10m", "100m", "[minimum cpu usage per Container is 50m, but request is 10m]"),
        ("100m", "1500m", "[cpu max limit to request ratio per Container is 10, but provided ratio is 15.000000]"),
        ("1", "4", "[maximum cpu usage per Container is 2, but limit is 4, maximum cpu usage per Pod is 3, but limit is 4]"),
    ];
    for (requests, limits, why) in cases {
        let expected = match why.matches("usage per").count() {
            2 => why.to_owned(),
            _ => why.trim_matches(['[', ']']).to_owned(),
        };
        assert_eq!(
            refused(create(&world, "pods", with(requests, limits))),
            format!("pods \"p\" is forbidden: {expected}")
        );
    }
    let claim =
        json!({"metadata": {"name": "v"}, "spec": {"resources": {"requests": {"storage": "1Mi"}}}});
    assert_eq!(
        refused(create(&world, "persistentvolumeclaims", claim)),
        "persistentvolumeclaims \"v\" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request \
         is 1Mi"
    );
}

#[test]
fn priorities() {
    let mut world = World::new();
    world.put(
        "priorityclasses",
        json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}),
    );
    world.put(
        "priorityclasses",
        json!({"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}),
    );
    let (plain, _) = create(&world, "pods", pod(json!({}))).unwrap();
    assert_eq!(
        (
            &plain["spec"]["priority"],
            &plain["spec"]["priorityClassName"]
        ),
        (&json!(5), &json!("usual"))
    );
    let high = pod(json!({"priorityClassName": "high"}));
    let (high, _) = create(&world, "pods", high).unwrap();
    assert_eq!(
        (&high["spec"]["priority"], &high["spec"]["preemptionPolicy"]),
        (&json!(1000), &json!("Never"))
    );
    assert_eq!(
        refused(create(
            &world,
            "pods",
            pod(json!({"priorityClassName": "none"}))
        )),
        "pods \"p\" is forbidden: no PriorityClass with name none was found"
    );
    assert_eq!(
        refused(create(
            &world,
            "pods",
            pod(json!({"priorityClassName": "high", "priority": 7}))
        )),
        "pods \"p\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission \
         controller computed 1000 from the given PriorityClass name"
    );
    let second = json!({"metadata": {"name": "other"}, "value": 1, "globalDefault": true});
    assert_eq!(
        refused(create(&world, "priorityclasses.scheduling.k8s.io", second)),
        "priorityclasses.scheduling.k8s.io \"other\" is forbidden: PriorityClass usual is already marked as default. Only \
         one default can exist"
    );
}

#[test]
fn classes_and_volumes() {
    let mut world = World::new();
    let class = |name: &str, key: &str, made: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {key: "true"}},
            "allowVolumeExpansion": name == "fast"})
    };
    let storage = "storageclass.kubernetes.io/is-default-class";
    world.put(
        "storageclasses",
        class("slow", storage, "2026-01-01T00:00:00Z"),
    );
    world.put(
        "storageclasses",
        class("fast", storage, "2026-01-02T00:00:00Z"),
    );
    let claim = |size: &str, phase: &str| {
        json!({"metadata": {"name": "v"}, "status": {"phase": phase},
            "spec": {"resources": {"requests": {"storage": size}}}})
    };
    let (made, _) = create(&world, "persistentvolumeclaims", claim("1Gi", "")).unwrap();
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(
        made["metadata"]["finalizers"],
        json!(["kubernetes.io/pvc-protection"])
    );
    let grow = |class: &str, phase: &str| {
        let (mut new, mut old) = (claim("2Gi", phase), claim("1Gi", phase));
        for claim in [&mut new, &mut old] {
            claim["spec"]["storageClassName"] = class.into();
        }
        admit(
            &world,
            Operation::Update,
            "persistentvolumeclaims",
            new,
            Some(&old),
        )
    };
    assert!(grow("fast", "Bound").is_ok());
    assert!(
        refused(grow("slow", "Bound")).contains("only dynamically provisioned pvc can be resized")
    );
    assert!(
        refused(grow("fast", "Pending"))
            .contains("Only bound persistent volume claims can be expanded")
    );
    let ingress = "ingressclass.kubernetes.io/is-default-class";
    world.put("ingressclasses", class("web", ingress, ""));
    let made = create(
        &world,
        "ingresses.networking.k8s.io",
        json!({"metadata": {"name": "i"}, "spec": {}}),
    );
    assert_eq!(made.unwrap().0["spec"]["ingressClassName"], "web");
    let (node, _) = create(&world, "nodes", json!({"metadata": {"name": "n"}})).unwrap();
    assert_eq!(
        node["spec"]["taints"][0]["key"],
        "node.kubernetes.io/not-ready"
    );
    let (sandboxed, _) = {
        world.put(
            "runtimeclasses",
            json!({"metadata": {"name": "vm"}, "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {"nodeSelector": {"vm": "yes"}}}),
        );
        create(&world, "pods", pod(json!({"runtimeClassName": "vm"}))).unwrap()
    };
    assert_eq!(sandboxed["spec"]["overhead"], json!({"cpu": "1"}));
    assert_eq!(sandboxed["spec"]["nodeSelector"], json!({"vm": "yes"}));
    assert_eq!(
        refused(create(
            &world,
            "pods",
            pod(json!({"runtimeClassName": "none"}))
        )),
        "pods \"p\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
}

#[test]
fn administrative_access_to_devices_is_for_namespaces_that_say_so() {
    let mut world = World::new();
    let claims = "resourceclaims.resource.k8s.io";
    let devices = |request: Value| json!({"devices": {"requests": [{"name": "x"}, request]}});
    let claim = |request| json!({"metadata": {"name": "c"}, "spec": devices(request)});
    let asks = json!({"name": "r", "exactly": {"adminAccess": true}});
    let template = json!({"metadata": {"name": "c"}, "spec": {"spec": devices(asks.clone())}});
    let templates = "resourceclaimtemplates.resource.k8s.io";
    let status = |admin: bool| {
        let results = json!([{"request": "r", "adminAccess": admin}]);
        json!({"metadata": {"name": "c"}, "status": {"allocation": {"devices": {"results": results}}}})
    };
    let update = |world: &World, old: &Value| {
        let path = "resourceclaims/status.resource.k8s.io";
        admit(world, Operation::Update, path, status(true), Some(old))
    };
    let why = "is invalid: spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the \
               `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    for (path, kind, object) in [
        (claims, "ResourceClaim", claim(asks.clone())),
        (
            claims,
            "ResourceClaim",
            claim(json!({"name": "r", "adminAccess": true})),
        ),
        (templates, "ResourceClaimTemplate", template),
    ] {
        let said = refused(create(&world, path, object));
        assert_eq!(said, format!("{kind}.resource.k8s.io \"c\" {why}"));
    }
    create(&world, claims, claim(json!({"name": "r", "exactly": {}}))).unwrap();
    let said = refused(update(&world, &status(false)));
    assert!(
        said.contains("status.allocation.devices.results[0].adminAccess"),
        "{said}"
    );
    update(&world, &status(true)).unwrap();
    let labels = json!({"resource.kubernetes.io/admin-access": "true"});
    world.put(
        "namespaces",
        json!({"metadata": {"name": "a", "labels": labels}}),
    );
    create(&world, claims, claim(asks)).unwrap();
    update(&world, &status(false)).unwrap();
}

#[test]
fn certificates() {
    let world = World::new();
    let request = |signer: &str| json!({"metadata": {"name": "r"}, "spec": {"signerName": signer}});
    let path = "certificatesigningrequests/approval.certificates.k8s.io";
    let approve = admit(
        &world,
        Operation::Update,
        path,
        request("example.com/x"),
        Some(&request("example.com/x")),
    );
    assert_eq!(
        refused(approve),
        "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to approve requests with \
         signerName \"example.com/x\""
    );
}

#[test]
fn standards_are_told_as_kubernetes_tells_them() {
    let mut world = World::new();
    let labels = |labels: Value| json!({"metadata": {"name": "a", "labels": labels}});
    world.put(
        "namespaces",
        labels(json!({"pod-security.kubernetes.io/enforce": "restricted"})),
    );
    let plain = json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}], "hostNetwork": true});
    assert_eq!(
        refused(create(&world, "pods", pod(plain.clone()))),
        "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": host namespaces (hostNetwork=true), \
         privileged (container \"c\" must not set securityContext.privileged=true), allowPrivilegeEscalation != false \
         (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must \
         set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    let hardened = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext":
            {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    });
    assert!(create(&world, "pods", pod(hardened)).is_ok());

    world.put("namespaces", labels(json!({
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/warn": "restricted",
    })));
    #[rustfmt::skip]
    let cases = [
        (json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 9}]}, {"name": "b", "ports": [{"hostPort": 80}]}]}),
         "hostPort (containers \"a\", \"b\" use hostPorts 80, 9)"),
        (json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "w", "hostPath": {}}]}), "hostPath volumes (volumes \"v\", \"w\")"),
        (json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["SYS_ADMIN", "KILL", "BPF"]}}}]}),
         "non-default capabilities (container \"c\" must not include \"BPF\", \"SYS_ADMIN\" in securityContext.capabilities.add)"),
        (json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}),
         "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)"),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_syncookies"}]}}),
         "forbidden sysctls (kernel.msgmax)"),
        (json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
         "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")"),
        (json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
         "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")"),
        (json!({"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}),
         "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")"),
        (json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}),
         "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"10.0.0.1\")"),
        (json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
         "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)"),
    ];
    for (spec, why) in cases {
        assert_eq!(
            refused(create(&world, "pods", pod(spec))),
            format!("pods \"p\" is forbidden: violates PodSecurity \"baseline:v1.30\": {why}")
        );
    }
    let (_, warnings) = create(&world, "pods", pod(json!({}))).unwrap();
    assert!(
        warnings[0].starts_with(
            "would violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation"
        )
    );
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": plain}}});
    let (_, warnings) = create(&world, "deployments.apps", deployment).unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let bad = labels(
        json!({"pod-security.kubernetes.io/enforce": "none", "pod-security.kubernetes.io/warn-version": "1"}),
    );
    assert_eq!(
        refused(create(&world, "namespaces", bad)),
        "Namespace \"a\" is invalid: [metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be \
         one of privileged, baseline, restricted, metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid \
         value: \"1\": must be \"latest\" or \"v1.x\"]"
    );
}

#[test]
fn quotas_are_charged() {
    let user = User::new("u", &[]);
    let attributes = |group, resource| Attributes {
        operation: Operation::Create,
        user: &user,
        group,
        resource,
        subresource: "",
        namespace: "a",
        name: "p",
        suffix: "",
    };
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/deployments.apps": "1"});
    let mut quota = json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}});
    let pods = attributes("", "pods");
    let sized = |cpu: &str| {
        pod(json!({"containers": [{"name": "c", "resources":
            {"requests": {"cpu": cpu}, "limits": {"memory": "100Mi"}}}]}))
    };
    let words = |answer: Result<Option<Value>, Status>| answer.unwrap_err().message;
    assert_eq!(
        words(quota::charge(&pods, &quota, Some(&sized("1")), None)),
        "pods \"p\" is forbidden: status unknown for quota: q, resources: limits.memory,pods,requests.cpu"
    );
    quota["status"] = quota::recount(&quota, [("", "pods", &sized("600m"))].into_iter());
    assert_eq!(quota["status"]["used"]["requests.cpu"], "600m");
    assert_eq!(
        words(quota::charge(&pods, &quota, Some(&sized("500m")), None)),
        "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: \
         requests.cpu=1"
    );
    assert_eq!(
        words(quota::charge(&pods, &quota, Some(&pod(json!({}))), None)),
        "pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    let quota = quota::charge(&pods, &quota, Some(&sized("400m")), None)
        .unwrap()
        .unwrap();
    assert_eq!(
        quota["status"]["used"],
        json!({"count/deployments.apps": "0", "limits.memory": "200Mi", "pods": "2", "requests.cpu": "1"})
    );
    // What ends gives back what it held.
    let mut done = sized("400m");
    done["status"] = json!({"phase": "Succeeded"});
    let quota = quota::charge(&pods, &quota, Some(&done), Some(&sized("400m")))
        .unwrap()
        .unwrap();
    assert_eq!(quota["status"]["used"]["pods"], "1");
    let quota = quota::charge(&pods, &quota, None, Some(&sized("600m")))
        .unwrap()
        .unwrap();
    assert_eq!(quota["status"]["used"]["requests.cpu"], "0");
    assert_eq!(
        quota::charge(&attributes("", "secrets"), &quota, Some(&json!({})), None),
        Ok(None)
    );
    let deployments = attributes("apps", "deployments");
    let quota = quota::charge(&deployments, &quota, Some(&json!({})), None)
        .unwrap()
        .unwrap();
    assert!(quota::charge(&deployments, &quota, Some(&json!({})), None).is_err());

    let scoped = |scope: &str| json!({"metadata": {"name": "s"}, "spec": {"scopes": [scope]}});
    assert!(quota::covers(
        &scoped("BestEffort"),
        "",
        "pods",
        &pod(json!({}))
    ));
    assert!(!quota::covers(
        &scoped("BestEffort"),
        "",
        "pods",
        &sized("1")
    ));
    assert!(quota::covers(
        &scoped("Terminating"),
        "",
        "pods",
        &pod(json!({"activeDeadlineSeconds": 5}))
    ));
    assert!(!quota::covers(
        &scoped("Terminating"),
        "",
        "services",
        &json!({})
    ));
}
