//! Expressions in CEL over a request: compiled once, evaluated within a budget.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use cel::authorizer::{AUTHORIZER, Asking, Authority};
use cel::cost::{CALL_MAX, OBJECT_MAX};
use cel::message::{JSON_PATCH, OBJECT};
use cel::types::{Decl, DeclKind, FieldDecl, Type};
use cel::value::{Value as Cel, dynamic};
use cel::{Failure, Program};
use serde_json::Value;

use super::declared;

/// How many compiled expressions are kept; when there are more, all are forgotten.
const KEPT: usize = 4096;
/// The longest message that an expression makes.
const MESSAGE_MAX: usize = 5 << 10;

/// What an expression gives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Gives {
    /// Truth.
    Bool,
    /// Text.
    Text,
    /// Text or null.
    Annotation,
    /// An object that is laid over another.
    Object,
    /// The steps of a patch.
    Steps,
    /// Anything.
    Any,
}

/// What an expression may speak of besides `object`, `oldObject`, `request`, `namespaceObject` and `authorizer`.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Vocabulary {
    /// `variables`: it is a policy's.
    pub policy: bool,
    /// `params`.
    pub params: bool,
    /// The members of `variables`, sorted by name.
    variables: Vec<(Box<str>, Shape)>,
}

/// What is known of a variable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Shape {
    Any,
    Bool,
    Int,
    Double,
    Text,
}

impl Vocabulary {
    /// Of a policy without its variables.
    pub fn of_policy(params: bool) -> Self {
        Vocabulary {
            policy: true,
            params,
            variables: Vec::new(),
        }
    }

    /// Adds a variable that has the value of this expression.
    pub fn add(&mut self, name: &str, compiled: &Compiled) {
        let shape = match compiled.as_ref().as_ref().map(|program| &program.of) {
            Ok(Type::Bool) => Shape::Bool,
            Ok(Type::Int) => Shape::Int,
            Ok(Type::Double) => Shape::Double,
            Ok(Type::String) => Shape::Text,
            Ok(_) | Err(_) => Shape::Any,
        };
        let at = self.variables.partition_point(|(known, _)| **known < *name);
        self.variables.insert(at, (name.into(), shape));
    }

    /// What expressions may know of `variables`.
    fn declared(&self) -> Arc<Decl> {
        let field = |(name, shape): &(Box<str>, Shape)| FieldDecl {
            escaped: name.clone(),
            name: name.clone(),
            decl: Arc::new(Decl {
                kind: match shape {
                    Shape::Any => DeclKind::Dyn,
                    Shape::Bool => DeclKind::Bool,
                    Shape::Int => DeclKind::Int,
                    Shape::Double => DeclKind::Double,
                    Shape::Text => DeclKind::String,
                },
                max: u64::MAX,
            }),
        };
        Arc::new(Decl {
            kind: DeclKind::Object {
                name: "kubernetes.variables".into(),
                fields: self.variables.iter().map(field).collect(),
            },
            max: u64::MAX,
        })
    }
}

/// A compiled expression, or why it is none.
pub type Compiled = Arc<Result<Program, String>>;

type Key = (Box<str>, Gives, Vocabulary);

static KNOWN: LazyLock<Mutex<HashMap<Key, Compiled>>> = LazyLock::new(Mutex::default);

/// Compiles the expression where `object` and `oldObject` are of this kind.
///
/// # Errors
/// In the words of Kubernetes: why it cannot be compiled.
pub(super) fn compile_typed(
    source: &str,
    gives: Gives,
    vocabulary: &Vocabulary,
    object: &Arc<Decl>,
) -> Result<Program, String> {
    let mut variables = vec![
        ("object", object.clone(), false),
        ("oldObject", object.clone(), false),
        ("request", declared::REQUEST.clone(), false),
        ("namespaceObject", declared::NAMESPACE.clone(), false),
    ];
    if vocabulary.params {
        variables.push(("params", Decl::any(), false));
    }
    let authorizer = Arc::new(Decl {
        kind: DeclKind::Opaque(AUTHORIZER),
        max: u64::MAX,
    });
    variables.push(("authorizer", authorizer, false));
    if vocabulary.policy {
        variables.push(("variables", vocabulary.declared(), false));
    }
    let wanted = match gives {
        Gives::Bool => Type::Bool,
        Gives::Text => Type::String,
        Gives::Object => Type::Message(OBJECT.into()),
        Gives::Steps => Type::list(Type::Message(JSON_PATCH.into())),
        Gives::Annotation | Gives::Any => Type::Dyn,
    };
    Program::compile(source, &variables, &wanted)
        // As refusals of policies word it.
        .map_err(|why| why.replace("must evaluate to a bool", "must evaluate to bool"))
}

