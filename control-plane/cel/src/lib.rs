//! The Common Expression Language as Kubernetes uses it in validation rules: a parser, a type checker that estimates
//! cost in the same walk, and an evaluator that counts what it spends.
//!
//! [`Program`] is an expression ready to be evaluated; [`types::Decl`] says what the values of an object look like.
//! Depth, size and work are bounded on any source and any value. This crate knows nothing of Kubernetes objects.
#![forbid(unsafe_code)]

pub mod ast;
pub mod authorizer;
pub mod check;
pub mod cost;
pub mod duration;
mod eval;
pub mod formats;
mod functions;
mod lex;
mod literals;
pub mod message;
mod net;
mod parse;
pub mod pattern;
mod program;
pub mod quantity;
pub mod semver;
mod signatures;
pub mod types;
pub mod url;
pub mod value;

pub use eval::Failure;
pub use program::Program;
