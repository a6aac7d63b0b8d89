//! Which FlowSchema a request belongs to and which PriorityLevelConfiguration that one names: every answer says so in its
//! headers, by uid, as with kube-apiserver. Nothing waits in queues here.

use std::sync::Arc;

use api::value::{flag, list, number, text};
use arc_swap::ArcSwap;
use authorization::User;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use crate::mirror::Mirror;
use crate::query;
use crate::request::Target;

const FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";

/// The schemas as they are matched, made anew when one of the objects has changed.
#[derive(Default)]
pub(crate) struct Flows(ArcSwap<Parsed>);

#[derive(Default)]
struct Parsed {
    /// How often the objects had changed when this was made, and one more.
    changes: [u64; 2],
    /// In the order in which they are tried.
    schemas: Vec<Schema>,
}

/// What the headers of an answer say.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Flow {
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        headers.insert(FLOW_SCHEMA, self.schema.clone());
        headers.insert(PRIORITY_LEVEL, self.level.clone());
    }
}

struct Schema {
    flow: Flow,
    rules: Vec<Rule>,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(String),
    Group(String),
    Account { namespace: String, name: String },
}

struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

struct PathRule {
    verbs: Vec<String>,
    paths: Vec<String>,
}

/// What a request asks for.
enum Asked<'a> {
    Path(&'a str),
    Resource {
        group: &'a str,
        /// With its subresource, behind a slash.
        resource: String,
        namespace: String,
    },
}

impl Flows {
    /// The flow of a request; `None` where no schema fits.
    pub(crate) fn of(
        &self,
        mirror: &Mirror,
        user: &User,
        verb: &str,
        target: &Target<'_>,
    ) -> Option<Flow> {
        let changes = [SCHEMAS, LEVELS].map(|plural| mirror.changed(plural) + 1);
        let mut parsed = self.0.load();
        if parsed.changes != changes {
            let schemas = schemas(&mirror.list(SCHEMAS, ""), &mirror.list(LEVELS, ""));
            self.0.store(Arc::new(Parsed { changes, schemas }));
            parsed = self.0.load();
        }
        parsed.of(user, verb, target)
    }
}

impl Parsed {
    fn of(&self, user: &User, verb: &str, target: &Target<'_>) -> Option<Flow> {
        let asked = match target {
            Target::Path(path) => Asked::Path(path),
            Target::Resource(at) => Asked::Resource {
                group: at.group,
                resource: match at.subresource {
                    Some(sub) => format!("{}/{sub}", at.resource),
                    None => at.resource.to_owned(),
                },
                namespace: query::decode_segment(at.namespace.unwrap_or_default()),
            },
        };
        let fits = |schema: &&Schema| {
            schema
                .rules
                .iter()
                .any(|rule| rule.fits(user, verb, &asked))
        };
        self.schemas
            .iter()
            .find(fits)
            .map(|schema| schema.flow.clone())
    }
}

fn schemas(schemas: &[Arc<Value>], levels: &[Arc<Value>]) -> Vec<Schema> {
    let mut sorted: Vec<&Arc<Value>> = schemas.iter().collect();
    // The lowest precedence is tried first, of two that are alike the first by name.
    sorted.sort_by_key(|schema| {
        (
            number(schema, &["spec", "matchingPrecedence"]),
            api::meta::name(schema).to_owned(),
        )
    });
    let header = |object: &Value| HeaderValue::from_str(api::meta::uid(object)).ok();
    let schema = |schema: &Value| {
        let level = text(schema, &["spec", "priorityLevelConfiguration", "name"]);
        let level = levels.iter().find(|it| api::meta::name(it) == level)?;
        Some(Schema {
            flow: Flow {
                schema: header(schema)?,
                level: header(level)?,
            },
            rules: list(schema, &["spec", "rules"]).iter().map(rule).collect(),
        })
    };
    sorted.into_iter().filter_map(|it| schema(it)).collect()
}

fn rule(rule: &Value) -> Rule {
    let texts = |object: &Value, key: &str| -> Vec<String> {
        let texts = list(object, &[key]).iter().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let subject = |subject: &Value| {
        let of = |kind: &str, key: &str| text(subject, &[kind, key]).to_owned();
        match text(subject, &["kind"]) {
            "User" => Some(Subject::User(of("user", "name"))),
            "Group" => Some(Subject::Group(of("group", "name"))),
            "ServiceAccount" => Some(Subject::Account {
                namespace: of("serviceAccount", "namespace"),
                name: of("serviceAccount", "name"),
            }),
            _ => None,
        }
    };
    let resources = list(rule, &["resourceRules"]).iter();
    let paths = list(rule, &["nonResourceRules"]).iter();
    Rule {
        subjects: list(rule, &["subjects"])
            .iter()
            .filter_map(subject)
            .collect(),
        resources: resources
            .map(|rule| ResourceRule {
                verbs: texts(rule, "verbs"),
                groups: texts(rule, "apiGroups"),
                resources: texts(rule, "resources"),
                namespaces: texts(rule, "namespaces"),
                cluster: flag(rule, &["clusterScope"]),
            })
            .collect(),
        paths: paths
            .map(|rule| PathRule {
                verbs: texts(rule, "verbs"),
                paths: texts(rule, "nonResourceURLs"),
            })
            .collect(),
    }
}

/// Whether the list has the word, or a star.
fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|it| it == word || it == "*")
}

