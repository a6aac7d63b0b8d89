//! Types and estimated cost of an expression, found in one walk.

use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind, Literal, Macro};
use crate::authorizer;
use crate::cost::{self, Range};
use crate::lex::Fault;
use crate::literals;
use crate::message;
use crate::signatures;
use crate::types::{Decl, DeclKind, Type};

/// What is known of an expression.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its type.
    pub of: Type,
    /// Where its value comes from a schema: what that says.
    pub decl: Option<Arc<Decl>>,
    /// How large its value can be.
    pub size: Option<Range>,
    /// What evaluating it takes.
    pub cost: Range,
}

impl Known {
    pub(crate) fn new(of: Type, size: Option<Range>, cost: Range) -> Self {
        Known {
            of,
            decl: None,
            size,
            cost,
        }
    }

    fn of_decl(decl: &Arc<Decl>, cost: Range) -> Self {
        Known {
            of: decl.expr_type(),
            size: cost::size_of(decl),
            decl: Some(decl.clone()),
            cost,
        }
    }

    /// The size, or the widest there is.
    pub(crate) fn size_or_unknown(&self) -> Range {
        match self.size {
            Some(size) => size,
            None if self.of.is_scalar() => Range::ONE,
            None => Range::UNKNOWN,
        }
    }

    /// Of an item of a list, or a value of a map.
    pub(crate) fn element(&self) -> Known {
        let below = self.decl.as_deref().and_then(|decl| match &decl.kind {
            DeclKind::List { items, .. } => Some(items),
            DeclKind::Map(values) => Some(values),
            _ => None,
        });
        if let Some(decl) = below {
            return Known::of_decl(decl, Range::ONE);
        }
        let of = match &self.of {
            Type::List(items) => (**items).clone(),
            Type::Map(_, values) => (**values).clone(),
            _ => Type::Dyn,
        };
        Known::new(of, None, Range::ONE)
    }
}

/// A walk over an expression with the variables that are in scope.
pub struct Checker {
    variables: Vec<(Arc<str>, Known)>,
    faults: Vec<Fault>,
    /// Of literals, told where there are no others.
    literals: Vec<Fault>,
}

/// The most faults that are gathered.
const FAULTS_MAX: usize = 20;

impl Checker {
    /// With the variables of the outermost scope.
    pub fn new(variables: &[(&str, Arc<Decl>, bool)]) -> Self {
        let variables = variables
            .iter()
            .map(|(name, decl, optional)| {
                let mut known = Known::of_decl(decl, Range::ONE);
                if *optional {
                    known = Known::new(Type::optional(known.of), None, Range::ONE);
                    known.decl = Some(decl.clone());
                }
                (Arc::from(*name), known)
            })
            .collect();
        Checker {
            variables,
            faults: Vec::new(),
            literals: Vec::new(),
        }
    }

