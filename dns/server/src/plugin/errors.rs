//! `errors`: failures go to the log; many of one kind within a period become one line.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use regex::Regex;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::message::Failure;
use crate::message::Request;
use crate::message::Served;

const OPTIONS: &[&str] = &["consolidate", "stacktrace"];

struct Errors {
    rules: Vec<Rule>,
}

/// `consolidate PERIOD PATTERN [LEVEL] [show_first]`.
struct Rule {
    period: Duration,
    pattern: Regex,
    level: Level,
    show_first: bool,
    /// When the running period began and how many errors it has seen.
    seen: Mutex<Option<(Instant, u64)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Info,
    Debug,
}

/// Reads `errors { consolidate PERIOD PATTERN [LEVEL] [show_first] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.between(0, 1)?;
    let mut rules = Vec::new();
    for option in &line.block {
        match option.name.text.as_str() {
            "consolidate" => rules.push(rule(option)?),
            // A backtrace is kept by the panic hook in any case.
            "stacktrace" => {
                option.exactly::<0>()?;
            }
            _ => return Err(option.unknown("errors", OPTIONS)),
        }
    }
    Ok(Some(Arc::new(Errors { rules })))
}

fn rule(option: &Directive) -> Result<Rule, ConfigError> {
    let [period, pattern, rest @ ..] = option.between(2, 4)? else {
        return Err(option.error(
            "consolidate lacks arguments",
            "write consolidate PERIOD PATTERN",
        ));
    };
    let mut rule = Rule {
        period: period.duration()?,
        pattern: Regex::new(&pattern.text).map_err(|error| {
            pattern.error(
                format!("errors: the pattern is wrong: {error}"),
                "write a regular expression, quoted if it holds spaces",
            )
        })?,
        level: Level::Error,
        show_first: false,
        seen: Mutex::new(None),
    };
    for word in rest {
        match word.text.as_str() {
            "error" => rule.level = Level::Error,
            "warning" => rule.level = Level::Warning,
            "info" => rule.level = Level::Info,
            "debug" => rule.level = Level::Debug,
            "show_first" => rule.show_first = true,
            other => {
                return Err(word.error(
                    format!("errors: {other} is not a level"),
                    "write warning, error, info, debug or show_first",
                ));
            }
        }
    }
    Ok(rule)
}

impl Plugin for Errors {
    fn name(&self) -> &'static str {
        "errors"
    }

    fn fast(&self) -> crate::fast::Fast {
        crate::fast::Fast::Passes
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let (name, kind) = (request.name().clone(), request.kind());
            let served = next.serve(request).await;
            if let Err(failure) = &served {
                self.report(
                    failure,
                    &format!("{} {name} {kind}: {failure}", code(failure)),
                );
            }
            served
        })
    }
}

impl Errors {
    fn report(&self, failure: &Failure, text: &str) {
        // A refusal is the client's affair: it is counted, and would flood the log.
        if failure.code == ResponseCode::Refused {
            tracing::debug!("{text}");
            return;
        }
        match self.rules.iter().find(|rule| rule.pattern.is_match(text)) {
            Some(rule) => rule.count(text),
            None => tracing::error!("{text}"),
        }
    }
}

impl Rule {
    fn count(&self, text: &str) {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *seen {
            Some((since, count)) if now.duration_since(*since) < self.period => *count += 1,
            other => {
                let before = other.replace((now, 1));
                if let Some((_, count)) = before.filter(|(_, count)| *count > 1) {
                    self.say(&format!(
                        "{count} errors like '{}' occurred in last {:?}",
                        self.pattern, self.period
                    ));
                }
                if self.show_first || before.is_none() {
                    self.say(text);
                }
            }
        }
    }

    fn say(&self, text: &str) {
        match self.level {
            Level::Error => tracing::error!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Info => tracing::info!("{text}"),
            Level::Debug => tracing::debug!("{text}"),
        }
    }
}

fn code(failure: &Failure) -> u16 {
    u16::from(failure.code)
}
