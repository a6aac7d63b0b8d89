//! What Kubernetes' conformance tests ask of every kind: "should support … API operations" and "should run through the
//! lifecycle of …". The name of each such test stands in the table; a reader can tick them off.

mod support;

use std::sync::Arc;

use serde_json::{Value, json};
use support::Server;

/// One kind.
struct Case {
    /// The upstream test that asks for it.
    conformance: &'static str,
    /// Collection in a namespace, or of the cluster.
    collection: &'static str,
    /// A valid object without metadata.
    object: Value,
    /// Whether there is a subresource `status`, and what is put into it.
    status: Option<Value>,
    /// Objects whose names the server does not take from the client's imagination.
    names: [&'static str; 3],
    /// Whether a change of annotations counts as a generation.
    generation: bool,
}

const NAMES: [&str; 3] = ["e2e-one", "e2e-two", "e2e-three"];

fn case(conformance: &'static str, collection: &'static str, object: Value) -> Case {
    Case {
        conformance,
        collection,
        object,
        status: None,
        names: NAMES,
        generation: false,
    }
}

#[rustfmt::skip]
#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    let condition = |kind: &str| json!({"conditions": [{
        "type": kind, "status": "True", "reason": "E2E", "message": "Set from e2e test", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]);
    let webhook = json!([{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": rules,
        "clientConfig": {"service": {"name": "a", "namespace": "b"}},
    }]);
    let claim = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    vec![
        Case {
            status: Some(condition("Dangling")), generation: true,
            ..case("[sig-api-machinery] API priority and fairness should support FlowSchema API operations",
                "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
                json!({"spec": {"matchingPrecedence": 10000, "priorityLevelConfiguration": {"name": "global-default"}, "distinguisherMethod": {"type": "ByUser"},
                    "rules": [{"subjects": [{"kind": "User", "user": {"name": "example-e2e-non-existent-user"}}],
                        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}}))
        },
        Case {
            status: Some(condition("Flustered")), generation: true,
            ..case("[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations",
                "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
                json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}))
        },
        Case {
            status: Some(json!({"observedGeneration": 1})), generation: true,
            ..case("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations",
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
                json!({"spec": {"matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "object.spec.replicas <= 100"}]}}))
        },
        Case {
            generation: true,
            ..case("[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations",
                "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
                json!({"spec": {"policyName": "p.example.com", "validationActions": ["Deny"]}}))
        },
        Case {
            generation: true,
            ..case("[sig-api-machinery] AdmissionWebhook patching/updating a mutating webhook should work (its objects)",
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", json!({"webhooks": webhook}))
        },
        Case {
            generation: true,
            ..case("[sig-api-machinery] AdmissionWebhook patching/updating a validating webhook should work (its objects)",
                "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", json!({"webhooks": webhook}))
        },
        case("[sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount",
            "/api/v1/namespaces/e2e/serviceaccounts", json!({"automountServiceAccountToken": false})),
        case("[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed",
            "/apis/events.k8s.io/v1/namespaces/e2e/events",
            json!({"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "test-controller", "reportingInstance": "test-node",
                "action": "Do", "reason": "Test", "type": "Normal", "note": "This is a test event",
                "regarding": {"kind": "Pod", "name": "p", "namespace": "e2e"}})),
        Case {
            // The two kinds of Events are one in the store.
            names: ["e2e-core-one", "e2e-core-two", "e2e-core-three"],
            ..case("[sig-instrumentation] Events should manage the lifecycle of an event",
                "/api/v1/namespaces/e2e/events",
                json!({"message": "This is a test event", "reason": "Test", "type": "Normal", "count": 1, "involvedObject": {"namespace": "e2e"}}))
        },
        Case {
            generation: true,
            ..case("[sig-network] EndpointSlice should support creating EndpointSlice API operations",
                "/apis/discovery.k8s.io/v1/namespaces/e2e/endpointslices",
                json!({"addressType": "IPv4", "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}]}))
        },
        case("[sig-network] Endpoints should test the lifecycle of an Endpoint",
            "/api/v1/namespaces/e2e/endpoints",
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}]})),
        Case {
            status: Some(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}})), generation: true,
            ..case("[sig-network] Ingress API should support creating Ingress API operations",
                "/apis/networking.k8s.io/v1/namespaces/e2e/ingresses",
                json!({"spec": {"defaultBackend": {"service": {"name": "default-backend", "port": {"number": 80}}}}}))
        },
        Case {
            generation: true,
            ..case("[sig-network] IngressClass API should support creating IngressClass API operations",
                "/apis/networking.k8s.io/v1/ingressclasses", json!({"spec": {"controller": "example.com/controller"}}))
        },
        Case {
            names: ["192.168.1.1", "192.168.1.2", "2001:db8::1"],
            ..case("[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations",
                "/apis/networking.k8s.io/v1/ipaddresses",
                json!({"spec": {"parentRef": {"resource": "services", "namespace": "foo", "name": "bar"}}}))
        },
        Case {
            status: Some(condition("StatusUpdate")),
            ..case("[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations",
                "/apis/networking.k8s.io/v1/servicecidrs", json!({"spec": {"cidrs": ["10.1.1.0/24"]}}))
        },
        Case {
            status: Some(json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": "VIP"}]}})),
            ..case("[sig-network] Services should complete a service status lifecycle",
                "/api/v1/namespaces/e2e/services", json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 80, "name": "http"}]}}))
        },
        Case {
            generation: true,
            ..case("[sig-network] NetworkPolicy API should support creating NetworkPolicy API operations",
                "/apis/networking.k8s.io/v1/namespaces/e2e/networkpolicies",
                json!({"spec": {"podSelector": {"matchLabels": {"pod-name": "test-pod"}},
                    "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"ns-name": "pod-b"}}}]}]}}))
        },
        case("[sig-node] ConfigMap should run through a ConfigMap lifecycle",
            "/api/v1/namespaces/e2e/configmaps", json!({"data": {"valueName": "value"}})),
        case("[sig-node] Lease lease API should be available",
            "/apis/coordination.k8s.io/v1/namespaces/e2e/leases",
            json!({"spec": {"holderIdentity": "holder", "leaseDurationSeconds": 30, "leaseTransitions": 0}})),
        Case {
            status: Some(condition("Ready")),
            ..case("[sig-node] Node Lifecycle should run through the lifecycle of a node", "/api/v1/nodes", json!({}))
        },
        case("[sig-node] RuntimeClass should support RuntimeClasses API operations",
            "/apis/node.k8s.io/v1/runtimeclasses", json!({"handler": "e2e-handler"})),
        case("[sig-node] Secrets should patch a secret",
            "/api/v1/namespaces/e2e/secrets", json!({"data": {"key": "dmFsdWU="}, "type": "Opaque"})),
        Case {
            generation: true,
            ..case("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass",
                "/apis/resource.k8s.io/v1/deviceclasses", json!({"spec": {}}))
        },
        Case {
            status: Some(json!({})),
            ..case("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim",
                "/apis/resource.k8s.io/v1/namespaces/e2e/resourceclaims", json!({"spec": claim}))
        },
        case("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate",
            "/apis/resource.k8s.io/v1/namespaces/e2e/resourceclaimtemplates", json!({"spec": {"spec": claim}})),
        Case {
            generation: true,
            ..case("[sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice",
                "/apis/resource.k8s.io/v1/resourceslices",
                json!({"spec": {"driver": "dra.example.com", "nodeName": "n", "pool": {"name": "pool", "resourceSliceCount": 1}}}))
        },
        case("[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection",
            "/api/v1/namespaces/e2e/limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "500m"}, "min": {"cpu": "50m"}}]}})),
        Case {
            generation: true,
            ..case("[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods",
                "/apis/scheduling.k8s.io/v1/priorityclasses", json!({"value": 1}))
        },
        case("[sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver",
            "/apis/storage.k8s.io/v1/csidrivers", json!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}})),
        case("[sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode",
            "/apis/storage.k8s.io/v1/csinodes", json!({"spec": {"drivers": []}})),
        case("[sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations",
            "/apis/storage.k8s.io/v1/namespaces/e2e/csistoragecapacities", json!({"storageClassName": "gold"})),
        case("[sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass",
            "/apis/storage.k8s.io/v1/storageclasses", json!({"provisioner": "e2e-fake-provisioner"})),
        Case {
            status: Some(json!({"attached": true})),
            ..case("[sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status",
                "/apis/storage.k8s.io/v1/volumeattachments",
                json!({"spec": {"attacher": "e2e.example.com", "nodeName": "e2e-node", "source": {"persistentVolumeName": "pv-e2e"}}}))
        },
        case("[sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass",
            "/apis/storage.k8s.io/v1/volumeattributesclasses",
            json!({"driverName": "e2e-fake-csi-driver", "parameters": {"type": "gp3"}})),
        Case {
            status: Some(json!({"phase": "Pending", "reason": "E2E"})),
            ..case("[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC (the PV)",
                "/api/v1/persistentvolumes",
                json!({"spec": {"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/data"}}}))
        },
        Case {
            status: Some(json!({"phase": "Pending"})),
            ..case("[sig-storage] PersistentVolumes CSI Conformance should run through the lifecycle of a PV and a PVC (the PVC)",
                "/api/v1/namespaces/e2e/persistentvolumeclaims",
                json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
        },
        Case {
            status: Some(json!({"hard": {"pods": "5"}, "used": {"pods": "0"}})),
            ..case("[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota",
                "/api/v1/namespaces/e2e/resourcequotas", json!({"spec": {"hard": {"pods": "5"}}}))
        },
        case("rbac.authorization.k8s.io roles", "/apis/rbac.authorization.k8s.io/v1/namespaces/e2e/roles",
            json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]})),
        case("rbac.authorization.k8s.io rolebindings", "/apis/rbac.authorization.k8s.io/v1/namespaces/e2e/rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "a", "apiGroup": "rbac.authorization.k8s.io"}})),
        case("rbac.authorization.k8s.io clusterroles", "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]})),
        case("rbac.authorization.k8s.io clusterrolebindings", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json!({"roleRef": {"kind": "ClusterRole", "name": "a", "apiGroup": "rbac.authorization.k8s.io"}})),
    ]
}

