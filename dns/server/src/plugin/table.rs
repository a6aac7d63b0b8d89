//! The plugins in the order in which a query passes them. The order is CoreDNS's and does not depend on the
//! Corefile.

use super::setup::Made;
use super::setup::Setup;

/// Sets a plugin up from its lines.
pub type Make = fn(&mut Setup<'_>) -> Made;

/// Name and maker, first to last.
pub const PLUGINS: &[(&str, Make)] = &[
    ("root", super::settings::root),
    ("metadata", super::settings::metadata),
    ("cancel", super::cancel::make),
    ("timeouts", super::settings::timeouts),
    ("multisocket", super::settings::multisocket),
    ("reload", super::reload::make),
    ("nsid", super::nsid::make),
    ("bufsize", super::bufsize::make),
    ("bind", super::settings::bind),
    ("debug", super::settings::debug),
    ("ready", super::ready::make),
    ("health", super::health::make),
    ("shed", super::settings::always_on),
    ("prometheus", super::prometheus::make),
    ("errors", super::errors::make),
    ("log", super::log::make),
    ("dnstap", super::dnstap::make),
    ("rrl", super::rrl::make),
    ("local", super::local::make),
    ("dns64", super::dns64::make),
    ("any", super::any::make),
    ("chaos", super::chaos::make),
    ("loadbalance", super::loadbalance::make),
    ("tsig", super::tsig::make),
    ("rewrite", super::rewrite::make),
    ("autopath", super::autopath::make),
    ("acl", super::acl::make),
    ("cache", super::cache::make),
    ("header", super::header::make),
    ("tls", super::settings::tls),
    ("minimal", super::minimal::make),
    ("template", super::template::make),
    ("transfer", super::transfer::make),
    ("hosts", super::hosts::make),
    ("k8s_external", super::k8s_external::make),
    ("file", super::file::make),
    ("auto", super::auto::make),
    ("secondary", super::secondary::make),
    ("kubernetes", super::kubernetes::make),
    ("loop", super::looping::make),
    ("forward", super::forward::make),
    ("whoami", super::whoami::make),
    ("view", super::view::make),
];

/// Those of [`PLUGINS`] that queries do not go through, which CoreDNS has no `coredns_plugin_enabled` of.
pub const SETTINGS: &[&str] = &[
    "root",
    "timeouts",
    "multisocket",
    "reload",
    "bind",
    "debug",
    "ready",
    "health",
    "shed",
    "tls",
];

/// All names, for the error about one that is not among them.
#[must_use]
pub fn known() -> String {
    let mut names: Vec<&str> = PLUGINS.iter().map(|(name, _)| *name).collect();
    names.push("import");
    names.sort_unstable();
    names.join(", ")
}
