//! `authorizer`: what an expression may ask about rights. A question is put together by calls
//! (`authorizer.group('apps').resource('deployments').check('create')`) and answered by an [`Authority`].

use std::fmt;
use std::sync::Arc;

use crate::cost::Range;
use crate::eval::{Evaluation, Failure};
use crate::types::Type;
use crate::value::Value;

/// The type of `authorizer`.
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// Of a question about a path that names no resource.
const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
/// Of a question that names a group and not yet a resource.
const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
/// Of a question about a resource; `authorizer.requestResource` is one.
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
/// Of an answer.
const DECISION: &str = "kubernetes.authorization.Decision";
/// What a check is taken to cost, as with Kubernetes.
const CHECK_COST: u64 = 350_000;

/// Knows who may do what.
pub trait Authority: fmt::Debug + Sync {
    /// The answer to a question.
    fn decide(&self, question: &Question) -> Decision;
    /// The resource of the request that is being admitted, as a question without its verb.
    fn request_resource(&self) -> Question;
}

/// Whether somebody may.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Question {
    /// Namespace and name of the service account that is asked about rather than the user of the request.
    pub account: Option<(String, String)>,
    /// A path; empty where a resource is asked about.
    pub path: String,
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// For instance `status`.
    pub subresource: String,
    /// Empty: all.
    pub namespace: String,
    /// Of the object; empty: all.
    pub name: String,
    /// What is to be done.
    pub verb: String,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why.
    pub reason: String,
}

/// How much of a question is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Nothing,
    Path,
    Group,
    Resource,
}

/// A question that is being put together.
#[derive(Clone, Debug)]
pub struct Asking<'a> {
    authority: &'a dyn Authority,
    stage: Stage,
    question: Question,
}

impl<'a> Asking<'a> {
    /// The value of `authorizer`.
    pub fn of(authority: &'a dyn Authority) -> Value<'a> {
        Value::Asking(Arc::new(Asking {
            authority,
            stage: Stage::Nothing,
            question: Question::default(),
        }))
    }

    pub(crate) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Nothing => AUTHORIZER,
            Stage::Path => PATH_CHECK,
            Stage::Group => GROUP_CHECK,
            Stage::Resource => RESOURCE_CHECK,
        }
    }

    /// `authorizer.requestResource`.
    pub(crate) fn field(&self, name: &str) -> Option<Value<'a>> {
        (self.stage == Stage::Nothing && name == "requestResource").then(|| {
            Value::Asking(Arc::new(Asking {
                authority: self.authority,
                stage: Stage::Resource,
                question: self.authority.request_resource(),
            }))
        })
    }

    fn call(&self, name: &str, args: &[&str]) -> Option<Value<'a>> {
        let mut next = self.clone();
        let question = &mut next.question;
        match (self.stage, name, args) {
            (Stage::Nothing, "serviceAccount", [namespace, name]) => {
                question.account = Some(((*namespace).to_owned(), (*name).to_owned()));
            }
            (Stage::Nothing, "path", [path]) => {
                question.path = (*path).to_owned();
                next.stage = Stage::Path;
            }
            (Stage::Nothing, "group", [group]) => {
                question.group = (*group).to_owned();
                next.stage = Stage::Group;
            }
            (Stage::Group, "resource", [resource]) => {
                question.resource = (*resource).to_owned();
                next.stage = Stage::Resource;
            }
            (Stage::Resource, "subresource", [part]) => question.subresource = (*part).to_owned(),
            (Stage::Resource, "namespace", [name]) => question.namespace = (*name).to_owned(),
            (Stage::Resource, "name", [name]) => question.name = (*name).to_owned(),
            // Roles know no selectors: whoever may read all may read some.
            (Stage::Resource, "fieldSelector" | "labelSelector", [_]) => {}
            (Stage::Path | Stage::Resource, "check", [verb]) => {
                question.verb = (*verb).to_owned();
                let decision = self.authority.decide(question);
                return Some(Value::Decision(Arc::new(decision)));
            }
            _ => return None,
        }
        Some(Value::Asking(Arc::new(next)))
    }
}

/// Calls a function of a question or an answer; `None`: it has no such function.
pub(crate) fn call<'a>(
    evaluation: &mut Evaluation<'a>,
    name: &str,
    values: &[Value<'a>],
) -> Result<Option<Value<'a>>, Failure> {
    let found = match values {
        [Value::Asking(asking), args @ ..] => {
            evaluation.spend(if name == "check" { CHECK_COST } else { 1 })?;
            let texts: Option<Vec<&str>> = args.iter().map(Value::as_text).collect();
            texts.and_then(|texts| asking.call(name, &texts))
        }
        [Value::Decision(decision)] => {
            evaluation.spend(1)?;
            match name {
                "allowed" => Some(Value::Bool(decision.allowed)),
                "reason" => Some(Value::text(&decision.reason)),
                // Roles that cannot be read were refused when they were written.
                "errored" => Some(Value::Bool(false)),
                "error" => Some(Value::text("")),
                _ => None,
            }
        }
        _ => None,
    };
    Ok(found)
}

