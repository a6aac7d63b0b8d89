//! What is wrong with a configuration: where, what, and what to do about it.

use std::sync::Arc;

/// A mistake in a Corefile or in a file that it names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}; {remedy}")]
pub struct ConfigError {
    /// The file as the user named it.
    pub file: Arc<str>,
    /// The line, from one.
    pub line: u32,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub remedy: String,
}
