//! What keeps a Service from being served in full, as people read it.

use std::fmt;

use plan::{Problem, Table};
use view::Finding;

/// One thing that is wrong with a service, while the rest of it works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// The kind of trouble in one CamelCase word, as Events give their reason.
    pub reason: &'static str,
    /// What is wrong, where, and what helps.
    pub message: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<&Finding> for Trouble {
    fn from(finding: &Finding) -> Self {
        Trouble {
            reason: match finding {
                Finding::Address { .. } => "AddressLeftOut",
                Finding::Port { .. } => "PortLeftOut",
                Finding::Protocol { .. } => "UnsupportedProtocol",
                Finding::Range { .. } => "RangeLeftOut",
                Finding::Annotation { .. } => "AnnotationLeftOut",
            },
            message: finding.to_string(),
        }
    }
}

impl From<&Problem> for Trouble {
    fn from(problem: &Problem) -> Self {
        match problem {
            Problem::Full { table, .. } => {
                let flag = match table {
                    Table::Frontends4 | Table::Frontends6 => "--frontends-max",
                    Table::Rings => "--rings-max",
                    Table::Backends => "--backends-max",
                    Table::Spreads => "--spreads-max",
                    Table::Sources => "--ranges-max",
                };
                // Whoever removes a Service waits for its backends' identifiers (`grace::FORGET`).
                let rest = match table {
                    Table::Backends => " (what they had is free after ten minutes)",
                    Table::Frontends4
                    | Table::Frontends6
                    | Table::Rings
                    | Table::Spreads
                    | Table::Sources => "",
                };
                Trouble {
                    reason: "TableFull",
                    message: format!(
                        "{problem}: raise {flag} or --tables-max, or remove Services{rest}"
                    ),
                }
            }
            Problem::Taken { .. } => Trouble {
                reason: "FrontendTaken",
                message: problem.to_string(),
            },
        }
    }
}
