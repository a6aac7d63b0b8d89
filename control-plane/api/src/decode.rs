//! From the bytes of a request to an object: which kind it is, which fields nobody knows or are there twice, which
//! values have another type than the field. Messages are those of Kubernetes' decoder.

mod custom;
mod parse;
mod surrogates;
mod syntax;
mod times;
mod types;
mod yaml;

pub use custom::{bad_metadata, prune_metadata};
pub use types::kind_of;

use serde_json::Value;

use crate::schema::{self, Schema};
use crate::status::Status;
use crate::table::{self, Resource};
use crate::value::{set, text};

/// What to do about fields that nobody knows, or that are there twice.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum FieldValidation {
    /// Nothing.
    Ignore,
    /// Warn the client.
    #[default]
    Warn,
    /// Refuse.
    Strict,
}

impl FieldValidation {
    /// The query parameter `fieldValidation`; `None` for a value that is not known.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(FieldValidation::Ignore),
            "" | "Warn" => Some(FieldValidation::Warn),
            "Strict" => Some(FieldValidation::Strict),
            _ => None,
        }
    }
}

/// An object, and what the client should be warned of.
#[derive(Clone, PartialEq, Debug)]
pub struct Decoded {
    /// With `apiVersion` and `kind` filled in.
    pub object: Value,
    /// For `Warning: 299` headers, for instance `unknown field "spec.prots"`.
    pub warnings: Vec<String>,
}

/// Reads an object of `resource` from JSON.
///
/// # Errors
/// 400 in Kubernetes' words: no JSON, another kind, a value of another type, and under Strict any unknown or
/// duplicate field.
pub fn json(
    resource: &Resource,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    from_json(resource, bytes, validation, None)
}

/// `twice`: what was found already, in the text that the JSON was made of.
fn from_json(
    resource: &Resource,
    bytes: &[u8],
    validation: FieldValidation,
    twice: Option<String>,
) -> Result<Decoded, Status> {
    let schema = schema::of(resource);
    let findings = validation != FieldValidation::Ignore;
    let read = if resource.custom.is_some() && findings {
        parse::free_json(bytes)
    } else {
        parse::json(bytes, schema.filter(|_| findings))
    };
    let (object, mut found) = read.map_err(|_| {
        unrecognized(
            resource,
            &format!("json parse error: {}", syntax::describe(bytes)),
            bytes,
        )
    })?;
    if !object.is_object() {
        let why = format!(
            "json parse error: json: cannot unmarshal {} into Go value of type struct {{ APIVersion string \
             \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}",
            types::kind_of(&object)
        );
        return Err(unrecognized(resource, &why, bytes));
    }
    found.splice(0..0, twice.filter(|_| findings));
    finish(resource, schema, object, found, validation).map_err(|mut refusal| {
        types::show_numbers(bytes, &mut refusal.message);
        refusal
    })
}

/// Reads an object of `resource` from YAML.
///
/// # Errors
/// As [`json`].
pub fn yaml(
    resource: &Resource,
    bytes: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let (object, twice) = yaml::read(bytes).map_err(|why| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {} ({})",
            resource.kind,
            no_yaml(&why).message,
            summary(bytes)
        ))
    })?;
    let bytes = serde_json::to_vec(&object).map_err(Status::internal)?;
    from_json(resource, &bytes, validation, twice)
}

/// Looks at an object that was made from a patch as if it had been sent.
///
/// # Errors
/// As [`json`].
pub fn check(
    resource: &Resource,
    object: Value,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let schema = schema::of(resource);
    let found = match schema.filter(|_| validation != FieldValidation::Ignore) {
        Some(schema) => types::unknown_fields(schema, &object),
        None => Vec::new(),
    };
    finish(resource, schema, object, found, validation)
}

/// Which fields of `patch`, a merge patch or strategic merge patch for `resource`, nobody knows.
pub fn unknown_in_patch(resource: &Resource, patch: &Value) -> Vec<String> {
    schema::of(resource).map_or_else(Vec::new, |schema| {
        bounded(types::unknown_fields(schema, patch))
    })
}

/// Reads JSON that is no object of the table: patches, options.
///
/// # Errors
/// 400 that says where it stops being JSON.
pub fn untyped_json(bytes: &[u8]) -> Result<Value, Status> {
    parse::json(bytes, None)
        .map(|(value, _)| value)
        .map_err(|_| {
            Status::bad_request(format!("error decoding JSON: {}", syntax::describe(bytes)))
        })
}

/// Reads a patch in JSON. With it, which keys come twice, as Kubernetes words it.
///
/// # Errors
/// As [`untyped_json`].
pub fn patch(bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    match parse::free_json(bytes) {
        Ok((patch, twice)) => Ok((patch, bounded(twice))),
        Err(_) => untyped_json(bytes).map(|patch| (patch, Vec::new())),
    }
}

