//! Whether a webhook or policy is for a request: operations, groups, versions, resources, scope, and the labels of
//! the object and of its namespace.

use api::selector::LabelSelector;
use api::value::{at, list, text};
use serde_json::Value;

use super::{Form, Request};
use crate::{Lookup, Operation};

/// Which requests are meant.
#[derive(Clone, Copy, Debug)]
pub struct Criteria<'a> {
    /// Any of these.
    rules: &'a [Value],
    /// But none of these.
    excluded: &'a [Value],
    /// Where the selectors and `matchPolicy` stand.
    body: &'a Value,
    /// Whether no rules at all mean every request.
    open: bool,
}

impl<'a> Criteria<'a> {
    /// Of a webhook.
    pub fn of_webhook(webhook: &'a Value) -> Self {
        Criteria {
            rules: list(webhook, &["rules"]),
            excluded: &[],
            body: webhook,
            open: false,
        }
    }

    /// Of a policy (`matchConstraints`) or of its binding (`matchResources`, which may be absent or name no rules).
    pub fn of_policy(resources: &'a Value, binding: bool) -> Self {
        Criteria {
            rules: list(resources, &["resourceRules"]),
            excluded: list(resources, &["excludeResourceRules"]),
            body: resources,
            open: binding,
        }
    }

    /// The form in which the request is meant; `None` where it is not. `forms` are all in which the resource is
    /// served, and count where the policy of matching is `Equivalent`.
    pub fn form(&self, request: &Request<'_>, forms: &[Form], lookup: &dyn Lookup) -> Option<Form> {
        if !self.selects_namespace(request, lookup) || !self.selects_object(request) {
            return None;
        }
        let own = request.form;
        let equivalent = text(self.body, &["matchPolicy"]) != "Exact";
        let find = |rules: &[Value]| {
            let named = |form: &Form| rules.iter().any(|rule| fits(rule, request, form));
            if named(&own) {
                return Some(own);
            }
            let mut others = forms.iter().filter(|_| equivalent);
            others.find(|form| named(form)).copied()
        };
        if find(self.excluded).is_some() {
            return None;
        }
        if self.open && self.rules.is_empty() {
            return Some(own);
        }
        find(self.rules)
    }

    fn selects_namespace(&self, request: &Request<'_>, lookup: &dyn Lookup) -> bool {
        let Some(selector) = selector(self.body, "namespaceSelector") else {
            return true;
        };
        let attributes = request.attributes;
        if request.form.group.is_empty() && request.form.resource == "namespaces" {
            let written = matches!(attributes.operation, Operation::Create | Operation::Update);
            let namespace = if written { request.object } else { request.old };
            return selector.matches_object(namespace);
        }
        if attributes.namespace.is_empty() {
            return true;
        }
        lookup
            .get("namespaces", "", attributes.namespace)
            .is_some_and(|namespace| selector.matches_object(&namespace))
    }

    fn selects_object(&self, request: &Request<'_>) -> bool {
        let Some(selector) = selector(self.body, "objectSelector") else {
            return true;
        };
        [request.object, request.old]
            .iter()
            .any(|object| object.is_object() && selector.matches_object(object))
    }
}

/// `None`: everything is selected.
fn selector(body: &Value, key: &str) -> Option<LabelSelector> {
    LabelSelector::from_object(at(body, &[key])).filter(|selector| !selector.is_empty())
}

