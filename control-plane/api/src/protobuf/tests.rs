//! Bodies that kubectl 1.33 sent, and what is wrong with others.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;
use crate::schema::{Field, Keep, Shape};

const CONFIG_MAP: &[u8] = b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x1c\n\x12\n\x02c2\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x06\n\x01a\x12\x01b\x1a\x00\"\x00";

const POD: &[u8] = b"k8s\x00\n\t\n\x02v1\x12\x03Pod\x12\xcf\x01\n&\n\x16node-debugger-n1-6wkpq\x12\x00\x1a\x00\"\x00*\x002\x008\x00B\x00\x12\x8f\x01\n\x12\n\thost-root\x12\x05\n\x03\n\x01/\x12E\n\x08debugger\x12\x07busybox*\x00B\x00J\x18\n\thost-root\x10\x00\x1a\x05/host\"\x002\x00j\x00r\x00\x80\x01\x00\x88\x01\x00\x90\x01\x00\xa2\x01\x04File\x1a\x05Never2\x00B\x00J\x00R\x02n1X\x01`\x01h\x01\x82\x01\x00\x8a\x01\x00\x9a\x01\x00\xb2\x01\x0e\n\x00\x12\x06Exists\x1a\x00\"\x00\xc2\x01\x00\x1a\x13\n\x00\x1a\x00\"\x00*\x002\x00J\x00Z\x00r\x00\x88\x01\x00\x1a\x00\"\x00";

const DEPLOYMENT: &[u8] =
    b"k8s\x00\n\x15\n\x07apps/v1\x12\nDeployment\x12\x04\n\x02\n\x00\x1a\x00\"\x00";

#[test]
fn what_kubectl_sent() {
    let table = [
        (
            CONFIG_MAP,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c2"}, "data": {"a": "b"}}),
        ),
        (
            DEPLOYMENT,
            json!({"apiVersion": "apps/v1", "kind": "Deployment"}),
        ),
        (
            POD,
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "node-debugger-n1-6wkpq"},
                "spec": {
                    "containers": [{
                        "name": "debugger",
                        "image": "busybox",
                        "terminationMessagePolicy": "File",
                        "volumeMounts": [{"mountPath": "/host", "name": "host-root"}],
                    }],
                    "hostIPC": true,
                    "hostNetwork": true,
                    "hostPID": true,
                    "nodeName": "n1",
                    "restartPolicy": "Never",
                    "tolerations": [{"operator": "Exists"}],
                    "volumes": [{"hostPath": {"path": "/"}, "name": "host-root"}],
                },
            }),
        ),
    ];
    for (body, wanted) in table {
        assert_eq!(decode(body), Ok(wanted));
    }
}

/// Writes messages, for bodies that were not recorded.
#[derive(Clone, Default)]
struct Body(Vec<u8>);

impl Body {
    fn varint(mut self, mut number: u64) -> Self {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }
    fn number(self, field: u64, number: i64) -> Self {
        self.varint(field << 3).varint(number as u64)
    }
    fn bytes(self, field: u64, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let mut body = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        body.0.extend(bytes);
        body
    }
    fn fixed(self, field: u64, wire_type: u64, len: usize) -> Self {
        let mut body = self.varint(field << 3 | wire_type);
        body.0.resize(body.0.len() + len, 0xff);
        body
    }
    fn message(self, field: u64, message: Body) -> Self {
        self.bytes(field, message.0)
    }
    fn of(self, api_version: &str, kind: &str) -> Vec<u8> {
        let meta = Body::default().bytes(1, api_version).bytes(2, kind);
        let unknown = Body::default().message(1, meta).message(2, self);
        [MAGIC, &unknown.0].concat()
    }
}

fn body() -> Body {
    Body::default()
}

