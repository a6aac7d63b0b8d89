"""Every common kind through the typed client, which checks what it reads against the API's own definitions: create,
read, list, watch, all four patches, replace, status, delete."""

from common import NAMESPACE, apply, client, expect, refused
from kubernetes import watch

core = client.CoreV1Api()
apps = client.AppsV1Api()
batch = client.BatchV1Api()
net = client.NetworkingV1Api()
rbac = client.RbacAuthorizationV1Api()
storage = client.StorageV1Api()
policy = client.PolicyV1Api()
admission = client.AdmissionregistrationV1Api()
flow = client.FlowcontrolApiserverV1Api()
scaling = client.AutoscalingV2Api()
resource = client.ResourceV1Api()

SELECTOR = {"matchLabels": {"app": "a"}}
CONTAINERS = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}]
POD = {"containers": CONTAINERS, "automountServiceAccountToken": False}
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": POD}
RULES = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
SUBJECTS = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}]
HOOKED = [
    {"operations": ["CREATE"], "apiGroups": ["none.example.com"], "apiVersions": ["v1"], "resources": ["nothings"]}
]
WEBHOOK = {
    "name": "a.example.com",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "rules": HOOKED,
    "clientConfig": {"service": {"name": "a", "namespace": "b"}},
}
CLAIM = {
    "accessModes": ["ReadWriteOnce"],
    "storageClassName": "none",
    "resources": {"requests": {"storage": "1Gi"}},
}
DEVICES = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}

