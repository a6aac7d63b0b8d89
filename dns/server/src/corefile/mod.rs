//! The Corefile: text to server blocks with their directives. What a directive means is the plugin's business.
//!
//! ```text
//! file      = { snippet | server | import }
//! snippet   = "(" NAME ")" "{" lines "}"
//! server    = key {[","] key} "{" lines "}"        the braces may be left out round a file's only block
//! key       = [SCHEME "://"] ZONE [":" PORT ["-" PORT]]
//! line      = NAME { ARG } [ "{" lines "}" ]       a brace opens at the end of a line
//! import    = "import" (GLOB | SNIPPET { ARG })    arguments are used as {args[0]}
//! ```

pub mod digest;
pub mod error;
pub mod import;
pub mod key;
pub mod lex;
pub mod parse;

use std::path::Path;

pub use error::ConfigError;
pub use key::Key;
pub use key::Scheme;
pub use lex::Token;

/// What is served where there is no Corefile, as CoreDNS does.
pub const DEFAULT: &str = ".:53 {\n    whoami\n    log\n}\n";

/// A file of at most this many octets is read; a greater one is a mistake.
pub const OCTETS_MAX: usize = 16 << 20;

/// A Corefile that was read: its blocks in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corefile {
    /// The server blocks.
    pub servers: Vec<Server>,
}

/// A server block: where it listens and for which zones, and what its lines say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The keys as written.
    pub keys: Vec<Token>,
    /// Its lines.
    pub directives: Vec<Directive>,
}

/// A line: a name, its arguments, and the lines of its own block if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// The first word.
    pub name: Token,
    /// The other words.
    pub args: Vec<Token>,
    /// The lines between braces.
    pub block: Vec<Directive>,
}

/// Reads a Corefile. `file` is its name in errors, and its relative imports are taken from its folder.
///
/// # Errors
///
/// When the text does not follow the grammar or an import cannot be read; the error names file and line.
pub fn read(
    file: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Corefile, ConfigError> {
    parse::parse(file, text, environment)
}
