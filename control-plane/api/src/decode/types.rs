//! Whether values have the types of their fields, in the words of Go's decoder.

use std::borrow::Cow;

use serde_json::Value;

use super::parse::Path;
use super::times;
use crate::quantity::Quantity;
use crate::schema::{Field, Keep, Schema, Shape};

/// The first value of another type than its field's, if there is one.
pub(super) fn mismatch(schema: &'static Schema, object: &Value) -> Option<String> {
    let mut walk = Walk {
        path: Vec::new(),
        owner: schema.name,
    };
    walk.value(&schema.shape, object, Some(schema))
}

/// Gives values the one spelling in which they are stored: known fields that are null are absent, as are those that
/// Kubernetes does not tell from absent ones; quantities, times and base64 are canonical; null in a map or list is the
/// zero value of its items; what Go writes in any case is there. What the schema does not know is left as it is.
pub(super) fn normalise(schema: &'static Schema, value: &mut Value) {
    normalise_shape(Some(schema), &schema.shape, value);
}

fn normalise_shape(schema: Option<&'static Schema>, shape: &Shape, value: &mut Value) {
    let (target, shape) = shape.resolve();
    let schema = target.or(schema);
    match (shape, &mut *value) {
        (Shape::Struct(fields), Value::Object(map)) => {
            map.retain(|key, value| {
                fields
                    .get(key.as_str())
                    .is_none_or(|field| !value.is_null() && !is_omitted(field, value))
            });
            for (name, nothing) in schema.map_or(&[][..], Schema::written) {
                if !map.contains_key(*name) {
                    map.insert((*name).to_owned(), nothing.clone());
                }
            }
            for (key, value) in map {
                if let Some(field) = fields.get(key.as_str()) {
                    normalise_shape(None, &field.shape, value);
                }
            }
        }
        (Shape::Map(values), Value::Object(map)) => {
            // Amounts by the names of resources are of thousandths at the finest.
            let amounts = matches!(values.resolve().1, Shape::Quantity);
            for value in map.values_mut() {
                fill_null(values, value);
                normalise_shape(None, values, value);
                if amounts
                    && let Value::String(text) = value
                    && let Ok(quantity) = Quantity::parse(text)
                    && !quantity.is_of_thousandths()
                {
                    *text = quantity.in_thousandths().to_string();
                }
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for item in list {
                fill_null(items, item);
                normalise_shape(None, items, item);
            }
        }
        (Shape::Time { micro }, Value::String(text)) => {
            if let Ok(Cow::Owned(time)) = times::canonical(text, *micro) {
                *text = time;
            }
        }
        (Shape::Text { bytes: true }, Value::String(text)) => encode_anew(text),
        (Shape::Quantity, Value::String(text)) => {
            if let Ok(quantity) = Quantity::parse(text) {
                *text = quantity.to_string();
            }
        }
        (Shape::Quantity, Value::Number(number)) => {
            if let Ok(quantity) = Quantity::parse(&number.to_string()) {
                *value = quantity.to_string().into();
            }
        }
        _ => {}
    }
}

/// Puts the zero value of Go's type in the place of null, where JSON can tell the two apart.
fn fill_null(shape: &Shape, value: &mut Value) {
    if !value.is_null() {
        return;
    }
    *value = match shape.resolve().1 {
        Shape::Text { bytes: false } => "".into(),
        Shape::Quantity => "0".into(),
        Shape::Integer { .. } => 0.into(),
        Shape::Flag => false.into(),
        Shape::Struct(_) => Value::Object(serde_json::Map::new()),
        _ => return,
    };
}

/// Whether Kubernetes leaves the field out of JSON: nothing in a field that is neither a pointer nor required.
fn is_omitted(field: &Field, value: &Value) -> bool {
    let omits = match (&field.shape, field.keep) {
        (Shape::List(_) | Shape::Map(_), Keep::Full) => true,
        (Shape::Text { .. } | Shape::Flag | Shape::Integer { .. } | Shape::Number, Keep::Full) => {
            true
        }
        _ => false,
    };
    omits && crate::value::is_empty(value)
}

/// The fields that the schema lacks. Directives of strategic merge patches are no fields.
pub(super) fn unknown_fields(schema: &Schema, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    unknown(&schema.shape, object, Path::Root, &mut found);
    found
}

/// What JSON calls the type of a value.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Puts numbers that are beyond 64 bits into a message as they stand in the document, where they were read as floating
/// ones: `1e20` for `100000000000000000000`.
pub(super) fn show_numbers(document: &[u8], message: &mut String) {
    const BEFORE: &str = "cannot unmarshal number ";
    let Some(at) = message.find(BEFORE).map(|at| at + BEFORE.len()) else {
        return;
    };
    let end = message[at..]
        .find(' ')
        .map_or(message.len(), |len| at + len);
    let (shown, Ok(value)) = (&message[at..end], message[at..end].parse::<f64>()) else {
        return;
    };
    if !shown.contains(['e', 'E']) && value.abs() < 1e15 {
        return;
    }
    let digits = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let written = document
        .split(|byte| !digits(byte))
        .filter_map(|text| std::str::from_utf8(text).ok())
        .find(|text| (16..400).contains(&text.len()) && text.parse::<f64>() == Ok(value));
    if let Some(written) = written {
        message.replace_range(at..end, written);
    }
}

/// How deeply objects and lists are nested.
pub(super) fn depth(value: &Value) -> usize {
    // A worklist, so that the measuring itself cannot run out of stack.
    let mut deepest = 0;
    let mut todo = vec![(value, 0)];
    while let Some((value, level)) = todo.pop() {
        deepest = deepest.max(level);
        match value {
            Value::Array(items) => todo.extend(items.iter().map(|i| (i, level + 1))),
            Value::Object(map) => todo.extend(map.values().map(|v| (v, level + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    deepest
}

fn unknown(shape: &Shape, value: &Value, path: Path<'_>, found: &mut Vec<String>) {
    match (shape.resolve().1, value) {
        (Shape::Struct(fields), Value::Object(map)) => {
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with('$')) {
                let path = Path::Key(&path, key);
                match fields.get(key.as_str()) {
                    Some(field) => unknown(&field.shape, value, path, found),
                    None => found.push(format!("unknown field \"{path}\"")),
                }
            }
        }
        (Shape::Map(values), Value::Object(map)) => {
            for (key, value) in map {
                unknown(values, value, Path::Key(&path, key), found);
            }
        }
        (Shape::List(items), Value::Array(list)) => {
            for (i, item) in list.iter().enumerate() {
                unknown(items, item, Path::Index(&path, i), found);
            }
        }
        _ => {}
    }
}

struct Walk<'a> {
    /// Names of the fields on the way, indices and keys of maps left out.
    path: Vec<&'a str>,
    /// The struct that holds the field at hand.
    owner: &'static str,
}

impl<'a> Walk<'a> {
    fn value(
        &mut self,
        shape: &'a Shape,
        value: &'a Value,
        schema: Option<&'static Schema>,
    ) -> Option<String> {
        let (target, resolved) = shape.resolve();
        let schema = target.or(schema);
        match (resolved, value) {
            (_, Value::Null)
            | (Shape::Any, Value::Object(_))
            | (Shape::Free, _)
            | (Shape::Ref(_), _) => None,
            (Shape::Struct(fields), Value::Object(map)) => {
                let outer = self.owner;
                for (key, value) in map {
                    if let Some(field) = fields.get(key.as_str()) {
                        self.owner = schema.map_or(outer, |s| s.name);
                        self.path.push(key);
                        let wrong = self.value(&field.shape, value, None);
                        if wrong.is_some() {
                            return wrong;
                        }
                        self.path.pop();
                    }
                }
                self.owner = outer;
                None
            }
            (Shape::Map(values), Value::Object(map)) => {
                map.values().find_map(|v| self.value(values, v, None))
            }
            (Shape::List(items), Value::Array(list)) => {
                list.iter().find_map(|v| self.value(items, v, None))
            }
            (Shape::Text { bytes: false }, Value::String(_))
            | (Shape::Flag, Value::Bool(_))
            | (Shape::Number, Value::Number(_)) => None,
            (Shape::Text { bytes: true }, Value::String(text)) => decode_base64(text).err(),
            (Shape::Integer { bits }, Value::Number(number)) => match number.as_i64() {
                Some(n) if *bits == 64 || i32::try_from(n).is_ok() => None,
                _ => Some(self.cannot(&format!("number {number}"), resolved, schema)),
            },
            (Shape::IntOrString, Value::Number(number)) => match number.as_i64().map(i32::try_from)
            {
                Some(Ok(_)) => None,
                _ => Some(format!(
                    "json: cannot unmarshal number {number} into Go value of type int32"
                )),
            },
            (Shape::IntOrString | Shape::Quantity, Value::String(text)) => {
                self.bad_quantity(resolved, text)
            }
            (Shape::Quantity, Value::Number(number)) => {
                self.bad_quantity(resolved, &number.to_string())
            }
            (Shape::Quantity, _) => self.bad_quantity(resolved, ""),
            (Shape::IntOrString, other) => Some(format!(
                "json: cannot unmarshal {} into Go value of type int32",
                kind_of(other)
            )),
            (Shape::Time { micro }, Value::String(text)) => times::canonical(text, *micro).err(),
            (Shape::Time { .. }, other) => Some(format!(
                "json: cannot unmarshal {} into Go value of type string",
                kind_of(other)
            )),
            (_, other) => Some(self.cannot(kind_of(other), resolved, schema)),
        }
    }

    fn bad_quantity(&self, shape: &Shape, text: &str) -> Option<String> {
        match shape {
            Shape::Quantity => Quantity::parse(text).err().map(|why| why.to_string()),
            _ => None,
        }
    }

    fn cannot(&self, what: &str, shape: &Shape, schema: Option<&'static Schema>) -> String {
        let wanted = match self.path.last().and_then(|field| named(self.owner, field)) {
            Some(name) if matches!(shape, Shape::Text { .. }) => name.to_owned(),
            _ => go_type(shape, schema),
        };
        if self.path.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {wanted}");
        }
        format!(
            "json: cannot unmarshal {what} into Go struct field {}.{} of type {wanted}",
            self.owner,
            self.path.join(".")
        )
    }
}

/// Base64 as Go decodes it: line breaks are skipped, and bits that stand for nothing at the end are let be.
fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    const STANDARD: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let plain: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(&plain).map_err(|why| {
        let place = match why {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                plain.len() / 4 * 4
            }
        };
        format!("illegal base64 data at input byte {place}")
    })
}

/// Gives base64 the spelling of an encoder. Only line breaks and the last four letters can be spelled otherwise.
fn encode_anew(text: &mut String) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let tail = &text.as_bytes()[text.len().saturating_sub(4)..];
    if (text.contains(['\r', '\n']) || STANDARD.decode(tail).is_err())
        && let Ok(bytes) = decode_base64(text)
    {
        *text = STANDARD.encode(bytes);
    }
}

