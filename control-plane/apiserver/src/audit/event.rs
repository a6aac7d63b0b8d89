//! An event of `audit.k8s.io/v1`, as a line of JSON.

use std::collections::BTreeMap;

use authorization::User;
use bytes::Bytes;
use http::HeaderMap;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::policy::{Level, Stage};

/// The most bytes of an event: beyond this, what was sent and answered is left out of it.
const EVENT_MAX: usize = 10 << 20;
/// Says so.
const TRUNCATED: &str = "audit.k8s.io/truncated";
/// The most characters of a client's name for itself.
const AGENT_MAX: usize = 1024;

/// A request, as far as it is known.
#[derive(Clone, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    #[serde(rename = "requestURI")]
    pub(super) uri: String,
    pub(super) verb: &'static str,
    pub(super) user: Person,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<Person>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(super) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Value>,
}

/// A user, as events tell of him.
#[derive(Clone, Default, Debug, Serialize)]
pub(super) struct Person {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, Vec<String>>,
}

impl From<&User> for Person {
    fn from(user: &User) -> Self {
        Person {
            username: user.name.clone(),
            uid: user.uid.clone(),
            groups: user.groups.clone(),
            extra: user.extra.clone(),
        }
    }
}

/// What a request is about.
#[derive(Clone, Default, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    pub(super) resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) uid: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) api_group: String,
    pub(super) api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) resource_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) subresource: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: &'static str,
    #[serde(rename = "auditID")]
    id: &'a str,
    stage: &'static str,
    #[serde(flatten)]
    fields: &'a Fields,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// When and under which name.
pub(super) struct Head<'a> {
    pub(super) level: Level,
    pub(super) id: &'a str,
    pub(super) stage: Stage,
    pub(super) received: OffsetDateTime,
}

/// The line, with its end.
pub(super) fn line(
    head: &Head<'_>,
    fields: &Fields,
    annotations: &BTreeMap<String, String>,
) -> Vec<u8> {
    let written = |fields: &Fields, annotations: &BTreeMap<String, String>| {
        let event = Event {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: head.level.name(),
            id: head.id,
            stage: head.stage.name(),
            fields,
            request_received_timestamp: micro_time(head.received),
            stage_timestamp: micro_time(OffsetDateTime::now_utc()),
            annotations,
        };
        // Its keys are texts, so that it always serialises.
        let mut line = serde_json::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        line
    };
    let line = written(fields, annotations);
    if line.len() <= EVENT_MAX {
        return line;
    }
    let fields = Fields {
        request_object: None,
        response_object: None,
        ..fields.clone()
    };
    let mut annotations = annotations.clone();
    annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
    written(&fields, &annotations)
}

/// As Kubernetes writes a moment with microseconds.
fn micro_time(time: OffsetDateTime) -> String {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
    );
    time.format(FORM).unwrap_or_default()
}

/// The client's name for itself, not longer than it need be.
pub(super) fn user_agent(headers: &HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT);
    let agent = agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()));
    let agent = agent.unwrap_or_default();
    match agent.char_indices().nth(AGENT_MAX) {
        Some((end, _)) => format!("{}...TRUNCATED", &agent[..end]),
        None => agent.into_owned(),
    }
}

