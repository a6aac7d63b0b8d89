//! Pods with one fault each, and what is said of it.

use serde_json::{Value, json};

use super::*;
use crate::kinds::pod_defaults;

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"serviceAccountName": "default", "containers": [{"name": "c", "image": "i"}]},
    })
}

/// Sets what stands at the path, for instance `spec.containers.0.env`.
fn set(object: &mut Value, path: &str, value: Value) {
    let mut here = object;
    for key in path.split('.') {
        here = match key.parse::<usize>() {
            Ok(index) => &mut here[index],
            Err(_) => &mut here[key],
        };
    }
    *here = value;
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut object = pod();
    for (path, value) in changes {
        set(&mut object, path, value.clone());
    }
    pod_defaults::default(&mut object);
    object
}

fn faults(changes: &[(&str, Value)]) -> Vec<String> {
    let found = new_pod(&with(changes));
    found.iter().map(ToString::to_string).collect()
}

/// One change, one sentence.
fn each(prefix: &str, rows: &[(&str, Value, &str)]) {
    for (path, value, expected) in rows {
        let found = faults(&[(&format!("{prefix}{path}"), value.clone())]);
        assert_eq!(found, [*expected], "{path} {value}");
    }
}

#[test]
fn a_plain_pod_is_good() {
    assert_eq!(faults(&[]), Vec::<String>::new());
}