/// Compiles the expression, unless that was done before.
pub fn compile(source: &str, gives: Gives, vocabulary: &Vocabulary) -> Compiled {
    let key = (Box::from(source), gives, vocabulary.clone());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = known().get(&key) {
        return compiled.clone();
    }
    let compiled = compile_typed(source, gives, vocabulary, &Decl::any());
    let compiled = Arc::new(match compiled {
        Ok(program)
            if gives == Gives::Annotation && !matches!(program.of, Type::String | Type::Null) =>
        {
            Err("must evaluate to one of [string null_type]".to_owned())
        }
        compiled => compiled,
    });
    let mut known = known();
    if known.len() >= KEPT {
        known.clear();
    }
    known.insert(key, compiled.clone());
    compiled
}

/// What expressions speak of. Null stands for what a request has not.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// What is to be stored.
    pub object: &'a Value,
    /// What stands there.
    pub old: &'a Value,
    /// The request, without its objects.
    pub request: &'a Value,
    /// The policy's parameters.
    pub params: &'a Value,
    /// The namespace of the request.
    pub namespace: &'a Value,
    /// Who may do what.
    pub authority: &'a dyn Authority,
}

/// Evaluations that share a budget.
pub struct Scope<'a> {
    values: Vec<(&'a str, Cel<'a>)>,
    variables: Vec<(Cel<'a>, Cel<'a>)>,
    budget: u64,
}

impl<'a> Scope<'a> {
    /// Nothing is spent yet.
    pub fn new(inputs: &Inputs<'a>) -> Self {
        Scope {
            values: vec![
                ("object", dynamic(inputs.object)),
                ("oldObject", dynamic(inputs.old)),
                ("request", dynamic(inputs.request)),
                ("params", dynamic(inputs.params)),
                ("namespaceObject", dynamic(inputs.namespace)),
                ("authorizer", Asking::of(inputs.authority)),
            ],
            variables: Vec::new(),
            budget: OBJECT_MAX,
        }
    }

    /// Adds `variables.NAME`. Where it has no value only an expression that needs it fails.
    pub fn define(&mut self, name: &'a str, compiled: &'a Compiled) {
        let value = self.value(compiled).unwrap_or_else(|why| {
            let name = api::field::quoted(name);
            Cel::Failed(format!("composited variable {name} fails to evaluate: {why}").into())
        });
        self.variables.push((Cel::Text(name), value));
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// Why there is none.
    pub fn value(&mut self, compiled: &'a Compiled) -> Result<Cel<'a>, String> {
        let program = compiled
            .as_ref()
            .as_ref()
            .map_err(|why| format!("compilation error: {why}"))?;
        let mut values = self.values.clone();
        values.push(("variables", Cel::Map(Arc::new(self.variables.clone()))));
        let (outcome, spent) = program.evaluate(values, CALL_MAX.min(self.budget));
        self.budget = self.budget.saturating_sub(spent);
        outcome.map_err(|Failure(why)| {
            if self.budget == 0 {
                "validation failed due to running out of cost budget, no further validation rules will be run".into()
            } else {
                why
            }
        })
    }

    /// Whether it is true.
    ///
    /// # Errors
    /// It has no value.
    pub fn holds(&mut self, compiled: &'a Compiled) -> Result<bool, String> {
        self.value(compiled)
            .map(|value| matches!(value, Cel::Bool(true)))
    }

    /// The text that it makes, if it is fit to be shown.
    pub fn message(&mut self, compiled: &'a Compiled) -> Option<String> {
        let value = self.value(compiled).ok()?;
        let text = value.as_text()?.trim();
        (!text.is_empty() && text.len() <= MESSAGE_MAX && !text.contains('\n'))
            .then(|| text.to_owned())
    }
}
