//! Tokens into an expression. Depth and size are bounded, whatever the source.

use std::sync::Arc;

use crate::ast::{Expr, Fold, Kind, Literal, Macro};
use crate::lex::{Fault, Token, TokenKind, tokens};

/// The longest source, in bytes.
const SOURCE_MAX: usize = 100_000;
/// The deepest tree.
const DEPTH_MAX: usize = 96;

/// Reads an expression.
///
/// # Errors
/// The first fault of syntax.
pub(crate) fn parse(source: &str) -> Result<Expr, Fault> {
    if source.len() > SOURCE_MAX {
        return Err(Fault::new(
            0,
            format!(
                "expression code point size exceeds limit: size: {}, limit {SOURCE_MAX}",
                source.len()
            ),
        ));
    }
    let mut parser = Parser {
        tokens: tokens(source)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.expr()?;
    match &parser.peek().kind {
        TokenKind::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

const RELATIONS: [(&str, &str); 7] = [
    ("==", "_==_"),
    ("!=", "_!=_"),
    ("<=", "_<=_"),
    (">=", "_>=_"),
    ("<", "_<_"),
    (">", "_>_"),
    ("in", "@in"),
];
const SUMS: [(&str, &str); 2] = [("+", "_+_"), ("-", "_-_")];
const PRODUCTS: [(&str, &str); 3] = [("*", "_*_"), ("/", "_/_"), ("%", "_%_")];

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn at(&self) -> usize {
        self.peek().at
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = matches!(&self.peek().kind, TokenKind::Symbol(met) if *met == symbol);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{symbol}'")))
        }
    }

    fn unexpected(&self, wanted: &str) -> Fault {
        let met = match &self.peek().kind {
            TokenKind::End => "<EOF>".to_owned(),
            TokenKind::Symbol(symbol) => (*symbol).to_owned(),
            TokenKind::Ident(name) => name.to_string(),
            TokenKind::Literal(_) => "literal".to_owned(),
        };
        Fault::new(
            self.at(),
            format!("Syntax error: mismatched input '{met}' expecting {wanted}"),
        )
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Fault::new(
                self.at(),
                format!("expression recursion limit exceeded: {DEPTH_MAX}"),
            ));
        }
        Ok(())
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        self.deeper()?;
        let depth = self.depth;
        let condition = self.logic(false)?;
        let at = self.at();
        let result = if self.take("?") {
            let yes = self.logic(false)?;
            self.expect(":")?;
            let no = self.expr()?;
            Expr {
                kind: Kind::Conditional(Box::new([condition, yes, no])),
                at,
            }
        } else {
            condition
        };
        self.depth = depth - 1;
        Ok(result)
    }

    fn logic(&mut self, and: bool) -> Result<Expr, Fault> {
        let mut terms = Vec::new();
        let first_at;
        loop {
            terms.push(if and {
                self.binary(0)?
            } else {
                self.logic(true)?
            });
            if !self.take(if and { "&&" } else { "||" }) {
                first_at = terms[0].at;
                break;
            }
        }
        if terms.len() == 1 {
            return terms.pop().ok_or_else(|| self.unexpected("an expression"));
        }
        Ok(Expr {
            kind: Kind::Logic { and, terms },
            at: first_at,
        })
    }

    /// Relations, then sums, then products: each level binds tighter.
    fn binary(&mut self, level: usize) -> Result<Expr, Fault> {
        let operators: &[(&str, &str)] = match level {
            0 => &RELATIONS,
            1 => &SUMS,
            2 => &PRODUCTS,
            _ => return self.unary(),
        };
        let depth = self.depth;
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.at();
            let Some((_, function)) = operators.iter().find(|(symbol, _)| self.take(symbol)) else {
                self.depth = depth;
                return Ok(left);
            };
            // A chain of operators is a tree that leans to the left.
            self.deeper()?;
            let right = self.binary(level + 1)?;
            left = call(at, None, function, vec![left, right]);
        }
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        for (symbol, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0_usize;
            while self.take(symbol) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if symbol == "-"
                && let TokenKind::Literal(literal @ (Literal::Int(_) | Literal::Double(_))) =
                    self.peek().kind.clone()
            {
                let negated = match literal {
                    Literal::Int(i64::MIN) => Literal::Int(i64::MIN),
                    Literal::Int(value) => Literal::Int(-value),
                    Literal::Double(value) => Literal::Double(-value),
                    other => other,
                };
                let token = self.next.min(self.tokens.len() - 1);
                self.tokens[token].kind = TokenKind::Literal(negated);
                count -= 1;
            }
            let operand = self.member()?;
            return Ok(if count.is_multiple_of(2) {
                operand
            } else {
                call(at, None, function, vec![operand])
            });
        }
        if let TokenKind::Literal(Literal::Int(i64::MIN)) = self.peek().kind {
            return Err(Fault::new(at, "invalid int literal: 9223372036854775808"));
        }
        self.member()
    }

    fn member(&mut self) -> Result<Expr, Fault> {
        let depth = self.depth;
        let mut operand = self.primary()?;
        loop {
            let at = self.at();
            let optional = if self.take(".?") {
                true
            } else if self.take(".") {
                false
            } else if self.take("[?") {
                operand = self.index(operand, at, true)?;
                continue;
            } else if self.take("[") {
                operand = self.index(operand, at, false)?;
                continue;
            } else if let Some(of) = self.opens_message(&operand) {
                operand = self.message(at, of)?;
                continue;
            } else {
                self.depth = depth;
                return Ok(operand);
            };
            self.deeper()?;
            let name = self.name()?;
            if !optional && self.take("(") {
                let args = self.args(")")?;
                operand = member_call(at, operand, &name, args)?;
            } else {
                operand = Expr {
                    kind: Kind::Select {
                        operand: Box::new(operand),
                        field: name,
                        optional,
                    },
                    at,
                };
            }
        }
    }

    /// The name of a type, where a brace follows one.
    fn opens_message(&self, operand: &Expr) -> Option<Arc<str>> {
        let braces = matches!(&self.peek().kind, TokenKind::Symbol("{" | "{?"));
        braces.then(|| type_name(operand)).flatten()
    }

    fn message(&mut self, at: usize, of: Arc<str>) -> Result<Expr, Fault> {
        self.deeper()?;
        let mut optional = !self.take("{") && self.take("{?");
        let mut fields = Vec::new();
        while optional || !self.take("}") {
            optional |= self.take("?");
            let name = self.name()?;
            self.expect(":")?;
            fields.push((name, self.expr()?, optional));
            optional = false;
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr {
            kind: Kind::Message { of, fields },
            at,
        })
    }

    fn index(&mut self, operand: Expr, at: usize, optional: bool) -> Result<Expr, Fault> {
        self.deeper()?;
        let index = self.expr()?;
        self.expect("]")?;
        Ok(Expr {
            kind: Kind::Index {
                operand: Box::new(operand),
                index: Box::new(index),
                optional,
            },
            at,
        })
    }

    fn name(&mut self) -> Result<Arc<str>, Fault> {
        if let TokenKind::Ident(name) = self.peek().kind.clone() {
            self.next += 1;
            return Ok(name);
        }
        if self.take("in") {
            return Ok("in".into());
        }
        Err(self.unexpected("IDENTIFIER"))
    }

    fn args(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        if self.take(close) {
            return Ok(args);
        }
        loop {
            args.push(self.expr()?);
            if self.take(close) {
                return Ok(args);
            }
            self.expect(",")?;
        }
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        match self.peek().kind.clone() {
            TokenKind::Literal(literal) => {
                self.next += 1;
                Ok(Expr {
                    kind: Kind::Literal(literal),
                    at,
                })
            }
            TokenKind::Ident(name) => {
                self.next += 1;
                if self.take("(") {
                    let args = self.args(")")?;
                    return global_call(at, &name, args);
                }
                Ok(Expr {
                    kind: Kind::Ident(name),
                    at,
                })
            }
            TokenKind::Symbol("(") => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("[") => {
                self.next += 1;
                self.list(at, false)
            }
            TokenKind::Symbol("[?") => {
                self.next += 1;
                self.list(at, true)
            }
            TokenKind::Symbol("{") => {
                self.next += 1;
                self.map(at, false)
            }
            TokenKind::Symbol("{?") => {
                self.next += 1;
                self.map(at, true)
            }
            TokenKind::Symbol(".") => {
                self.next += 1;
                self.primary()
            }
            TokenKind::Symbol(_) | TokenKind::End => Err(self.unexpected(
                "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
            )),
        }
    }

    fn list(&mut self, at: usize, mut optional: bool) -> Result<Expr, Fault> {
        let mut items = Vec::new();
        while optional || !self.take("]") {
            optional |= self.take("?");
            items.push((self.expr()?, optional));
            optional = false;
            if !self.take(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr {
            kind: Kind::List(items),
            at,
        })
    }

    fn map(&mut self, at: usize, mut optional: bool) -> Result<Expr, Fault> {
        let mut entries = Vec::new();
        while optional || !self.take("}") {
            optional |= self.take("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            optional = false;
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr {
            kind: Kind::Map(entries),
            at,
        })
    }
}

/// `a.b.c` as one name; `None`: it is no name.
fn type_name(expr: &Expr) -> Option<Arc<str>> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select {
            operand,
            field,
            optional: false,
        } => Some(format!("{}.{field}", type_name(operand)?).into()),
        _ => None,
    }
}