#[test]
fn every_type() {
    let meta = body()
        .bytes(1, "x")
        .message(8, body())
        .message(9, body().number(1, 1_767_225_600).number(2, 0))
        .number(10, 0)
        .message(11, body().bytes(1, "app").bytes(2, "web"))
        .message(11, body().bytes(1, "empty"))
        .message(
            17,
            body()
                .bytes(1, "kubectl")
                .message(7, body().bytes(1, br#"{"f:data":{}}"#)),
        );
    let table = [
        (
            body()
                .message(1, meta)
                .message(2, body().bytes(1, "key").bytes(2, [0, 255]))
                .bytes(3, "Opaque")
                .number(5, 0)
                .of("v1", "Secret"),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": false,
                "data": {"key": "AP8="},
                "metadata": {
                    "name": "x",
                    "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "deletionGracePeriodSeconds": 0,
                    "labels": {"app": "web", "empty": ""},
                    "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:data": {}}}],
                },
            }),
        ),
        (
            body()
                .message(
                    2,
                    body()
                        .message(
                            1,
                            body()
                                .bytes(1, "a")
                                .number(3, 80)
                                .message(4, body().number(1, 0).number(2, 8080))
                                .number(5, 0),
                        )
                        .message(
                            1,
                            body()
                                .bytes(1, "b")
                                .number(3, 81)
                                .message(4, body().number(1, 1).number(2, 0).bytes(3, "http")),
                        )
                        .message(
                            1,
                            body()
                                .number(3, 82)
                                .message(4, body().number(1, 0).number(2, 0).bytes(3, "")),
                        )
                        .bytes(3, "")
                        .bytes(4, "ClusterIP")
                        .number(12, 0)
                        .number(13, 1)
                        .message(14, body().message(1, body().number(1, 0)))
                        .number(20, 0),
                )
                .message(3, body().message(1, body()))
                .of("v1", "Service"),
            json!({
                "apiVersion": "v1", "kind": "Service",
                "spec": {
                    "ports": [
                        {"name": "a", "port": 80, "targetPort": 8080},
                        {"name": "b", "port": 81, "targetPort": "http"},
                        {"port": 82},
                    ],
                    "type": "ClusterIP",
                    "publishNotReadyAddresses": true,
                    "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
                    "allocateLoadBalancerNodePorts": false,
                },
            }),
        ),
        (
            body()
                .message(
                    2,
                    body()
                        .bytes(1, "holder")
                        .message(4, body().number(1, 1_767_225_600).number(2, 123_456_789)),
                )
                .of("coordination.k8s.io/v1", "Lease"),
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "spec": {"holderIdentity": "holder", "renewTime": "2026-01-01T00:00:00.123456Z"},
            }),
        ),
        (
            body()
                .message(
                    2,
                    body()
                        .message(
                            1,
                            body()
                                .bytes(1, "tmp")
                                .message(2, body().message(2, body().bytes(1, ""))),
                        )
                        .message(
                            2,
                            body()
                                .bytes(1, "c")
                                .message(
                                    8,
                                    body().message(
                                        1,
                                        body().bytes(1, "cpu").message(2, body().bytes(1, "100m")),
                                    ),
                                )
                                .message(
                                    10,
                                    body()
                                        .message(
                                            1,
                                            body().message(
                                                2,
                                                body()
                                                    .bytes(1, "/")
                                                    .message(2, body().number(1, 0).number(2, 80)),
                                            ),
                                        )
                                        .number(2, 0)
                                        .number(3, 1),
                                )
                                .message(15, body().number(4, 0).number(5, 0)),
                        )
                        .message(14, body().bytes(4, [1, 2]).number(4, -1)),
                )
                .of("v1", "Pod"),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "spec": {
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                    "containers": [{
                        "name": "c",
                        "resources": {"limits": {"cpu": "100m"}},
                        "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 1},
                        "securityContext": {"runAsUser": 0, "runAsNonRoot": false},
                    }],
                    "securityContext": {"supplementalGroups": [1, 2, -1]},
                },
            }),
        ),
        (
            body()
                .number(1, 0)
                .message(2, body().bytes(1, "uid"))
                .bytes(4, "Foreground")
                .of("apps/v1", "DeleteOptions"),
            json!({
                "apiVersion": "apps/v1", "kind": "DeleteOptions",
                "gracePeriodSeconds": 0, "preconditions": {"uid": "uid"}, "propagationPolicy": "Foreground",
            }),
        ),
        (
            // A field that nobody knows, of each wire type.
            body()
                .number(999, 1)
                .bytes(998, "x")
                .fixed(997, 1, 8)
                .fixed(996, 5, 4)
                .of("v1", "Namespace"),
            json!({"apiVersion": "v1", "kind": "Namespace"}),
        ),
    ];
    for (sent, wanted) in table {
        assert_eq!(decode(&sent), Ok(wanted));
    }
}

