//! An expression that was parsed and checked, ready to be evaluated.

use std::sync::Arc;

use crate::ast::{Expr, Kind};
use crate::check::{Checker, Known};
use crate::eval::{Evaluation, Failure};
use crate::lex::Fault;
use crate::parse;
use crate::types::{Decl, Type};
use crate::value::Value;

/// A checked expression.
#[derive(Debug)]
pub struct Program {
    expr: Expr,
    /// The type of its value.
    pub of: Type,
    /// What evaluating it costs at most.
    pub cost: u64,
}

impl Program {
    /// Compiles an expression over variables, each with what is known of it and whether it is wrapped into an
    /// optional. Its value must be of `wanted`: truth, text, or with [`Type::Dyn`] anything.
    ///
    /// # Errors
    /// In the words of Kubernetes: why it cannot be compiled.
    pub fn compile(
        source: &str,
        variables: &[(&str, Arc<Decl>, bool)],
        wanted: &Type,
    ) -> Result<Self, String> {
        let expr = parse::parse(source).map_err(|fault| failed(source, &[fault]))?;
        let known: Known = Checker::new(variables)
            .check(&expr)
            .map_err(|faults| failed(source, &faults))?;
        // Only an expression that is dynamic as a whole may turn out otherwise.
        let fits = matches!(
            (&known.of, wanted),
            (Type::Bool, Type::Bool) | (Type::String, Type::String) | (_, Type::Dyn)
        ) || (matches!(wanted, Type::Message(_) | Type::List(_))
            && !matches!(known.of, Type::Dyn)
            && known.of.agrees(wanted));
        if !fits {
            return Err(match wanted {
                Type::String => "messageExpression must evaluate to a string".to_owned(),
                Type::Message(_) | Type::List(_) => format!("must evaluate to {wanted}"),
                _ => "must evaluate to a bool".to_owned(),
            });
        }
        Ok(Program {
            expr,
            cost: known.cost.max,
            of: known.of,
        })
    }

    /// Whether a variable of that name is used.
    pub fn uses(&self, name: &str) -> bool {
        uses(&self.expr, name)
    }

    /// Evaluates it; also what that took.
    pub fn evaluate<'a>(
        &'a self,
        variables: Vec<(&'a str, Value<'a>)>,
        limit: u64,
    ) -> (Result<Value<'a>, Failure>, u64) {
        let mut evaluation = Evaluation::new(variables, limit);
        let outcome = evaluation.value(&self.expr);
        (outcome, evaluation.spent())
    }
}

fn failed(source: &str, faults: &[Fault]) -> String {
    let mut all = String::from("compilation failed: ");
    for (index, fault) in faults.iter().enumerate() {
        if index > 0 {
            all.push('\n');
        }
        let before = &source[..fault.at.min(source.len())];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count();
        let text = source.lines().nth(line - 1).unwrap_or_default();
        let shown: String = text.chars().take(400).collect();
        let dots = ".".repeat(column.min(400));
        all.push_str(&format!(
            "ERROR: <input>:{line}:{}: {}\n | {shown}\n | {dots}^",
            column + 1,
            fault.message
        ));
    }
    all
}

fn uses(expr: &Expr, name: &str) -> bool {
    let any = |parts: &[&Expr]| parts.iter().any(|part| uses(part, name));
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(met) => **met == *name,
        Kind::Select { operand, .. } | Kind::Has { operand, .. } => uses(operand, name),
        Kind::Index { operand, index, .. } => any(&[operand, index]),
        Kind::Call { target, args, .. } => {
            target.as_deref().is_some_and(|target| uses(target, name))
                || args.iter().any(|arg| uses(arg, name))
        }
        Kind::Logic { terms, .. } => terms.iter().any(|term| uses(term, name)),
        Kind::Conditional(parts) => parts.iter().any(|part| uses(part, name)),
        Kind::List(items) => items.iter().any(|(item, _)| uses(item, name)),
        Kind::Map(entries) => entries.iter().any(|(key, value, _)| any(&[key, value])),
        Kind::Message { fields, .. } => fields.iter().any(|(_, value, _)| uses(value, name)),
        Kind::Macro(inner) => {
            uses(&inner.range, name)
                || (*inner.variable != *name
                    && inner.second.as_deref() != Some(name)
                    && (uses(&inner.body, name)
                        || inner
                            .filter
                            .as_ref()
                            .is_some_and(|filter| uses(filter, name))))
        }
        Kind::OptMap {
            operand,
            variable,
            body,
            ..
        } => uses(operand, name) || (**variable != *name && uses(body, name)),
    }
}
