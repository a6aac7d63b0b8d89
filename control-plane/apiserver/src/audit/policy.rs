//! Which requests are recorded, and how much of each: a Policy of `audit.k8s.io/v1`, read once at the start.

use std::path::Path;

use authorization::User;
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::Error;

/// How much of a request is recorded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Level {
    None,
    /// Who asked for what, and how it was answered.
    Metadata,
    /// What was sent as well.
    Request,
    /// What was answered as well.
    RequestResponse,
}

impl Level {
    const NAMES: [&'static str; 4] = ["None", "Metadata", "Request", "RequestResponse"];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    fn parse(text: &str) -> Option<Self> {
        use Level::{Metadata, None, Request, RequestResponse};
        let all = [None, Metadata, Request, RequestResponse];
        all.into_iter().find(|level| level.name() == text)
    }
}

/// When in the course of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    RequestReceived,
    /// The head of an answer that may take as long as the client likes.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    const NAMES: [&'static str; 4] = [
        "RequestReceived",
        "ResponseStarted",
        "ResponseComplete",
        "Panic",
    ];

    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

/// Stages that are left out, a bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Omitted(u8);

impl Omitted {
    pub(super) fn has(self, stage: Stage) -> bool {
        self.0 & 1 << stage as u8 != 0
    }
}

/// What a policy says of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decided {
    pub(super) level: Level,
    pub(super) omitted: Omitted,
    pub(super) without_managed_fields: bool,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    Path(&'a str),
    Resource {
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
}

/// The rules, in order: the first that fits decides, and a request that none fits is not recorded.
#[derive(Debug)]
pub(crate) struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    decided: Decided,
    users: Vec<String>,
    groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    paths: Vec<String>,
}

#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    api_version: Spanned<String>,
    kind: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "it may be there")]
    metadata: serde::de::IgnoredAny,
    #[serde(default)]
    omit_stages: Vec<Spanned<String>>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(default)]
    rules: Vec<Spanned<WrittenRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WrittenRule {
    level: Spanned<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Spanned<Resources>>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<Spanned<String>>,
    #[serde(default)]
    omit_stages: Vec<Spanned<String>>,
    omit_managed_fields: Option<bool>,
}