#[test]
fn what_is_wrong_is_named() {
    let table: &[(&[u8], &str)] = &[
        (b"", "does not begin"),
        (b"{}", "does not begin"),
        (b"k8s\0\xff", "runtime.Unknown"),
        (
            &body().of("apps/v2", "Deployment"),
            "no protobuf form of Deployment in apps/v2",
        ),
        (b"k8s\0", "no protobuf form"),
        (
            &body().number(1, 1).of("v1", "Pod"),
            "Pod in the protobuf body can't be read: metadata: bytes are due",
        ),
        (
            &body().varint(3 << 3 | 3).of("v1", "Pod"),
            "unknown wire type",
        ),
        (
            &body().message(1, body().bytes(1, [0xff])).of("v1", "Pod"),
            "ObjectMeta",
        ),
        (
            &body().message(1, body().bytes(7, "x")).of("v1", "Pod"),
            "generation: a number is due",
        ),
        (
            &body()
                .message(1, body().message(8, body().number(1, i64::MAX)))
                .of("v1", "Pod"),
            "creationTimestamp: it is no point in time",
        ),
        (
            &body()
                .message(
                    1,
                    body().message(8, body().number(1, 1).number(2, 2_000_000_000)),
                )
                .of("v1", "Pod"),
            "creationTimestamp: it is no point in time",
        ),
        (
            &body()
                .message(
                    1,
                    body().message(17, body().message(7, body().bytes(1, "[".repeat(9_999)))),
                )
                .of("v1", "Pod"),
            "fieldsV1: recursion limit",
        ),
    ];
    for (sent, wanted) in table {
        let error = decode(sent).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn damaged_bodies_do_not_panic() {
    for whole in [CONFIG_MAP, POD] {
        for len in 0..whole.len() {
            // What is cut off at the end of a field reads as an object with fewer fields.
            if let Ok(read) = decode(&whole[..len]) {
                assert!(read.is_object());
            }
        }
        for byte in 0..whole.len() {
            for value in 0..=255 {
                let mut damaged = whole.to_vec();
                damaged[byte] = value;
                if let Ok(read) = decode(&damaged) {
                    assert!(read["kind"].is_string());
                }
            }
        }
    }
    // A message in a message in a message: unknown, and passed over without looking inside.
    let mut deep = body();
    for _ in 0..1_000 {
        deep = body().message(900, deep);
    }
    assert!(decode(&deep.of("v1", "Pod")).is_ok());
}

#[test]
fn every_row_has_a_protobuf_form() {
    for row in crate::table::RESOURCES {
        assert!(has_kind(&row.api_version(), row.kind), "{row:?}");
        let listed = row.verbs.contains(&"list");
        assert!(
            !listed || has_kind(&row.api_version(), row.list_kind),
            "{row:?}"
        );
    }
    for schema in schema::all() {
        let schema::Shape::Struct(fields) = &schema.shape else {
            continue;
        };
        let mut numbers = std::collections::BTreeSet::new();
        for (name, field) in fields {
            let named = schema.role != schema::Role::Part && ["apiVersion", "kind"].contains(name);
            assert_eq!(field.number[0] == 0, named, "{schema:?} {name}");
            assert!(named || numbers.insert(field.number), "{schema:?} {name}");
        }
    }
}

/// Makes objects as a schema describes them, with what protobuf can't tell from nothing left out.
struct Maker(u64);

impl Maker {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn object(&mut self, fields: &BTreeMap<&'static str, Field>, depth: usize) -> Value {
        let mut object = Map::new();
        for (name, field) in fields {
            let named = field.number[0] == 0;
            if named || self.below(4) > 1 {
                continue;
            }
            let value = self.value(&field.shape, depth + 1);
            let full =
                field.keep == Keep::Full || matches!(field.shape, Shape::List(_) | Shape::Map(_));
            if !value.is_null() && !(full && crate::value::is_empty(&value)) {
                object.insert((*name).to_owned(), value);
            }
        }
        Value::Object(object)
    }

    fn value(&mut self, shape: &Shape, depth: usize) -> Value {
        let (target, shape) = shape.resolve();
        match shape {
            Shape::Struct(_) | Shape::Free if depth > 8 => Value::Null,
            Shape::Struct(fields) => self.object(fields, depth),
            Shape::List(items) | Shape::Map(items) => {
                let all: Vec<Value> = (0..self.below(3))
                    .map(|_| self.value(items, depth + 1))
                    .filter(|v| !v.is_null())
                    .collect();
                match shape {
                    Shape::List(_) => all.into(),
                    _ => all
                        .into_iter()
                        .map(|v| (format!("k{}", self.below(99)), v))
                        .collect(),
                }
            }
            Shape::Text { bytes: true } => STANDARD.encode([self.below(256) as u8, 0, 255]).into(),
            Shape::Text { bytes: false } => {
                ["", "a", "日本", "x\n\"y"][self.below(4) as usize].into()
            }
            Shape::Flag => (self.below(2) == 0).into(),
            Shape::Integer { bits: 32 } => {
                [0, 1, -1, i32::MAX, i32::MIN][self.below(5) as usize].into()
            }
            Shape::Integer { .. } => [0, 1, -1, i64::MAX, i64::MIN][self.below(5) as usize].into(),
            Shape::Number => {
                [json!(0), json!(1.5), json!(-3), json!(1e300)][self.below(4) as usize].clone()
            }
            Shape::IntOrString => {
                [json!(0), json!(-7), json!("50%"), json!("")][self.below(4) as usize].clone()
            }
            Shape::Quantity => ["0", "100m", "1Gi"][self.below(3) as usize].into(),
            Shape::Time { micro: false } => "2026-01-02T03:04:05Z".into(),
            Shape::Time { micro: true } => "2026-01-02T03:04:05.000006Z".into(),
            Shape::Any => json!({"a": [1, null, {"b": "c"}]}),
            Shape::Free | Shape::Ref(_) => {
                let props = schema::find(write::PROPS).unwrap();
                let mut one = || match self.value(&props.shape, depth + 1) {
                    Value::Null => json!({}),
                    props => props,
                };
                match target.map_or("", |t| t.name) {
                    "JSON" => json!([1, "x", {"y": false}]),
                    "JSONSchemaPropsOrBool" => {
                        [json!(true), json!(false), one()][one().to_string().len() % 3].clone()
                    }
                    "JSONSchemaPropsOrArray" => {
                        [json!([one(), one()]), one()][one().to_string().len() % 2].clone()
                    }
                    "JSONSchemaPropsOrStringArray" => json!(["a", "b"]),
                    other => panic!("{other}"),
                }
            }
        }
    }
}

#[test]
fn what_is_written_is_read_again() {
    let kinds: Vec<_> = schema::all()
        .filter(|s| s.role == schema::Role::Kind)
        .collect();
    assert!(kinds.len() > 120);
    for (i, kind) in kinds.iter().enumerate() {
        let Shape::Struct(fields) = &kind.shape else {
            panic!("{kind:?}");
        };
        for round in 0..20 {
            let mut object = Maker((i * 1_000 + round) as u64).object(fields, 0);
            object["apiVersion"] = kind.package.api_version.into();
            object["kind"] = kind.name.into();
            let body = encode(&object).unwrap();
            assert_eq!(decode(&body).as_ref(), Ok(&object), "{kind:?}");
            // Whatever a client cuts off or damages is refused or read, in bounded time.
            for cut in [body.len() / 3, body.len() / 2, body.len() - 1] {
                drop(decode(&body[..cut]));
                let mut damaged = body.clone();
                damaged[cut] ^= 0x55;
                drop(decode(&damaged));
            }
        }
    }
}

#[test]
fn schemas_in_schemas_are_read_to_a_depth() {
    let wrap = |depth: usize| {
        let mut props = body().bytes(5, "object");
        for _ in 0..depth {
            props = body().message(28, props);
        }
        let version = body().message(4, body().message(1, props));
        body()
            .message(2, body().message(7, version))
            .of("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    };
    assert!(decode(&wrap(50)).is_ok());
    let error = decode(&wrap(5_000)).unwrap_err().to_string();
    assert!(error.contains("nested too deeply"), "{error}");
}

#[test]
fn watch_events_and_lists() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}});
    let body = encode(&pod).unwrap();
    let frame = watch_frame("ADDED", &body);
    let event = super::tests::body()
        .bytes(1, "ADDED")
        .message(2, super::tests::body().bytes(1, &body));
    assert_eq!(frame[..4], (event.0.len() as u32).to_be_bytes());
    assert_eq!(frame[4..], event.0);

    let meta = Map::from_iter([("resourceVersion".to_owned(), "7".into())]);
    let list = encode_list("v1", "PodList", &meta, [&pod, &pod].into_iter()).unwrap();
    let item = json!({"metadata": {"name": "x"}});
    assert_eq!(
        decode(&list),
        Ok(json!({
            "apiVersion": "v1", "kind": "PodList",
            "metadata": {"resourceVersion": "7"}, "items": [item, item],
        }))
    );
}
