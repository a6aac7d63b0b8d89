//! What goes wrong, as the specification wants it told: a code, a sentence, and the causes.

use std::error::Error;
use std::fmt;

use serde_json::{Value, json};

/// Codes of the specification's section "Error", and ours from 100 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum Code {
    /// The configuration's version is not spoken here, or has no such operation.
    IncompatibleVersion = 1,
    /// A field asks for what this plugin does not do.
    UnsupportedField = 2,
    /// The container is not there; the runtime need not clean up.
    UnknownContainer = 3,
    /// The environment says what cannot be.
    InvalidEnvironment = 4,
    /// A file, a socket or the kernel refused.
    Io = 5,
    /// Something could not be read as what it should be.
    Decode = 6,
    /// The configuration says what cannot be.
    InvalidConfig = 7,
    /// Something comes up that is not there yet.
    TryAgainLater = 11,
    /// STATUS: no pod can be added.
    NotAvailable = 50,
    /// No address is free.
    Exhausted = 100,
    /// CHECK: something is not as ADD made it.
    NotAsMade = 101,
}

/// An error of the plugin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// Its number.
    pub(crate) code: Code,
    /// What went wrong and what to do.
    pub(crate) msg: String,
    /// The causes.
    pub(crate) details: String,
}

impl Failure {
    /// One without causes.
    #[must_use]
    pub(crate) fn new(code: Code, msg: impl Into<String>) -> Failure {
        Failure {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// One with the causes of an error as its details.
    #[must_use]
    pub(crate) fn of(code: Code, error: &dyn Error) -> Failure {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Failure {
            code,
            msg: error.to_string(),
            details: causes.join(": "),
        }
    }

    /// What the runtime reads.
    #[must_use]
    pub(crate) fn json(&self, version: &str) -> Value {
        let mut json = json!({"cniVersion": version, "code": self.code as u32, "msg": self.msg});
        if !self.details.is_empty() {
            json["details"] = json!(self.details);
        }
        json
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}

impl From<net::Error> for Failure {
    fn from(error: net::Error) -> Failure {
        Failure::of(Code::Io, &error)
    }
}

impl From<bpf::Error> for Failure {
    fn from(error: bpf::Error) -> Failure {
        let code = match &error {
            bpf::Error::NotLoaded { .. } | bpf::Error::Missing { .. } => Code::TryAgainLater,
            _ => Code::Io,
        };
        Failure::of(code, &error)
    }
}

impl From<ipam::Refused> for Failure {
    fn from(refused: ipam::Refused) -> Failure {
        let code = match &refused {
            ipam::Refused::Exhausted { .. } | ipam::Refused::Taken { .. } => Code::Exhausted,
            ipam::Refused::NotOurs { .. } | ipam::Refused::Held(_) => Code::InvalidConfig,
        };
        Failure::of(code, &refused)
    }
}