#[test]
fn containers() {
    each(
        "spec.containers.0.",
        &[
            (
                "image",
                json!(" i"),
                "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
            ),
            (
                "image",
                json!(""),
                "spec.containers[0].image: Required value",
            ),
            (
                "terminationMessagePolicy",
                json!("x"),
                "spec.containers[0].terminationMessagePolicy: Unsupported value: \"x\": supported values: \"File\", \"FallbackToLogsOnError\"",
            ),
            (
                "restartPolicy",
                json!("x"),
                "spec.containers[0].restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\", \"OnFailure\"",
            ),
            (
                "restartPolicyRules",
                json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
                "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when container restart rules are used",
            ),
            (
                "envFrom",
                json!([{}]),
                "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
            ),
            (
                "envFrom",
                json!([{"configMapRef": {"name": ""}}]),
                "spec.containers[0].envFrom[0].configMapRef.name: Required value",
            ),
            (
                "env",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "spec.bad"}}}]),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.bad\": error converting fieldPath: field label not supported: spec.bad",
            ),
            (
                "env",
                json!([{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]),
                "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
            ),
            (
                "env",
                json!([{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.foo"}}}]),
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.foo\": supported values: \"limits.cpu\", \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
            ),
            (
                "env",
                json!([{"name": "a", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]),
                "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
            ),
            (
                "env",
                json!([{"name": "a", "valueFrom": {"secretKeyRef": {"name": "x", "key": ""}}}]),
                "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
            ),
            (
                "ports",
                json!([{"containerPort": 80, "hostPort": 1}, {"containerPort": 80, "hostPort": 1}]),
                "spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//1\"",
            ),
            (
                "resizePolicy",
                json!([{"resourceName": "foo", "restartPolicy": "NotRequired"}]),
                "spec.containers[0].resizePolicy: Unsupported value: \"foo\": supported values: \"cpu\", \"memory\"",
            ),
            (
                "volumeMounts",
                json!([{"name": "x", "mountPath": "/x"}]),
                "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
            ),
            (
                "volumeDevices",
                json!([{"name": "x", "devicePath": "/x"}]),
                "spec.containers[0].volumeDevices[0].name: Not found: \"x\"",
            ),
            (
                "lifecycle",
                json!({"preStop": {}}),
                "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
            ),
            (
                "lifecycle",
                json!({"preStop": {"sleep": {"seconds": 99}}}),
                "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 99: must be non-negative and less than terminationGracePeriodSeconds (30)",
            ),
            (
                "livenessProbe",
                json!({"httpGet": {"port": 1}, "terminationGracePeriodSeconds": 0}),
                "spec.containers[0].livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
            ),
            (
                "readinessProbe",
                json!({"httpGet": {"port": 1}, "terminationGracePeriodSeconds": 3}),
                "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes",
            ),
            (
                "livenessProbe",
                json!({"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": "x"}]}}),
                "spec.containers[0].livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
            ),
            (
                "livenessProbe",
                json!({"exec": {"command": ["a"]}, "grpc": {"port": 1}}),
                "spec.containers[0].livenessProbe.grpc: Forbidden: may not specify more than 1 handler type",
            ),
        ],
    );
    each(
        "spec.initContainers",
        &[
            (
                "",
                json!([{"name": "x", "image": "i", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]),
                "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
            ),
            (
                "",
                json!([{"name": "c", "image": "i"}]),
                "spec.initContainers[0].name: Duplicate value: \"c\"",
            ),
        ],
    );
    each(
        "spec.ephemeralContainers",
        &[(
            "",
            json!([{"name": "x", "image": "i"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        )],
    );
}

#[test]
fn amounts() {
    let path = "spec.containers[0].resources";
    for (resources, expected) in [
        (
            json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}),
            vec![
                "limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                "requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
            ],
        ),
        (
            json!({"limits": {"example.com/a": "2"}, "requests": {"example.com/a": "1"}}),
            vec!["requests: Invalid value: \"1\": must be equal to example.com/a limit of 2"],
        ),
        (
            json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            vec!["requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        ),
        (
            json!({"requests": {"pods": "1"}}),
            vec![
                "requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
            ],
        ),
        (
            json!({"claims": [{"name": "zz"}]}),
            vec![
                "claims[0]: Not found: \"zz\": must be one of the names in pod.spec.resourceClaims which is empty",
            ],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|one| format!("{path}.{one}")).collect();
        assert_eq!(
            faults(&[("spec.containers.0.resources", resources)]),
            expected
        );
    }
    each(
        "spec.",
        &[(
            "containers.0.resources",
            json!({"limits": {"hugepages-2Mi": "4Mi"}}),
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        )],
    );
    let whole = faults(&[
        (
            "spec.containers.0.resources",
            json!({"requests": {"cpu": "2"}}),
        ),
        (
            "spec.resources",
            json!({"requests": {"cpu": "1", "pods": "1"}}),
        ),
    ]);
    assert_eq!(
        whole,
        [
            "spec.resources.requests[pods]: Unsupported value: \"pods\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
        ]
    );
}

#[test]
fn volumes() {
    each(
        "spec.volumes",
        &[
            (
                "",
                json!([{"name": "a", "configMap": {"name": "x", "defaultMode": 99_999}}]),
                "spec.volumes[0].configMap.defaultMode: Invalid value: 99999: must be a number between 0 and 0777 (octal), both inclusive",
            ),
            (
                "",
                json!([{"name": "a", "hostPath": {"path": "/../a"}}]),
                "spec.volumes[0].hostPath.path: Invalid value: \"/../a\": must not contain '..'",
            ),
            (
                "",
                json!([{"name": "a", "configMap": {"name": "x", "items": [{"key": "a", "path": "/x"}]}}]),
                "spec.volumes[0].configMap.items[0].path: Invalid value: \"/x\": must be a relative path",
            ),
            (
                "",
                json!([{"name": "a", "secret": {"secretName": "x", "items": [{"key": "a", "path": "..x"}]}}]),
                "spec.volumes[0].secret.items[0].path: Invalid value: \"..x\": must not start with '..'",
            ),
            (
                "",
                json!([{"name": "a", "secret": {"secretName": "x"}, "emptyDir": {}}]),
                "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            ),
            (
                "",
                json!([{"name": "a", "projected": {"sources": [{"secret": {"name": "x"}, "configMap": {"name": "y"}}]}}]),
                "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
            ),
            (
                "",
                json!([{"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "x", "expirationSeconds": 1}}]}}]),
                "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
            ),
            (
                "",
                json!([{"name": "a", "downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.bad"}}]}}]),
                "spec.volumes[0].downwardAPI.fieldRef.fieldPath: Invalid value: \"metadata.bad\": error converting fieldPath: field label not supported: metadata.bad",
            ),
            (
                "",
                json!([{"name": "a", "ephemeral": {}}]),
                "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value",
            ),
            (
                "",
                json!([{"name": "a", "nfs": {"server": "s", "path": "x"}}]),
                "spec.volumes[0].nfs.path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                "",
                json!([{"name": "a", "image": {}}]),
                "spec.volumes[0].image.reference: Required value",
            ),
            (
                "",
                json!([{"name": "a", "emptyDir": {"sizeLimit": "-1"}}]),
                "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
            ),
            (
                "",
                json!([{"name": "a", "iscsi": {"targetPortal": "1.1.1.1:3", "iqn": "bad", "lun": 3}}]),
                "spec.volumes[0].iscsi.iqn: Invalid value: \"bad\": must be valid format starting with iqn, eui, or naa",
            ),
            (
                "",
                json!([{"name": "a", "iscsi": {"targetPortal": "1.1.1.1:3", "iqn": "iqn.2020-01.a:b", "lun": 300}}]),
                "spec.volumes[0].iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
            ),
            (
                "",
                json!([{"name": "a", "fc": {"targetWWNs": ["x"]}}]),
                "spec.volumes[0].fc.lun: Required value: lun is required if targetWWNs is specified",
            ),
            (
                "",
                json!([{"name": "a", "rbd": {"image": "x", "monitors": []}}]),
                "spec.volumes[0].rbd.monitors: Required value",
            ),
            (
                "",
                json!([{"name": "a", "azureDisk": {"diskName": "d", "diskURI": "x"}}]),
                "spec.volumes[0].azureDisk.diskURI: Unsupported value: \"x\": supported values: \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
            ),
        ],
    );
}

#[test]
fn rights() {
    let shown = "{\"Capabilities\":null,\"Privileged\":true,\"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\"SeccompProfile\":null,\"AppArmorProfile\":null}";
    each(
        "spec.containers.0.securityContext",
        &[
            (
                "",
                json!({"runAsUser": -1}),
                "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
            (
                "",
                json!({"procMount": "x"}),
                "spec.containers[0].securityContext.procMount: Unsupported value: \"x\": supported values: \"Default\", \"Unmasked\"",
            ),
            (
                "",
                json!({"seccompProfile": {"type": "Localhost"}}),
                "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ),
            (
                "",
                json!({"appArmorProfile": {"type": "Bad"}}),
                "spec.containers[0].securityContext.appArmorProfile.type: Unsupported value: \"Bad\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
            ),
            (
                "",
                json!({"privileged": true, "allowPrivilegeEscalation": false}),
                &format!(
                    "spec.containers[0].securityContext: Invalid value: {shown}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
                ),
            ),
            (
                "",
                json!({"windowsOptions": {"runAsUserName": "a\\b\\c"}}),
                "spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
            ),
        ],
    );
    each(
        "spec.securityContext",
        &[
            (
                "",
                json!({"supplementalGroups": [-1]}),
                "spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
            ),
            (
                "",
                json!({"fsGroupChangePolicy": "x"}),
                "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnRootMismatch\"",
            ),
        ],
    );
    let both = faults(&[
        ("spec.hostIPC", json!(true)),
        (
            "spec.securityContext",
            json!({"sysctls": [{"name": "kernel.sem", "value": "1"}]}),
        ),
    ]);
    assert_eq!(
        both,
        [
            "spec.securityContext.sysctls[0].name: Invalid value: \"kernel.sem\": may not be specified when 'hostIPC' is true"
        ]
    );
    let windows = faults(&[
        ("spec.os", json!({"name": "windows"})),
        ("spec.securityContext", json!({"fsGroup": 1})),
    ]);
    assert_eq!(
        windows,
        ["spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod"]
    );
    let users = faults(&[
        ("spec.hostUsers", json!(false)),
        ("spec.hostPID", json!(true)),
    ]);
    assert_eq!(
        users,
        ["spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false"]
    );
}

#[test]
fn places() {
    let node = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    let pods = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution";
    each(
        "spec.",
        &[
            (
                "affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}),
                &format!(
                    "{node}.nodeSelectorTerms: Required value: must have at least one node selector term"
                ),
            ),
            (
                "affinity",
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [{"key": "x", "operator": "In", "values": ["a"]}]}]}}}),
                &format!(
                    "{node}.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"x\": not a valid field selector key"
                ),
            ),
            (
                "affinity",
                json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}}),
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
            ),
            (
                "affinity",
                json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a", "labelSelector": {}, "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"]}]}}),
                &format!(
                    "{pods}[0].matchLabelKeys[0]: Invalid value: \"x\": exists in both matchLabelKeys and mismatchLabelKeys"
                ),
            ),
            (
                "topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            ),
            (
                "topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}, {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}]),
                "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{a, DoNotSchedule}\"",
            ),
            (
                "topologySpreadConstraints",
                json!([{"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}]),
                "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
            ),
            (
                "schedulingGates",
                json!([{"name": "a"}, {"name": "a"}]),
                "spec.schedulingGates[1]: Duplicate value: \"a\"",
            ),
            (
                "os",
                json!({"name": "mac"}),
                "spec.os: Unsupported value: \"mac\": supported values: \"linux\", \"windows\"",
            ),
            (
                "resourceClaims",
                json!([{"name": "a"}]),
                "spec.resourceClaims[0]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            (
                "dnsPolicy",
                json!("None"),
                "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
            ),
            (
                "dnsPolicy",
                json!("Bad"),
                "spec.dnsPolicy: Unsupported value: \"Bad\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
            ),
            (
                "dnsConfig",
                json!({"options": [{}]}),
                "spec.dnsConfig.options[0]: Required value: must not be empty",
            ),
            (
                "hostAliases",
                json!([{"ip": "1.1.1.1", "hostnames": ["a"]}, {"ip": "x"}]),
                "spec.hostAliases[1].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                "preemptionPolicy",
                json!("x"),
                "spec.preemptionPolicy: Unsupported value: \"x\": supported values: \"PreemptLowerPriority\", \"Never\"",
            ),
            (
                "activeDeadlineSeconds",
                json!(0),
                "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            ),
        ],
    );
    assert_eq!(
        faults(&[("spec.terminationGracePeriodSeconds", json!(-1))]),
        Vec::<String>::new()
    );
    assert_eq!(
        faults(&[("spec.dnsConfig", json!({"searches": ["_tcp.a_b.", "."]}))]),
        Vec::<String>::new()
    );
}

#[test]
fn a_name_over_all_others_stands_alone_and_fits_the_kernel() {
    const NAME: &str = "spec.hostnameOverride";
    let long = "a".repeat(64);
    for name in ["db.example.com", &long, ""] {
        assert_eq!(faults(&[(NAME, json!(name))]), [""; 0]);
    }
    let wrong = names::subdomain("A_b").remove(0);
    for (name, why) in [
        ("A_b".to_owned(), format!("Invalid value: \"A_b\": {wrong}")),
        (
            long + "b",
            "Too long: may not be more than 64 bytes".to_owned(),
        ),
    ] {
        assert_eq!(faults(&[(NAME, json!(name))]), [format!("{NAME}: {why}")]);
    }
    for key in ["hostNetwork", "setHostnameAsFQDN"] {
        let given = [(NAME, json!("a")), (&*format!("spec.{key}"), json!(true))];
        let why = format!("{NAME}: Forbidden: may not be specified when {key} is true");
        assert_eq!(faults(&given), [why]);
    }
}

#[test]
fn templates_have_their_own_paths() {
    let bad = with(&[
        ("metadata.labels", json!({"a": "b c"})),
        (
            "spec.ephemeralContainers",
            json!([{"name": "x", "image": "i"}]),
        ),
    ]);
    let found = template(&bad, "spec.template");
    let fields: Vec<&str> = found.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.template.labels",
            "spec.template.spec.ephemeralContainers"
        ]
    );
}