fn fits(rule: &Value, request: &Request<'_>, form: &Form) -> bool {
    let attributes = request.attributes;
    let any = |key: &str, wanted: &str| {
        list(rule, &[key])
            .iter()
            .any(|item| item == "*" || item == wanted)
    };
    let resource = || {
        list(rule, &["resources"])
            .iter()
            .filter_map(Value::as_str)
            .any(|pattern| {
                let (resource, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
                (resource == "*" || resource == form.resource)
                    && (sub == "*" || sub == attributes.subresource)
            })
    };
    let named = || {
        let names = list(rule, &["resourceNames"]);
        names.is_empty() || names.iter().any(|name| name == attributes.name)
    };
    let namespaced = !attributes.namespace.is_empty() && form.resource != "namespaces";
    let scope = match text(rule, &["scope"]) {
        "Namespaced" => namespaced,
        "Cluster" => !namespaced,
        _ => true,
    };
    any("operations", attributes.operation.name())
        && any("apiGroups", form.group)
        && any("apiVersions", form.version)
        && scope
        && resource()
        && named()
}

#[cfg(test)]
mod tests {
    use authorization::User;
    use serde_json::json;

    use super::*;
    use crate::Attributes;

    struct Nothing;

    impl Lookup for Nothing {
        fn get(&self, resource: &str, _: &str, name: &str) -> Option<std::sync::Arc<Value>> {
            let labels = json!({"metadata": {"name": name, "labels": {"env": "prod"}}});
            (resource == "namespaces" && name == "web").then(|| labels.into())
        }

        fn list(&self, _: &str, _: &str) -> Vec<std::sync::Arc<Value>> {
            Vec::new()
        }

        fn decide(&self, _: &authorization::Attributes<'_>) -> authorization::Decision {
            authorization::Decision::NoOpinion(String::new())
        }
    }

    const APPS: Form = Form {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        kind_group_version: None,
        resource: "deployments",
    };

    fn meant(webhook: &Value, subresource: &str, namespace: &str) -> Option<&'static str> {
        let user = User::default();
        let attributes = Attributes {
            operation: Operation::Create,
            user: &user,
            group: APPS.group,
            resource: APPS.resource,
            subresource,
            namespace,
            name: "a",
            suffix: "",
        };
        let object = json!({"metadata": {"labels": {"app": "a"}}});
        let request = Request {
            attributes: &attributes,
            form: APPS,
            object: &object,
            old: &Value::Null,
            options: &Value::Null,
            dry_run: false,
        };
        let old = Form {
            version: "v1beta1",
            ..APPS
        };
        Criteria::of_webhook(webhook)
            .form(&request, &[APPS, old], &Nothing)
            .map(|form| form.version)
    }

    #[test]
    fn rules() {
        let rule = |change: Value| {
            let mut rule = json!({
                "operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
                "resources": ["deployments"], "scope": "*",
            });
            for (key, value) in change.as_object().unwrap() {
                rule[key] = value.clone();
            }
            json!({"rules": [rule]})
        };
        #[rustfmt::skip]
        let cases = [
            (json!({}), "", "web", Some("v1")),
            (json!({"operations": ["UPDATE", "DELETE"]}), "", "web", None),
            (json!({"operations": ["*"]}), "", "web", Some("v1")),
            (json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}), "", "web", Some("v1")),
            (json!({"resources": ["*"]}), "status", "web", None),
            (json!({"resources": ["*/*"]}), "status", "web", Some("v1")),
            (json!({"resources": ["*/scale"]}), "scale", "web", Some("v1")),
            (json!({"resources": ["deployments/*"]}), "scale", "web", Some("v1")),
            (json!({"scope": "Cluster"}), "", "web", None),
            (json!({"scope": "Namespaced"}), "", "web", Some("v1")),
            (json!({"apiVersions": ["v1beta1"]}), "", "web", Some("v1beta1")),
            (json!({"apiVersions": ["v2"]}), "", "web", None),
            (json!({"resourceNames": ["b"]}), "", "web", None),
        ];
        for (change, subresource, namespace, expected) in cases {
            let webhook = rule(change);
            assert_eq!(
                meant(&webhook, subresource, namespace),
                expected,
                "{webhook}"
            );
        }
        let mut exact = rule(json!({"apiVersions": ["v1beta1"]}));
        exact["matchPolicy"] = "Exact".into();
        assert_eq!(meant(&exact, "", "web"), None);
        #[rustfmt::skip]
        let selectors = [
            ("namespaceSelector", json!({}), Some("v1")),
            ("namespaceSelector", json!({"matchLabels": {"env": "prod"}}), Some("v1")),
            ("namespaceSelector", json!({"matchLabels": {"env": "test"}}), None),
            ("objectSelector", json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), Some("v1")),
            ("objectSelector", json!({"matchLabels": {"app": "b"}}), None),
        ];
        for (key, selector, expected) in selectors {
            let mut webhook = rule(json!({}));
            webhook[key] = selector;
            assert_eq!(meant(&webhook, "", "web"), expected, "{webhook}");
        }
    }
}