/// The type and cost of such a call; `None`: there is no such function.
pub(crate) fn signature(target: &Type, name: &str, args: usize) -> Option<(Type, Range)> {
    let Type::Opaque(of) = target else {
        return None;
    };
    let gives = match (*of, name, args) {
        (AUTHORIZER, "serviceAccount", 2) => AUTHORIZER,
        (AUTHORIZER, "path", 1) => PATH_CHECK,
        (AUTHORIZER, "group", 1) => GROUP_CHECK,
        (GROUP_CHECK, "resource", 1)
        | (
            RESOURCE_CHECK,
            "subresource" | "namespace" | "name" | "fieldSelector" | "labelSelector",
            1,
        ) => RESOURCE_CHECK,
        (PATH_CHECK | RESOURCE_CHECK, "check", 1) => {
            return Some((Type::Opaque(DECISION), Range::fixed(CHECK_COST)));
        }
        (DECISION, "allowed" | "errored", 0) => return Some((Type::Bool, Range::ONE)),
        (DECISION, "reason" | "error", 0) => return Some((Type::String, Range::ONE)),
        _ => return None,
    };
    Some((Type::Opaque(gives), Range::ONE))
}

/// The type of a field of such a value.
pub(crate) fn field(of: &Type, name: &str) -> Option<Type> {
    matches!((of, name), (Type::Opaque(AUTHORIZER), "requestResource"))
        .then_some(Type::Opaque(RESOURCE_CHECK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Program;
    use crate::types::{Decl, DeclKind};

    /// Allows what begins with `ok`.
    #[derive(Debug)]
    struct Okay;

    impl Authority for Okay {
        fn decide(&self, question: &Question) -> Decision {
            let asked = format!(
                "{}{} {}/{}/{} {}/{} {:?}",
                question.verb,
                question.path,
                question.group,
                question.resource,
                question.subresource,
                question.namespace,
                question.name,
                question.account
            );
            Decision {
                allowed: question.verb.starts_with("ok"),
                reason: asked,
            }
        }

        fn request_resource(&self) -> Question {
            Question {
                resource: "pods".into(),
                namespace: "here".into(),
                ..Question::default()
            }
        }
    }

    #[test]
    fn questions_about_rights() {
        let decl = Arc::new(Decl {
            kind: DeclKind::Opaque(AUTHORIZER),
            max: u64::MAX,
        });
        let variables = [("authorizer", decl, false)];
        #[rustfmt::skip]
        let cases = [
            ("authorizer.path('/x').check('ok').reason()", "ok/x // / None"),
            ("authorizer.group('apps').resource('d').subresource('s').namespace('n').name('m').check('get').reason()", "get apps/d/s n/m None"),
            ("authorizer.requestResource.check('get').reason()", "get /pods/ here/ None"),
            ("authorizer.serviceAccount('a', 'b').group('').resource('x').labelSelector('a=b').check('v').reason()", "v /x/ / Some((\"a\", \"b\"))"),
            ("string(authorizer.group('').resource('x').check('ok').allowed())", "true"),
            ("string(authorizer.group('').resource('x').check('no').allowed() || authorizer.path('/').check('no').errored())", "false"),
        ];
        for (source, expected) in cases {
            let program = Program::compile(source, &variables, &Type::String)
                .unwrap_or_else(|why| panic!("{source}: {why}"));
            let values = vec![("authorizer", Asking::of(&Okay))];
            let (value, spent) = program.evaluate(values, 1_000_000);
            assert_eq!(value.unwrap().as_text(), Some(expected), "{source}");
            assert!(spent >= CHECK_COST, "{source}");
        }
        for source in [
            "authorizer.resource('x')",
            "authorizer.group('x').check('get')",
            "authorizer.group(1)",
            "authorizer.other",
        ] {
            assert!(
                Program::compile(source, &variables, &Type::Dyn).is_err(),
                "{source}"
            );
        }
        let program = Program::compile(
            "['a','b','c'].all(x, authorizer.path(x).check('ok').allowed())",
            &variables,
            &Type::Bool,
        )
        .unwrap();
        let values = vec![("authorizer", Asking::of(&Okay))];
        let (value, _) = program.evaluate(values, 1_000_000);
        assert!(value.unwrap_err().is_limit(), "three checks are too many");
    }
}
