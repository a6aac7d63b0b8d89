//! Types of expressions, and declarations of the values that a schema describes.

use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Clone, Debug)]
pub enum Type {
    /// Anything; checked when evaluated.
    Dyn,
    /// Of `null`.
    Null,
    /// Truth values.
    Bool,
    /// 64 bits, signed.
    Int,
    /// 64 bits, unsigned.
    Uint,
    /// 64 bits, floating.
    Double,
    /// Text.
    String,
    /// Octets.
    Bytes,
    /// A moment.
    Timestamp,
    /// A span of time.
    Duration,
    /// Of types themselves.
    Type,
    /// A list of one type.
    List(Arc<Type>),
    /// A map.
    Map(Arc<Type>, Arc<Type>),
    /// An object with declared fields.
    Object(Arc<Decl>),
    /// A message of that name.
    Message(Arc<str>),
    /// A value or none.
    Optional(Arc<Type>),
    /// One of Kubernetes' own: `url`, `quantity`, `ip` and so on, by the name that refusals show.
    Opaque(&'static str),
}

/// `kubernetes.URL`.
pub const URL: &str = "kubernetes.URL";
/// `kubernetes.Quantity`.
pub const QUANTITY: &str = "kubernetes.Quantity";
/// `net.IP`.
pub const IP: &str = "net.IP";
/// `net.CIDR`.
pub const CIDR: &str = "net.CIDR";
/// `kubernetes.Semver`.
pub const SEMVER: &str = "kubernetes.Semver";
/// `kubernetes.NamedFormat`.
pub const FORMAT: &str = "kubernetes.NamedFormat";

impl Type {
    /// A list of the type.
    pub fn list(items: Type) -> Self {
        Type::List(Arc::new(items))
    }

    /// A value of the type or none.
    pub fn optional(value: Type) -> Self {
        Type::Optional(Arc::new(value))
    }

    /// Whether a value of one can stand for the other.
    pub fn agrees(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (
                Type::Null,
                Type::Object(_)
                | Type::Message(_)
                | Type::Optional(_)
                | Type::Opaque(_)
                | Type::Timestamp
                | Type::Duration,
            )
            | (
                Type::Object(_)
                | Type::Message(_)
                | Type::Optional(_)
                | Type::Opaque(_)
                | Type::Timestamp
                | Type::Duration,
                Type::Null,
            ) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.agrees(b),
            (Type::Map(a, b), Type::Map(c, d)) => a.agrees(c) && b.agrees(d),
            (Type::Object(a), Type::Object(b)) => Arc::ptr_eq(a, b) || a.name() == b.name(),
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            (Type::Message(a), Type::Message(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
        }
    }

    /// Whether it is one value of bounded size.
    pub(crate) fn is_scalar(&self) -> bool {
        matches!(
            self,
            Type::Null
                | Type::Bool
                | Type::Int
                | Type::Uint
                | Type::Double
                | Type::Timestamp
                | Type::Duration
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::Type => f.write_str("type"),
            Type::List(items) => write!(f, "list({items})"),
            Type::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Type::Object(decl) => f.write_str(decl.name()),
            Type::Message(name) => f.write_str(name),
            Type::Optional(value) => write!(f, "optional_type({value})"),
            Type::Opaque(name) => f.write_str(name),
        }
    }
}

/// What a schema says of a value.
#[derive(Debug)]
pub struct Decl {
    /// What it is.
    pub kind: DeclKind,
    /// The most bytes of a text, items of a list or entries of a map; of other kinds it says nothing.
    pub max: u64,
}

/// The kinds of declared value.
#[derive(Debug)]
pub enum DeclKind {
    /// Anything.
    Dyn,
    /// A whole number or a text.
    IntOrString,
    /// Truth values.
    Bool,
    /// Whole numbers.
    Int,
    /// Numbers.
    Double,
    /// Texts.
    String,
    /// Base64 of octets.
    Bytes,
    /// RFC 3339, or a date alone.
    Timestamp,
    /// As Go writes it.
    Duration,
    /// A list.
    List {
        /// Of its items.
        items: Arc<Decl>,
        /// Which items are the same.
        list: ListKind,
    },
    /// A map with any keys.
    Map(Arc<Decl>),
    /// No part of an object: a value of that type.
    Opaque(&'static str),
    /// An object with known fields.
    Object {
        /// For refusals.
        name: Box<str>,
        /// Sorted by the name that expressions use.
        fields: Box<[FieldDecl]>,
    },
}

/// A field of an object.
#[derive(Debug)]
pub struct FieldDecl {
    /// As expressions write it.
    pub escaped: Box<str>,
    /// As it stands in the object.
    pub name: Box<str>,
    /// What it holds.
    pub decl: Arc<Decl>,
}

/// How a list compares and adds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListKind {
    /// By position.
    Atomic,
    /// Without order.
    Set,
    /// Without order, by these fields.
    Map(Box<[Box<str>]>),
}

impl Decl {
    /// Anything.
    pub fn any() -> Arc<Self> {
        Arc::new(Decl {
            kind: DeclKind::Dyn,
            max: u64::MAX,
        })
    }

    /// The type that expressions see.
    pub fn expr_type(self: &Arc<Self>) -> Type {
        match &self.kind {
            DeclKind::Dyn | DeclKind::IntOrString => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Timestamp => Type::Timestamp,
            DeclKind::Duration => Type::Duration,
            DeclKind::List { items, .. } => Type::list(items.expr_type()),
            DeclKind::Map(values) => {
                Type::Map(Arc::new(Type::String), Arc::new(values.expr_type()))
            }
            DeclKind::Opaque(name) => Type::Opaque(name),
            DeclKind::Object { .. } => Type::Object(self.clone()),
        }
    }

    /// The field that expressions call so.
    pub fn field(&self, escaped: &str) -> Option<&FieldDecl> {
        match &self.kind {
            DeclKind::Object { fields, .. } => fields
                .binary_search_by(|field| (*field.escaped).cmp(escaped))
                .ok()
                .map(|at| &fields[at]),
            _ => None,
        }
    }

    fn name(&self) -> &str {
        match &self.kind {
            DeclKind::Object { name, .. } => name,
            _ => "object",
        }
    }
}

/// The name of a field as expressions write it; `None` where they cannot.
pub fn escape(name: &str) -> Option<String> {
    const RESERVED: [&str; 22] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
        "in",
    ];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '_' if chars.peek() == Some(&'_') => {
                chars.next();
                out.push_str("__underscores__");
            }
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn names_are_escaped_as_documented() {
        let cases = [
            ("a", Some("a")),
            ("in", Some("__in__")),
            ("my-name", Some("my__dash__name")),
            ("a.b/c", Some("a__dot__b__slash__c")),
            ("a__b", Some("a__underscores__b")),
            ("_a", Some("_a")),
            ("1a", None),
            ("a b", None),
        ];
        for (name, expected) in cases {
            assert_eq!(escape(name).as_deref(), expected, "{name}");
        }
    }
}
