//! AdmissionReview: the question that a webhook is asked, and what its answer means.

use api::status::{Details, Status};
use api::value::{at, flag, list, text};
use base64::Engine as _;
use serde_json::{Value, json};

use super::{Form, Request};

const KIND: &str = "AdmissionReview";
/// The most characters of one warning that are passed on, and of all warnings of an answer.
const WARNING_MAX: usize = 256;
const WARNINGS_MAX: usize = 4096;

/// What a webhook says.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// The refusal, if it is one.
    pub refusal: Option<Status>,
    /// A JSON patch to be applied, as it was sent.
    pub patch: Option<Vec<u8>>,
    /// What the client should hear.
    pub warnings: Vec<String>,
}

/// The version of the review that is spoken with a webhook; `None` where it knows neither.
pub fn version(webhook: &Value) -> Option<&'static str> {
    list(webhook, &["admissionReviewVersions"])
        .iter()
        .find_map(|version| match version.as_str() {
            Some("v1") => Some("admission.k8s.io/v1"),
            Some("v1beta1") => Some("admission.k8s.io/v1beta1"),
            _ => None,
        })
}

/// The body of the question. The objects are in the form that the webhook's rule named.
pub fn question(
    version: &str,
    request: &Request<'_>,
    form: Form,
    uid: &str,
    object: &Value,
    old: &Value,
) -> Value {
    let mut body = request.shown(form);
    body["uid"] = uid.into();
    body["object"] = object.clone();
    body["oldObject"] = old.clone();
    json!({"kind": KIND, "apiVersion": version, "request": body})
}

/// What an answer means. `name` is the webhook's; `mutating`: whether it may change the object.
///
/// # Errors
/// Why the answer cannot be taken.
pub fn verdict(
    answer: &Value,
    version: &str,
    uid: &str,
    name: &str,
    mutating: bool,
) -> Result<Verdict, String> {
    let response = at(answer, &["response"]);
    if version.ends_with("/v1") {
        let (met, kind) = (text(answer, &["apiVersion"]), text(answer, &["kind"]));
        if (met, kind) != (version, KIND) {
            let (group, met) = met.rsplit_once('/').unwrap_or(("", met));
            return Err(format!(
                "expected webhook response of {version}, Kind={KIND}, got {group}/{met}, Kind={kind}"
            ));
        }
        let told = text(response, &["uid"]);
        if response.is_object() && told != uid {
            return Err(format!(
                "expected response.uid={}, got {}",
                api::field::quoted(uid),
                api::field::quoted(told)
            ));
        }
    }
    if !response.is_object() {
        return Err("webhook response was absent".to_owned());
    }
    let patch = patch(response, version, mutating)?;
    Ok(Verdict {
        refusal: (!flag(response, &["allowed"])).then(|| refusal(name, at(response, &["status"]))),
        patch: patch.filter(|_| flag(response, &["allowed"])),
        warnings: warnings(response),
    })
}

fn patch(response: &Value, version: &str, mutating: bool) -> Result<Option<Vec<u8>>, String> {
    let (encoded, kind) = (text(response, &["patch"]), text(response, &["patchType"]));
    if !mutating {
        // The older version let it be.
        let told = [
            ("patch", !encoded.is_empty()),
            ("patchType", at(response, &["patchType"]).is_string()),
        ];
        let wrong = told
            .iter()
            .find(|(_, there)| *there && version.ends_with("/v1"));
        return wrong.map_or(Ok(None), |(key, _)| {
            Err(format!("validating webhook may not return response.{key}"))
        });
    }
    if encoded.is_empty() {
        if !kind.is_empty() && version.ends_with("/v1") {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        return Ok(None);
    }
    if kind.is_empty() && version.ends_with("/v1") {
        return Err("webhook returned response.patch but not response.patchType".to_owned());
    }
    if !matches!(kind, "" | "JSONPatch") {
        return Err(format!(
            "unsupported patch type {}",
            api::field::quoted(kind)
        ));
    }
    base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .map(Some)
        .map_err(|error| format!("response.patch is not base64: {error}"))
}

/// The refusal as the client sees it.
fn refusal(name: &str, status: &Value) -> Status {
    let denied = format!(
        "admission webhook {} denied the request",
        api::field::quoted(name)
    );
    let (message, reason) = (text(status, &["message"]), text(status, &["reason"]));
    let told = match (message, reason) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let code = at(status, &["code"]).as_u64().unwrap_or(0);
    let code = u16::try_from(code)
        .ok()
        .filter(|code| (400..600).contains(code));
    let mut refusal = Status::new(code.unwrap_or(400), "", told);
    refusal.reason = reason.to_owned().into();
    let details = at(status, &["details"]);
    if details.is_object() {
        refusal.details = serde_json::from_value::<Details>(details.clone())
            .ok()
            .map(Box::new);
    }
    refusal
}

/// Warnings in the form of a header: short, and of printable characters.
fn warnings(response: &Value) -> Vec<String> {
    let mut left = WARNINGS_MAX;
    let mut told = Vec::new();
    for warning in list(response, &["warnings"])
        .iter()
        .filter_map(Value::as_str)
    {
        let plain: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(WARNING_MAX)
            .collect();
        if plain.is_empty() || plain.len() > left {
            continue;
        }
        left -= plain.len();
        told.push(plain);
    }
    told
}
