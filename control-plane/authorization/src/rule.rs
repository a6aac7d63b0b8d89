//! One rule of a role: which verbs on which resources or paths.

use api::field::quoted;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Attributes, ResourceTarget, Target};

/// As in `rules:` of a Role or ClusterRole. `*` in a list means all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Groups of the resources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<String>,
    /// Plurals, `pods/log` for a part, `*/scale` for a part of all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// Paths, with a `*` at the end for all below.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        rename = "nonResourceURLs"
    )]
    pub non_resource_urls: Vec<String>,
    /// Names of the objects; none means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<String>,
    /// Verbs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
}

/// The rules of a Role or ClusterRole. What is no rule is left out: it grants nothing.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    api::value::list(role, &["rules"])
        .iter()
        .filter_map(|rule| Rule::deserialize(rule).ok())
        .collect()
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Rule {
    /// Whether the rule lets the request through.
    pub fn allows(&self, attributes: &Attributes<'_>) -> bool {
        any(&self.verbs, attributes.verb)
            && match &attributes.target {
                Target::Path(path) => self.names_path(path),
                Target::Resource(at) => {
                    any(&self.api_groups, at.group)
                        && self.names_resource(at)
                        && (self.resource_names.is_empty()
                            || self.resource_names.iter().any(|name| name == at.name))
                }
            }
    }

    fn names_resource(&self, at: &ResourceTarget<'_>) -> bool {
        self.resources.iter().any(|rule| {
            if rule == "*" {
                return true;
            }
            if at.subresource.is_empty() {
                return rule == at.resource;
            }
            rule.split_once('/').is_some_and(|(resource, sub)| {
                (resource == "*" || resource == at.resource) && sub == at.subresource
            })
        })
    }

    fn names_path(&self, path: &str) -> bool {
        self.non_resource_urls
            .iter()
            .any(|rule| path_matches(rule, path))
    }

    /// As refusals of a grant show it.
    pub fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(label, list)| format!("{label}:{}", quoted_list(list)))
            .collect();
        format!("{{{}}}", shown.join(", "))
    }
}

/// A list as Go prints it with `%q`.
pub(crate) fn quoted_list(list: &[String]) -> String {
    let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(" "))
}

/// Whether a path of a rule stands for `path`.
pub(crate) fn path_matches(rule: &str, path: &str) -> bool {
    rule == "*"
        || rule == path
        || rule
            .strip_suffix('*')
            .is_some_and(|prefix| path.starts_with(prefix.trim_end_matches('*')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;

    fn rule(text: &str) -> Rule {
        // groups | resources | urls | names | verbs
        let mut parts = text.split('|').map(|part| {
            part.split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(|item| item.replace("core", ""))
                .collect::<Vec<_>>()
        });
        let mut next = || parts.next().unwrap_or_default();
        Rule {
            api_groups: next(),
            resources: next(),
            non_resource_urls: next(),
            resource_names: next(),
            verbs: next(),
        }
    }

    #[test]
    fn rules_allow_what_they_name() {
        #[rustfmt::skip]
        let cases = [
            // Rule; verb, group, resource, subresource, name or path; allowed.
            ("core|pods|||get", "get  pods  p", true),
            ("core|pods|||get", "list  pods  ", false),
            ("core|pods|||*", "deletecollection  pods  ", true),
            ("apps|pods|||get", "get  pods  p", false),
            ("*|pods|||get", "get apps pods  p", true),
            ("core|*|||get", "get  pods log p", true),
            ("core|pods|||get", "get  pods log p", false),
            ("core|pods/log|||get", "get  pods log p", true),
            ("core|pods/log|||get", "get  pods  p", false),
            ("core|*/log|||get", "get  pods log p", true),
            ("core|*/scale|||get", "get  pods log p", false),
            ("core|pods||a,b|get", "get  pods  b", true),
            ("core|pods||a,b|get", "get  pods  c", false),
            ("core|pods||a|create", "create  pods  ", false),
            ("||/healthz||get", "get /healthz", true),
            ("||/healthz||get", "get /healthz/etcd", false),
            ("||/healthz/*||get", "get /healthz/etcd", true),
            ("||/apis*||get", "get /apis", true),
            ("||*||*", "post /any", true),
            ("||/healthz||get", "get  pods  p", false),
            ("*|*|||*", "get /healthz", false),
        ];
        let user = User::new("u", &[]);
        for (text, request, allowed) in cases {
            let parts: Vec<&str> = request.split(' ').collect();
            let target = match parts.as_slice() {
                [_, path] => Target::Path(path),
                [_, group, resource, subresource, name] => Target::Resource(ResourceTarget {
                    group,
                    version: "v1",
                    namespace: "",
                    resource,
                    subresource,
                    name,
                }),
                _ => unreachable!("{request}"),
            };
            let attributes = Attributes {
                user: &user,
                verb: parts[0],
                target,
            };
            assert_eq!(rule(text).allows(&attributes), allowed, "{text} {request}");
        }
    }

    #[test]
    fn a_rule_is_shown_as_kubernetes_shows_it() {
        assert_eq!(
            rule("core,apps|pods||a|get,list").compact(),
            r#"{APIGroups:["" "apps"], Resources:["pods"], ResourceNames:["a"], Verbs:["get" "list"]}"#
        );
    }
}
