//! `x-kubernetes-validations`: rules as expressions over a value and, in updates, the one before it.

use std::sync::Arc;

use api::field::{Fault, FieldError};
use api::value::text;
use cel::cost::{CALL_MAX, OBJECT_MAX};
use cel::types::{Decl, Type as CelType};
use cel::value::{Value as Cel, wrap};
use cel::{Failure, Program};
use serde_json::Value;

use crate::correlate::Items;
use crate::declare::{self, Below};
use crate::path::{Path, number};
use crate::schema::{Schema, Type};

/// The longest message that an expression makes.
const MESSAGE_MAX: usize = 5 << 10;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The expression that must be true.
    pub rule: Box<str>,
    /// What to say where it is not.
    pub message: Box<str>,
    /// An expression that says it.
    pub message_expression: Box<str>,
    /// The reason of the refusal.
    reason: Box<str>,
    /// Which field is to blame, below the value.
    field_path: Box<str>,
    /// Whether `oldSelf` is an optional.
    pub optional_old: bool,
    compiled: Option<Arc<Compiled>>,
}

/// A rule that was compiled, or why it could not be.
#[derive(Debug)]
pub struct Compiled {
    /// Of the value.
    decl: Arc<Decl>,
    /// The rule.
    pub rule: Result<Program, String>,
    /// The message.
    pub message: Option<Result<Program, String>>,
    /// Whether the rule speaks of the value before.
    pub uses_old: bool,
}

impl Rule {
    /// From the schema; not yet compiled.
    pub fn parse(body: &Value) -> Self {
        let path: Vec<&str> = text(body, &["fieldPath"])
            .trim_start_matches('.')
            .split('.')
            .collect();
        Rule {
            rule: text(body, &["rule"]).into(),
            message: text(body, &["message"]).trim().into(),
            message_expression: text(body, &["messageExpression"]).into(),
            reason: text(body, &["reason"]).into(),
            field_path: path.join(".").replace("['", "[").replace("']", "]").into(),
            optional_old: api::value::flag(body, &["optionalOldSelf"]),
            compiled: None,
        }
    }

    /// The rule as it was compiled.
    pub fn compiled(&self) -> Option<&Compiled> {
        self.compiled.as_deref()
    }

    fn compile(&mut self, decl: &Arc<Decl>) {
        let variables = [
            ("self", decl.clone(), false),
            ("oldSelf", decl.clone(), self.optional_old),
        ];
        let rule = Program::compile(&self.rule, &variables, &CelType::Bool);
        let message = (!self.message_expression.is_empty())
            .then(|| Program::compile(&self.message_expression, &variables, &CelType::String));
        self.compiled = Some(Arc::new(Compiled {
            decl: decl.clone(),
            uses_old: rule.as_ref().is_ok_and(|rule| rule.uses("oldSelf")),
            rule,
            message,
        }));
    }

    /// How refusals name the rule.
    fn shown(&self) -> &str {
        if self.message.is_empty() {
            self.rule.trim()
        } else {
            &self.message
        }
    }

    /// `shown`: the value as refusals print it; empty where they do not.
    fn refusal(&self, field: String, shown: String, detail: String) -> FieldError {
        match &*self.reason {
            "FieldValueForbidden" => FieldError::forbidden(field, detail),
            "FieldValueRequired" => FieldError::required(field, detail),
            "FieldValueDuplicate" => FieldError::duplicate(field, shown),
            _ => FieldError::new(field, Fault::Invalid(shown), detail),
        }
    }
}

/// Compiles the rules of an object's schema.
pub fn compile(schema: &mut Schema) {
    if schema.has_rules {
        build(schema, true, false);
    }
}

/// The declaration of a node. Where neither it, what stands above nor what stands below has rules, none is made.
fn build(schema: &mut Schema, root: bool, needed: bool) -> Arc<Decl> {
    if !needed && !schema.has_rules {
        return Decl::any();
    }
    let needed = needed || schema.rules.is_some();
    let mut fields = Vec::new();
    for (name, below) in &mut schema.properties {
        let decl = build(below, false, needed);
        // What is preserved without a type is out of reach.
        if below.kind.is_some() || below.int_or_string {
            fields.extend(declare::field(name, decl));
        }
    }
    let additional = schema
        .additional
        .as_deref_mut()
        .map(|below| build(below, false, needed));
    let items = schema
        .items
        .as_deref_mut()
        .map(|below| build(below, false, needed));
    let decl = match (root, items, additional) {
        (true, _, _) => declare::root(fields),
        (_, Some(items), _) => declare::node(schema, Below::Items(items)),
        (_, _, Some(values)) => declare::node(schema, Below::Values(values)),
        _ if fields.is_empty() => declare::node(schema, Below::Nothing),
        _ => declare::node(schema, Below::Fields(fields)),
    };
    for rule in schema.rules.iter_mut().flatten() {
        rule.compile(&decl);
    }
    decl
}

/// What the rules of a schema find in an object; with `old`, in going there from it.
pub fn validate(schema: &Schema, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut walk = Walk {
        budget: OBJECT_MAX,
        exhausted: false,
        found: Vec::new(),
    };
    if schema.has_rules {
        walk.node(schema, object, old, false, Path::Root);
    }
    walk.found
}

