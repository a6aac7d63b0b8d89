//! Findings of validation, and the places that they name. A place is made into text only when something is wrong there:
//! most objects are good, and a Pod has hundreds of places.

use std::fmt;

use serde_json::Value;

use crate::field::{FieldError, quoted};
use crate::value;

/// Where a value stands within an object.
#[derive(Clone, Copy)]
pub(in crate::kinds) enum Path<'a> {
    /// The beginning, for instance `spec.template`; empty for the object itself.
    Root(&'a str),
    /// A field.
    Child(&'a Path<'a>, &'a str),
    /// An item of a list.
    Index(&'a Path<'a>, usize),
    /// An entry of a map.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(in crate::kinds) fn child(&'a self, name: &'a str) -> Path<'a> {
        Path::Child(self, name)
    }

    pub(in crate::kinds) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(in crate::kinds) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root(text) => f.write_str(text),
            Path::Child(Path::Root(""), name) => f.write_str(name),
            Path::Child(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> Self {
        path.to_string()
    }
}

/// What was found so far.
#[derive(Default)]
pub(in crate::kinds) struct Findings(Vec<FieldError>);

impl Findings {
    pub(in crate::kinds) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub(in crate::kinds) fn count(&self) -> usize {
        self.0.len()
    }

    pub(in crate::kinds) fn push(&mut self, error: FieldError) {
        self.0.push(error);
    }

    pub(in crate::kinds) fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        self.0.extend(errors);
    }

    pub(in crate::kinds) fn required(&mut self, path: &Path<'_>, why: &str) {
        self.push(FieldError::required(path, why));
    }

    /// That the text at `key` of `value` is given.
    pub(in crate::kinds) fn needs(&mut self, value: &Value, path: &Path<'_>, key: &str) -> bool {
        let given = !value::text(value, &[key]).is_empty();
        if !given {
            self.required(&path.child(key), "");
        }
        given
    }

    pub(in crate::kinds) fn invalid(
        &mut self,
        path: &Path<'_>,
        value: &Value,
        why: impl Into<String>,
    ) {
        self.push(FieldError::invalid(path, value, why));
    }

    pub(in crate::kinds) fn invalid_text(
        &mut self,
        path: &Path<'_>,
        value: &str,
        why: impl Into<String>,
    ) {
        self.push(FieldError::invalid_text(path, value, why));
    }

    /// The text at `path` was looked at and these reasons against it were found.
    pub(in crate::kinds) fn against(&mut self, path: &Path<'_>, text: &str, reasons: Vec<String>) {
        for why in reasons {
            self.invalid_text(path, text, why);
        }
    }

    pub(in crate::kinds) fn forbidden(&mut self, path: &Path<'_>, why: impl Into<String>) {
        self.push(FieldError::forbidden(path, why));
    }

    pub(in crate::kinds) fn unsupported(
        &mut self,
        path: &Path<'_>,
        value: &str,
        supported: &[&str],
    ) {
        self.push(FieldError::not_supported(path, value, supported));
    }

    /// That the text is one of `supported`; without one, it is required.
    pub(in crate::kinds) fn one_of(&mut self, path: &Path<'_>, text: &str, supported: &[&str]) {
        if text.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&text) {
            self.unsupported(path, text, supported);
        }
    }

    /// That the value, where there is one, is one of `supported`.
    pub(in crate::kinds) fn one_of_given(
        &mut self,
        path: &Path<'_>,
        value: &Value,
        supported: &[&str],
    ) {
        if let Some(text) = value.as_str()
            && !supported.contains(&text)
        {
            self.unsupported(path, text, supported);
        }
    }

    pub(in crate::kinds) fn duplicate(&mut self, path: &Path<'_>, text: &str) {
        self.push(FieldError::duplicate(path, quoted(text)));
    }

    pub(in crate::kinds) fn not_found(&mut self, path: &Path<'_>, text: &str) {
        self.push(FieldError::not_found(path, text));
    }

    pub(in crate::kinds) fn not_negative(&mut self, path: &Path<'_>, value: &Value) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// That the number, where there is one, is within the bounds, both inclusive.
    pub(in crate::kinds) fn between(
        &mut self,
        path: &Path<'_>,
        value: &Value,
        least: i64,
        most: i64,
    ) {
        if value
            .as_i64()
            .is_some_and(|number| !(least..=most).contains(&number))
        {
            let why = format!("must be between {least} and {most}, inclusive");
            self.invalid(path, value, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_clients_know_them() {
        let root = Path::Root("spec.template");
        let spec = root.child("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let limits = first.child("limits");
        assert_eq!(
            limits.key("cpu").to_string(),
            "spec.template.spec.containers[0].limits[cpu]"
        );
        assert_eq!(Path::Root("").child("spec").to_string(), "spec");
    }
}
