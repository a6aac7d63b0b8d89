//! `errors`: failures go to the log; many of one kind within a period become one line.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
    rules: Vec<Arc<Rule>>,
    /// For what clients can cause as often as they like: an overload must not become one of the log.
    usual: Vec<Arc<Rule>>,
}

/// `consolidate PERIOD PATTERN [LEVEL] [show_first]`.
struct Rule {
    period: Duration,
    /// The period as it was written.
    period_text: String,
    pattern: Regex,
    level: Level,
    show_first: bool,
    /// Errors of the running period; none runs at zero.
    seen: AtomicU64,
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
            "consolidate" => rules.push(Arc::new(rule(option)?)),
            // A backtrace is kept by the panic hook in any case.
            "stacktrace" => {
                option.exactly::<0>()?;
            }
            _ => return Err(option.unknown("errors", OPTIONS)),
        }
    }
    let usual = usual().map_err(|error| line.error(error.to_string(), "report this"))?;
    Ok(Some(Arc::new(Errors { rules, usual })))
}

/// `consolidate 1s PATTERN show_first` of what is asked too often, and of what no plugin answers, where no rule of the
/// user's fits before it.
fn usual() -> Result<Vec<Arc<Rule>>, regex::Error> {
    const PATTERNS: [&str; 2] = [
        "^concurrent queries exceeded maximum",
        ": no next plugin found$",
    ];
    let rule = |pattern: &&str| {
        Ok(Arc::new(Rule {
            period: Duration::from_secs(1),
            period_text: "1s".to_owned(),
            pattern: Regex::new(pattern)?,
            level: Level::Error,
            show_first: true,
            seen: AtomicU64::new(0),
        }))
    };
    PATTERNS.iter().map(rule).collect()
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
        period_text: period.text.clone(),
        pattern: Regex::new(&pattern.text).map_err(|error| {
            pattern.error(
                format!("errors: the pattern is wrong: {error}"),
                "write a regular expression, quoted if it holds spaces",
            )
        })?,
        level: Level::Error,
        show_first: false,
        seen: AtomicU64::new(0),
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
                    &format!("{} {name} {kind}: {}", code(failure), failure.cause),
                );
            }
            served
        })
    }
}

impl Errors {
    fn report(&self, failure: &Failure, text: &str) {
        // Patterns are about what failed, not about who asked for what.
        let fits = |rule: &&Arc<Rule>| rule.pattern.is_match(&failure.cause);
        let mut rules = self.rules.iter().chain(&self.usual);
        match rules.find(fits) {
            Some(rule) => rule.count(text),
            // What is refused is the client's affair: it is counted, and would flood the log.
            None if failure.code == ResponseCode::Refused => tracing::debug!("{text}"),
            None => tracing::error!("{text}"),
        }
    }
}

impl Rule {
    /// Counts an error; the first begins a period, at whose end all of them are told as one.
    fn count(self: &Arc<Self>, text: &str) {
        if self.seen.fetch_add(1, Ordering::Relaxed) > 0 {
            return;
        }
        if self.show_first {
            self.say(text);
        }
        let rule = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(rule.period).await;
            if let Some(line) = rule.end() {
                rule.say(&line);
            }
        });
    }

    /// Ends the period. One error that was shown needs no second line.
    fn end(&self) -> Option<String> {
        let count = self.seen.swap(0, Ordering::Relaxed);
        (count > u64::from(self.show_first)).then(|| {
            format!(
                "{count} errors like '{}' occurred in last {}",
                self.pattern, self.period_text
            )
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(show_first: bool) -> Arc<Rule> {
        Arc::new(Rule {
            period: Duration::from_secs(300),
            period_text: "5m".to_owned(),
            pattern: Regex::new("^read udp .* i/o timeout$").unwrap(),
            level: Level::Warning,
            show_first,
            seen: AtomicU64::new(0),
        })
    }

    #[tokio::test]
    async fn errors_of_a_period_are_one_line() {
        let silent = rule(false);
        for _ in 0..3 {
            silent.count("an error");
        }
        let line = "3 errors like '^read udp .* i/o timeout$' occurred in last 5m";
        assert_eq!(silent.end().as_deref(), Some(line));
        assert_eq!(silent.end(), None);
        let shown = rule(true);
        shown.count("an error");
        assert_eq!(shown.end(), None, "it was shown");
    }

    #[tokio::test]
    async fn what_clients_cause_at_will_is_told_once_and_refusals_are_not() {
        let errors = Errors {
            rules: Vec::new(),
            usual: usual().unwrap(),
        };
        let refused = |cause: &str| Failure::code("forward", ResponseCode::Refused, cause);
        for _ in 0..3 {
            let failure = refused("concurrent queries exceeded maximum 1000");
            errors.report(&failure, "5 example.org. A: too many");
        }
        errors.report(&refused("the name is in no zone"), "5 example.org. A: none");
        for _ in 0..2 {
            let failure = Failure::new("whoami", "plugin/whoami: no next plugin found");
            errors.report(&failure, "2 example.org. A: nobody");
        }
        let lines = errors.usual.iter().map(|rule| rule.end());
        let lines: Vec<_> = lines.flatten().collect();
        let wanted = [
            "3 errors like '^concurrent queries exceeded maximum' occurred in last 1s",
            "2 errors like ': no next plugin found$' occurred in last 1s",
        ];
        assert_eq!(lines, wanted);
    }

    #[tokio::test]
    async fn patterns_are_about_what_failed() {
        let errors = Errors {
            rules: vec![rule(false)],
            usual: vec![rule(false)],
        };
        let failure = Failure::new("forward", "read udp 192.0.2.1:53: i/o timeout");
        let text = format!("2 example.org. A: {failure}");
        errors.report(&failure, &text);
        errors.report(&Failure::new("forward", "no healthy proxies"), &text);
        assert_eq!(errors.rules[0].seen.load(Ordering::Relaxed), 1);
    }
}