fn call(at: usize, target: Option<Expr>, function: &str, args: Vec<Expr>) -> Expr {
    Expr {
        kind: Kind::Call {
            target: target.map(Box::new),
            function: function.into(),
            args,
        },
        at,
    }
}

fn global_call(at: usize, name: &str, mut args: Vec<Expr>) -> Result<Expr, Fault> {
    if name == "has" && args.len() == 1 {
        let arg = args.remove(0);
        return match arg.kind {
            Kind::Select {
                operand,
                field,
                optional: false,
            } => Ok(Expr {
                kind: Kind::Has { operand, field },
                at,
            }),
            _ => Err(Fault::new(arg.at, "invalid argument to has() macro")),
        };
    }
    Ok(call(at, None, name, args))
}

/// `target.name(args)`: a macro where the name and the number of arguments say so.
fn member_call(at: usize, target: Expr, name: &str, mut args: Vec<Expr>) -> Result<Expr, Fault> {
    let variable = |expr: &Expr| match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(Fault::new(expr.at, "argument must be a simple name")),
    };
    // The last argument is the body, a filter may stand before it.
    let fold = match (name, args.len()) {
        ("all", 2 | 3) => Some((Fold::All, args.len() - 1, false)),
        ("exists", 2 | 3) => Some((Fold::Exists, args.len() - 1, false)),
        ("exists_one" | "existsOne", 2 | 3) => Some((Fold::ExistsOne, args.len() - 1, false)),
        ("filter", 2) => Some((Fold::Filter, 1, false)),
        ("map", 2 | 3) => Some((Fold::Map, 1, args.len() == 3)),
        ("transformList", 3 | 4) => Some((Fold::TransformList, 2, args.len() == 4)),
        ("transformMap", 3 | 4) => Some((Fold::TransformMap, 2, args.len() == 4)),
        ("transformMapEntry", 3 | 4) => Some((Fold::TransformMapEntry, 2, args.len() == 4)),
        _ => None,
    };
    let Some((fold, variables, filtered)) = fold else {
        if matches!((name, args.len()), ("optMap" | "optFlatMap", 2)) {
            let body = args.remove(1);
            return Ok(Expr {
                kind: Kind::OptMap {
                    variable: variable(&args[0])?,
                    operand: Box::new(target),
                    body: Box::new(body),
                    flat: name == "optFlatMap",
                },
                at,
            });
        }
        return Ok(call(at, Some(target), name, args));
    };
    let first = variable(&args[0])?;
    let second = if variables == 2 {
        Some(variable(&args[1])?)
    } else {
        None
    };
    let Some(body) = args.pop() else {
        return Err(Fault::new(at, "a macro without a body"));
    };
    let filter = if filtered { args.pop() } else { None };
    Ok(Expr {
        kind: Kind::Macro(Box::new(Macro {
            fold,
            range: target,
            variable: first,
            second,
            filter,
            body,
        })),
        at,
    })
}
