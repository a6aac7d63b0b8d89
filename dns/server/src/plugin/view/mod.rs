//! `view`: a block serves only requests for which an expression is true; others go to the next block of the zone.

mod expression;
mod functions;
mod parser;
mod words;

use std::sync::Arc;

use self::expression::Expression;
use super::setup::Made;
use super::setup::Setup;

/// Reads `view NAME { expr EXPRESSION }`; several expressions, also of several lines, must all be true. The last
/// name holds.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut name = "";
    let mut expressions = Vec::new();
    for line in setup.lines {
        name = &line.exactly::<1>()?[0].text;
    }
    let options = setup.lines.iter().flat_map(|line| &line.block);
    for option in options {
        if option.name.text != "expr" {
            return Err(option.unknown("view", &["expr"]));
        }
        let words: Vec<String> = option
            .args
            .iter()
            .map(|word| match word.quoted && option.args.len() > 1 {
                // Within an unquoted expression a quoted word is a string of it.
                true => format!("{:?}", word.text),
                false => word.text.clone(),
            })
            .collect();
        let expression = Expression::parse(&words.join(" ")).map_err(|error| {
            option.error(
                format!("view: {error}"),
                "write an expression such as incidr(client_ip(), '10.0.0.0/8') && type() == 'A'",
            )
        })?;
        expressions.push(expression);
    }
    if expressions.is_empty() {
        let line = setup.once()?;
        return Err(line.error("view: no expression", "add a line `expr EXPRESSION`"));
    }
    let filter = move |request: &crate::message::Request| {
        expressions.iter().all(|expression| {
            expression.holds(request).unwrap_or_else(|error| {
                tracing::warn!(%error, "view: an expression failed; the block is passed over");
                false
            })
        })
    };
    setup.draft.view = Some((name.to_owned(), Arc::new(filter)));
    Ok(None)
}
