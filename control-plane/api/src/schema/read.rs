//! The text form of the definitions.
//!
//! A `package` line gives the full name of the definitions below it, its short name and the API version of its kinds.
//! A definition is a line: its name and flags, a colon, its fields, separated by `; `. Or its name, ` = `, and one of
//! the shapes that are no objects with fields. The flags: `kind` is an object with apiVersion and kind of its own,
//! `metadata` the same in `meta.k8s.io/v1`, `everywhere` the same in every group version, `atomic` the map type.
//!
//! A field is `number name type`, then how it is merged. The number is the protobuf field's; where JSON shows the
//! fields of a message in its parent, both numbers with a dot between. A type is `s` text, `b` flag, `i` int32, `l`
//! int64, `d` double, `y` base64, the letters of [`reference`], or a definition's name, with its package's short name
//! where that is another; `[]` before it makes a list, `{}` a map. After the type, `!` is a required field and `*` one
//! that Go holds by pointer, so that a value as good as nothing differs from none.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::Value;

use super::{Field, Keep, ListType, Package, Reference, Role, Schema, Schemas, Shape};

/// The definitions by the full name of their package and their own. A test asserts that every line is understood.
pub(super) fn definitions(text: &'static str) -> Schemas {
    let packages: Vec<&'static str> = text.split("package ").filter(|p| !p.is_empty()).collect();
    let names: BTreeMap<&'static str, &'static str> = packages
        .iter()
        .filter_map(|package| {
            let mut words = package.lines().next()?.split(' ');
            let full = words.next()?;
            Some((words.next()?, full))
        })
        .collect();
    let mut schemas = Schemas::new();
    for package in packages {
        let mut lines = package.lines();
        let mut words = lines.next().unwrap_or("").split(' ');
        let name = words.next().unwrap_or("");
        let api_version = words.nth(1).unwrap_or("");
        let reader = Reader {
            package: Package { name, api_version },
            names: &names,
        };
        for line in lines.filter(|line| !line.is_empty()) {
            if let Some(schema) = reader.definition(line) {
                schemas.entry(name).or_default().insert(schema.name, schema);
            }
        }
    }
    schemas
}

struct Reader<'a> {
    package: Package,
    names: &'a BTreeMap<&'static str, &'static str>,
}

impl Reader<'_> {
    fn definition(&self, line: &'static str) -> Option<Schema> {
        if let Some((name, shape)) = line.split_once(" = ") {
            let shape = match shape {
                "any" => Shape::Any,
                "free" => Shape::Free,
                "quantity" => Shape::Quantity,
                "int-or-string" => Shape::IntOrString,
                "time" => Shape::Time { micro: false },
                "micro-time" => Shape::Time { micro: true },
                _ => return None,
            };
            return Some(self.schema(name, shape, Role::Part, false));
        }
        let (head, fields) = line.split_once(':')?;
        let mut words = head.split(' ');
        let name = words.next()?;
        let (mut role, mut atomic) = (Role::Part, false);
        for flag in words {
            match flag {
                "kind" => role = Role::Kind,
                "metadata" => role = Role::Metadata,
                "everywhere" => role = Role::Everywhere,
                "atomic" => atomic = true,
                _ => return None,
            }
        }
        let mut known = BTreeMap::new();
        for field in fields.split(';').map(str::trim).filter(|f| !f.is_empty()) {
            let (name, field) = self.field(field)?;
            known.insert(name, field);
        }
        let event = name == "WatchEvent";
        if role != Role::Part && !event {
            for name in ["apiVersion", "kind"] {
                known.insert(name, Field::plain(Shape::Text { bytes: false }));
            }
        }
        Some(self.schema(name, Shape::Struct(known), role, atomic))
    }

    fn schema(&self, name: &'static str, shape: Shape, role: Role, atomic: bool) -> Schema {
        Schema {
            name,
            version: self.package.name.rsplit('.').next().unwrap_or(""),
            package: self.package,
            shape,
            atomic,
            role,
            wire: OnceLock::new(),
            written: OnceLock::new(),
        }
    }

    fn field(&self, line: &'static str) -> Option<(&'static str, Field)> {
        let mut words = line.split(' ');
        let (number, name, kind) = (words.next()?, words.next()?, words.next()?);
        let bare = kind.trim_end_matches(['*', '!']);
        let mut field = Field::plain(self.shape(bare)?);
        field.keep = match kind.as_bytes().last() {
            Some(b'*') => Keep::Sent,
            Some(b'!') => Keep::Always,
            _ => Keep::Full,
        };
        field.required = field.keep == Keep::Always;
        for (slot, number) in field.number.iter_mut().zip(number.split('.')) {
            *slot = number.parse().ok()?;
        }
        for word in words {
            if let Some(default) = word.strip_prefix('=') {
                // Read once and kept for as long as the process runs, as the schema is.
                field.default = Some(Box::leak(Box::new(Value::from(default))));
                continue;
            }
            let (word, inner) = match word.split_once('(') {
                Some((word, inner)) => (word, inner.strip_suffix(')')?),
                None => (word, ""),
            };
            match word {
                "map" => field.list = ListType::Map(inner.split(',').collect()),
                "set" => field.list = ListType::Set,
                "atomic" if matches!(field.shape, Shape::List(_)) => field.stated = true,
                "atomic" => field.atomic = true,
                "granular" => {}
                "replace" => field.replace = true,
                "retain" => field.retain_keys = true,
                "merge" => {
                    field.merge = true;
                    field.merge_key = (!inner.is_empty()).then_some(inner);
                }
                _ => return None,
            }
        }
        Some((name, field))
    }

    fn shape(&self, kind: &'static str) -> Option<Shape> {
        if let Some(items) = kind.strip_prefix("[]") {
            return Some(Shape::List(Box::new(self.shape(items)?)));
        }
        if let Some(values) = kind.strip_prefix("{}") {
            return Some(Shape::Map(Box::new(self.shape(values)?)));
        }
        Some(match kind {
            "s" => Shape::Text { bytes: false },
            "y" => Shape::Text { bytes: true },
            "b" => Shape::Flag,
            "i" => Shape::Integer { bits: 32 },
            "l" => Shape::Integer { bits: 64 },
            "d" => Shape::Number,
            _ => Shape::Ref(self.reference(kind)?),
        })
    }

    fn reference(&self, kind: &'static str) -> Option<Reference> {
        let (package, name) = match (kind, kind.rsplit_once('.')) {
            ("t", _) => ("meta.v1", "Time"),
            ("u", _) => ("meta.v1", "MicroTime"),
            ("f", _) => ("meta.v1", "FieldsV1"),
            ("q", _) => ("resource", "Quantity"),
            ("p", _) => ("intstr", "IntOrString"),
            ("r", _) => ("runtime", "RawExtension"),
            ("j", _) => ("apiextensions.v1", "JSON"),
            ("ja", _) => ("apiextensions.v1", "JSONSchemaPropsOrArray"),
            ("jb", _) => ("apiextensions.v1", "JSONSchemaPropsOrBool"),
            ("js", _) => ("apiextensions.v1", "JSONSchemaPropsOrStringArray"),
            (_, Some((package, name))) => (package, name),
            (_, None) => return Some(Reference::new(self.package.name, kind)),
        };
        Some(Reference::new(self.names.get(package).copied()?, name))
    }
}
