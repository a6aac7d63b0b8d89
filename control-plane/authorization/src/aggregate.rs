//! ClusterRoles made of others: a role with an aggregation rule holds the rules of all that its selectors pick.

use api::selector::LabelSelector;
use api::value::{self, list};
use serde_json::Value;

use crate::rule::{Rule, rules_of};

/// The rules that `role` should hold, out of all ClusterRoles in order of name. `None`: it gathers nothing, or holds
/// them already.
pub fn wanted<'a>(role: &Value, all: impl Iterator<Item = &'a Value> + Clone) -> Option<Vec<Rule>> {
    role.get("aggregationRule")
        .filter(|rule| rule.is_object())?;
    let mut rules: Vec<Rule> = Vec::new();
    for selector in list(role, &["aggregationRule", "clusterRoleSelectors"]) {
        let Some(selector) = LabelSelector::from_object(selector) else {
            continue;
        };
        let picked = all
            .clone()
            .filter(|other| api::meta::name(other) != api::meta::name(role))
            .filter(|other| selector.matches(value::at(other, &["metadata", "labels"])));
        for other in picked {
            for rule in rules_of(other) {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    (rules != rules_of(role)).then_some(rules)
}