impl Policy {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::io("reading the audit policy", path, source))?;
        Self::parse(&text)
            .map_err(|why| Error::Config(format!("audit policy {}: {why}", path.display())))
    }

    /// # Errors
    /// The line, and what is wrong there.
    fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            let said = error.without_snippet().to_string();
            let first = said.lines().next().unwrap_or_default();
            let why = first.split(" at line ").next().unwrap_or_default();
            match error.location() {
                Some(at) => format!("line {}: {why}", at.line()),
                None => why.to_owned(),
            }
        })?;
        if written.api_version.value != "audit.k8s.io/v1" {
            return Err(at(
                &written.api_version,
                "apiVersion must be audit.k8s.io/v1",
            ));
        }
        if written.kind.value != "Policy" {
            return Err(at(&written.kind, "kind must be Policy"));
        }
        if written.rules.is_empty() {
            return Err("there is no rule in it, so that nothing would be recorded".to_owned());
        }
        let omitted = omitted(&written.omit_stages)?;
        let rules = written.rules.into_iter().map(|rule| {
            rule.value
                .check()?
                .rule(omitted, written.omit_managed_fields)
        });
        Ok(Policy {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// `None`: the request is not recorded.
    pub(super) fn decide(&self, user: &User, verb: &str, about: About<'_>) -> Option<Decided> {
        let fits = |rule: &&Rule| rule.fits(user, verb, about);
        let decided = self.rules.iter().find(fits)?.decided;
        (decided.level > Level::None).then_some(decided)
    }
}

fn at<T>(place: &Spanned<T>, why: &str) -> String {
    format!("line {}: {why}", place.referenced.line())
}

fn omitted(stages: &[Spanned<String>]) -> Result<Omitted, String> {
    let mut omitted = Omitted::default();
    for stage in stages {
        let index = Stage::NAMES.iter().position(|name| *name == stage.value);
        let Some(index) = index else {
            let known = Stage::NAMES.join(", ");
            let why = format!(
                "there is no stage {:?}; the stages are {known}",
                stage.value
            );
            return Err(at(stage, &why));
        };
        omitted.0 |= 1 << index;
    }
    Ok(omitted)
}

impl WrittenRule {
    fn check(self) -> Result<Self, String> {
        if let Some(path) = self.paths.first()
            && !(self.resources.is_empty() && self.namespaces.is_empty())
        {
            let why = "a rule is for resources and namespaces or for nonResourceURLs, not for both";
            return Err(at(path, why));
        }
        for path in &self.paths {
            let url = path.value.as_str();
            let body = url.strip_suffix('*').unwrap_or(url);
            if url != "*" && (!url.starts_with('/') || body.contains('*')) {
                let why = format!("{url:?} must begin with / and have a * at its end only");
                return Err(at(path, &why));
            }
        }
        for resources in &self.resources {
            let given = &resources.value;
            if given.resources.is_empty() && !given.resource_names.is_empty() {
                return Err(at(resources, "resourceNames need resources to be names of"));
            }
            if given.group.contains('/') {
                let why = format!("group {:?} must be without a version", given.group);
                return Err(at(resources, &why));
            }
        }
        Ok(self)
    }

    fn rule(self, everywhere: Omitted, without_managed_fields: bool) -> Result<Rule, String> {
        let level = Level::parse(&self.level.value).ok_or_else(|| {
            let known = Level::NAMES.join(", ");
            let why = format!(
                "there is no level {:?}; the levels are {known}",
                self.level.value
            );
            at(&self.level, &why)
        })?;
        Ok(Rule {
            decided: Decided {
                level,
                omitted: Omitted(everywhere.0 | omitted(&self.omit_stages)?.0),
                without_managed_fields: self.omit_managed_fields.unwrap_or(without_managed_fields),
            },
            users: self.users,
            groups: self.user_groups,
            verbs: self.verbs,
            resources: self.resources.into_iter().map(|one| one.value).collect(),
            namespaces: self.namespaces,
            paths: self.paths.into_iter().map(|path| path.value).collect(),
        })
    }
}

impl Rule {
    fn fits(&self, user: &User, verb: &str, about: About<'_>) -> bool {
        let named = |list: &[String], wanted: &str| {
            list.is_empty() || list.iter().any(|name| name == wanted)
        };
        let of_group = || self.groups.iter().any(|group| user.is(group));
        if !named(&self.users, &user.name)
            || !(self.groups.is_empty() || of_group())
            || !named(&self.verbs, verb)
        {
            return false;
        }
        match about {
            About::Path(path) => {
                let regular = !(self.resources.is_empty() && self.namespaces.is_empty());
                !regular && (self.paths.is_empty() || self.paths.iter().any(|url| on(url, path)))
            }
            About::Resource {
                group,
                resource,
                subresource,
                namespace,
                name,
            } => {
                let fits = |given: &Resources| {
                    given.group == group
                        && named(&given.resource_names, name)
                        && given.fits(resource, subresource)
                };
                self.paths.is_empty()
                    && named(&self.namespaces, namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(fits))
            }
        }
    }
}

impl Resources {
    fn fits(&self, resource: &str, subresource: &str) -> bool {
        self.resources.is_empty()
            || self
                .resources
                .iter()
                .any(|given| match given.split_once('/') {
                    None => given == "*" || (given == resource && subresource.is_empty()),
                    Some(("*", of)) => !subresource.is_empty() && of == subresource,
                    Some((whole, "*")) => whole == resource,
                    Some((whole, of)) => (whole, of) == (resource, subresource),
                })
    }
}

fn on(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(begin) => path.starts_with(begin),
        None => url == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";

    fn level(rules: &str, user: &User, verb: &str, about: About<'_>) -> Level {
        let policy = Policy::parse(&format!("{HEAD}rules:\n{rules}")).unwrap();
        let decided = policy.decide(user, verb, about);
        decided.map_or(Level::None, |decided| decided.level)
    }

    fn resource<'a>(resource: &'a str, subresource: &'a str, namespace: &'a str) -> About<'a> {
        About::Resource {
            group: "",
            resource,
            subresource,
            namespace,
            name: "x",
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let user = User {
            name: "jane".into(),
            groups: vec!["dev".into(), "system:authenticated".into()],
            ..User::default()
        };
        let pod = resource("pods", "", "a");
        let (log, node) = (resource("pods", "log", "a"), resource("nodes", "", ""));
        let path = About::Path("/healthz/ping");
        #[rustfmt::skip]
        let cases = [
            ("- level: Metadata", [true, true, true, true]),
            ("- level: None\n- level: Metadata", [false; 4]),
            ("- {level: None, users: [joe]}\n- level: Metadata", [true; 4]),
            ("- {level: None, users: [jane]}\n- level: Metadata", [false; 4]),
            ("- {level: Metadata, userGroups: [x, dev]}", [true; 4]),
            ("- {level: Metadata, userGroups: [x]}", [false; 4]),
            ("- {level: Metadata, verbs: [list]}", [false; 4]),
            ("- {level: Metadata, resources: [{group: ''}]}", [true, true, true, false]),
            ("- {level: Metadata, resources: [{group: apps}]}", [false; 4]),
            ("- {level: Metadata, resources: [{resources: [pods]}]}", [true, false, false, false]),
            ("- {level: Metadata, resources: [{resources: [pods/log]}]}", [false, true, false, false]),
            ("- {level: Metadata, resources: [{resources: ['pods/*']}]}", [true, true, false, false]),
            ("- {level: Metadata, resources: [{resources: ['*/log']}]}", [false, true, false, false]),
            ("- {level: Metadata, resources: [{resources: ['*']}]}", [true, true, true, false]),
            ("- {level: Metadata, resources: [{resources: [pods], resourceNames: [y]}]}", [false; 4]),
            ("- {level: Metadata, namespaces: [a]}", [true, true, false, false]),
            ("- {level: Metadata, namespaces: ['']}", [false, false, true, false]),
            ("- {level: Metadata, nonResourceURLs: ['/healthz*']}", [false, false, false, true]),
            ("- {level: Metadata, nonResourceURLs: ['/healthz']}", [false; 4]),
            ("- {level: Metadata, nonResourceURLs: ['*']}", [false, false, false, true]),
        ];
        for (rules, expected) in cases {
            let met =
                [pod, log, node, path].map(|about| level(rules, &user, "get", about) > Level::None);
            assert_eq!(met, expected, "{rules}");
        }
    }

    #[test]
    fn stages_and_managed_fields() {
        let text = format!(
            "{HEAD}metadata: {{name: x}}\nomitStages: [RequestReceived]\nomitManagedFields: true\nrules:\n\
             - {{level: Request, verbs: [get], omitStages: [Panic], omitManagedFields: false}}\n- level: RequestResponse\n"
        );
        let policy = Policy::parse(&text).unwrap();
        let decide = |verb| {
            policy
                .decide(&User::default(), verb, About::Path("/"))
                .unwrap()
        };
        let (get, list) = (decide("get"), decide("list"));
        assert_eq!(
            (get.level, list.level),
            (Level::Request, Level::RequestResponse)
        );
        assert_eq!(
            (get.without_managed_fields, list.without_managed_fields),
            (false, true)
        );
        let shown = |decided: Decided| {
            [
                Stage::RequestReceived,
                Stage::ResponseStarted,
                Stage::ResponseComplete,
                Stage::Panic,
            ]
            .map(|stage| !decided.omitted.has(stage))
        };
        assert_eq!(shown(get), [false, true, true, false]);
        assert_eq!(shown(list), [false, true, true, true]);
    }

    #[test]
    fn a_wrong_policy_is_refused_with_its_line() {
        let cases = [
            (
                "rules:\n- level: Everything\n",
                "line 4: there is no level \"Everything\"",
            ),
            ("rules: []\n", "there is no rule in it"),
            ("rules:\n- level: None\n  user: [a]\n", "line 5: "),
            ("rules:\n- users: [a]\n", "line 4: "),
            ("rules:\n- level: None\n  verbs: get\n", "line 5: "),
            (
                "rules:\n- level: None\n  omitStages:\n  - Never\n",
                "line 6: there is no stage \"Never\"",
            ),
            (
                "rules:\n- level: None\n  nonResourceURLs:\n  - healthz\n",
                "line 6: \"healthz\" must begin with /",
            ),
            (
                "rules:\n- level: None\n  nonResourceURLs: [/a*b]\n",
                "line 5: ",
            ),
            (
                "rules:\n- level: None\n  namespaces: [a]\n  nonResourceURLs: [/a]\n",
                "line 6: a rule is for resources",
            ),
            (
                "rules:\n- level: None\n  resources:\n  - resourceNames: [a]\n",
                "line 6: resourceNames need resources",
            ),
            (
                "rules:\n- level: None\n  resources:\n  - group: apps/v1\n",
                "line 6: group \"apps/v1\"",
            ),
            ("rules: [\n", "line "),
        ];
        for (rest, expected) in cases {
            let why = Policy::parse(&format!("{HEAD}{rest}")).unwrap_err();
            assert!(why.contains(expected), "{rest}: {why}");
        }
        let why = Policy::parse(
            "apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]\n",
        );
        assert_eq!(
            why.unwrap_err(),
            "line 1: apiVersion must be audit.k8s.io/v1"
        );
    }
}
