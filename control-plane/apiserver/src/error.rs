//! Why a server cannot be built or served.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

/// Each says what was attempted, on what, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file or directory.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A certificate, key or token file that is not what it should be.
    #[error(
        "{} cannot be used: {why}. Restore it, or remove it together with the files signed by it to have new ones made",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate could not be made, or rustls refuses it.
    #[error("preparing certificates")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes for keys and tokens")]
    Random,
    /// The listening socket.
    #[error("{doing}")]
    Listener {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The store did not answer.
    #[error("{doing}")]
    Storage {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: storage::Error,
    },
    /// An object that every cluster begins with was refused.
    #[error("making {what}: {why}")]
    Bootstrap {
        /// The object.
        what: String,
        /// The refusal.
        why: String,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Error::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, why: &dyn Display) -> Self {
        Error::Damaged {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }

    pub(crate) fn certificate(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Error::Certificate(Box::new(source))
    }
}
