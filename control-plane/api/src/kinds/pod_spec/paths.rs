//! Paths of files within volumes, and the modes of files.

use serde_json::Value;

use super::findings::{Findings, Path};
use crate::value::at;

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// No element is `..`.
pub(super) fn no_backsteps(found: &mut Findings, path: &Path<'_>, given: &str) {
    if has_backsteps(given) {
        found.invalid_text(path, given, "must not contain '..'");
    }
}

pub(super) fn has_backsteps(given: &str) -> bool {
    given.split('/').any(|part| part == "..")
}

/// Below the directory that it is taken from.
pub(super) fn descending(found: &mut Findings, path: &Path<'_>, given: &str) {
    if given.starts_with('/') {
        found.invalid_text(path, given, "must be a relative path");
    }
    no_backsteps(found, path, given);
}

/// As [`descending`], and not among the names that volumes keep for themselves.
pub(super) fn local(found: &mut Findings, path: &Path<'_>, given: &str) {
    descending(found, path, given);
    if given.starts_with("..") && !given.starts_with("../") {
        found.invalid_text(path, given, "must not start with '..'");
    }
}

/// The mode of files at `key` of `value`.
pub(super) fn mode(found: &mut Findings, path: &Path<'_>, value: &Value, key: &str) {
    let mode = at(value, &[key]);
    if mode.as_i64().is_some_and(|m| !(0..=0o777).contains(&m)) {
        found.invalid(&path.child(key), mode, FILE_MODE);
    }
}
