//! The lines of `rewrite`.

use hickory_proto::rr::DNSClass;
use regex::Regex;

use super::AnswerRule;
use super::Change;
use super::Rule;
use super::edns;
use super::name::Pattern;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::plugin::code;
use crate::plugin::file::types;

/// The last group of a pattern that a replacement may name.
const GROUP_MAX: usize = 100;

const FIELDS: &str = "known are name, type, class, edns0, ttl, rcode and cname";

pub(super) fn rule(line: &Directive) -> Result<Rule, ConfigError> {
    let (goes_on, words) = match line.args.split_first() {
        Some((mode, rest)) if mode.text == "continue" => (true, rest),
        Some((mode, rest)) if mode.text == "stop" => (false, rest),
        _ => (false, line.args.as_slice()),
    };
    // `rewrite stop { name ...; answer ... }` holds the same words on lines of their own.
    let mut gathered = words.to_vec();
    for inner in &line.block {
        inner.no_block()?;
        gathered.push(inner.name.clone());
        gathered.extend(inner.args.iter().cloned());
    }
    let Some((field, words)) = gathered.split_first() else {
        return Err(line.error("rewrite lacks arguments", FIELDS));
    };
    let change = match field.text.as_str() {
        "name" => name(line, words)?,
        "type" => {
            let [from, to] = two(line, words)?;
            Change::Kind {
                from: kind(from)?,
                to: kind(to)?,
            }
        }
        "class" => {
            let [from, to] = two(line, words)?;
            Change::Class {
                from: class(from)?,
                to: class(to)?,
            }
        }
        "edns0" => Change::Edns(edns::read(line, words)?),
        "ttl" => ttl(line, words)?,
        "rcode" => rcode(line, words)?,
        "cname" => cname(line, words)?,
        other => return Err(field.error(format!("rewrite: unknown field {other}"), FIELDS)),
    };
    Ok(Rule { change, goes_on })
}

fn two<'w>(line: &Directive, words: &'w [Token]) -> Result<[&'w Token; 2], ConfigError> {
    match words {
        [from, to] => Ok([from, to]),
        _ => Err(line.error(
            "rewrite: wrong number of arguments",
            "write rewrite type|class FROM TO",
        )),
    }
}

fn kind(word: &Token) -> Result<hickory_proto::rr::RecordType, ConfigError> {
    if word.text.eq_ignore_ascii_case("ANY") {
        return Ok(hickory_proto::rr::RecordType::ANY);
    }
    types::kind(&word.text).ok_or_else(|| {
        word.error(
            format!("rewrite: {} is not a type", word.text),
            "write A, AAAA, TXT and such",
        )
    })
}

fn class(word: &Token) -> Result<DNSClass, ConfigError> {
    word.text.to_ascii_uppercase().parse().map_err(|_| {
        word.error(
            format!("rewrite: {} is not a class", word.text),
            "write IN, CH or HS",
        )
    })
}

/// The kind of match, if a word names one.
fn matcher(word: &Token) -> Option<&'static str> {
    ["exact", "prefix", "suffix", "substring", "regex"]
        .into_iter()
        .find(|kind| word.text == *kind)
}

fn pattern(kind: &str, from: &Token, to: &str) -> Result<Pattern, ConfigError> {
    let lower = |text: &str| text.to_ascii_lowercase();
    let absolute = |text: &str| {
        let text = lower(text);
        if text.ends_with('.') {
            text
        } else {
            text + "."
        }
    };
    Ok(match kind {
        "exact" => Pattern::Exact(absolute(&from.text), absolute(to)),
        "prefix" => Pattern::Prefix(lower(&from.text), lower(to)),
        "suffix" => Pattern::Suffix(absolute(&from.text), absolute(to)),
        "substring" => Pattern::Substring(lower(&from.text), lower(to)),
        _ => {
            let regex = Regex::new(&from.text).map_err(|error| {
                from.error(
                    format!("rewrite: the pattern is wrong: {error}"),
                    "write a regular expression, quoted if it holds spaces",
                )
            })?;
            let groups = regex.captures_len();
            let used = (groups..=GROUP_MAX).find(|group| to.contains(&format!("{{{group}}}")));
            if let Some(group) = used {
                return Err(from.error(
                    format!(
                        "rewrite: {to} takes group {group}, which {} lacks",
                        from.text
                    ),
                    "put parentheses round each part that is taken; {1} is the first",
                ));
            }
            Pattern::Regex(regex, lower(to))
        }
    })
}