/// Kinds whose status is written without any metadata.
const KEEP_METADATA: [&str; 6] = [
    "/apiservices",
    "/flowschemas",
    "/prioritylevelconfigurations",
    "/resourceclaims",
    "/validatingadmissionpolicies",
    "/volumeattachments",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_goes_through_its_life() {
    let server = Server::new().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e"}});
    server.post("/api/v1/namespaces", &namespace).await.ok();
    let server = Arc::new(server);
    let mut lives = tokio::task::JoinSet::new();
    for case in cases() {
        let server = server.clone();
        lives.spawn(async move { live(&server, &case).await });
    }
    // Each that fails says so itself; the others go on.
    let mut failed = 0;
    while let Some(life) = lives.join_next().await {
        failed += usize::from(life.is_err());
    }
    assert_eq!(failed, 0, "kinds whose lives went wrong");
}

async fn live(server: &Server, case: &Case) {
    let about = case.conformance;
    let path = case.collection;
    let run = case.names[0].replace(['.', ':'], "-");
    let selected = format!("{path}?labelSelector=e2e%3D{run}");
    let mut first = Value::Null;
    for name in case.names {
        let mut object = case.object.clone();
        object["metadata"] = json!({"name": name, "labels": {"e2e": run}});
        let made = server.post(path, &object).await;
        assert_eq!(made.code, 201, "{about}: {}", made.json());
        let made = made.json();
        assert!(made["metadata"]["uid"].is_string(), "{about}: {made}");
        assert_eq!(
            made["metadata"]["generation"].is_number(),
            case.generation,
            "{about}: {made}"
        );
        if first.is_null() {
            first = made;
        }
    }
    let one = format!("{path}/{}", case.names[0]);
    let got = server.get(&one).await.ok();
    assert_eq!(got["metadata"]["uid"], first["metadata"]["uid"], "{about}");
    let listed = server.get(&selected).await.ok();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{about}");
    let kind = listed["kind"].as_str().unwrap_or_default().to_owned();
    assert!(kind.ends_with("List"), "{about}: {kind}");
    if path.contains("/namespaces/") {
        let everywhere = selected.replace("/namespaces/e2e", "");
        let listed = server.get(&everywhere).await.ok();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(3), "{about}");
    }
    let table = server
        .send(
            "GET",
            &selected,
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
            "",
        )
        .await
        .ok();
    let columns = table["columnDefinitions"].as_array().map(Vec::len);
    assert_eq!(
        table["rows"][0]["cells"].as_array().map(Vec::len),
        columns,
        "{about}"
    );

    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let merge = [("content-type", "application/merge-patch+json")];
    let patched = server
        .send("PATCH", &one, &merge, patch.to_string())
        .await
        .ok();
    assert_eq!(
        patched["metadata"]["annotations"]["patched"], "true",
        "{about}"
    );
    assert_eq!(
        patched["metadata"]["generation"], first["metadata"]["generation"],
        "{about}"
    );
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let relabel = json!({"metadata": {"labels": {"patched": "twice"}}});
    let mut updated = server
        .send("PATCH", &one, &strategic, relabel.to_string())
        .await
        .ok();
    updated["metadata"]["annotations"]["updated"] = "true".into();
    let updated = server.put(&one, &updated).await.ok();
    assert_eq!(
        updated["metadata"]["annotations"]["updated"], "true",
        "{about}"
    );
    assert_eq!(updated["metadata"]["labels"]["patched"], "twice", "{about}");

    // What happened since the first write is heard in order.
    let since = first["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default();
    let watch = format!(
        "{path}?watch=1&resourceVersion={since}&fieldSelector=metadata.name%3D{}",
        case.names[0]
    );
    let mut watch = server.watch(&watch).await;
    for _ in 0..3 {
        let heard = watch.next().await.unwrap_or_default();
        assert_eq!(heard["type"], "MODIFIED", "{about}: {heard}");
    }

    if let Some(status) = &case.status {
        let status_path = format!("{one}/status");
        let mut whole = server.get(&status_path).await.ok();
        whole["status"] = status.clone();
        whole["metadata"]["annotations"]["statusUpdated"] = "true".into();
        let put = server.put(&status_path, &whole).await.ok();
        for (key, value) in status.as_object().into_iter().flatten() {
            let given = sent_of(&put["status"][key], value);
            assert_eq!(&given, value, "{about}: {put}");
        }
        let patch =
            json!({"metadata": {"annotations": {"statusPatched": "true"}}, "status": status});
        let patched = server
            .send("PATCH", &status_path, &merge, patch.to_string())
            .await
            .ok();
        let is_kept = KEEP_METADATA.iter().any(|plural| path.ends_with(plural));
        let noted = &patched["metadata"]["annotations"]["statusPatched"];
        assert_eq!(noted == "true", !is_kept, "{about}");
        // The status is not written through the object itself.
        let patch = json!({"status": null});
        let kept = server
            .send("PATCH", &one, &merge, patch.to_string())
            .await
            .ok();
        assert_eq!(kept["status"], patched["status"], "{about}");
    }

    // What protects an object that is in use is taken away by a controller, which does not run here.
    if got["metadata"]["finalizers"].is_array() {
        for name in case.names {
            let free = json!({"metadata": {"finalizers": null}});
            server
                .patch(&format!("{path}/{name}"), "merge", &free)
                .await
                .ok();
        }
    }
    server.send("DELETE", &one, &[], "").await.ok();
    let gone = server.get(&one).await;
    assert_eq!(gone.code, 404, "{about}: {}", gone.json());
    server.send("DELETE", &selected, &[], "").await.ok();
    let listed = server.get(&selected).await.ok();
    assert_eq!(listed["items"], json!([]), "{about}");
}

/// Of a stored value, the fields that the sent one has: the server adds what Kubernetes always writes.
fn sent_of(stored: &Value, sent: &Value) -> Value {
    match (stored, sent) {
        (Value::Object(stored), Value::Object(sent)) => sent
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), sent_of(stored.get(key)?, value))))
            .collect(),
        (Value::Array(stored), Value::Array(sent)) if stored.len() == sent.len() => {
            let items = stored.iter().zip(sent);
            items.map(|(stored, sent)| sent_of(stored, sent)).collect()
        }
        (stored, _) => stored.clone(),
    }
}
