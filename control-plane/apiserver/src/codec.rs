//! How objects stand in an etcd, where a kube-apiserver can read them and what it wrote can be read: the kinds built into
//! Kubernetes as protobuf, all else (objects of custom resources, our own records) as JSON.

use bytes::Bytes;
use serde_json::Value;
use storage::Codec;

use crate::{former, object};

/// What protobuf values begin with, as in bodies of that type.
const MAGIC: &[u8] = b"k8s\0";
/// What JSON begins with as [`object::encode`] writes it.
const OURS: &[u8] = b"{\"kind\":\"";
/// What values begin with that kube-apiserver has encrypted.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// Where records of ours stand that are no objects.
const RECORDS: &str = "/registry/ranges/";

/// Between what the server works with and what stands in an etcd. What protobuf has no field for is lost, as with
/// kube-apiserver.
#[derive(Clone, Copy, Debug, Default)]
pub struct KubernetesCodec;

impl Codec for KubernetesCodec {
    fn encode(&self, _key: &str, value: &Bytes) -> Bytes {
        // Only an object says what it is; a record of ours stays as it is.
        if !value.starts_with(OURS) {
            return value.clone();
        }
        let object: Value = match serde_json::from_slice(value) {
            Ok(object) => object,
            Err(_) => return value.clone(),
        };
        api::protobuf::encode(&object).map_or_else(|| value.clone(), Bytes::from)
    }

    fn decode(&self, key: &str, stored: Bytes) -> Result<Bytes, String> {
        if key.starts_with(RECORDS) {
            return Ok(stored);
        }
        if stored.starts_with(ENCRYPTED) {
            return Err("identity transformer tried to read encrypted data".to_owned());
        }
        if stored.starts_with(MAGIC) {
            let mut object = api::protobuf::decode_as(&stored, former::read_as)
                .map_err(|error| error.to_string())?;
            former::renew(&mut object)?;
            return Ok(object::encode(&defaulted(object)));
        }
        let mut object: Value = serde_json::from_slice(&stored)
            .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"))?;
        if api::value::text(&object, &["kind"]).is_empty() {
            return Err("Object 'Kind' is missing".to_owned());
        }
        let renewed = former::renew(&mut object)?;
        if stored.starts_with(OURS) && !renewed {
            return Ok(stored);
        }
        // Written by somebody else in another order.
        Ok(object::encode(&object))
    }
}

/// What is read is given the defaults of its kind, as Kubernetes does: protobuf does not tell what is empty from what is
/// not there.
fn defaulted(mut object: Value) -> Value {
    let api_version = api::value::text(&object, &["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = api::value::text(&object, &["kind"]);
    if let Some(row) = api::table::find_kind(group, version, kind) {
        (row.default)(&mut object);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn there_and_back(object: &Value) -> (Bytes, Value) {
        let value = object::encode(object);
        let stored = KubernetesCodec.encode("/registry/x", &value);
        let back = KubernetesCodec.decode("/registry/x", stored.clone());
        (stored, serde_json::from_slice(&back.unwrap()).unwrap())
    }

    #[test]
    fn built_in_kinds_are_protobuf() {
        let pod = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": "a", "namespace": "b", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"x": "y"}, "managedFields": [{
                    "manager": "m", "operation": "Update", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:nodeName": {}}},
                }],
            },
            "spec": {"containers": [
                {"name": "c", "image": "i", "resources": {"limits": {"cpu": "1"}}}, {"name": "d", "image": "j"},
            ]},
            "status": {"phase": "Pending"},
        });
        let pod = defaulted(pod);
        assert_eq!(pod["spec"]["containers"][1]["resources"], json!({}));
        let (stored, back) = there_and_back(&pod);
        assert!(stored.starts_with(MAGIC));
        assert_eq!(back, pod);
        // Once read, it is written as it was.
        let again = KubernetesCodec.encode("/registry/x", &object::encode(&back));
        assert_eq!(again, stored);
    }

    #[test]
    fn all_else_is_json() {
        let custom = json!({
            "kind": "Widget", "apiVersion": "example.com/v1", "metadata": {"name": "a"}, "size": 1.5,
        });
        let (stored, back) = there_and_back(&custom);
        assert!(stored.starts_with(OURS));
        assert_eq!(back, custom);
        // As kube-apiserver orders it.
        let theirs = Bytes::from(custom.to_string());
        let read = KubernetesCodec.decode("/registry/x", theirs);
        assert_eq!(read.unwrap(), object::encode(&custom));
        for record in [
            "{\"service\":\"a/b\"}",
            "17",
            "",
            "k8s\0\x01",
            "k8s:enc:aescbc:v1:",
        ] {
            let (key, record) = ("/registry/ranges/k", Bytes::from(record));
            assert_eq!(KubernetesCodec.encode(key, &record), record);
            assert_eq!(KubernetesCodec.decode(key, record.clone()), Ok(record));
        }
    }

    #[test]
    fn former_versions_are_read_as_what_is_stored_now() {
        // As kube-apiserver 1.20 writes it: metadata with a name, and a spec with a schedule.
        let field = |number: u8, value: &[u8]| {
            let length = u8::try_from(value.len()).unwrap();
            [&[number << 3 | 2, length][..], value].concat()
        };
        let object = [
            field(1, &field(1, b"a")),
            field(2, &[field(1, b"@daily"), field(3, b"Forbid")].concat()),
        ];
        let kind = [field(1, b"batch/v1beta1"), field(2, b"CronJob")];
        let body = [field(1, &kind.concat()), field(2, &object.concat())].concat();
        let stored = [MAGIC, &body].concat();
        let json = json!({
            "kind": "CronJob", "apiVersion": "batch/v1beta1", "metadata": {"name": "a"},
            "spec": {"schedule": "@daily", "concurrencyPolicy": "Forbid"},
        });
        for stored in [stored.into(), object::encode(&json)] {
            let read = KubernetesCodec.decode("/registry/cronjobs/b/a", stored);
            let read: Value = serde_json::from_slice(&read.unwrap()).unwrap();
            assert_eq!(read["apiVersion"], "batch/v1");
            let spec = &read["spec"];
            assert_eq!(
                (&spec["schedule"], &spec["concurrencyPolicy"]),
                (&json!("@daily"), &json!("Forbid"))
            );
        }
    }

    #[test]
    fn what_is_no_object_is_told() {
        for (stored, told) in [
            ("", "json parse error: EOF"),
            ("garbage", "json parse error: expected value"),
            ("{}", "Object 'Kind' is missing"),
            (r#"{"service":"a/b"}"#, "Object 'Kind' is missing"),
            (r#"{"kind":7}"#, "Object 'Kind' is missing"),
            (
                r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a""#,
                "json parse error: EOF",
            ),
            (
                r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{}}}"#,
                "json parse error: trailing characters",
            ),
            ("k8s\0\x01", "protobuf"),
            ("k8s:enc:aescbc:v1:key:x", "encrypted data"),
            (
                r#"{"kind":"ConfigMap","apiVersion":"v9","metadata":{}}"#,
                "no kind \"ConfigMap\" is registered for version \"v9\"",
            ),
        ] {
            let read = KubernetesCodec.decode("/registry/configmaps/a/b", stored.into());
            let why = read.expect_err(stored);
            assert!(why.contains(told), "{stored}: {why}");
        }
    }
}