struct Walk {
    budget: u64,
    /// Nothing more is evaluated.
    exhausted: bool,
    found: Vec<FieldError>,
}

impl Walk {
    /// `same`: the nearest value above that could be compared is what it was.
    fn node(
        &mut self,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        same: bool,
        path: Path<'_>,
    ) {
        if self.exhausted || !schema.has_rules || value.is_null() {
            return;
        }
        let old = old.filter(|old| !old.is_null());
        let same = same || old.is_some_and(|old| old == value);
        for rule in schema.rules.iter().flatten() {
            self.rule(rule, schema, value, old, same, path);
            if self.exhausted {
                return;
            }
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let before = old.and_then(|old| old.get(key));
                    if let Some(below) = schema.property(key) {
                        self.node(below, value, before, same, Path::Field(&path, key));
                    } else if let Some(below) = schema.additional.as_deref() {
                        self.node(below, value, before, same, Path::Key(&path, key));
                    }
                }
            }
            Value::Array(items) => {
                if let Some(below) = schema.items.as_deref().filter(|below| below.has_rules) {
                    let before = Items::of(schema, old);
                    for (index, item) in items.iter().enumerate() {
                        self.node(
                            below,
                            item,
                            before.get(item),
                            same,
                            Path::Index(&path, index),
                        );
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn rule(
        &mut self,
        rule: &Rule,
        schema: &Schema,
        value: &Value,
        old: Option<&Value>,
        same: bool,
        path: Path<'_>,
    ) {
        let Some(compiled) = rule.compiled() else {
            return;
        };
        let kind = schema.kind.map_or("", Type::name);
        let here = match path {
            Path::Root => "<nil>".to_owned(),
            path => path.bracketed(),
        };
        let program = match &compiled.rule {
            Ok(program) => program,
            Err(why) => {
                self.found.push(FieldError::invalid_text(
                    here,
                    kind,
                    format!("rule compile error: {why}"),
                ));
                return;
            }
        };
        if compiled.uses_old && old.is_none() && !rule.optional_old {
            return;
        }
        let variables = || variables(compiled, rule, value, old);
        let (outcome, spent) = program.evaluate(variables(), CALL_MAX.min(self.budget));
        self.budget = self.budget.saturating_sub(spent);
        match outcome {
            Ok(Cel::Bool(true)) => {}
            // What did not change is not held against an update that is about something else.
            Ok(_) if same && !compiled.uses_old => {}
            Ok(_) => {
                let detail = self.message(rule, compiled, variables());
                let field = match &*rule.field_path {
                    "" => here,
                    below if matches!(path, Path::Root) => below.to_owned(),
                    below => format!("{here}.{below}"),
                };
                self.found.push(rule.refusal(field, shown(value), detail));
            }
            Err(failure) => self.failure(rule, kind, here, &failure),
        }
    }

    fn failure(&mut self, rule: &Rule, kind: &str, here: String, failure: &Failure) {
        let (why, rule) = (&failure.0, rule.shown());
        let detail = if failure.is_limit() {
            self.exhausted = true;
            if self.budget == 0 {
                "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
            } else {
                format!(
                    "'{why}': no further validation rules will be run due to call cost exceeds limit for rule: {rule}"
                )
            }
        } else if why.starts_with("no such overload") {
            format!(
                "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {rule}"
            )
        } else {
            format!("{why} evaluating rule: {rule}")
        };
        self.found.push(FieldError::new(
            here,
            Fault::Invalid(api::field::quoted(kind)),
            detail,
        ));
    }

    fn message<'a>(
        &mut self,
        rule: &Rule,
        compiled: &'a Compiled,
        variables: Vec<(&'a str, Cel<'a>)>,
    ) -> String {
        if let Some(Ok(program)) = &compiled.message {
            let (outcome, spent) = program.evaluate(variables, CALL_MAX.min(self.budget));
            self.budget = self.budget.saturating_sub(spent);
            let made = outcome.ok();
            let made = made.as_ref().and_then(Cel::as_text).map(str::trim);
            if let Some(made) = made.filter(|made| {
                !made.is_empty() && made.len() <= MESSAGE_MAX && !made.contains('\n')
            }) {
                return made.to_owned();
            }
        }
        if rule.message.is_empty() {
            format!("failed rule: {}", rule.shown())
        } else {
            rule.message.to_string()
        }
    }
}

/// A value as refusals print it: of objects and lists nothing.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) | Value::Array(_) => String::new(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(0.0)),
        other => other.to_string(),
    }
}

fn variables<'a>(
    compiled: &'a Compiled,
    rule: &Rule,
    value: &'a Value,
    old: Option<&'a Value>,
) -> Vec<(&'a str, Cel<'a>)> {
    let mut variables = vec![("self", wrap(value, &compiled.decl))];
    let before = old.map(|old| wrap(old, &compiled.decl));
    match (rule.optional_old, before) {
        (true, before) => variables.push(("oldSelf", Cel::Optional(before.map(Arc::new)))),
        (false, Some(before)) => variables.push(("oldSelf", before)),
        (false, None) => {}
    }
    variables
}
