//! What is wrong with one field of an object, in the words that Kubernetes' clients know.

use std::fmt;

use serde_json::Value;

/// One finding of validation: where, what kind, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// For instance `spec.ports[0].nodePort`.
    pub field: String,
    /// What kind of fault.
    pub fault: Fault,
    /// More about it; may be empty.
    pub detail: String,
}

/// The kinds of fault. Values are kept as they are shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Absent or empty.
    Required,
    /// Not a permitted value; empty where the value is not shown.
    Invalid(String),
    /// A value of another type.
    TypeInvalid(String),
    /// Not one of a closed set.
    NotSupported(String),
    /// There already; empty where the value is not shown.
    Duplicate(String),
    /// Must not be set here.
    Forbidden,
    /// More bytes than permitted.
    TooLong,
    /// More items than permitted: the number met.
    TooMany(usize),
    /// Refers to something that is absent.
    NotFound(String),
}

impl FieldError {
    /// The field must be given.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(field, Fault::Required, detail)
    }

    /// `value` is not permitted here.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: impl Into<String>) -> Self {
        Self::new(field, Fault::Invalid(value.to_string()), detail)
    }

    /// As [`FieldError::invalid`], of a field whose value is not shown.
    pub fn invalid_unshown(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(field, Fault::Invalid(String::new()), detail)
    }

    /// As [`FieldError::invalid`], for a text.
    pub fn invalid_text(field: impl Into<String>, value: &str, detail: impl Into<String>) -> Self {
        Self::new(field, Fault::Invalid(quoted(value)), detail)
    }

    /// `value` is not one of `supported`, which are shown in the order given.
    pub fn not_supported(field: impl Into<String>, value: &str, supported: &[&str]) -> Self {
        Self::not_supported_shown(field, quoted(value), supported)
    }

    /// As [`FieldError::not_supported`], with the value as it is to be shown.
    pub fn not_supported_shown(
        field: impl Into<String>,
        shown: String,
        supported: &[&str],
    ) -> Self {
        let list: Vec<String> = supported.iter().map(|s| quoted(s)).collect();
        Self::new(
            field,
            Fault::NotSupported(shown),
            format!("supported values: {}", list.join(", ")),
        )
    }

    /// The value is there already; `shown` is how it is printed.
    pub fn duplicate(field: impl Into<String>, shown: impl Into<String>) -> Self {
        Self::new(field, Fault::Duplicate(shown.into()), "")
    }

    /// The field must not be set here.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(field, Fault::Forbidden, detail)
    }

    /// The text has more than `max` bytes.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        Self::new(
            field,
            Fault::TooLong,
            format!("may not be more than {max} bytes"),
        )
    }

    /// The list has `met` items and may have `max`.
    pub fn too_many(field: impl Into<String>, met: usize, max: usize) -> Self {
        Self::new(
            field,
            Fault::TooMany(met),
            format!("must have at most {max} items"),
        )
    }

    /// What the field refers to is absent.
    pub fn not_found(field: impl Into<String>, value: &str) -> Self {
        Self::new(field, Fault::NotFound(quoted(value)), "")
    }

    /// Any kind.
    pub fn new(field: impl Into<String>, fault: Fault, detail: impl Into<String>) -> Self {
        FieldError {
            field: field.into(),
            fault,
            detail: detail.into(),
        }
    }

    /// The machine-readable reason of the cause in a Status.
    pub fn reason(&self) -> &'static str {
        match &self.fault {
            Fault::Required => "FieldValueRequired",
            Fault::Invalid(_) => "FieldValueInvalid",
            Fault::TypeInvalid(_) => "FieldValueTypeInvalid",
            Fault::NotSupported(_) => "FieldValueNotSupported",
            Fault::Duplicate(_) => "FieldValueDuplicate",
            Fault::Forbidden => "FieldValueForbidden",
            Fault::TooLong => "FieldValueTooLong",
            Fault::TooMany(_) => "FieldValueTooMany",
            Fault::NotFound(_) => "FieldValueNotFound",
        }
    }

    /// The finding without the name of the field, as causes show it.
    pub fn body(&self) -> String {
        let head = match &self.fault {
            Fault::Required => "Required value".to_owned(),
            Fault::Invalid(value) if value.is_empty() => "Invalid value".to_owned(),
            Fault::Invalid(value) | Fault::TypeInvalid(value) => format!("Invalid value: {value}"),
            Fault::NotSupported(value) => format!("Unsupported value: {value}"),
            Fault::Duplicate(value) if value.is_empty() => "Duplicate value".to_owned(),
            Fault::Duplicate(value) => format!("Duplicate value: {value}"),
            Fault::Forbidden => "Forbidden".to_owned(),
            Fault::TooLong => "Too long".to_owned(),
            Fault::TooMany(met) => format!("Too many: {met}"),
            Fault::NotFound(value) => format!("Not found: {value}"),
        };
        if self.detail.is_empty() {
            head
        } else {
            format!("{head}: {}", self.detail)
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// The text between double quotes, escaped as JSON does.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