fn go_type(shape: &Shape, schema: Option<&'static Schema>) -> String {
    match shape {
        Shape::Struct(_) | Shape::Any | Shape::Free => match schema {
            Some(schema) => format!("{}.{}", schema.version, schema.name),
            None => "map[string]interface {}".to_owned(),
        },
        Shape::Ref(reference) => {
            let name = reference.name();
            let mut parts = name.rsplit('.');
            let (name, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
            match name {
                "Quantity" => "resource.Quantity".to_owned(),
                _ => format!("{version}.{name}"),
            }
        }
        Shape::Map(values) => format!("map[string]{}", go_type(values, None)),
        Shape::List(items) => format!("[]{}", go_type(items, None)),
        Shape::Text { bytes: false } => "string".to_owned(),
        Shape::Text { bytes: true } => "[]uint8".to_owned(),
        Shape::Integer { bits } => format!("int{bits}"),
        Shape::Number => "float64".to_owned(),
        Shape::Flag => "bool".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::Time { micro: false } => "v1.Time".to_owned(),
        Shape::Time { micro: true } => "v1.MicroTime".to_owned(),
    }
}

/// Texts that have a type of their own in Go.
fn named(owner: &str, field: &str) -> Option<&'static str> {
    Some(match (owner, field) {
        ("ServiceSpec", "type") => "v1.ServiceType",
        ("ServiceSpec", "sessionAffinity") => "v1.ServiceAffinity",
        ("ServiceSpec", "externalTrafficPolicy") => "v1.ServiceExternalTrafficPolicy",
        ("ServiceSpec", "internalTrafficPolicy") => "v1.ServiceInternalTrafficPolicy",
        ("ServiceSpec", "ipFamilyPolicy") => "v1.IPFamilyPolicy",
        ("ServicePort" | "ContainerPort" | "EndpointPort", "protocol") => "v1.Protocol",
        ("PodSpec", "restartPolicy") => "v1.RestartPolicy",
        ("PodSpec", "dnsPolicy") => "v1.DNSPolicy",
        ("Container", "imagePullPolicy") => "v1.PullPolicy",
        ("Container", "terminationMessagePolicy") => "v1.TerminationMessagePolicy",
        ("PodStatus", "phase") => "v1.PodPhase",
        ("NamespaceStatus", "phase") => "v1.NamespacePhase",
        ("EndpointSlice", "addressType") => "v1.AddressType",
        ("HTTPIngressPath", "pathType") => "v1.PathType",
        ("Secret", "type") => "v1.SecretType",
        ("ObjectMeta" | "OwnerReference", "uid") => "types.UID",
        _ => return None,
    })
}
