//! The `Status` object: how the server says no, and how it says that something was deleted.
//!
//! Shapes and messages are those that kube-apiserver 1.36 sends; clients branch on `reason` and print `message`.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::field::FieldError;
use crate::table::Resource;

/// Why the server refused. Becomes an HTTP response with [`Status::code`] and the JSON of [`Status::to_json`].
#[derive(Clone, PartialEq, Debug)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// CamelCase word that clients branch on, for instance `NotFound`; empty where there is none.
    pub reason: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// What it was about.
    pub details: Option<Box<Details>>,
}

/// The object, and the causes.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// Of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group; empty for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind in refusals of validation, the plural elsewhere.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// One for each fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again; zero: no advice.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "is_zero")]
    pub retry_after_secs: u32,
}

/// One fault.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Cause {
    /// For instance `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For instance `spec.ports[0].port`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// What a request is about: a resource within its group. Names appear as `pods` or `ingresses.networking.k8s.io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subject<'a> {
    /// API group; empty for the core group.
    pub group: &'a str,
    /// Plural, or the kind where the message wants it.
    pub name: &'a str,
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.name),
            group => write!(f, "{}.{group}", self.name),
        }
    }
}

impl<'a> From<&'a Resource> for Subject<'a> {
    fn from(resource: &'a Resource) -> Self {
        Subject {
            group: resource.group,
            name: resource.plural,
        }
    }
}

impl Subject<'_> {
    fn details(self, name: &str) -> Details {
        Details {
            name: name.into(),
            group: self.group.into(),
            kind: self.name.into(),
            ..Details::default()
        }
    }
}

/// The most faults that one refusal tells of: nobody reads more, and a body can be made of nothing but faults.
const FAULTS_MAX: usize = 100;