#[test]
fn little_may_change() {
    let old = with(&[(
        "spec.tolerations",
        json!([{"key": "a", "operator": "Exists", "effect": "NoExecute"}]),
    )]);
    for (path, value, expected) in [
        ("spec.containers.0.image", json!("j"), None),
        (
            "spec.tolerations",
            json!([{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}]),
            None,
        ),
        (
            "spec.tolerations",
            json!([]),
            Some("existing toleration can not be modified except its tolerationSeconds"),
        ),
        (
            "spec.nodeName",
            json!("n"),
            Some("pod updates may not change fields other than"),
        ),
        (
            "metadata.annotations",
            json!({"kubernetes.io/config.mirror": "x"}),
            Some("must set spec.nodeName if mirror pod annotation is set"),
        ),
    ] {
        let mut new = old.clone();
        set(&mut new, path, value);
        let found: Vec<String> = update::check(&new, &old)
            .iter()
            .map(ToString::to_string)
            .collect();
        match expected {
            None => assert_eq!(found, Vec::<String>::new(), "{path}"),
            Some(why) => assert!(found[0].contains(why), "{path}: {found:?}"),
        }
    }
    let mut new = old.clone();
    set(&mut new, "spec.nodeName", json!("n"));
    let said = update::check(&new, &old)[0].detail.clone();
    assert!(said.contains("\n+ \tNodeName: \"n\",\n"), "{said}");
}

