//! Nobody grants what he does not hold.

use serde_json::Value;

use crate::rule::{Rule, path_matches, quoted_list};
use crate::{Rbac, User};

/// Why the user may not grant these rules, which hold in `namespace` (empty: everywhere); `None` where he may.
/// Those who may `escalate` or `bind` were let through before.
pub fn refuse(rbac: &Rbac, user: &User, namespace: &str, granted: &[Rule]) -> Option<String> {
    let (held, unresolved) = rbac.rules_for(user, namespace);
    let missing = not_covered(&held, granted);
    if missing.is_empty() {
        return None;
    }
    let mut shown: Vec<String> = compact(missing).iter().map(Rule::compact).collect();
    shown.sort();
    shown.dedup();
    let mut message = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted_list(&user.groups),
        shown.join("\n")
    );
    if let Some(unresolved) = unresolved {
        message.push_str(&format!("; resolution errors: [{unresolved}]"));
    }
    Some(message)
}

/// What only somebody with all rights may grant: a rule that gathers others.
pub fn everything() -> Vec<Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ]
}

/// Whether a change of a role leaves what it grants as it was.
pub fn same_grant(new: &Value, old: &Value) -> bool {
    let same = |key: &str| {
        let (new, old) = (&new[key], &old[key]);
        new == old || (api::value::is_empty(new) && api::value::is_empty(old))
    };
    same("rules") && same("aggregationRule")
}

/// The smallest grants of `granted` that no rule of `held` covers.
pub(crate) fn not_covered(held: &[Rule], granted: &[Rule]) -> Vec<Rule> {
    granted
        .iter()
        .flat_map(atoms)
        .filter(|atom| !held.iter().any(|rule| covers(rule, atom)))
        .collect()
}

/// A rule as rules of one verb on one resource (and one name) or one path.
fn atoms(rule: &Rule) -> Vec<Rule> {
    let one = |item: &String| vec![item.clone()];
    let mut atoms = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let atom = Rule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: one(verb),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(atom);
                    continue;
                }
                atoms.extend(rule.resource_names.iter().map(|name| Rule {
                    resource_names: one(name),
                    ..atom.clone()
                }));
            }
        }
    }
    for path in &rule.non_resource_urls {
        atoms.extend(rule.verbs.iter().map(|verb| Rule {
            non_resource_urls: one(path),
            verbs: one(verb),
            ..Rule::default()
        }));
    }
    atoms
}

fn covers(held: &Rule, atom: &Rule) -> bool {
    let any = |held: &[String], wanted: &[String]| {
        held.iter().any(|item| item == "*") || wanted.iter().all(|item| held.contains(item))
    };
    any(&held.verbs, &atom.verbs)
        && any(&held.api_groups, &atom.api_groups)
        && covers_resource(&held.resources, &atom.resources)
        && covers_names(&held.resource_names, &atom.resource_names)
        && atom.non_resource_urls.iter().all(|path| {
            held.non_resource_urls
                .iter()
                .any(|rule| path_matches(rule, path))
        })
}

fn covers_resource(held: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|resource| {
        held.iter().any(|item| {
            item == "*"
                || item == resource
                || match (item.split_once('/'), resource.split_once('/')) {
                    (Some(("*", held)), Some((_, wanted))) => held == wanted,
                    _ => false,
                }
        })
    })
}

fn covers_names(held: &[String], wanted: &[String]) -> bool {
    held.is_empty() || (!wanted.is_empty() && wanted.iter().all(|name| held.contains(name)))
}

/// Grants that differ in nothing but the verb, as one.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for atom in atoms {
        let same = out.iter_mut().find(|rule| {
            rule.api_groups == atom.api_groups
                && rule.resources == atom.resources
                && rule.resource_names == atom.resource_names
                && rule.non_resource_urls.is_empty()
                && atom.non_resource_urls.is_empty()
        });
        match same {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => out.push(atom),
        }
    }
    out
}
