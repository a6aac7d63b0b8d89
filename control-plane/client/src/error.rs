//! Why a request did not do what was asked.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// Any cause at all; what transports and bodies fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and the answer was no.
    #[error("{method} {path}: {status}")]
    Status {
        /// Of the request.
        method: http::Method,
        /// Of the request, without its query.
        path: String,
        /// What the server said.
        status: Box<Status>,
    },
    /// No answer, or only half of one.
    #[error("{method} {path}: no answer from {server}")]
    Transport {
        /// Of the request.
        method: http::Method,
        /// Of the request, without its query.
        path: String,
        /// Where it went.
        server: String,
        /// What happened to the connection.
        #[source]
        source: BoxError,
    },
    /// No answer in time.
    #[error("{method} {path}: no answer from {server} within {seconds} s")]
    Timeout {
        /// Of the request.
        method: http::Method,
        /// Of the request, without its query.
        path: String,
        /// Where it went.
        server: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The answer is not what such a request is answered with.
    #[error("{method} {path}: the answer cannot be read")]
    Decode {
        /// Of the request.
        method: http::Method,
        /// Of the request, without its query.
        path: String,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The object to send cannot be written as JSON.
    #[error("the object for {path} cannot be written as JSON")]
    Encode {
        /// Where it was to go.
        path: String,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be formed, for instance because a name holds a line break.
    #[error("{path} does not make a request")]
    Request {
        /// Where it was to go.
        path: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// The token file of the kubeconfig cannot be read.
    #[error("token file {} cannot be read", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A manifest is not YAML.
    #[error("the manifest is not YAML")]
    Yaml {
        /// Where it goes wrong.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// A document of a manifest lacks what tells where it goes.
    #[error("a document of kind \"{kind}\" has no {field}")]
    Incomplete {
        /// `kind:` of the document; empty where it has none.
        kind: String,
        /// The field.
        field: &'static str,
    },
    /// The server knows no such kind.
    #[error("no matches for kind \"{kind}\" in version \"{api_version}\"")]
    UnknownKind {
        /// `apiVersion:` of the document.
        api_version: String,
        /// `kind:` of the document.
        kind: String,
    },
}

impl Error {
    /// What the server said, when it did.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status { status, .. } => Some(status),
            Error::Transport { .. }
            | Error::Timeout { .. }
            | Error::Decode { .. }
            | Error::Encode { .. }
            | Error::Request { .. }
            | Error::TokenFile { .. }
            | Error::Yaml { .. }
            | Error::Incomplete { .. }
            | Error::UnknownKind { .. } => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.has_code(404)
    }

    /// The object exists already.
    pub fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// The object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    /// The resource version or continue token is too old: list again.
    pub fn is_gone(&self) -> bool {
        self.has_code(410)
    }

    /// The server refuses the request as it is, for instance for a resource version that it does not have yet: to say the
    /// same again does not help. Not so where it is overwhelmed, broken, or not reached by what stands before it.
    pub fn is_refused(&self) -> bool {
        self.status()
            .is_some_and(|status| !matches!(status.code, 429 | 500 | 502 | 503))
    }

    fn has_code(&self, code: u16) -> bool {
        self.status().is_some_and(|status| status.code == code)
    }

    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }
}

/// `v1` Status, as far as clients act on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// One word for programs, for instance `Conflict`.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// More of it.
    pub details: Option<StatusDetails>,
}

/// `details` of a Status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// Seconds to wait before the request may be sent again; zero when none were named.
    pub retry_after_seconds: u64,
    /// One entry for each fault.
    pub causes: Vec<StatusCause>,
}

/// One fault of several.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// One word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// Path of the field at fault.
    pub field: String,
}

impl Status {
    /// From an answer's code and body; a body that is no Status becomes the message as it stands.
    pub(crate) fn from_answer(code: http::StatusCode, body: &[u8]) -> Status {
        let parsed = serde_json::from_slice::<Status>(body).ok();
        let mut status = parsed
            .filter(|status| !status.message.is_empty() || !status.reason.is_empty())
            .unwrap_or_else(|| Status {
                message: String::from_utf8_lossy(body)
                    .trim()
                    .chars()
                    .take(1024)
                    .collect(),
                ..Status::default()
            });
        status.code = code.as_u16();
        if status.message.is_empty() {
            status.message = code
                .canonical_reason()
                .unwrap_or("no reason given")
                .to_owned();
        }
        status
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.message, self.code)?;
        if !self.reason.is_empty() {
            write!(f, " {}", self.reason)?;
        }
        f.write_str(")")
    }
}
