//! Evaluation: the value of an expression, or why there is none. What it costs is counted, and ends it.

use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind, Literal, Macro};
use crate::cost;
use crate::functions;
use crate::message::Message;
use crate::types::DeclKind;
use crate::value::{Value, wrap};

/// Why there is no value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure(pub String);

/// What a cut off evaluation is told with.
pub(crate) const LIMIT: &str = "operation cancelled: actual cost limit exceeded";

impl Failure {
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Failure(why.into())
    }

    /// Whether it is for the cost, which nothing makes good.
    pub fn is_limit(&self) -> bool {
        self.0 == LIMIT
    }
}

/// A value or why there is none.
pub(crate) type Outcome<'a> = Result<Value<'a>, Failure>;

/// One evaluation.
pub(crate) struct Evaluation<'a> {
    variables: Vec<(&'a str, Value<'a>)>,
    spent: u64,
    limit: u64,
}

impl<'a> Evaluation<'a> {
    /// With the variables of the outermost scope; ends when `limit` is spent.
    pub(crate) fn new(variables: Vec<(&'a str, Value<'a>)>, limit: u64) -> Self {
        Evaluation {
            variables,
            spent: 0,
            limit,
        }
    }

    /// What was spent so far.
    pub(crate) fn spent(&self) -> u64 {
        self.spent
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<(), Failure> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > self.limit {
            return Err(Failure::new(LIMIT));
        }
        Ok(())
    }

