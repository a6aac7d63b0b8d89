//! Which names a rule fits and what they become.

use hickory_proto::rr::Name;
use regex::Regex;

use crate::names;

/// A pattern over names as text, in lower case, with the dot at their end.
#[derive(Clone)]
pub(super) enum Pattern {
    Exact(String, String),
    Prefix(String, String),
    Suffix(String, String),
    Substring(String, String),
    /// The replacement holds `{1}` for the first group.
    Regex(Regex, String),
    /// A name and those below it.
    Domain(Name, Name),
}

impl Pattern {
    /// True if the name fits.
    pub(super) fn holds(&self, name: &Name) -> bool {
        if let Self::Domain(from, _) = self {
            return from.zone_of(name);
        }
        let text = names::text(&name.to_lowercase());
        match self {
            Self::Domain(..) => false,
            Self::Exact(from, _) => text == *from,
            Self::Prefix(from, _) => text.starts_with(from),
            Self::Suffix(from, _) => text.ends_with(from),
            Self::Substring(from, _) => text.contains(from),
            Self::Regex(regex, _) => regex.is_match(&text),
        }
    }

    /// What the name becomes: nothing if it does not fit, an error if the result is no name.
    pub(super) fn rewrite(&self, name: &Name) -> Option<Result<Name, ()>> {
        if let Self::Domain(from, to) = self {
            // Every name is below the root, but none is meant.
            if !from.zone_of(name) || (from.is_root() && !name.is_root()) {
                return None;
            }
            let kept = names::labels(name).saturating_sub(names::labels(from));
            let labels = name.iter().take(kept).chain(to.iter());
            let after = Name::from_labels(labels.collect::<Vec<_>>()).map_err(|_| ());
            return Some(after.map(|mut after| {
                after.set_fqdn(true);
                after
            }));
        }
        let text = names::text(&name.to_lowercase());
        let after = match self {
            Self::Domain(..) => return None,
            Self::Exact(from, to) => (text == *from).then(|| to.clone())?,
            Self::Prefix(from, to) => format!("{to}{}", text.strip_prefix(from)?),
            Self::Suffix(from, to) => format!("{}{to}", text.strip_suffix(from)?),
            Self::Substring(from, to) => {
                text.contains(from).then_some(())?;
                text.replace(from, to)
            }
            Self::Regex(regex, to) => substitute(regex, &text, to)?,
        };
        Some(names::read(&after).map_err(|_| ()))
    }
}

/// Fills the groups of a match into a replacement.
pub(super) fn substitute(regex: &Regex, text: &str, to: &str) -> Option<String> {
    let groups = regex.captures(text)?;
    let mut after = to.to_owned();
    for index in 0..groups.len() {
        let group = groups.get(index).map_or("", |group| group.as_str());
        after = after.replace(&format!("{{{index}}}"), group);
    }
    Some(after)
}
