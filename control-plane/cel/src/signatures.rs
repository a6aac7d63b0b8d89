//! Which functions there are, what they take and give, and what a call is estimated to cost.

use std::sync::Arc;

use crate::authorizer;
use crate::check::Known;
use crate::cost::{REGEX, Range, TEXT};
use crate::types::{CIDR, FORMAT, IP, QUANTITY, SEMVER, Type, URL};

/// Names that are types.
pub(crate) fn is_type(name: &str) -> bool {
    matches!(
        name,
        "bool"
            | "int"
            | "uint"
            | "double"
            | "string"
            | "bytes"
            | "list"
            | "map"
            | "null_type"
            | "type"
    )
}

/// What may stand before a dot without being a value.
pub(crate) fn is_namespace(name: &str) -> bool {
    matches!(
        name,
        "optional" | "sets" | "strings" | "format" | "ip" | "lists" | "math" | "cidr" | "jsonpatch"
    )
}

const NAMES: &str = " _+_ _-_ _*_ _/_ _%_ _==_ _!=_ _<_ _<=_ _>_ _>=_ @in !_ -_ size type dyn int uint double string bytes \
bool timestamp duration contains startsWith endsWith matches charAt indexOf lastIndexOf lowerAscii upperAscii replace \
split substring trim join reverse format quote isSorted sum min max find findAll isURL url getScheme getHost \
getHostname getPort getEscapedPath getQuery isQuantity quantity isInteger asInteger asApproximateFloat sign add sub \
isGreaterThan isLessThan compareTo isIP ip isCIDR cidr containsIP containsCIDR family isCanonical isUnspecified \
isLoopback isLinkLocalMulticast isLinkLocalUnicast isGlobalUnicast masked prefixLength isSemver semver major minor \
patch validate named hasValue value or orValue first last distinct flatten slice sort getFullYear getMonth getDate \
getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes getSeconds getMilliseconds range path group resource subresource \
namespace name check allowed reason errored error serviceAccount fieldSelector labelSelector escapeKey ";

/// Whether a function of that name exists with any arguments.
pub(crate) fn is_function(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    NAMES.contains(&format!(" {last} "))
}

/// The result of a call; `None` where no overload takes the arguments.
pub(crate) fn call(target: Option<&Known>, name: &str, args: &[Known]) -> Option<Known> {
    let spent = args
        .iter()
        .chain(target)
        .fold(Range::fixed(0), |sum, known| sum.plus(known.cost));
    let call = Call {
        target,
        args,
        spent,
    };
    if let Some(target) = target
        && args.iter().all(|arg| arg.of.agrees(&Type::String))
        && let Some((of, cost)) = authorizer::signature(&target.of, name, args.len())
    {
        return call.costs(of, cost);
    }
    let operator = call.operator(name);
    operator
        .or_else(|| call.conversion(name))
        .or_else(|| call.text(name))
        .or_else(|| call.list(name))
        .or_else(|| call.kubernetes(name))
        .or_else(|| call.optional(name))
        .or_else(|| call.time(name))
}

struct Call<'a> {
    target: Option<&'a Known>,
    args: &'a [Known],
    /// What the target and the arguments cost.
    spent: Range,
}

const OPAQUE: [&str; 6] = [URL, QUANTITY, IP, CIDR, SEMVER, FORMAT];

