//! `header`: sets and clears flags of queries on their way in or of answers on their way out.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Metadata;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Request;
use crate::message::Served;

#[derive(Clone, Copy)]
enum Flag {
    Authoritative,
    RecursionAvailable,
    RecursionDesired,
}

#[derive(Default)]
struct Header {
    query: Vec<(Flag, bool)>,
    response: Vec<(Flag, bool)>,
}

/// Reads `header { [SELECTOR] ACTION FLAG... }`, where the selector is `query` or `response` and the action `set` or
/// `clear`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut header = Header::default();
    for line in setup.lines {
        line.exactly::<0>()?;
        for option in &line.block {
            let words: Vec<_> = std::iter::once(&option.name).chain(&option.args).collect();
            let (of_query, words) = match words.split_first() {
                Some((first, rest)) if first.text == "query" => (true, rest),
                Some((first, rest)) if first.text == "response" => (false, rest),
                _ => (false, words.as_slice()),
            };
            let Some((action, flags)) = words.split_first().filter(|(_, flags)| !flags.is_empty())
            else {
                return Err(option.error(
                    "header: a rule without flags",
                    "write [query|response] set|clear aa|ra|rd",
                ));
            };
            let value = match action.text.as_str() {
                "set" => true,
                "clear" => false,
                other => {
                    return Err(action.error(
                        format!("header: unknown action {other}"),
                        "write set or clear",
                    ));
                }
            };
            for flag in flags {
                let found = match flag.text.to_ascii_lowercase().as_str() {
                    "aa" => Flag::Authoritative,
                    "ra" => Flag::RecursionAvailable,
                    "rd" => Flag::RecursionDesired,
                    other => {
                        return Err(flag.error(
                            format!("header: unknown flag {other}"),
                            "known are aa, ra, rd",
                        ));
                    }
                };
                let rules = if of_query {
                    &mut header.query
                } else {
                    &mut header.response
                };
                rules.push((found, value));
            }
        }
    }
    Ok(Some(Arc::new(header)))
}

impl Plugin for Header {
    fn name(&self) -> &'static str {
        "header"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            apply(&self.query, &mut request.message.metadata);
            let mut served = next.serve(request).await;
            if let Ok(outcome) = &mut served
                && let Some(message) = outcome.message_mut()
            {
                apply(&self.response, &mut message.metadata);
            }
            served
        })
    }
}

fn apply(rules: &[(Flag, bool)], metadata: &mut Metadata) {
    for (flag, value) in rules {
        match flag {
            Flag::Authoritative => metadata.authoritative = *value,
            Flag::RecursionAvailable => metadata.recursion_available = *value,
            Flag::RecursionDesired => metadata.recursion_desired = *value,
        }
    }
}