    /// What is known of the expression.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn check(mut self, expr: &Expr) -> Result<Known, Vec<Fault>> {
        let known = self.expr(expr);
        let faults = if self.faults.is_empty() {
            self.literals
        } else {
            self.faults
        };
        if faults.is_empty() {
            Ok(known)
        } else {
            Err(faults)
        }
    }

    fn fault(&mut self, at: usize, message: String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault::new(at, message));
        }
    }

    fn expr(&mut self, expr: &Expr) -> Known {
        match &expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(name) => self.ident(name, expr.at),
            Kind::Select {
                operand,
                field,
                optional,
            } => self.select(operand, field, *optional, expr.at),
            Kind::Has { operand, field } => {
                let mut known = self.select(operand, field, false, expr.at);
                // Looking whether a field is there costs nothing beyond what leads to it.
                known.cost.min = known.cost.min.saturating_sub(1);
                known.cost.max = known.cost.max.saturating_sub(1);
                Known::new(Type::Bool, Some(Range::ONE), known.cost)
            }
            Kind::Index {
                operand,
                index,
                optional,
            } => self.index(operand, index, *optional, expr.at),
            Kind::Call {
                target,
                function,
                args,
            } => self.call(target.as_deref(), function, args, expr.at),
            Kind::Logic { and, terms } => {
                let mut cost = None;
                for term in terms {
                    let known = self.expr(term);
                    if !known.of.agrees(&Type::Bool) {
                        let name = if *and { "_&&_" } else { "_||_" };
                        let message = format!(
                            "found no matching overload for '{name}' applied to '(bool, {})'",
                            known.of
                        );
                        self.fault(term.at, message);
                    }
                    // The first is always evaluated, the rest perhaps.
                    cost = Some(match cost {
                        None => known.cost,
                        Some(before) => known.cost.plus(before).union(before),
                    });
                }
                Known::new(
                    Type::Bool,
                    Some(Range::ONE),
                    cost.unwrap_or(Range::fixed(0)),
                )
            }
            Kind::Conditional(parts) => self.conditional(parts, expr.at),
            Kind::List(items) => self.list(items, false),
            Kind::Map(entries) => self.map(entries),
            Kind::Message { of, fields } => self.message(of, fields, expr.at),
            Kind::Macro(inner) => self.fold(inner),
            Kind::OptMap {
                operand,
                variable,
                body,
                flat,
            } => self.opt_map(operand, variable, body, *flat),
        }
    }

    fn ident(&mut self, name: &str, at: usize) -> Known {
        if let Some((_, known)) = self
            .variables
            .iter()
            .rev()
            .find(|(known, _)| **known == *name)
        {
            return known.clone();
        }
        if signatures::is_type(name) {
            return Known::new(Type::Type, Some(Range::ONE), Range::ONE);
        }
        self.fault(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        );
        Known::new(Type::Dyn, None, Range::ONE)
    }

    fn select(&mut self, operand: &Expr, field: &str, optional: bool, at: usize) -> Known {
        let known = self.expr(operand);
        let cost = known.cost.plus(Range::ONE);
        let (of, chained) = match &known.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let mut found = match &of {
            Type::Object(decl) => match decl.field(field) {
                Some(field) => Known::of_decl(&field.decl, cost),
                None => {
                    self.fault(at, format!("undefined field '{field}'"));
                    Known::new(Type::Dyn, None, cost)
                }
            },
            Type::Map(..) => {
                let mut element = known.element();
                element.cost = cost;
                element
            }
            // What stands in a field of a message is known when it is evaluated.
            Type::Dyn | Type::Message(_) => Known::new(Type::Dyn, None, cost),
            other => {
                if let Some(of) = authorizer::field(other, field) {
                    return Known::new(of, Some(Range::ONE), cost);
                }
                self.fault(
                    at,
                    format!("type '{other}' does not support field selection"),
                );
                Known::new(Type::Dyn, None, cost)
            }
        };
        if optional || chained {
            found.of = Type::optional(found.of);
        }
        found
    }

    fn index(&mut self, operand: &Expr, index: &Expr, optional: bool, at: usize) -> Known {
        let known = self.expr(operand);
        let by = self.expr(index);
        let cost = known.cost.plus(by.cost).plus(Range::ONE);
        let (of, chained) = match &known.of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let fits = match &of {
            Type::List(_) => {
                by.of.agrees(&Type::Int) || by.of.agrees(&Type::Uint) || by.of.agrees(&Type::Double)
            }
            Type::Map(keys, _) => by.of.agrees(keys),
            Type::Dyn => true,
            _ => false,
        };
        if !fits {
            let message = format!(
                "found no matching overload for '_[_]' applied to '({}, {})'",
                known.of, by.of
            );
            self.fault(at, message);
        }
        let mut unwrapped = known;
        unwrapped.of = of;
        let mut found = unwrapped.element();
        found.cost = cost;
        if optional || chained {
            found.of = Type::optional(found.of);
        }
        found
    }

    fn call(&mut self, target: Option<&Expr>, function: &str, args: &[Expr], at: usize) -> Known {
        // A name with dots before it, such as `optional.none`, is no target.
        if let Some(Expr {
            kind: Kind::Ident(space),
            ..
        }) = target
            && !self.variables.iter().any(|(name, _)| *name == *space)
            && signatures::is_namespace(space)
        {
            let name = format!("{space}.{function}");
            return self.apply(None, &name, args, at);
        }
        let target = target.map(|target| self.expr(target));
        self.apply(target, function, args, at)
    }

    fn apply(&mut self, target: Option<Known>, function: &str, exprs: &[Expr], at: usize) -> Known {
        let args: Vec<Known> = exprs
            .iter()
            .map(|arg| match &arg.kind {
                // What is formatted is a list of anything.
                Kind::List(items) if function == "format" => self.list(items, true),
                _ => self.expr(arg),
            })
            .collect();
        if let Some(known) = signatures::call(target.as_ref(), function, &args) {
            if self.literals.len() < FAULTS_MAX {
                self.literals.extend(literals::fault(function, exprs));
            }
            return known;
        }
        let shown: Vec<String> = args.iter().map(|arg| arg.of.to_string()).collect();
        let applied = match &target {
            Some(target) => format!("{}.({})", target.of, shown.join(", ")),
            None => format!("({})", shown.join(", ")),
        };
        let message = if signatures::is_function(function) {
            format!("found no matching overload for '{function}' applied to '{applied}'")
        } else {
            format!("undeclared reference to '{function}' (in container '')")
        };
        self.fault(at, message);
        Known::new(Type::Dyn, None, Range::ONE)
    }

    fn conditional(&mut self, parts: &[Expr; 3], at: usize) -> Known {
        let [condition, yes, no] = parts.each_ref().map(|part| self.expr(part));
        if !condition.of.agrees(&Type::Bool) || !yes.of.agrees(&no.of) {
            let message = format!(
                "found no matching overload for '_?_:_' applied to '({}, {}, {})'",
                condition.of, yes.of, no.of
            );
            self.fault(at, message);
        }
        let size = match (yes.size, no.size) {
            (Some(a), Some(b)) => Some(a.union(b)),
            _ => None,
        };
        Known {
            of: if matches!(yes.of, Type::Dyn) {
                no.of
            } else {
                yes.of
            },
            decl: yes.decl.or(no.decl),
            size,
            cost: condition.cost.plus(yes.cost.union(no.cost)),
        }
    }

    /// `mixed`: items of several types are no fault.
    fn list(&mut self, items: &[(Expr, bool)], mixed: bool) -> Known {
        let mut of: Option<Type> = None;
        let mut cost = Range::fixed(cost::LIST);
        for (item, optional) in items {
            let known = self.expr(item);
            cost = cost.plus(known.cost);
            let found = match (&known.of, optional) {
                (Type::Optional(inner), true) => (**inner).clone(),
                (other, _) => other.clone(),
            };
            match &of {
                Some(of) if !of.agrees(&found) && !mixed => {
                    self.fault(item.at, format!("expected type '{of}' but found '{found}'"));
                }
                _ => {}
            }
            of.get_or_insert(if mixed { Type::Dyn } else { found });
        }
        let count = items.len() as u64;
        Known::new(
            Type::list(of.unwrap_or(Type::Dyn)),
            Some(Range::fixed(count)),
            cost,
        )
    }

    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Known {
        let mut types: Option<(Type, Type)> = None;
        let mut cost = Range::fixed(cost::MAP);
        for (key, value, optional) in entries {
            let (key_known, known) = (self.expr(key), self.expr(value));
            cost = cost.plus(key_known.cost).plus(known.cost);
            let found = match (&known.of, optional) {
                (Type::Optional(inner), true) => (**inner).clone(),
                (other, _) => other.clone(),
            };
            if let Some((keys, values)) = &types {
                for (wanted, met, at) in [(keys, &key_known.of, key.at), (values, &found, value.at)]
                {
                    if !wanted.agrees(met) {
                        let message = format!("expected type '{wanted}' but found '{met}'");
                        self.faults.push(Fault::new(at, message));
                    }
                }
            }
            types.get_or_insert((key_known.of, found));
        }
        let (keys, values) = types.unwrap_or((Type::Dyn, Type::Dyn));
        let count = entries.len() as u64;
        Known::new(
            Type::Map(Arc::new(keys), Arc::new(values)),
            Some(Range::fixed(count)),
            cost,
        )
    }

    fn message(&mut self, of: &Arc<str>, fields: &[(Arc<str>, Expr, bool)], at: usize) -> Known {
        if !message::is_type(of) {
            self.fault(
                at,
                format!("undeclared reference to '{of}' (in container '')"),
            );
        }
        let mut cost = Range::fixed(cost::MESSAGE);
        for (name, value, _) in fields {
            if !message::has_field(of, name) {
                self.fault(value.at, format!("undefined field '{name}'"));
            }
            cost = cost.plus(self.expr(value).cost);
        }
        Known::new(Type::Message(of.clone()), Some(Range::ONE), cost)
    }

    fn fold(&mut self, inner: &Macro) -> Known {
        let range = self.expr(&inner.range);
        let (first, second) = match (&range.of, inner.second.is_some()) {
            (Type::List(_), false) => (range.element(), None),
            (Type::List(_), true) => (
                Known::new(Type::Int, Some(Range::ONE), Range::ONE),
                Some(range.element()),
            ),
            (Type::Map(keys, _), two) => {
                // No schema bounds the keys of a map, and Kubernetes counts them as nothing.
                let declared = range.decl.is_some();
                let size = declared.then_some(Range::fixed(0));
                let key = Known::new((**keys).clone(), size, Range::ONE);
                (key, two.then(|| range.element()))
            }
            (Type::Dyn, two) => {
                let open = Known::new(Type::Dyn, None, Range::ONE);
                (open.clone(), two.then_some(open))
            }
            (other, _) => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(inner.range.at, message);
                let open = Known::new(Type::Dyn, None, Range::ONE);
                (open.clone(), inner.second.as_ref().map(|_| open))
            }
        };
        let depth = self.variables.len();
        self.variables.push((inner.variable.clone(), first));
        if let (Some(name), Some(known)) = (&inner.second, second) {
            self.variables.push((name.clone(), known));
        }
        let filter = inner.filter.as_ref().map(|filter| {
            let known = self.expr(filter);
            self.bool(&known, filter.at);
            known
        });
        let body = self.expr(&inner.body);
        if matches!(
            inner.fold,
            Fold::All | Fold::Exists | Fold::ExistsOne | Fold::Filter
        ) {
            self.bool(&body, inner.body.at);
        }
        self.variables.truncate(depth);
        let count = range.size_or_unknown();
        let filter_cost = filter
            .as_ref()
            .map_or(Range::fixed(0), |filter| filter.cost);
        // What the loop itself does besides the body, by what the macro expands to.
        let (around, of, size) = match inner.fold {
            // @not_strictly_false(accu) is 2, accu && body is 1 more.
            Fold::All | Fold::Exists => (Range::fixed(3), Type::Bool, Some(Range::ONE)),
            Fold::ExistsOne => (Range { min: 1, max: 4 }, Type::Bool, Some(Range::ONE)),
            Fold::Filter => {
                // body ? accu + [x] : accu
                let of = match &range.of {
                    Type::Map(keys, _) => Type::list((**keys).clone()),
                    other => other.clone(),
                };
                (Range { min: 1, max: 13 }, of, Some(Range::up_to(count.max)))
            }
            Fold::Map | Fold::TransformList => {
                let size = if inner.filter.is_some() {
                    Range::up_to(count.max)
                } else {
                    count
                };
                (Range::fixed(12), Type::list(body.of.clone()), Some(size))
            }
            Fold::TransformMap | Fold::TransformMapEntry => {
                let of = match (inner.fold, &range.of) {
                    (Fold::TransformMapEntry, _) => body.of.clone(),
                    (_, Type::Map(keys, _)) => Type::Map(keys.clone(), Arc::new(body.of.clone())),
                    _ => Type::Map(Arc::new(Type::Int), Arc::new(body.of.clone())),
                };
                (Range::fixed(32), of, Some(Range::up_to(count.max)))
            }
        };
        let before = match inner.fold {
            Fold::All | Fold::Exists => Range::ONE,
            Fold::ExistsOne => Range::fixed(2),
            Fold::Filter | Fold::Map | Fold::TransformList => Range::fixed(1 + cost::LIST),
            Fold::TransformMap | Fold::TransformMapEntry => Range::fixed(1 + cost::MAP),
        };
        let each = around.plus(filter_cost).plus(body.cost);
        let cost = range.cost.plus(before).plus(count.times(each));
        let mut known = Known::new(of, size, cost);
        if inner.fold == Fold::Filter && matches!(range.of, Type::List(_)) {
            known.decl = range.decl;
        }
        known
    }

    fn bool(&mut self, known: &Known, at: usize) {
        if !known.of.agrees(&Type::Bool) {
            self.fault(at, format!("expected type 'bool' but found '{}'", known.of));
        }
    }

    fn opt_map(&mut self, operand: &Expr, variable: &Arc<str>, body: &Expr, flat: bool) -> Known {
        let known = self.expr(operand);
        let mut inner = known.clone();
        match &known.of {
            Type::Optional(of) => inner.of = (**of).clone(),
            Type::Dyn => {}
            other => {
                let message =
                    format!("found no matching overload for 'optMap' applied to '{other}.()'");
                self.fault(operand.at, message);
            }
        }
        inner.cost = Range::ONE;
        self.variables.push((variable.clone(), inner));
        let mut made = self.expr(body);
        self.variables.pop();
        made.cost = known.cost.plus(made.cost).plus(Range::fixed(4));
        if !flat {
            made.of = Type::optional(made.of);
        }
        made
    }
}

fn of_literal(literal: &Literal) -> Known {
    let (of, size) = match literal {
        Literal::Null => (Type::Null, 1),
        Literal::Bool(_) => (Type::Bool, 1),
        Literal::Int(_) => (Type::Int, 1),
        Literal::Uint(_) => (Type::Uint, 1),
        Literal::Double(_) => (Type::Double, 1),
        Literal::String(text) => (Type::String, text.len() as u64),
        Literal::Bytes(bytes) => (Type::Bytes, bytes.len() as u64),
    };
    Known::new(of, Some(Range::fixed(size)), Range::fixed(0))
}