#[test]
fn a_gated_pod_may_become_choosier() {
    let old = with(&[
        ("spec.schedulingGates", json!([{"name": "g"}])),
        ("spec.nodeSelector", json!({"a": "b"})),
    ]);
    for (value, count) in [
        (json!({"a": "b", "c": "d"}), 0),
        (json!({"a": "x"}), 1),
        (json!({}), 1),
    ] {
        let mut new = old.clone();
        set(&mut new, "spec.nodeSelector", value);
        assert_eq!(update::check(&new, &old).len(), count);
    }
}

#[test]
fn states_and_addresses() {
    let mut old = with(&[("spec.restartPolicy", json!("Never"))]);
    old["status"] = json!({"qosClass": "BestEffort", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]});
    for (status, expected) in [
        (
            json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]}),
            Some(
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ),
        ),
        (
            json!({"qosClass": "Burstable"}),
            Some("status.qosClass: Invalid value: \"Burstable\": field is immutable"),
        ),
        (
            json!({"podIPs": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.2"}]}),
            Some(
                "status.podIPs: Invalid value: [{\"ip\":\"1.1.1.1\"},{\"ip\":\"1.1.1.2\"}]: may specify no more than one IP for each IP family",
            ),
        ),
        (json!({"podIP": "1.1.1.1", "hostIP": "1.1.1.3"}), None),
    ] {
        let mut new = old.clone();
        new["status"] = status;
        status::prepare(&mut new, &old);
        let found: Vec<String> = status::check(&new, &old)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.first().map(String::as_str), expected);
        assert!(expected.is_some() || new["status"]["hostIPs"][0]["ip"] == "1.1.1.3");
    }
}

#[test]
fn labels_are_written_into_selectors() {
    let mut new = with(&[
        ("metadata.labels", json!({"v": "1"})),
        (
            "spec.topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["v"], "labelSelector": {}}]),
        ),
    ]);
    write_label_keys(&mut new);
    let made = &new["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"];
    assert_eq!(
        *made,
        json!([{"key": "v", "operator": "In", "values": ["1"]}])
    );
    assert!(new_pod(&new).is_empty());
}
