//! Paths into an object as refusals show them, and numbers as Go prints them.

use std::fmt;

/// Where in an object; made on the way down, shown only when something is wrong.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The object itself.
    Root,
    /// A field.
    Field(&'a Path<'a>, &'a str),
    /// A key of a map, shown as a field by value validation.
    Key(&'a Path<'a>, &'a str),
    /// An item.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) | Path::Key(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) | Path::Key(parent, name) => write!(f, "{parent}.{name}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Path<'_> {
    /// As findings that are no value validations show it: keys of maps in brackets.
    pub fn bracketed(&self) -> String {
        match self {
            Path::Root => String::new(),
            Path::Field(Path::Root, name) => (*name).to_owned(),
            Path::Field(parent, name) => format!("{}.{name}", parent.bracketed()),
            Path::Key(parent, name) => format!("{}[{name}]", parent.bracketed()),
            Path::Index(parent, index) => format!("{}[{index}]", parent.bracketed()),
        }
    }
}

/// A number as Go's `%v` prints it: the shortest digits, with an exponent from the seventh digit before the point.
pub fn number(number: f64) -> String {
    if number == 0.0 {
        return "0".into();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
