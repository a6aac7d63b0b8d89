//! Versions of the specification, and what each has.

use serde_json::{Value, json};

/// A version that is spoken here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Version {
    /// Lists of plugins and prevResult.
    V0_3_0,
    /// The same with words mended.
    V0_3_1,
    /// CHECK.
    V0_4_0,
    /// Addresses without a family of their own.
    V1_0_0,
    /// GC, STATUS, and the MTU of interfaces.
    V1_1_0,
}

impl Version {
    /// Every version, oldest first, with its name.
    pub(crate) const ALL: [(Version, &'static str); 5] = [
        (Version::V0_3_0, "0.3.0"),
        (Version::V0_3_1, "0.3.1"),
        (Version::V0_4_0, "0.4.0"),
        (Version::V1_0_0, "1.0.0"),
        (Version::V1_1_0, "1.1.0"),
    ];

    /// The one of that name.
    #[must_use]
    pub(crate) fn named(name: &str) -> Option<Version> {
        let found = Version::ALL.iter().find(|(_, its)| *its == name);
        found.map(|(version, _)| *version)
    }

    /// The answer to VERSION.
    #[must_use]
    pub(crate) fn answer(asked: &str) -> Value {
        let newest = Version::ALL[Version::ALL.len() - 1].1;
        let names: Vec<&str> = Version::ALL.iter().map(|(_, name)| *name).collect();
        let asked = if asked.is_empty() { newest } else { asked };
        json!({"cniVersion": asked, "supportedVersions": names})
    }
}