impl Rule {
    fn fits(&self, user: &User, verb: &str, asked: &Asked<'_>) -> bool {
        self.asks(verb, asked) && self.subjects.iter().any(|subject| subject.is(user))
    }

    fn asks(&self, verb: &str, asked: &Asked<'_>) -> bool {
        match asked {
            Asked::Path(path) => self.paths.iter().any(|rule| {
                has(&rule.verbs, verb)
                    && rule.paths.iter().any(|url| match url.strip_suffix('*') {
                        Some(begin) => path.starts_with(begin),
                        None => url == path,
                    })
            }),
            Asked::Resource {
                group,
                resource,
                namespace,
            } => self.resources.iter().any(|rule| {
                has(&rule.verbs, verb)
                    && has(&rule.groups, group)
                    && has(&rule.resources, resource)
                    && match namespace.as_str() {
                        "" => rule.cluster,
                        namespace => has(&rule.namespaces, namespace),
                    }
            }),
        }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Subject::User(name) => name == "*" || *name == user.name,
            Subject::Group(name) => name == "*" || user.is(name),
            Subject::Account { namespace, name } => {
                let account = authorization::service_account(&user.name);
                account
                    .is_some_and(|(of, called)| of == namespace && (name == "*" || called == name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_lowest_precedence_that_fits() {
        let schema = |name: &str,
                      precedence: i64,
                      subject: Value,
                      resources: Value,
                      paths: Value| {
            Arc::new(json!({
                "metadata": {"name": name, "uid": format!("uid-{name}")},
                "spec": {
                    "matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": "level"},
                    "rules": [{"subjects": [subject], "resourceRules": resources, "nonResourceRules": paths}],
                },
            }))
        };
        let all = || json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}]);
        let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
        let schemas = schemas(
            &[
                schema(
                    "all",
                    900,
                    group("*"),
                    all(),
                    json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]),
                ),
                schema(
                    "probes",
                    2,
                    group("*"),
                    json!([]),
                    json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez/*"]}]),
                ),
                schema(
                    "bots",
                    500,
                    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "a", "name": "*"}}),
                    all(),
                    json!([]),
                ),
                schema(
                    "status",
                    400,
                    json!({"kind": "User", "user": {"name": "jane"}}),
                    json!([
                        {"verbs": ["patch"], "apiGroups": [""], "resources": ["pods/status"], "namespaces": ["a"]},
                    ]),
                    json!([]),
                ),
                schema("admin", 1, group("system:masters"), all(), json!([])),
            ],
            &[Arc::new(
                json!({"metadata": {"name": "level", "uid": "uid-level"}}),
            )],
        );
        let parsed = Parsed {
            changes: [0; 2],
            schemas,
        };
        let user = |name: &str, groups: &[&str]| User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).into()).collect(),
            ..User::default()
        };
        for (who, verb, path, expected) in [
            (
                user("x", &["system:masters"]),
                "get",
                "/api/v1/pods",
                "admin",
            ),
            (user("x", &[]), "get", "/healthz", "probes"),
            (user("x", &[]), "get", "/livez/ping", "probes"),
            (user("x", &[]), "get", "/livezz", "all"),
            (
                user("jane", &[]),
                "patch",
                "/api/v1/namespaces/a/pods/p/status",
                "status",
            ),
            (
                user("jane", &[]),
                "patch",
                "/api/v1/namespaces/b/pods/p/status",
                "all",
            ),
            (
                user("jane", &[]),
                "patch",
                "/api/v1/namespaces/a/pods/p",
                "all",
            ),
            (
                user("system:serviceaccount:a:bot", &[]),
                "list",
                "/api/v1/nodes",
                "bots",
            ),
            (
                user("system:serviceaccount:b:bot", &[]),
                "list",
                "/api/v1/nodes",
                "all",
            ),
        ] {
            let flow = parsed.of(&who, verb, &Target::parse(path)).unwrap();
            assert_eq!(
                flow.schema,
                format!("uid-{expected}"),
                "{} {verb} {path}",
                who.name
            );
            assert_eq!(flow.level, "uid-level");
        }
    }
}
