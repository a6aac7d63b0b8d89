//! How a Pod finds names.

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::field::FieldError;
use crate::names;
use crate::net;
use crate::value::{at, list, text};

const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// Bytes of all of them, with blanks between.
const SEARCH_LIST_MAX: usize = 2048;

/// `dnsPolicy`.
pub(super) fn policy(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    found.one_of(
        &path.child("dnsPolicy"),
        text(spec, &["dnsPolicy"]),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
}

fn address(ip: &str, path: &Path<'_>, found: &mut Findings) {
    if let Some(why) = net::bad_ip(ip) {
        found.push(FieldError::invalid_text(path, ip, why));
    }
}

/// `dnsConfig`.
pub(super) fn config(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let config = at(spec, &["dnsConfig"]);
    let path = path.child("dnsConfig");
    let (servers, servers_at) = (list(config, &["nameservers"]), path.child("nameservers"));
    if text(spec, &["dnsPolicy"]) == "None" {
        if !config.is_object() {
            let why = "must provide `dnsConfig` when `dnsPolicy` is None";
            return found.required(&path, why);
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return found.required(&servers_at, why);
        }
    }
    if servers.len() > SERVERS_MAX {
        let why = format!("must not have more than {SERVERS_MAX} nameservers");
        found.invalid(&servers_at, at(config, &["nameservers"]), why);
    }
    for (i, server) in servers.iter().enumerate() {
        address(server.as_str().unwrap_or(""), &servers_at.index(i), found);
    }
    let (searches, shown) = (list(config, &["searches"]), at(config, &["searches"]));
    let searches_at = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let why = format!("must not have more than {SEARCHES_MAX} search paths");
        found.invalid(&searches_at, shown, why);
    }
    let domains = || searches.iter().map(|one| one.as_str().unwrap_or(""));
    let bytes: usize = domains().map(|domain| domain.len() + 1).sum();
    if bytes > SEARCH_LIST_MAX + 1 {
        let why = format!(
            "must not have more than {SEARCH_LIST_MAX} characters (including spaces) in the search list"
        );
        found.invalid(&searches_at, shown, why);
    }
    for (i, domain) in domains().enumerate() {
        if domain != "." {
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            found.against(&searches_at.index(i), domain, bad_search(domain));
        }
    }
    let options = path.child("options");
    for (i, option) in list(config, &["options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            found.required(&options.index(i), "must not be empty");
        }
    }
}

/// A subdomain whose words may have underscores in them.
fn bad_search(domain: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if domain.len() > names::SUBDOMAIN_MAX {
        wrong.push(format!(
            "must be no more than {} characters",
            names::SUBDOMAIN_MAX
        ));
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word = |word: &str| {
        let word = word.strip_prefix('_').unwrap_or(word);
        word.starts_with(edge)
            && word.ends_with(edge)
            && word.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
    };
    if !domain.split('.').all(word) {
        wrong.push(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and \
             must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
             '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
                .to_owned(),
        );
    }
    wrong
}

/// `hostAliases`.
pub(super) fn aliases(spec: &Value, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("hostAliases");
    for (i, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let here = path.index(i);
        address(text(alias, &["ip"]), &here.child("ip"), found);
        let hostnames = here.child("hostnames");
        for (j, name) in list(alias, &["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            found.against(&hostnames.index(j), name, names::subdomain(name));
        }
    }
}
