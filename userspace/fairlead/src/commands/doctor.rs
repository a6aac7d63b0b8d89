//! `fairlead doctor`: what stands between this host and Services that work: each finding with what it is, why it matters
//! and the remedy. What it looks at is read first ([`facts`]); what it makes of that is plain functions ([`judge`]).

pub(super) mod facts;
mod judge;

use serde::Serialize;

use crate::cli;
use crate::output::{self, Format};

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Something does not work, or soon will not.
    Problem,
    /// Everything works, but not as it could; or something to know when looking for a cause.
    Note,
    /// Looked at and fine.
    Ok,
}

/// What came of a look at one thing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    check: &'static str,
    level: Level,
    /// What is there.
    what: String,
    /// Why it matters; empty where all is fine.
    why: String,
    /// What to do about it; empty where all is fine.
    remedy: String,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding {
            check,
            level: Level::Ok,
            what: what.into(),
            why: String::new(),
            remedy: String::new(),
        }
    }

    fn new(
        check: &'static str,
        level: Level,
        what: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            check,
            level,
            what: what.into(),
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

/// Everything that was found.
#[derive(Serialize)]
struct Report {
    /// Whether there is no problem.
    healthy: bool,
    /// Problems first.
    findings: Vec<Finding>,
}

/// Shows the findings; true where there is no problem.
pub(crate) fn run(flags: &cli::Doctor) -> anyhow::Result<bool> {
    let facts = facts::read(flags)?;
    let mut findings = judge::findings(&facts);
    findings.sort_by_key(|finding| finding.level);
    let healthy = findings
        .iter()
        .all(|finding| finding.level != Level::Problem);
    let report = Report { healthy, findings };
    match flags.output.output {
        Format::Table => output::emit(&text(&report))?,
        format @ (Format::Json | Format::Yaml) => output::document(&report, format)?,
    }
    Ok(healthy)
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let level = match finding.level {
            Level::Problem => "PROBLEM",
            Level::Note => "note   ",
            Level::Ok => "ok     ",
        };
        out += &format!("{level}  {}: {}\n", finding.check, finding.what);
        for (title, text) in [("why", &finding.why), ("remedy", &finding.remedy)] {
            if !text.is_empty() {
                out += &format!("         {title}: {text}\n");
            }
        }
    }
    let count = |level| {
        report
            .findings
            .iter()
            .filter(|it| it.level == level)
            .count()
    };
    out += &format!(
        "\n{} problems, {} notes, {} fine\n",
        count(Level::Problem),
        count(Level::Note),
        count(Level::Ok)
    );
    out
}