/// Why the bytes are no JSON, in the words of Go's scanner. To be asked only about bytes that don't parse.
pub(crate) fn json_fault(bytes: &[u8]) -> String {
    syntax::describe(bytes)
}

/// Reads YAML that is no object of the table.
///
/// # Errors
/// 400 that says where it stops being YAML.
pub fn untyped_yaml(bytes: &[u8]) -> Result<Value, Status> {
    yaml::read(bytes)
        .map(|(value, _)| value)
        .map_err(|why| no_yaml(&why))
}

fn no_yaml(why: &str) -> Status {
    Status::bad_request(format!(
        "error decoding YAML: error converting YAML to JSON: yaml: {why}"
    ))
}

/// Reads an apply patch: YAML, or the JSON that most clients send, in which a key that comes twice counts the last time.
/// With it, which key that is, as Kubernetes words it.
///
/// # Errors
/// 400 that says where it stops being YAML.
pub fn apply_patch(bytes: &[u8]) -> Result<(Value, Option<String>), Status> {
    if bytes.trim_ascii_start().first() == Some(&b'{')
        && let Ok((value, found)) = parse::free_json(bytes)
    {
        let twice = |why: &String| {
            let key = why.rsplit(['.', '"']).find(|part| !part.is_empty());
            format!(
                "yaml: unmarshal errors:\n  line 1: key {:?} already set in map",
                key.unwrap_or("")
            )
        };
        return Ok((value, found.first().map(twice)));
    }
    yaml::read(bytes).map_err(|why| no_yaml(&why))
}

/// The deepest nesting of objects and lists accepted.
pub(crate) const DEPTH_MAX: usize = 120;

fn finish(
    resource: &Resource,
    schema: Option<&'static Schema>,
    mut object: Value,
    found: Vec<String>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if let Some(rules) = resource.rules() {
        return custom::finish(resource, &*rules, object, found, validation);
    }
    let found = bounded(found);
    let expected = resource.api_version();
    let sent = |key: &str, default: &str| match text(&object, &[key]) {
        "" => default.to_owned(),
        given => given.to_owned(),
    };
    let (version, kind) = (sent("apiVersion", &expected), sent("kind", resource.kind));
    let refuse = |why: &str| {
        let version = version.rsplit('/').next().unwrap_or(&version);
        let message = format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: {why}",
            resource.kind
        );
        Status::bad_request(message)
    };
    if version != expected || kind != resource.kind {
        return Err(refuse(&other_kind(resource, &version, &kind)));
    }
    if let Some(why) = schema.and_then(|schema| types::mismatch(schema, &object)) {
        return Err(refuse(&why));
    }
    if validation == FieldValidation::Strict && !found.is_empty() {
        return Err(refuse(&format!(
            "strict decoding error: {}",
            found.join(", ")
        )));
    }
    if let Some(schema) = schema {
        types::normalise(schema, &mut object);
    }
    set(&mut object, "apiVersion", version);
    set(&mut object, "kind", kind);
    Ok(Decoded {
        object,
        warnings: found,
    })
}

/// The most findings that a client is told of.
const FINDINGS_MAX: usize = 100;

fn bounded(mut found: Vec<String>) -> Vec<String> {
    if found.len() > FINDINGS_MAX {
        let more = found.len() - FINDINGS_MAX;
        found.truncate(FINDINGS_MAX);
        found.push(format!("and {more} more"));
    }
    found
}

fn other_kind(resource: &Resource, version: &str, kind: &str) -> String {
    let (group, short) = version.split_once('/').unwrap_or(("", version));
    if table::find_kind(group, short, kind).is_some() {
        let package = if resource.group.is_empty() {
            "core"
        } else {
            resource.group.split('.').next().unwrap_or("")
        };
        format!(
            "converting ({short}.{kind}) to ({package}.{}): unknown conversion",
            resource.kind
        )
    } else {
        format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/runtime/scheme.go:111\""
        )
    }
}

fn unrecognized(resource: &Resource, why: &str, bytes: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; {why} ({})",
        resource.kind,
        summary(bytes)
    ))
}

/// The first bytes of a body: as they are where they begin an object, else in hexadecimal.
fn summary(bytes: &[u8]) -> String {
    let (head, more) = if bytes.len() > 30 {
        (&bytes[..30], " ...")
    } else {
        (bytes, "")
    };
    match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => format!(
            "{}{more}",
            head.iter().map(|b| format!("{b:02x}")).collect::<String>()
        ),
    }
}