impl Call<'_> {
    /// Whether it is `target.name(args)` with these types.
    fn member(&self, target: &Type, args: &[Type]) -> bool {
        self.target.is_some_and(|met| met.of.agrees(target)) && self.takes(args)
    }

    /// Whether it is `name(args)` with these types.
    fn global(&self, args: &[Type]) -> bool {
        self.target.is_none() && self.takes(args)
    }

    fn takes(&self, args: &[Type]) -> bool {
        self.args.len() == args.len()
            && self
                .args
                .iter()
                .zip(args)
                .all(|(met, wanted)| met.of.agrees(wanted))
    }

    fn size(&self, index: usize) -> Range {
        self.args
            .get(index)
            .map_or(Range::UNKNOWN, Known::size_or_unknown)
    }

    fn target_size(&self) -> Range {
        self.target.map_or(Range::UNKNOWN, Known::size_or_unknown)
    }

    /// At a cost of one.
    fn gives(&self, of: Type) -> Option<Known> {
        self.costs(of, Range::ONE)
    }

    fn costs(&self, of: Type, cost: Range) -> Option<Known> {
        let size = of.is_scalar().then_some(Range::ONE);
        Some(Known::new(of, size, self.spent.plus(cost)))
    }

    fn sized(&self, of: Type, size: Range, cost: Range) -> Option<Known> {
        Some(Known::new(of, Some(size), self.spent.plus(cost)))
    }

    fn operator(&self, name: &str) -> Option<Known> {
        let [a, b] = match (name, self.args) {
            ("!_", [a]) if a.of.agrees(&Type::Bool) => return self.gives(Type::Bool),
            ("-_", [a])
                if a.of.agrees(&Type::Int)
                    || a.of.agrees(&Type::Double)
                    || a.of.agrees(&Type::Duration) =>
            {
                return self.gives(a.of.clone());
            }
            (_, [a, b]) if self.target.is_none() => [a, b],
            _ => return None,
        };
        match name {
            "_==_" | "_!=_" => a.of.agrees(&b.of).then(|| self.comparison(a, b)),
            "_<_" | "_<=_" | "_>_" | "_>=_" => {
                let ordered = |of: &Type| {
                    number(of)
                        || [
                            Type::Bool,
                            Type::String,
                            Type::Bytes,
                            Type::Timestamp,
                            Type::Duration,
                        ]
                        .iter()
                        .any(|known| known.agrees(of))
                };
                let fits =
                    (ordered(&a.of) && a.of.agrees(&b.of)) || (number(&a.of) && number(&b.of));
                fits.then(|| self.ordering(a, b))
            }
            "@in" => match &b.of {
                Type::List(items) if items.agrees(&a.of) => {
                    self.costs(Type::Bool, b.size_or_unknown())
                }
                Type::Map(keys, _) if keys.agrees(&a.of) => self.gives(Type::Bool),
                Type::Dyn => self.costs(Type::Bool, b.size_or_unknown()),
                _ => None,
            },
            "_+_" => self.sum(a, b),
            "_-_" => {
                let of = match (&a.of, &b.of) {
                    (Type::Timestamp, Type::Timestamp) => Type::Duration,
                    (Type::Timestamp, Type::Duration) => Type::Timestamp,
                    (Type::Duration, Type::Duration) => Type::Duration,
                    _ => return self.arithmetic(a, b),
                };
                self.gives(of)
            }
            "_*_" | "_/_" => self.arithmetic(a, b),
            "_%_" if !matches!(a.of, Type::Double) && !matches!(b.of, Type::Double) => {
                self.arithmetic(a, b)
            }
            _ => None,
        }
    }

    fn arithmetic(&self, a: &Known, b: &Known) -> Option<Known> {
        let fits = number(&a.of) && number(&b.of) && a.of.agrees(&b.of);
        let of = if matches!(a.of, Type::Dyn) {
            &b.of
        } else {
            &a.of
        };
        fits.then(|| self.gives(of.clone())).flatten()
    }

    fn sum(&self, a: &Known, b: &Known) -> Option<Known> {
        let of = if matches!(a.of, Type::Dyn) {
            b.of.clone()
        } else {
            a.of.clone()
        };
        let size = a.size_or_unknown().plus(b.size_or_unknown());
        match (&a.of, &b.of) {
            (Type::Timestamp, Type::Duration) | (Type::Duration, Type::Timestamp) => {
                self.gives(Type::Timestamp)
            }
            (Type::String | Type::Bytes, _) if a.of.agrees(&b.of) => {
                self.sized(of, size, size.hundredths(TEXT))
            }
            (Type::List(_), _) if a.of.agrees(&b.of) => {
                let mut known = self.sized(of, size, Range::ONE)?;
                known.decl.clone_from(&a.decl);
                Some(known)
            }
            (Type::Dyn, Type::String | Type::List(_)) => {
                self.sized(of, size, size.hundredths(TEXT))
            }
            (Type::Duration, Type::Duration) => self.gives(Type::Duration),
            _ => self.arithmetic(a, b),
        }
    }

    /// Of texts as much as comparing them for equality, of all else one.
    fn ordering(&self, a: &Known, b: &Known) -> Known {
        let is_text = |known: &Known| matches!(known.of, Type::String | Type::Bytes);
        if is_text(a) || is_text(b) {
            return self.comparison(a, b);
        }
        let mut known = self.comparison(a, b);
        let one = self.spent.plus(Range::ONE);
        let open = matches!(a.of, Type::Dyn) || matches!(b.of, Type::Dyn);
        known.cost = if open { known.cost.union(one) } else { one };
        known
    }

    fn comparison(&self, a: &Known, b: &Known) -> Known {
        if let (Type::Opaque(_), Type::Opaque(_)) = (&a.of, &b.of) {
            // Addresses, quantities and the like are small, whatever they were read from.
            return Known::new(Type::Bool, Some(Range::ONE), self.spent.plus(Range::ONE));
        }
        let smallest = a.size_or_unknown().max.min(b.size_or_unknown().max);
        let range = Range {
            min: u64::from(smallest > 0),
            max: smallest,
        };
        Known::new(
            Type::Bool,
            Some(Range::ONE),
            self.spent.plus(range.hundredths(TEXT)),
        )
    }

    fn conversion(&self, name: &str) -> Option<Known> {
        if let ("size", Some(target), []) = (name, self.target, self.args) {
            return sizeable(&target.of)
                .then(|| self.gives(Type::Int))
                .flatten();
        }
        let ([arg], None) = (self.args, self.target) else {
            return None;
        };
        let of = &arg.of;
        let any = |known: &[Type]| known.iter().any(|known| known.agrees(of));
        let text = self.size(0).hundredths(TEXT);
        match name {
            "size" if sizeable(of) => self.gives(Type::Int),
            "type" => self.gives(Type::Type),
            "dyn" => {
                let mut known = arg.clone();
                known.of = Type::Dyn;
                known.cost = known.cost.plus(Range::ONE);
                Some(known)
            }
            "int" if number(of) || any(&[Type::String, Type::Timestamp, Type::Duration]) => {
                self.gives(Type::Int)
            }
            "uint" if number(of) || any(&[Type::String]) => self.gives(Type::Uint),
            "double" if number(of) || any(&[Type::String]) => self.gives(Type::Double),
            "bool" if any(&[Type::Bool, Type::String]) => self.gives(Type::Bool),
            "string" if number(of) || any(&[Type::Bool, Type::Timestamp, Type::Duration]) => {
                self.gives(Type::String)
            }
            "string" if any(&[Type::String, Type::Bytes]) => {
                self.sized(Type::String, self.size(0), text)
            }
            "string" if opaque(of) => self.gives(Type::String),
            "bytes" if any(&[Type::String, Type::Bytes]) => {
                self.sized(Type::Bytes, self.size(0), text)
            }
            "timestamp" if any(&[Type::String, Type::Int, Type::Timestamp]) => {
                self.gives(Type::Timestamp)
            }
            "duration" if any(&[Type::String, Type::Int, Type::Duration]) => {
                self.gives(Type::Duration)
            }
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<Known> {
        use Type::{Bool, Int, String as Text};
        let whole = self.target_size();
        let through = whole.hundredths(TEXT);
        let list_of_texts = || Type::list(Text);
        let matching = || {
            let pattern = self.size(0).hundredths(REGEX);
            whole.plus(Range::ONE).hundredths(TEXT).times(pattern)
        };
        if name == "strings.quote" && self.global(&[Text]) {
            return self.sized(Text, self.size(0), self.size(0).hundredths(TEXT));
        }
        if name == "jsonpatch.escapeKey" && self.global(&[Text]) {
            let most = self.size(0).times(Range::fixed(2));
            return self.sized(Text, most, self.size(0).hundredths(TEXT));
        }
        if name == "matches" && self.global(&[Text, Text]) {
            let pattern = self.size(1).hundredths(REGEX);
            return self.costs(
                Bool,
                self.size(0)
                    .plus(Range::ONE)
                    .hundredths(TEXT)
                    .times(pattern),
            );
        }
        let at = |args: &[Type]| self.member(&Text, args);
        match name {
            "contains" if at(&[Text]) => {
                self.costs(Bool, through.times(self.size(0).hundredths(TEXT)))
            }
            "startsWith" | "endsWith" if at(&[Text]) => {
                self.costs(Bool, self.size(0).hundredths(TEXT))
            }
            "matches" if at(&[Text]) => self.costs(Bool, matching()),
            "charAt" if at(&[Int]) => self.sized(Text, Range::up_to(4), Range::ONE),
            "indexOf" | "lastIndexOf" if at(&[Text]) || at(&[Text, Int]) => {
                self.costs(Int, through.times(self.size(0).hundredths(TEXT)))
            }
            "lowerAscii" | "upperAscii" | "trim" if at(&[]) => {
                self.sized(Text, Range::up_to(whole.max), through)
            }
            "substring" if at(&[Int]) || at(&[Int, Int]) => {
                self.sized(Text, Range::up_to(whole.max), through)
            }
            "replace" if at(&[Text, Text]) || at(&[Text, Text, Int]) => {
                // Each byte may become the replacement.
                let most = whole
                    .max
                    .max(whole.max.saturating_mul(self.size(1).max.max(1)));
                self.sized(Text, Range::up_to(most), through)
            }
            "split" if at(&[Text]) || at(&[Text, Int]) => {
                self.sized(list_of_texts(), Range::up_to(whole.max), through)
            }
            "join"
                if self.member(&list_of_texts(), &[]) || self.member(&list_of_texts(), &[Text]) =>
            {
                let each = self.target.map(Known::element)?.size_or_unknown();
                let mut most = whole.max.saturating_mul(each.max);
                if !self.args.is_empty() {
                    let between = whole.max.saturating_sub(1);
                    most = most.saturating_add(self.size(0).max.saturating_mul(between));
                }
                self.sized(
                    Text,
                    Range::up_to(most),
                    Range::up_to(most).hundredths(TEXT),
                )
            }
            "format" if self.target.is_some_and(|t| t.of.agrees(&Text)) && self.args.len() == 1 => {
                matches!(self.args[0].of, Type::List(_) | Type::Dyn).then(|| {
                    let size = whole.plus(Range::up_to(4096));
                    self.sized(Text, size, through)
                })?
            }
            "find" if at(&[Text]) => self.sized(Text, Range::up_to(whole.max), matching()),
            "findAll" if at(&[Text]) || at(&[Text, Int]) => {
                self.sized(list_of_texts(), Range::up_to(whole.max), matching())
            }
            _ => None,
        }
    }

    fn list(&self, name: &str) -> Option<Known> {
        if let ("sets.contains" | "sets.intersects" | "sets.equivalent", [a, b]) = (name, self.args)
        {
            let fits = matches!(
                (&a.of, &b.of),
                (Type::List(_) | Type::Dyn, Type::List(_) | Type::Dyn)
            );
            return fits.then(|| self.costs(Type::Bool, self.size(0).times(self.size(1))))?;
        }
        if name == "lists.range" && self.global(&[Type::Int]) {
            return self.gives(Type::list(Type::Int));
        }
        let target = self.target?;
        let items = match &target.of {
            Type::List(items) => (**items).clone(),
            Type::Dyn => Type::Dyn,
            _ => return None,
        };
        let count = target.size_or_unknown();
        let element = target.element();
        let each = match element.of {
            Type::String | Type::Bytes => {
                let size = element.size_or_unknown().hundredths(TEXT);
                Range {
                    min: size.min.max(1),
                    max: size.max.max(1),
                }
            }
            _ => Range::ONE,
        };
        let walk = count.times(each);
        match (name, self.args) {
            ("isSorted", []) => self.costs(Type::Bool, walk),
            ("sum", []) if number(&items) || items.agrees(&Type::Duration) => {
                self.costs(items, walk)
            }
            ("min" | "max", []) => {
                let mut known = self.costs(items, walk)?;
                known.size = element.size;
                Some(known)
            }
            ("indexOf" | "lastIndexOf", [arg]) if items.agrees(&arg.of) => {
                self.costs(Type::Int, walk)
            }
            ("distinct", []) => self.sized(
                target.of.clone(),
                Range::up_to(count.max),
                walk.times(count),
            ),
            ("sort" | "reverse", []) => {
                self.sized(target.of.clone(), count, walk.times(Range::fixed(2)))
            }
            ("slice", [from, to]) if from.of.agrees(&Type::Int) && to.of.agrees(&Type::Int) => {
                self.sized(target.of.clone(), Range::up_to(count.max), count)
            }
            ("flatten", []) => {
                let of = match &items {
                    Type::List(_) => items.clone(),
                    _ => target.of.clone(),
                };
                self.costs(of, count)
            }
            ("flatten", [depth]) if depth.of.agrees(&Type::Int) => {
                self.costs(Type::list(Type::Dyn), count)
            }
            ("first" | "last", []) => self.gives(Type::optional(items)),
            _ => None,
        }
    }

    fn kubernetes(&self, name: &str) -> Option<Known> {
        use Type::{Bool, Int, String as Text};
        let parse = || self.size(0).hundredths(TEXT);
        if let (None, [arg]) = (self.target, self.args)
            && arg.of.agrees(&Text)
        {
            let found = match name {
                "isURL" | "isQuantity" | "isIP" | "isCIDR" | "isSemver" | "ip.isCanonical" => {
                    Some(Bool)
                }
                "url" => Some(Type::Opaque(URL)),
                "quantity" => Some(Type::Opaque(QUANTITY)),
                "ip" => Some(Type::Opaque(IP)),
                "cidr" => Some(Type::Opaque(CIDR)),
                "semver" => Some(Type::Opaque(SEMVER)),
                "format.named" => Some(Type::optional(Type::Opaque(FORMAT))),
                _ => None,
            };
            if let Some(of) = found {
                // Kubernetes counts how long the text is for URLs alone.
                let cost = if name == "url" { parse() } else { Range::ONE };
                return self.costs(of, cost);
            }
        }
        if matches!(name, "isSemver" | "semver") && self.global(&[Text, Bool]) {
            let of = if name == "semver" {
                Type::Opaque(SEMVER)
            } else {
                Bool
            };
            return self.costs(of, parse());
        }
        if let ([], None) = (self.args, self.target) {
            // format.dns1123Label() and the like.
            let known = name
                .strip_prefix("format.")
                .is_some_and(|name| crate::formats::find(name).is_some());
            return known.then(|| self.gives(Type::Opaque(FORMAT)))?;
        }
        let opaque = |known| Type::Opaque(known);
        let at = |known, args: &[Type]| self.member(&opaque(known), args);
        let either = |known: &'static str| at(known, &[opaque(known)]);
        match name {
            "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath"
                if at(URL, &[]) =>
            {
                self.gives(Text)
            }
            "getQuery" if at(URL, &[]) => {
                let values = Arc::new(Type::list(Text));
                self.gives(Type::Map(Arc::new(Text), values))
            }
            "isInteger" if at(QUANTITY, &[]) => self.gives(Bool),
            "asInteger" | "sign" if at(QUANTITY, &[]) => self.gives(Int),
            "asApproximateFloat" if at(QUANTITY, &[]) => self.gives(Type::Double),
            "add" | "sub" if either(QUANTITY) || at(QUANTITY, &[Int]) => {
                self.gives(opaque(QUANTITY))
            }
            "isGreaterThan" | "isLessThan" if either(QUANTITY) || either(SEMVER) => {
                self.gives(Bool)
            }
            "compareTo" if either(QUANTITY) || either(SEMVER) => self.gives(Int),
            "major" | "minor" | "patch" if at(SEMVER, &[]) => self.gives(Int),
            "family" if at(IP, &[]) => self.gives(Int),
            "isUnspecified"
            | "isLoopback"
            | "isLinkLocalMulticast"
            | "isLinkLocalUnicast"
            | "isGlobalUnicast"
                if at(IP, &[]) =>
            {
                self.gives(Bool)
            }
            "containsIP" if at(CIDR, &[opaque(IP)]) || at(CIDR, &[Text]) => self.gives(Bool),
            "containsCIDR" if at(CIDR, &[opaque(CIDR)]) || at(CIDR, &[Text]) => self.gives(Bool),
            "ip" if at(CIDR, &[]) => self.gives(opaque(IP)),
            "masked" if at(CIDR, &[]) => self.gives(opaque(CIDR)),
            "prefixLength" if at(CIDR, &[]) => self.gives(Int),
            "validate" if at(FORMAT, &[Text]) => {
                self.costs(Type::optional(Type::list(Text)), parse())
            }
            _ => None,
        }
    }

    fn optional(&self, name: &str) -> Option<Known> {
        match (name, self.target, self.args) {
            ("optional.of" | "optional.ofNonZeroValue", None, [arg]) => {
                self.gives(Type::optional(arg.of.clone()))
            }
            ("optional.none", None, []) => self.gives(Type::optional(Type::Dyn)),
            (_, Some(target), args) => {
                let inner = match &target.of {
                    Type::Optional(inner) => (**inner).clone(),
                    Type::Dyn => Type::Dyn,
                    _ => return None,
                };
                let keep = |known: Option<Known>| {
                    known.map(|mut known| {
                        known.decl.clone_from(&target.decl);
                        known.size = target.size;
                        known
                    })
                };
                match (name, args) {
                    ("hasValue", []) => self.gives(Type::Bool),
                    ("value", []) => keep(self.gives(inner)),
                    ("orValue", [other]) if inner.agrees(&other.of) => {
                        let of = if matches!(inner, Type::Dyn) {
                            other.of.clone()
                        } else {
                            inner
                        };
                        keep(self.gives(of))
                    }
                    ("or", [other]) if target.of.agrees(&other.of) => {
                        keep(self.gives(target.of.clone()))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn time(&self, name: &str) -> Option<Known> {
        let parts = [
            "getFullYear",
            "getMonth",
            "getDate",
            "getDayOfMonth",
            "getDayOfWeek",
            "getDayOfYear",
            "getHours",
            "getMinutes",
            "getSeconds",
            "getMilliseconds",
        ];
        let at = |of: &Type, args: &[Type]| self.member(of, args);
        let span = matches!(
            name,
            "getHours" | "getMinutes" | "getSeconds" | "getMilliseconds"
        );
        let fits = at(&Type::Timestamp, &[])
            || at(&Type::Timestamp, &[Type::String])
            || (span && at(&Type::Duration, &[]));
        (parts.contains(&name) && fits)
            .then(|| self.gives(Type::Int))
            .flatten()
    }
}

fn number(of: &Type) -> bool {
    matches!(of, Type::Int | Type::Uint | Type::Double | Type::Dyn)
}

fn sizeable(of: &Type) -> bool {
    matches!(
        of,
        Type::String | Type::Bytes | Type::List(_) | Type::Map(..) | Type::Dyn
    )
}

fn opaque(of: &Type) -> bool {
    matches!(of, Type::Opaque(name) if OPAQUE.contains(name))
}
