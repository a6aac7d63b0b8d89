//! Expressions as trees. Macros are nodes of their own rather than what they would expand to.

use std::sync::Arc;

/// An expression, and where in the source it stands.
#[derive(Clone, Debug)]
pub struct Expr {
    /// What it is.
    pub kind: Kind,
    /// Byte in the source.
    pub at: usize,
}

/// A literal.
#[derive(Clone, PartialEq, Debug)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Signed.
    Int(i64),
    /// With `u` behind it.
    Uint(u64),
    /// With a point or an exponent.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// With `b` before it.
    Bytes(Arc<[u8]>),
}

/// The kinds of expression.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A literal.
    Literal(Literal),
    /// A variable.
    Ident(Arc<str>),
    /// `operand.field`; `operand.?field` where optional.
    Select {
        /// Before the dot.
        operand: Box<Expr>,
        /// Behind it, as written.
        field: Arc<str>,
        /// Whether an absent field is no error.
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        /// Before the dot.
        operand: Box<Expr>,
        /// Behind it.
        field: Arc<str>,
    },
    /// `operand[index]`; `operand[?index]` where optional.
    Index {
        /// Before the bracket.
        operand: Box<Expr>,
        /// Within.
        index: Box<Expr>,
        /// Whether an absent item is no error.
        optional: bool,
    },
    /// `function(args)`, or `target.function(args)`. Operators are functions such as `_+_`.
    Call {
        /// Before the dot.
        target: Option<Box<Expr>>,
        /// Its name.
        function: Arc<str>,
        /// What it is given.
        args: Vec<Expr>,
    },
    /// All of the terms of `&&`, or one of the terms of `||`.
    Logic {
        /// `&&`.
        and: bool,
        /// Two at least.
        terms: Vec<Expr>,
    },
    /// `condition ? yes : no`.
    Conditional(Box<[Expr; 3]>),
    /// `[a, ?b]`: items, and whether each is optional.
    List(Vec<(Expr, bool)>),
    /// `{k: v, ?k: v}`.
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: v, ?field: v}`: a message.
    Message {
        /// Its type, with the dots in it.
        of: Arc<str>,
        /// Field, value, and whether it is optional.
        fields: Vec<(Arc<str>, Expr, bool)>,
    },
    /// A macro over a range.
    Macro(Box<Macro>),
    /// `x.optMap(v, e)` and `x.optFlatMap(v, e)`.
    OptMap {
        /// An optional.
        operand: Box<Expr>,
        /// What its value is called.
        variable: Arc<str>,
        /// What is made of it.
        body: Box<Expr>,
        /// Whether the body is an optional itself.
        flat: bool,
    },
}

/// What a macro does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fold {
    /// Whether the body holds for all.
    All,
    /// Whether it holds for one at least.
    Exists,
    /// Whether it holds for one and no more.
    ExistsOne,
    /// The items for which it holds.
    Filter,
    /// What the body makes of the items.
    Map,
    /// `transformList`: the same with two variables.
    TransformList,
    /// `transformMap`: values of a map anew.
    TransformMap,
    /// `transformMapEntry`: entries anew.
    TransformMapEntry,
}

/// A macro over a list or map.
#[derive(Clone, Debug)]
pub struct Macro {
    /// What it does.
    pub fold: Fold,
    /// What it goes over.
    pub range: Expr,
    /// Item, or key; with two variables index or key.
    pub variable: Arc<str>,
    /// Item or value, where there are two variables.
    pub second: Option<Arc<str>>,
    /// Which ones count.
    pub filter: Option<Expr>,
    /// For each of them.
    pub body: Expr,
}
