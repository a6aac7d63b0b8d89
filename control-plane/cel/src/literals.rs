//! Literals that would fail whenever they are evaluated: patterns, spans and moments that are none. They are refused
//! where an expression is compiled.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::ast::{Expr, Kind, Literal};
use crate::duration;
use crate::lex::Fault;
use crate::pattern::Pattern;

/// What is wrong with the first argument of a call, where it is a text as it stands.
pub(crate) fn fault(function: &str, args: &[Expr]) -> Option<Fault> {
    let arg = args.first()?;
    let Kind::Literal(Literal::String(text)) = &arg.kind else {
        return None;
    };
    let good = match function {
        // Kubernetes looks at the first argument of `matches(text, pattern)` too.
        "matches" => Pattern::new(text).is_ok(),
        "duration" => duration::parse(text).is_some(),
        "timestamp" => moment(text).is_some(),
        _ => true,
    };
    (!good).then(|| Fault::new(arg.at, format!("invalid {function} argument")))
}

/// RFC 3339, which a moment is written in.
pub(crate) fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
