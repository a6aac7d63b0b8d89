//! The plugins in the order in which a query passes them. The order is CoreDNS's and does not depend on the
//! Corefile.

use super::setup::Made;
use super::setup::Setup;

/// Sets a plugin up from its lines.
pub type Make = fn(&mut Setup<'_>) -> Made;

/// Name and maker, first to last.
pub const PLUGINS: &[(&str, Make)] = &[
    ("prometheus", super::prometheus::make),
    ("health", super::health::make),
    ("ready", super::ready::make),
    ("errors", super::errors::make),
    ("log", super::log::make),
    ("whoami", super::whoami::make),
];

/// All names, for the error about one that is not among them.
#[must_use]
pub fn known() -> String {
    let mut names: Vec<&str> = PLUGINS.iter().map(|(name, _)| *name).collect();
    names.extend(["import", "on"]);
    names.sort_unstable();
    names.join(", ")
}