    /// The value of the expression.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn value(&mut self, expr: &'a Expr) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(literal_value(literal)),
            Kind::Ident(name) => {
                self.spend(1)?;
                self.ident(name)
            }
            Kind::Select {
                operand,
                field,
                optional,
            } => {
                let value = self.value(operand)?;
                self.spend(1)?;
                select(&value, field, *optional)
            }
            Kind::Has { operand, field } => {
                let value = self.value(operand)?;
                self.spend(1)?;
                has(&value, field)
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => {
                let value = self.value(operand)?;
                let by = self.value(index)?;
                self.spend(1)?;
                index_value(&value, &by, *optional)
            }
            Kind::Call {
                target,
                function,
                args,
            } => self.call(target.as_deref(), function, args),
            Kind::Logic { and, terms } => self.logic(*and, terms),
            Kind::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                match self.value(condition)? {
                    Value::Bool(true) => self.value(yes),
                    Value::Bool(false) => self.value(no),
                    _ => Err(Failure::new("no such overload")),
                }
            }
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match (self.value(item)?, optional) {
                        (Value::Optional(None), true) => {}
                        (Value::Optional(Some(value)), true) => list.push((*value).clone()),
                        (value, _) => list.push(value),
                    }
                }
                self.spend(cost::LIST)?;
                Ok(Value::list(list))
            }
            Kind::Map(entries) => {
                let mut map: Vec<(Value<'a>, Value<'a>)> = Vec::with_capacity(entries.len());
                for (key, value, optional) in entries {
                    let key = self.value(key)?;
                    let value = match (self.value(value)?, optional) {
                        (Value::Optional(None), true) => continue,
                        (Value::Optional(Some(value)), true) => (*value).clone(),
                        (value, _) => value,
                    };
                    insert(&mut map, key, value)?;
                }
                self.spend(cost::MAP)?;
                Ok(Value::Map(Arc::new(map)))
            }
            Kind::Message { of, fields } => self.message(of, fields),
            Kind::Macro(inner) => self.fold(inner),
            Kind::OptMap {
                operand,
                variable,
                body,
                flat,
            } => match self.value(operand)? {
                Value::Optional(Some(value)) => {
                    self.variables.push((variable, (*value).clone()));
                    let made = self.value(body);
                    self.variables.pop();
                    let made = made?;
                    Ok(if *flat { made } else { Value::some(made) })
                }
                Value::Optional(None) => Ok(Value::Optional(None)),
                _ => Err(Failure::new("no such overload")),
            },
        }
    }

    fn message(&mut self, of: &Arc<str>, fields: &'a [(Arc<str>, Expr, bool)]) -> Outcome<'a> {
        let mut made: Vec<(Arc<str>, Value<'a>)> = Vec::with_capacity(fields.len());
        for (name, value, optional) in fields {
            let value = match (self.value(value)?, optional) {
                (Value::Optional(None), true) => continue,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (value, _) => value,
            };
            made.retain(|(known, _)| known != name);
            made.push((name.clone(), value));
        }
        self.spend(cost::MESSAGE)?;
        Ok(Value::Message(Arc::new(Message {
            of: of.clone(),
            fields: made,
        })))
    }

    fn ident(&self, name: &str) -> Outcome<'a> {
        if let Some((_, value)) = self
            .variables
            .iter()
            .rev()
            .find(|(known, _)| *known == name)
        {
            return Ok(value.clone());
        }
        const TYPES: [&str; 10] = [
            "bool",
            "int",
            "uint",
            "double",
            "string",
            "bytes",
            "list",
            "map",
            "null_type",
            "type",
        ];
        match TYPES.iter().find(|known| **known == name) {
            Some(known) => Ok(Value::Type(known)),
            None => Err(Failure::new(format!("no such attribute(s): {name}"))),
        }
    }

    fn call(
        &mut self,
        target: Option<&'a Expr>,
        function: &'a str,
        args: &'a [Expr],
    ) -> Outcome<'a> {
        let mut space = None;
        let mut values = Vec::with_capacity(args.len() + 1);
        let mut member = false;
        if let Some(target) = target {
            match &target.kind {
                Kind::Ident(name)
                    if crate::signatures::is_namespace(name)
                        && !self.variables.iter().any(|(known, _)| *known == &**name) =>
                {
                    space = Some(name);
                }
                _ => {
                    values.push(self.value(target)?);
                    member = true;
                }
            }
        }
        for arg in args {
            values.push(self.value(arg)?);
        }
        match space {
            Some(space) => functions::call(self, &format!("{space}.{function}"), member, values),
            None => functions::call(self, function, member, values),
        }
    }

    /// False decides `&&` and true decides `||`, whatever failed before.
    fn logic(&mut self, and: bool, terms: &'a [Expr]) -> Outcome<'a> {
        let mut failed = None;
        for term in terms {
            match self.value(term) {
                Ok(Value::Bool(met)) if met != and => return Ok(Value::Bool(met)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Failure::new("no such overload"))),
                Err(failure) if failure.is_limit() => return Err(failure),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Value::Bool(and)),
        }
    }

    fn fold(&mut self, inner: &'a Macro) -> Outcome<'a> {
        let range = self.value(&inner.range)?;
        let pairs: Vec<(Value<'a>, Option<Value<'a>>)> = match (&range, inner.second.is_some()) {
            (Value::JsonList(..) | Value::List(_), false) => range
                .items()
                .unwrap_or_default()
                .into_iter()
                .map(|item| (item, None))
                .collect(),
            (Value::JsonList(..) | Value::List(_), true) => (0..)
                .zip(range.items().unwrap_or_default())
                .map(|(index, item)| (Value::Int(index), Some(item)))
                .collect(),
            (Value::JsonMap(..) | Value::Map(_), two) => range
                .entries()
                .unwrap_or_default()
                .into_iter()
                .map(|(key, value)| (key, two.then_some(value)))
                .collect(),
            _ => return Err(Failure::new("got non-iterable range")),
        };
        let depth = self.variables.len();
        let folded = self.fold_over(inner, pairs);
        self.variables.truncate(depth);
        folded
    }

    fn fold_over(
        &mut self,
        inner: &'a Macro,
        pairs: Vec<(Value<'a>, Option<Value<'a>>)>,
    ) -> Outcome<'a> {
        let depth = self.variables.len();
        let mut failed = None;
        let mut count = 0_usize;
        let mut list = Vec::new();
        let mut entries: Vec<(Value<'a>, Value<'a>)> = Vec::new();
        self.spend(match inner.fold {
            Fold::All | Fold::Exists | Fold::ExistsOne => 1,
            Fold::Filter | Fold::Map | Fold::TransformList => 1 + cost::LIST,
            Fold::TransformMap | Fold::TransformMapEntry => 1 + cost::MAP,
        })?;
        for (first, second) in pairs {
            self.variables.truncate(depth);
            self.variables.push((&inner.variable, first.clone()));
            if let (Some(name), Some(value)) = (&inner.second, second) {
                self.variables.push((name, value));
            }
            self.spend(3)?;
            if let Some(filter) = &inner.filter {
                match self.value(filter)? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    _ => return Err(Failure::new("no such overload")),
                }
            }
            let body = self.value(&inner.body);
            match inner.fold {
                Fold::All | Fold::Exists => {
                    let all = inner.fold == Fold::All;
                    match body {
                        Ok(Value::Bool(met)) if met != all => return Ok(Value::Bool(met)),
                        Ok(Value::Bool(_)) => {}
                        Ok(_) => failed = failed.or(Some(Failure::new("no such overload"))),
                        Err(failure) if failure.is_limit() => return Err(failure),
                        Err(failure) => failed = failed.or(Some(failure)),
                    }
                }
                Fold::ExistsOne => count += usize::from(truth(&body?)?),
                Fold::Filter => {
                    if truth(&body?)? {
                        self.spend(cost::LIST)?;
                        list.push(first);
                    }
                }
                Fold::Map | Fold::TransformList => {
                    self.spend(cost::LIST)?;
                    list.push(body?);
                }
                Fold::TransformMap => {
                    self.spend(cost::MAP)?;
                    entries.push((first, body?));
                }
                Fold::TransformMapEntry => {
                    self.spend(cost::MAP)?;
                    for (key, value) in body?.entries().unwrap_or_default() {
                        insert(&mut entries, key, value)?;
                    }
                }
            }
        }
        match inner.fold {
            Fold::All | Fold::Exists => match failed {
                Some(failure) => Err(failure),
                None => Ok(Value::Bool(inner.fold == Fold::All)),
            },
            Fold::ExistsOne => Ok(Value::Bool(count == 1)),
            Fold::Filter | Fold::Map | Fold::TransformList => Ok(Value::list(list)),
            Fold::TransformMap | Fold::TransformMapEntry => Ok(Value::Map(Arc::new(entries))),
        }
    }
}

