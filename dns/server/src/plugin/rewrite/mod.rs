//! `rewrite`: changes questions on their way in and answers on their way out, so that a client sees the name that
//! it asked for.

mod answer;
mod config;
mod edns;
mod name;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;

use self::answer::Revert;
use self::name::Pattern;
use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

/// What a rule changes.
enum Change {
    Name {
        pattern: Pattern,
        answers: Vec<AnswerRule>,
    },
    Kind {
        from: RecordType,
        to: RecordType,
    },
    Class {
        from: DNSClass,
        to: DNSClass,
    },
    Edns(edns::Edns),
    /// TTLs of answers to names that the pattern holds, within bounds.
    Ttl {
        pattern: Pattern,
        least: u32,
        most: u32,
    },
    /// Codes of answers to names that the pattern holds.
    Code {
        pattern: Pattern,
        from: Option<ResponseCode>,
        to: ResponseCode,
    },
    /// What aliases in answers lead to.
    Cname(Pattern),
}

/// How answers are changed back.
#[derive(Clone)]
enum AnswerRule {
    /// The new name becomes the old one again in owners.
    Own,
    /// What was changed is put back wherever it stands, in owners and in data: a suffix as such, else the new name and
    /// what is below it.
    Auto,
    Name(Pattern),
    Value(Pattern),
}

struct Rule {
    change: Change,
    /// The rules after this one are looked at even if it fits.
    goes_on: bool,
}

struct Rewrite {
    rules: Vec<Rule>,
}

/// Reads `rewrite [continue|stop] FIELD ...`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut rules = Vec::new();
    for line in setup.lines {
        rules.push(config::rule(line)?);
    }
    Ok(Some(Arc::new(Rewrite { rules })))
}

impl Plugin for Rewrite {
    fn name(&self) -> &'static str {
        "rewrite"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let original = request.message.clone();
            let mut reverts = Vec::new();
            for rule in &self.rules {
                match rule.apply(request, &mut reverts) {
                    Applied::Fits if !rule.goes_on => break,
                    Applied::Fits | Applied::Not => {}
                    Applied::TooLong => {
                        request.message = original;
                        let code = ResponseCode::YXDomain;
                        return Ok(Outcome::answer("rewrite", request.reply(code)));
                    }
                }
            }
            if let Some(asked) = original.queries.first()
                && request.described
                && request.name() != asked.name()
            {
                let name = request.name().to_string();
                request.metadata.insert("rewrite/name", name);
            }
            let mut served = next.serve(request).await;
            for revert in &reverts {
                if let Revert::Cname(pattern) = revert
                    && let Ok(outcome) = &mut served
                {
                    alias(request, pattern, outcome).await;
                }
            }
            // Who stands before this plugin sees what the client asked.
            request.message = original;
            match &mut served {
                Ok(Outcome::Answer(response)) => {
                    self.put_back(request, &reverts, &mut response.message);
                }
                Ok(Outcome::Stream(messages)) => {
                    for message in messages {
                        message.metadata.id = request.message.metadata.id;
                    }
                }
                Ok(Outcome::Silence(_)) => {}
                Err(failure) => {
                    for revert in &reverts {
                        if let Revert::Code { from, to } = revert
                            && from.is_none_or(|from| from == failure.code)
                        {
                            failure.code = *to;
                        }
                    }
                }
            }
            served
        })
    }
}

impl Rewrite {
    fn put_back(&self, request: &Request, reverts: &[Revert], message: &mut Message) {
        message.queries.clone_from(&request.message.queries);
        // The last change is undone first.
        for revert in reverts.iter().rev() {
            revert.apply(message);
        }
        // Patterns know lower case alone; the client's own name stays as it was written.
        let sections = [
            &mut message.answers,
            &mut message.authorities,
            &mut message.additionals,
        ];
        for record in sections.into_iter().flatten() {
            if record.name == *request.name() {
                record.name.clone_from(request.name());
            }
        }
    }
}

/// Whether a rule fitted a request.
enum Applied {
    Fits,
    Not,
    /// It would have made a name that is none.
    TooLong,
}

impl Rule {
    fn apply(&self, request: &mut Request, reverts: &mut Vec<Revert>) -> Applied {
        let Some(question) = request.message.queries.first_mut() else {
            return Applied::Not;
        };
        match &self.change {
            Change::Name { pattern, answers } => {
                let before = question.name.clone();
                let after = match pattern.rewrite(&before) {
                    None => return Applied::Not,
                    Some(Err(())) => return Applied::TooLong,
                    Some(Ok(after)) => after,
                };
                question.name = after.clone();
                for answer in answers {
                    Revert::add(answer, pattern, [&before, &after], reverts);
                }
            }
            Change::Kind { from, to } if question.query_type == *from => question.query_type = *to,
            Change::Class { from, to } if question.query_class == *from => {
                question.query_class = *to;
            }
            Change::Kind { .. } | Change::Class { .. } => return Applied::Not,
            Change::Edns(edns) => {
                let revert = edns.apply(request);
                if let Some(code) = revert {
                    reverts.push(Revert::Option(code));
                }
            }
            Change::Ttl {
                pattern,
                least,
                most,
            } if pattern.holds(&question.name) => {
                reverts.push(Revert::Ttl(*least, *most));
            }
            Change::Code { pattern, from, to } if pattern.holds(&question.name) => {
                reverts.push(Revert::Code {
                    from: *from,
                    to: *to,
                });
            }
            // Whether it fits shows in the answer: the rules after it are looked at.
            Change::Cname(pattern) => {
                reverts.push(Revert::Cname(pattern.clone()));
                return Applied::Not;
            }
            Change::Ttl { .. } | Change::Code { .. } => return Applied::Not,
        }
        Applied::Fits
    }
}

/// Has the first alias of an answer that the pattern fits lead to what the pattern makes of its target, with what
/// this server says of that.
async fn alias(request: &Request, pattern: &Pattern, outcome: &mut Outcome) {
    let Some(message) = outcome.message_mut() else {
        return;
    };
    let fitting = message
        .answers
        .iter_mut()
        .enumerate()
        .find_map(|(at, record)| {
            let RData::CNAME(target) = &mut record.data else {
                return None;
            };
            let after = pattern.rewrite(&target.0)?.ok()?;
            target.0 = after.clone();
            Some((at, after))
        });
    let Some((at, target)) = fitting else {
        return;
    };
    message.answers.truncate(at + 1);
    // What was said of the old target is not said of the new one.
    message.authorities.clear();
    message.additionals.clear();
    message.metadata.response_code = ResponseCode::NoError;
    if request.kind() != RecordType::CNAME {
        super::file::follow(request, target, message).await;
    }
}