# API, the part of the methods' names, apiVersion, kind, what the object holds besides its name.
KINDS = [
    (core, "namespaced_config_map", "v1", "ConfigMap", {"data": {"a": "b"}}),
    (core, "namespaced_secret", "v1", "Secret", {"stringData": {"a": "b"}}),
    (core, "namespaced_service", "v1", "Service", {"spec": {"ports": [{"port": 80}], "selector": {"app": "a"}}}),
    (core, "namespaced_service_account", "v1", "ServiceAccount", {}),
    (core, "namespaced_pod", "v1", "Pod", {"spec": POD}),
    (core, "namespaced_pod_template", "v1", "PodTemplate", {"template": TEMPLATE}),
    (core, "namespaced_persistent_volume_claim", "v1", "PersistentVolumeClaim", {"spec": CLAIM}),
    (
        core,
        "persistent_volume",
        "v1",
        "PersistentVolume",
        {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}},
    ),
    (core, "node", "v1", "Node", {"spec": {"podCIDR": "10.1.0.0/24"}}),
    (core, "namespace", "v1", "Namespace", {}),
    (
        core,
        "namespaced_event",
        "v1",
        "Event",
        {"involvedObject": {"kind": "Pod", "name": "p", "namespace": NAMESPACE}, "reason": "R", "type": "Normal"},
    ),
    (
        core,
        "namespaced_endpoints",
        "v1",
        "Endpoints",
        {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    ),
    (
        core,
        "namespaced_limit_range",
        "v1",
        "LimitRange",
        {"spec": {"limits": [{"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}},
    ),
    (core, "namespaced_resource_quota", "v1", "ResourceQuota", {"spec": {"hard": {"count/jobs.batch": "9"}}}),
    (
        core,
        "namespaced_replication_controller",
        "v1",
        "ReplicationController",
        {"spec": {"replicas": 1, "selector": {"app": "a"}, "template": TEMPLATE}},
    ),
    (apps, "namespaced_deployment", "apps/v1", "Deployment", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    (apps, "namespaced_replica_set", "apps/v1", "ReplicaSet", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    (
        apps,
        "namespaced_stateful_set",
        "apps/v1",
        "StatefulSet",
        {"spec": {"serviceName": "s", "selector": SELECTOR, "template": TEMPLATE}},
    ),
    (apps, "namespaced_daemon_set", "apps/v1", "DaemonSet", {"spec": {"selector": SELECTOR, "template": TEMPLATE}}),
    (apps, "namespaced_controller_revision", "apps/v1", "ControllerRevision", {"revision": 1, "data": {"a": 1}}),
    (
        batch,
        "namespaced_job",
        "batch/v1",
        "Job",
        {"spec": {"template": {"spec": {**POD, "restartPolicy": "Never"}}}},
    ),
    (
        batch,
        "namespaced_cron_job",
        "batch/v1",
        "CronJob",
        {
            "spec": {
                "schedule": "*/5 * * * *",
                "jobTemplate": {"spec": {"template": {"spec": {**POD, "restartPolicy": "Never"}}}},
            }
        },
    ),
    (
        scaling,
        "namespaced_horizontal_pod_autoscaler",
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        {
            "spec": {
                "maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
                    }
                ],
            }
        },
    ),
    (
        policy,
        "namespaced_pod_disruption_budget",
        "policy/v1",
        "PodDisruptionBudget",
        {"spec": {"minAvailable": 1, "selector": SELECTOR}},
    ),
    (
        net,
        "namespaced_ingress",
        "networking.k8s.io/v1",
        "Ingress",
        {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}},
    ),
    (net, "ingress_class", "networking.k8s.io/v1", "IngressClass", {"spec": {"controller": "example.com/c"}}),
    (
        net,
        "namespaced_network_policy",
        "networking.k8s.io/v1",
        "NetworkPolicy",
        {"spec": {"podSelector": SELECTOR, "ingress": [{"ports": [{"port": 80}]}]}},
    ),
    (
        client.DiscoveryV1Api(),
        "namespaced_endpoint_slice",
        "discovery.k8s.io/v1",
        "EndpointSlice",
        {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]},
    ),
    (
        client.CoordinationV1Api(),
        "namespaced_lease",
        "coordination.k8s.io/v1",
        "Lease",
        {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}},
    ),
    (rbac, "namespaced_role", "rbac.authorization.k8s.io/v1", "Role", {"rules": RULES}),
    (
        rbac,
        "namespaced_role_binding",
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        {"roleRef": ROLE, "subjects": SUBJECTS},
    ),
    (rbac, "cluster_role", "rbac.authorization.k8s.io/v1", "ClusterRole", {"rules": RULES}),
    (
        rbac,
        "cluster_role_binding",
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        {"roleRef": ROLE, "subjects": SUBJECTS},
    ),
    (storage, "storage_class", "storage.k8s.io/v1", "StorageClass", {"provisioner": "example.com/p"}),
    (storage, "csi_driver", "storage.k8s.io/v1", "CSIDriver", {"spec": {"attachRequired": False}}),
    (
        storage,
        "volume_attachment",
        "storage.k8s.io/v1",
        "VolumeAttachment",
        {"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}},
    ),
    (
        client.SchedulingV1Api(),
        "priority_class",
        "scheduling.k8s.io/v1",
        "PriorityClass",
        {"value": 1000, "description": "d"},
    ),
    (client.NodeV1Api(), "runtime_class", "node.k8s.io/v1", "RuntimeClass", {"handler": "h"}),
    (
        client.CertificatesV1Api(),
        "certificate_signing_request",
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        None,
    ),
    (
        admission,
        "mutating_webhook_configuration",
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        {"webhooks": [WEBHOOK]},
    ),
    (
        admission,
        "validating_webhook_configuration",
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        {"webhooks": [WEBHOOK]},
    ),
    (
        admission,
        "validating_admission_policy",
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        {"spec": {"matchConstraints": {"resourceRules": HOOKED}, "validations": [{"expression": "true"}]}},
    ),
    (
        flow,
        "priority_level_configuration",
        "flowcontrol.apiserver.k8s.io/v1",
        "PriorityLevelConfiguration",
        {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}},
    ),
    (
        flow,
        "flow_schema",
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
        {"spec": {"priorityLevelConfiguration": {"name": "global-default"}}},
    ),
    (resource, "device_class", "resource.k8s.io/v1", "DeviceClass", {"spec": {}}),
    (resource, "namespaced_resource_claim", "resource.k8s.io/v1", "ResourceClaim", {"spec": DEVICES}),
    (
        resource,
        "namespaced_resource_claim_template",
        "resource.k8s.io/v1",
        "ResourceClaimTemplate",
        {"spec": {"spec": DEVICES}},
    ),
]


def labels(read):
    """What somebody put there: a Namespace is given its name as a label."""
    return {key: value for key, value in read.metadata.labels.items() if "kubernetes.io/" not in key}


def walk(api, part, api_version, kind, held):
    """One kind through its life."""
    scope = [NAMESPACE] if part.startswith("namespaced_") else []

    def method(verb, suffix=""):
        return getattr(api, f"{verb}_{part}{suffix}")

    name = f"python-{part.replace('_', '-')}"[:60]
    body = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "labels": {"made-by": "python"}},
        **held,
    }
    dry = method("create")(*scope, body, dry_run="All")
    expect(dry.metadata.uid and not dry.metadata.resource_version, "a dry run", dry.metadata)
    refused(404, method("read"), name, *scope)
    made = method("create")(*scope, body, field_validation="Strict", field_manager="maker")
    expect((made.kind, made.api_version) == (kind, api_version), made.kind, made.api_version)
    entry = made.metadata.managed_fields[0]
    expect((entry.manager, entry.operation) == ("maker", "Update"), entry)
    expect('"reason":"AlreadyExists"' in refused(409, method("create"), *scope, body).body, "words")
    read = method("read")(name, *scope)
    if kind not in CHANGED_BY_OTHERS:
        expect(read == made, "what was made is what is read", made, read)

    for selector in ({"field_selector": f"metadata.name={name}"}, {"label_selector": "made-by=python"}):
        items = method("list")(*scope, **selector).items
        expect([item.metadata.name for item in items] == [name], selector, len(items))

    patch = method("patch")
    strategic = patch(name, *scope, {"metadata": {"labels": {"strategic": "yes"}}})
    expect(labels(strategic) == {"made-by": "python", "strategic": "yes"}, strategic.metadata.labels)
    merge = {"metadata": {"labels": {"strategic": None, "merge": "yes"}}}
    merged = patch(name, *scope, merge, _content_type="application/merge-patch+json")
    expect(labels(merged) == {"made-by": "python", "merge": "yes"}, merged.metadata.labels)
    steps = [
        {"op": "test", "path": "/metadata/labels/merge", "value": "yes"},
        {"op": "remove", "path": "/metadata/labels/merge"},
    ]
    stepped = patch(name, *scope, steps, _content_type="application/json-patch+json")
    expect(labels(stepped) == {"made-by": "python"}, stepped.metadata.labels)
    applied = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": name, "annotations": {"applied": "yes"}},
    }
    first = apply(patch, name, *scope, body=applied)
    expect(first.metadata.annotations["applied"] == "yes", first.metadata.annotations)
    expect(any(e.operation == "Apply" for e in first.metadata.managed_fields), "an applier")
    del applied["metadata"]["annotations"]
    second = apply(patch, name, *scope, body=applied)
    expect("applied" not in (second.metadata.annotations or {}), "what is applied no more goes")

    # A whole object as it was read, with a change; once its version is old it is refused.
    whole = method("read")(name, *scope)
    whole.metadata.annotations = {**(whole.metadata.annotations or {}), "replaced": "yes"}
    replaced = method("replace")(name, *scope, whole)
    expect(replaced.metadata.annotations["replaced"] == "yes", replaced.metadata.annotations)
    expect(replaced.metadata.uid == made.metadata.uid, "the same object")
    stale = refused(409, method("replace"), name, *scope, whole)
    expect("the object has been modified" in stale.body, stale.body)

    if hasattr(api, f"patch_{part}_status"):
        shown = method("read", "_status")(name, *scope)
        expect(shown.metadata.uid == made.metadata.uid, "the status is the object's")
        # A status that is written changes no label's meaning and leaves the spec alone.
        marked = method("patch", "_status")(name, *scope, {"metadata": {"annotations": {"status": "yes"}}})
        noted = (marked.metadata.annotations or {}).get("status")
        expect(noted == (None if kind in KEPT else "yes"), marked.metadata.annotations)

    options = {"propagation_policy": "Background", "grace_period_seconds": 0}
    if kind in FINALIZED:
        method("delete")(name, *scope, **options)
        return
    method("delete")(name, *scope, dry_run="All", **options)
    method("read")(name, *scope)
    method("delete")(name, *scope, **options)
    gone = refused(404, method("read"), name, *scope)
    expect('"reason":"NotFound"' in gone.body, gone.body)

    # What happened, as a watcher from the beginning saw it.
    version = made.metadata.resource_version
    selected = {"field_selector": f"metadata.name={name}", "resource_version": version}
    stream = watch.Watch(return_type=object).stream(method("list"), *scope, timeout_seconds=5, **selected)
    kinds = []
    for event in stream:
        kinds.append(event["type"])
        if event["type"] == "DELETED":
            break
    expect(kinds[-1] == "DELETED" and set(kinds[:-1]) == {"MODIFIED"}, kinds)

    if kind in ("Service", "Namespace"):
        return
    for i in range(3):
        body["metadata"]["name"] = f"{name}-{i}"[-60:]
        method("create")(*scope, body)
    delete = getattr(api, f"delete_collection_{part}")
    delete(*scope, label_selector="made-by=python", **options)
    items = method("list")(*scope, label_selector="made-by=python").items
    expect(not items, "they are gone", len(items))