fn truth(value: &Value<'_>) -> Result<bool, Failure> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(Failure::new("no such overload")),
    }
}

/// The most entries of a map that an expression makes: looking them up is a walk.
const ENTRIES_MAX: usize = 4096;

fn insert<'a>(
    map: &mut Vec<(Value<'a>, Value<'a>)>,
    key: Value<'a>,
    value: Value<'a>,
) -> Result<(), Failure> {
    if map.len() >= ENTRIES_MAX {
        return Err(Failure::new(LIMIT));
    }
    if map
        .iter()
        .any(|(known, _)| crate::value::equal(known, &key))
    {
        return Err(Failure::new(format!(
            "insert failed: key {} already exists",
            key.shown()
        )));
    }
    map.push((key, value));
    Ok(())
}

fn literal_value(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(flag) => Value::Bool(*flag),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::String(text.clone()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

/// A field where there is no key as a value to look up with.
fn field<'a>(value: &Value<'a>, name: &str) -> Option<Value<'a>> {
    match value {
        Value::JsonMap(map, decl) if matches!(decl.kind, DeclKind::Object { .. }) => {
            let field = decl.field(name)?;
            map.get(&*field.name).map(|value| wrap(value, &field.decl))
        }
        Value::JsonMap(map, decl) => {
            let (_, value) = map.get_key_value(name)?;
            let below = match &decl.kind {
                DeclKind::Map(values) => values,
                _ => crate::value::items_decl(decl),
            };
            Some(wrap(value, below))
        }
        other => other.get(&Value::text(name)),
    }
}

fn select<'a>(value: &Value<'a>, name: &str, optional: bool) -> Outcome<'a> {
    match value {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => {
            Ok(field(inner, name).map_or(Value::Optional(None), Value::some))
        }
        Value::JsonMap(..) | Value::Map(_) => match (field(value, name), optional) {
            (Some(Value::Failed(why)), _) => Err(Failure::new(&*why)),
            (Some(found), false) => Ok(found),
            (Some(found), true) => Ok(Value::some(found)),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => Err(Failure::new(format!("no such key: {name}"))),
        },
        Value::Message(message) => match (message.get(name).cloned(), optional) {
            (Some(found), false) => Ok(found),
            (Some(found), true) => Ok(Value::some(found)),
            (None, true) => Ok(Value::Optional(None)),
            (None, false) => Err(Failure::new(format!("no such field '{name}'"))),
        },
        Value::Asking(asking) => asking
            .field(name)
            .ok_or_else(|| Failure::new("no such overload")),
        _ => Err(Failure::new("no such overload")),
    }
}

fn has<'a>(value: &Value<'a>, name: &str) -> Outcome<'a> {
    match value {
        Value::Optional(inner) => Ok(Value::Bool(
            inner
                .as_ref()
                .is_some_and(|inner| field(inner, name).is_some()),
        )),
        Value::JsonMap(..) | Value::Map(_) => Ok(Value::Bool(field(value, name).is_some())),
        Value::Message(message) => Ok(Value::Bool(message.get(name).is_some())),
        _ => Err(Failure::new("no such overload")),
    }
}

fn index_value<'a>(value: &Value<'a>, by: &Value<'a>, optional: bool) -> Outcome<'a> {
    let found = |found: Option<Value<'a>>, why: &dyn Fn() -> String| match (found, optional) {
        (Some(found), false) => Ok(found),
        (Some(found), true) => Ok(Value::some(found)),
        (None, true) => Ok(Value::Optional(None)),
        (None, false) => Err(Failure::new(why())),
    };
    match value {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => index_value(inner, by, true),
        Value::JsonList(..) | Value::List(_) => {
            let at = match by {
                Value::Int(at) => usize::try_from(*at).ok(),
                Value::Uint(at) => usize::try_from(*at).ok(),
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a whole number in range"
                )]
                Value::Double(at) if at.fract() == 0.0 && (0.0..1e9).contains(at) => {
                    Some(*at as usize)
                }
                Value::Double(_) => None,
                _ => return Err(Failure::new("no such overload")),
            };
            let item = at.and_then(|at| match value {
                Value::JsonList(items, decl) => items
                    .get(at)
                    .map(|item| wrap(item, crate::value::items_decl(decl))),
                Value::List(items) => items.get(at).cloned(),
                _ => None,
            });
            found(item, &|| format!("index out of bounds: {}", by.shown()))
        }
        Value::JsonMap(..) | Value::Map(_) => {
            found(value.get(by), &|| format!("no such key: {}", by.shown()))
        }
        _ => Err(Failure::new("no such overload")),
    }
}