impl Status {
    /// Any refusal. Without details the field is absent from the answer.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
        }
    }

    fn about(
        code: u16,
        reason: &'static str,
        message: impl Into<String>,
        details: Details,
    ) -> Self {
        Status {
            code,
            reason: reason.into(),
            message: message.into(),
            details: Some(Box::new(details)),
        }
    }

    /// 404: there is no such object.
    pub fn not_found<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = subject.into();
        Self::about(
            404,
            "NotFound",
            format!("{subject} \"{name}\" not found"),
            subject.details(name),
        )
    }

    /// 404: there is no such resource or path within a known group.
    pub fn unknown_resource() -> Self {
        Self::about(
            404,
            "NotFound",
            "the server could not find the requested resource",
            Details::default(),
        )
    }

    /// 409: an object of that name exists.
    pub fn already_exists<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = subject.into();
        Self::about(
            409,
            "AlreadyExists",
            format!("{subject} \"{name}\" already exists"),
            subject.details(name),
        )
    }

    /// 409: the generated name is taken; the client may ask again.
    pub fn generated_name_taken<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let mut status = Self::already_exists(subject, name);
        status
            .message
            .push_str(", the server was not able to generate a unique name for the object");
        if let Some(details) = &mut status.details {
            details.retry_after_secs = 1;
        }
        status
    }

    /// 409: `why` the write cannot be done on what stands there.
    pub fn conflict<'a>(subject: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = subject.into();
        Self::about(
            409,
            "Conflict",
            format!("Operation cannot be fulfilled on {subject} \"{name}\": {why}"),
            subject.details(name),
        )
    }

    /// 409: somebody wrote the object in between.
    pub fn modified<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        Self::conflict(
            subject,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 422: the object breaks rules. `kind` is the object's kind.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let subject = Subject { group, name: kind };
        let told = &errors[..errors.len().min(FAULTS_MAX)];
        let mut seen: Vec<String> = Vec::new();
        for error in told {
            let text = error.to_string();
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
        if errors.len() > told.len() {
            seen.push(format!("and {} more", errors.len() - told.len()));
        }
        let listed = match seen.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            many => format!(": [{}]", many.join(", ")),
        };
        let causes = told
            .iter()
            .map(|error| Cause {
                reason: error.reason().into(),
                message: error.body(),
                field: error.field.clone(),
            })
            .collect();
        let details = Details {
            causes,
            ..subject.details(name)
        };
        Self::about(
            422,
            "Invalid",
            format!("{subject} \"{name}\" is invalid{listed}"),
            details,
        )
    }

    /// 422 about a row's object.
    pub fn invalid_object(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid(resource.group, resource.kind, name, errors)
    }

    /// 422: a query parameter breaks rules; `kind` is for instance `ListOptions`.
    pub fn invalid_options(kind: &str, errors: &[FieldError]) -> Self {
        Self::invalid("meta.k8s.io", kind, "", errors)
    }

    /// 422: a patch that cannot be carried out.
    pub fn unprocessable() -> Self {
        Self::about(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
            Details::default(),
        )
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403: `why` it may not be done to the object; an empty name speaks of the resource as a whole.
    pub fn forbidden<'a>(subject: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = subject.into();
        let message = if name.is_empty() {
            format!("{subject} is forbidden: {why}")
        } else {
            format!("{subject} \"{name}\" is forbidden: {why}")
        };
        Self::about(403, "Forbidden", message, subject.details(name))
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self::about(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
            Details::default(),
        )
    }

    /// 406: none of the media types that the client accepts can be served.
    pub fn not_acceptable(available: &[&str]) -> Self {
        Self::new(
            406,
            "NotAcceptable",
            format!(
                "406: Not Acceptable\n\nAvailable representations: {}",
                available.join(", ")
            ),
        )
    }

    /// 410: the revision or continue token is older than what is retained.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 of a watch from a forgotten revision.
    pub fn too_old_version(asked: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {asked} ({oldest})"))
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415 of a PATCH whose content type is none of the patch types of the row.
    pub fn unsupported_patch_type(row: &Resource) -> Self {
        if row.custom.is_some() {
            return Self::unsupported_media_type(row.patch_types());
        }
        Self::about(
            415,
            "UnsupportedMediaType",
            "415: Unsupported Media Type",
            Details::default(),
        )
    }

    /// 415 of a body in an unknown format.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        let cause = Cause {
            message: message.to_string(),
            ..Cause::default()
        };
        Self::about(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
            Details {
                causes: vec![cause],
                ..Details::default()
            },
        )
    }

    /// 504: it took too long.
    pub fn timeout(message: impl fmt::Display, retry_after_secs: u32) -> Self {
        Self::about(
            504,
            "Timeout",
            format!("Timeout: {message}"),
            Details {
                retry_after_secs,
                ..Details::default()
            },
        )
    }

    /// 504: the client asks for a revision that is not yet written.
    pub fn future_version(asked: u64, current: u64) -> Self {
        let mut status = Self::timeout(
            format_args!("Too large resource version: {asked}, current: {current}"),
            1,
        );
        if let Some(details) = &mut status.details {
            details.causes.push(Cause {
                reason: "ResourceVersionTooLarge".into(),
                message: "Too large resource version".into(),
                field: String::new(),
            });
        }
        status
    }

    /// The Status object.
    pub fn to_value(&self) -> Value {
        // Strings, numbers and lists of them: nothing that can fail to serialise.
        serde_json::to_value(Wire::from(self)).unwrap_or_default()
    }

    /// The body of the answer.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&Wire::from(self)).unwrap_or_default()
    }
}

/// The answer to a deletion: `status: Success` and what was deleted.
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Value {
    let details = Details {
        uid: uid.into(),
        ..Subject::from(resource).details(name)
    };
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    })
}

#[derive(Serialize)]
struct Wire<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: serde_json::Map<String, Value>,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Details>,
    code: u16,
}

impl<'a> From<&'a Status> for Wire<'a> {
    fn from(status: &'a Status) -> Self {
        Wire {
            kind: "Status",
            api_version: "v1",
            metadata: serde_json::Map::new(),
            status: "Failure",
            message: &status.message,
            reason: &status.reason,
            details: status.details.as_deref(),
            code: status.code,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