# What controllers or the server itself write to as soon as it is there.
CHANGED_BY_OTHERS = ("Namespace", "ServiceAccount", "ResourceQuota", "ValidatingAdmissionPolicy")
# Their status is written without any metadata.
KEPT = ("FlowSchema", "PriorityLevelConfiguration", "ResourceClaim", "ValidatingAdmissionPolicy", "VolumeAttachment")
# What somebody else has to let go before it is gone.
FINALIZED = ("Namespace", "PersistentVolume", "PersistentVolumeClaim", "VolumeAttachment")


def request_for_certificate():
    import base64

    with open("request.pem", "rb") as pem:
        request = base64.b64encode(pem.read()).decode()
    return {
        "spec": {
            "request": request,
            "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"],
        }
    }


def beside_objects():
    """What is asked and answered, and stored nowhere."""
    account = core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "bot"}})
    token = core.create_namespaced_service_account_token(
        "bot", NAMESPACE, {"spec": {"audiences": [], "expirationSeconds": 600}}
    )
    review = client.AuthenticationV1Api().create_token_review({"spec": {"token": token.status.token}})
    expect(review.status.user.uid == account.metadata.uid, review.status)
    mine = client.AuthorizationV1Api().create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}
    )
    expect(mine.status.allowed, mine.status)
    me = client.AuthenticationV1Api().create_self_subject_review({})
    expect("system:masters" in me.status.user_info.groups, me.status)

    body = {"metadata": {"name": "scaled"}, "spec": {"selector": SELECTOR, "template": TEMPLATE}}
    apps.create_namespaced_deployment(NAMESPACE, body)
    apps.patch_namespaced_deployment_scale("scaled", NAMESPACE, {"spec": {"replicas": 5}})
    scale = apps.read_namespaced_deployment_scale("scaled", NAMESPACE)
    expect((scale.spec.replicas, scale.status.selector) == (5, "app=a"), scale)

    core.create_node({"metadata": {"name": "machine"}})
    core.create_namespaced_pod(NAMESPACE, {"metadata": {"name": "evicted"}, "spec": POD})
    binding = {"metadata": {"name": "evicted"}, "target": {"kind": "Node", "name": "machine"}}
    core.create_namespaced_pod_binding("evicted", NAMESPACE, binding, _preload_content=False)
    expect(core.read_namespaced_pod("evicted", NAMESPACE).spec.node_name == "machine", "bound")
    core.create_namespaced_pod_eviction(
        "evicted", NAMESPACE, {"metadata": {"name": "evicted"}}, _preload_content=False
    )
    expect(core.read_namespaced_pod("evicted", NAMESPACE).metadata.deletion_timestamp, "it is to end")
    version = client.VersionApi().get_code()
    expect((version.major, version.minor) == ("1", "35"), version)


for api, part, api_version, kind, held in KINDS:
    try:
        walk(api, part, api_version, kind, held if held is not None else request_for_certificate())
    except Exception:
        print("of", kind, flush=True)
        raise
beside_objects()
print("ended", flush=True)