/// `name [MATCH] FROM TO [answer ...]...`.
fn name(line: &Directive, words: &[Token]) -> Result<Change, ConfigError> {
    let remedy = "write rewrite name [exact|prefix|suffix|substring|regex] FROM TO [answer auto | answer name PATTERN NAME | answer value PATTERN NAME]";
    let (matched, words) = match words.split_first() {
        Some((first, rest)) if rest.len() >= 2 && matcher(first).is_some() => {
            (matcher(first).unwrap_or("exact"), rest)
        }
        _ => ("exact", words),
    };
    let [from, to, rest @ ..] = words else {
        return Err(line.error("rewrite: name lacks arguments", remedy));
    };
    let changed = pattern(matched, from, &to.text)?;
    let mut answers = Vec::new();
    // As with CoreDNS: whole names are put back in answers without being told so.
    if matched == "exact" {
        answers.push(AnswerRule::Auto);
    }
    let mut rest = rest;
    while let Some((first, after)) = rest.split_first() {
        if first.text != "answer" {
            return Err(first.error(format!("rewrite: unexpected {}", first.text), remedy));
        }
        match after {
            [auto, after @ ..] if auto.text == "auto" => {
                answers.push(AnswerRule::Auto);
                rest = after;
            }
            [kind, from, to, after @ ..] if matches!(kind.text.as_str(), "name" | "value") => {
                let answer = pattern("regex", from, &to.text)?;
                answers.push(match kind.text.as_str() {
                    "name" => AnswerRule::Name(answer),
                    _ => AnswerRule::Value(answer),
                });
                rest = after;
            }
            _ => return Err(first.error("rewrite: answer has the wrong arguments", remedy)),
        }
    }
    // The client's own name is always put back: an answer about another name would be thrown away.
    if answers.is_empty() {
        answers.push(AnswerRule::Own);
    }
    Ok(Change::Name {
        pattern: changed,
        answers,
    })
}

/// `ttl [MATCH] NAME SECONDS|[LEAST]-[MOST]`.
fn ttl(line: &Directive, words: &[Token]) -> Result<Change, ConfigError> {
    let remedy = "write rewrite ttl [MATCH] NAME SECONDS or LEAST-MOST";
    let (matched, from, range) = match words {
        [kind, from, range] => (
            matcher(kind).ok_or_else(|| {
                kind.error(format!("rewrite: unknown match {}", kind.text), remedy)
            })?,
            from,
            range,
        ),
        [from, range] => ("exact", from, range),
        _ => return Err(line.error("rewrite: ttl has the wrong arguments", remedy)),
    };
    let bound = |text: &str, missing: u32| match text {
        "" => Ok(missing),
        text => text.parse().map_err(|_| {
            range.error(
                format!("rewrite: {text:?} is not a number of seconds"),
                remedy,
            )
        }),
    };
    let (least, most) = match range.text.split_once('-') {
        Some((least, most)) => (bound(least, 0)?, bound(most, i32::MAX.unsigned_abs())?),
        None => (bound(&range.text, 0)?, bound(&range.text, 0)?),
    };
    if least > most {
        return Err(range.error("rewrite: the range of ttl is empty", remedy));
    }
    Ok(Change::Ttl {
        pattern: pattern(matched, from, "")?,
        least,
        most,
    })
}

/// `rcode [MATCH] NAME FROM TO`.
fn rcode(line: &Directive, words: &[Token]) -> Result<Change, ConfigError> {
    let remedy = "write rewrite rcode [MATCH] NAME FROM TO, as in rewrite rcode example.org SERVFAIL NOERROR";
    let (matched, name, from, to) = match words {
        [kind, name, from, to] => (
            matcher(kind).ok_or_else(|| {
                kind.error(format!("rewrite: unknown match {}", kind.text), remedy)
            })?,
            name,
            from,
            to,
        ),
        [name, from, to] => ("exact", name, from, to),
        _ => return Err(line.error("rewrite: rcode has the wrong arguments", remedy)),
    };
    let read = |word: &Token| {
        code(&word.text).ok_or_else(|| {
            word.error(
                format!("rewrite: {} is not a response code", word.text),
                remedy,
            )
        })
    };
    Ok(Change::Code {
        pattern: pattern(matched, name, "")?,
        from: if from.text == "*" {
            None
        } else {
            Some(read(from)?)
        },
        to: read(to)?,
    })
}

/// `cname [MATCH] FROM TO`, of the targets of aliases.
fn cname(line: &Directive, words: &[Token]) -> Result<Change, ConfigError> {
    let remedy = "write rewrite cname [exact|prefix|suffix|substring|regex] FROM TO";
    let (matched, from, to) = match words {
        [kind, from, to] => (
            matcher(kind).ok_or_else(|| {
                kind.error(format!("rewrite: unknown match {}", kind.text), remedy)
            })?,
            from,
            to,
        ),
        [from, to] => ("exact", from, to),
        _ => return Err(line.error("rewrite: cname has the wrong arguments", remedy)),
    };
    Ok(Change::Cname(pattern(matched, from, &to.text)?))
}
