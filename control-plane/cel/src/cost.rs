//! Cost: what evaluating is estimated to take at most, in units of about 50 ns, so that expressions that would take
//! long on some value are refused before there is one. The units and factors are those of Kubernetes.

use crate::types::{Decl, DeclKind};

/// The most that one evaluation may cost.
pub const CALL_MAX: u64 = 1_000_000;
/// The most that all rules of an object may cost together.
pub const OBJECT_MAX: u64 = 10_000_000;
/// The most that one expression may be estimated to cost, times how often it is evaluated.
pub const ESTIMATE_MAX: u64 = 10_000_000;
/// The most that all expressions of a definition may be estimated to cost.
pub const DEFINITION_MAX: u64 = 100_000_000;

/// Of a list that is made.
pub(crate) const LIST: u64 = 10;
/// Of a map that is made.
pub(crate) const MAP: u64 = 30;
/// Of a message that is made.
pub(crate) const MESSAGE: u64 = 40;

/// From, to: of sizes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Range {
    pub(crate) const ONE: Range = Range { min: 1, max: 1 };
    pub(crate) const UNKNOWN: Range = Range {
        min: 0,
        max: u64::MAX,
    };

    pub(crate) fn fixed(size: u64) -> Self {
        Range {
            min: size,
            max: size,
        }
    }

    pub(crate) fn up_to(max: u64) -> Self {
        Range { min: 0, max }
    }

    pub(crate) fn plus(self, other: Range) -> Self {
        Range {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    pub(crate) fn times(self, other: Range) -> Self {
        Range {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    pub(crate) fn union(self, other: Range) -> Self {
        Range {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }

    /// Times a factor of hundredths, rounded up.
    pub(crate) fn hundredths(self, factor: u64) -> Self {
        Range {
            min: hundredths(self.min, factor),
            max: hundredths(self.max, factor),
        }
    }
}

/// A size times a factor of hundredths, rounded up.
pub(crate) fn hundredths(size: u64, factor: u64) -> u64 {
    if size == u64::MAX {
        return u64::MAX;
    }
    let product = u128::from(size) * u128::from(factor);
    u64::try_from(product.div_ceil(100)).unwrap_or(u64::MAX)
}

/// Going through a text costs a tenth of its bytes.
pub(crate) const TEXT: u64 = 10;
/// A regular expression has about one state for four bytes.
pub(crate) const REGEX: u64 = 25;

/// How large a declared value can be; `None` for what has no size. Kubernetes' estimates know sizes only of what a schema
/// can bound: objects with known fields, truth values and numbers count as nothing.
pub(crate) fn size_of(decl: &Decl) -> Option<Range> {
    match &decl.kind {
        DeclKind::String
        | DeclKind::Bytes
        | DeclKind::List { .. }
        | DeclKind::Map(_)
        | DeclKind::Timestamp
        | DeclKind::Duration
        | DeclKind::IntOrString => Some(Range::up_to(decl.max)),
        DeclKind::Bool | DeclKind::Int | DeclKind::Double | DeclKind::Object { .. } => {
            Some(Range::fixed(0))
        }
        DeclKind::Opaque(_) => Some(Range::ONE),
        DeclKind::Dyn => None,
    }
}

/// How a refusal of an estimate reads.
pub fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a factor for people")]
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}