/// Where a request came from, as those say who passed it on, and who sent it here last.
pub(super) fn source_ips(headers: &HeaderMap, peer: Option<std::net::IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut ips: Vec<String> = text("x-forwarded-for")
        .unwrap_or_default()
        .split(',')
        .filter_map(|part| part.trim().parse::<std::net::IpAddr>().ok())
        .map(|ip| ip.to_string())
        .collect();
    if let Some(ip) = text("x-real-ip").and_then(|ip| ip.trim().parse::<std::net::IpAddr>().ok()) {
        let ip = ip.to_string();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if let Some(peer) = peer.map(|peer| peer.to_canonical().to_string())
        && ips.last() != Some(&peer)
    {
        ips.push(peer);
    }
    ips
}

/// A body as a value, whatever it is written in; `None` where it is neither JSON, YAML nor protobuf.
pub(super) fn object(content_type: &str, body: &Bytes) -> Option<Value> {
    if body.is_empty() {
        return None;
    }
    match content_type {
        api::protobuf::CONTENT_TYPE => api::protobuf::decode(body).ok(),
        "application/yaml" | "application/apply-patch+yaml" => api::decode::untyped_yaml(body).ok(),
        json if json.ends_with("json") => api::decode::untyped_json(body).ok(),
        _ => None,
    }
}

/// Takes out who manages which field, of an object or of those in a list.
pub(super) fn without_managed_fields(object: &mut Value) {
    let drop = |object: &mut Value| {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    };
    drop(object);
    if let Some(Value::Array(items)) = object.get_mut("items") {
        items.iter_mut().for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_written_as_kubernetes_writes_it() {
        let fields = Fields {
            uri: "/api/v1/namespaces/a/pods/p?x=1".into(),
            verb: "get",
            user: Person {
                username: "jane".into(),
                groups: vec!["g".into()],
                ..Person::default()
            },
            source_ips: vec!["10.0.0.1".into()],
            object_ref: Some(ObjectRef {
                resource: "pods".into(),
                namespace: "a".into(),
                name: "p".into(),
                api_version: "v1".into(),
                ..ObjectRef::default()
            }),
            response_status: Some(json!({"metadata": {}, "code": 200})),
            ..Fields::default()
        };
        let head = Head {
            level: Level::Metadata,
            id: "i",
            stage: Stage::ResponseComplete,
            received: time::macros::datetime!(2026-01-02 03:04:05.678 UTC),
        };
        let annotations = BTreeMap::from([(
            "authorization.k8s.io/decision".to_owned(),
            "allow".to_owned(),
        )]);
        let line = line(&head, &fields, &annotations);
        let line = String::from_utf8(line).unwrap();
        let begin = "{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\",\"auditID\":\"i\",\
             \"stage\":\"ResponseComplete\",\"requestURI\":\"/api/v1/namespaces/a/pods/p?x=1\",\"verb\":\"get\",\
             \"user\":{\"username\":\"jane\",\"groups\":[\"g\"]},\"sourceIPs\":[\"10.0.0.1\"],\"objectRef\":\
             {\"resource\":\"pods\",\"namespace\":\"a\",\"name\":\"p\",\"apiVersion\":\"v1\"},\"responseStatus\":\
             {\"code\":200,\"metadata\":{}},\"requestReceivedTimestamp\":\"2026-01-02T03:04:05.678000Z\",\"stageTimestamp\":\"";
        assert!(line.starts_with(begin), "{line}");
        assert!(
            line.ends_with("\"annotations\":{\"authorization.k8s.io/decision\":\"allow\"}}\n"),
            "{line}"
        );
    }

    #[test]
    fn what_is_too_large_is_left_out() {
        let fields = Fields {
            request_object: Some("x".repeat(EVENT_MAX).into()),
            ..Fields::default()
        };
        let head = Head {
            level: Level::Request,
            id: "i",
            stage: Stage::ResponseComplete,
            received: OffsetDateTime::UNIX_EPOCH,
        };
        let event: Value = serde_json::from_slice(&line(&head, &fields, &BTreeMap::new())).unwrap();
        assert_eq!(event["requestObject"], Value::Null);
        assert_eq!(event["annotations"], json!({TRUNCATED: "true"}));
    }

    #[test]
    fn where_requests_come_from() {
        for (forwarded, real, expected) in [
            ("", "", &["10.0.0.9"][..]),
            (
                "1.1.1.1, x, 2.2.2.2",
                "3.3.3.3",
                &["1.1.1.1", "2.2.2.2", "3.3.3.3", "10.0.0.9"],
            ),
            ("10.0.0.9", "", &["10.0.0.9"]),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            headers.insert("x-real-ip", HeaderValue::from_static(real));
            let peer = "::ffff:10.0.0.9".parse().ok();
            assert_eq!(source_ips(&headers, peer), expected);
        }
    }

    #[test]
    fn managed_fields_go() {
        let mut list = json!({"metadata": {"managedFields": []}, "items": [{"metadata": {"name": "a", "managedFields": []}}]});
        without_managed_fields(&mut list);
        assert_eq!(
            list,
            json!({"metadata": {}, "items": [{"metadata": {"name": "a"}}]})
        );
    }
}
