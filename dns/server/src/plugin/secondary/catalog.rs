//! Catalog zones (RFC 9432): zones whose records name other zones, which are then fetched from the same servers.

use std::collections::BTreeMap;

use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;

use crate::names;

/// Members of one catalog at most.
const MEMBERS_MAX: usize = 100_000;

/// A member as its catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The label that stands for it: a change means that its data are not to be kept.
    pub(super) label: Vec<u8>,
    /// The catalog that it may go to (`coo`, change of ownership).
    pub(super) heir: Option<Name>,
}

/// The members that a catalog's records name.
///
/// # Errors
///
/// When the catalog is broken (RFC 9432, 5.1): then the members before stay.
pub(super) fn members(
    catalog: &Name,
    records: &[Record],
) -> Result<BTreeMap<Name, Listed>, String> {
    let depth = names::labels(catalog);
    let mut versions = Vec::new();
    let mut pointers: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
    let mut heirs: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
    for record in records {
        let name = record.name.to_lowercase();
        let above = names::labels(&name).saturating_sub(depth);
        let labels: Vec<&[u8]> = name.iter().take(above).collect();
        match (labels.as_slice(), &record.data) {
            ([b"version"], RData::TXT(text)) => versions.push(text.to_string()),
            ([label, b"zones"], RData::PTR(member)) => {
                let member = member.0.to_lowercase();
                if pointers.insert(label.to_vec(), member).is_some() {
                    let label = String::from_utf8_lossy(label);
                    return Err(format!("{label} stands for two members"));
                }
            }
            ([b"coo", label, b"zones"], RData::PTR(heir)) => {
                heirs.insert(label.to_vec(), heir.0.to_lowercase());
            }
            // Other properties are for others.
            _ => {}
        }
    }
    match versions.as_slice() {
        [version] if version == "2" => {}
        [] => return Err("it has no version".to_owned()),
        versions => return Err(format!("its version is {}", versions.join(", "))),
    }
    if pointers.len() > MEMBERS_MAX {
        return Err(format!("it has more than {MEMBERS_MAX} members"));
    }
    let mut members = BTreeMap::new();
    for (label, member) in pointers {
        let heir = heirs.remove(&label);
        if members
            .insert(member.clone(), Listed { label, heir })
            .is_some()
        {
            return Err(format!("{member} is a member twice"));
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::file::master;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let catalog = names::parse("catalog.example").unwrap();
        let text = format!("@ 0 SOA invalid. invalid. 1 60 60 600 0\n@ 0 NS invalid.\n{text}");
        let records = master::parse(std::path::Path::new("zone"), &text, &catalog);
        let members = members(&catalog, &records.map_err(|error| error.what)?)?;
        let shown = |(name, listed): (Name, Listed)| {
            let label = String::from_utf8(listed.label).unwrap();
            match listed.heir {
                Some(heir) => format!("{name} {label} to {heir}"),
                None => format!("{name} {label}"),
            }
        };
        Ok(members.into_iter().map(shown).collect())
    }

    #[test]
    fn catalogs() {
        let table = [
            ("version 0 TXT \"2\"\n", Ok(vec![])),
            (
                "VERSION 0 TXT \"2\"\na.zones 0 PTR b.example.\nb.zones 0 PTR A.example.\ngroup.a.zones 0 TXT \"x\"\ncoo.a.zones 0 PTR other.example.\n",
                Ok(vec!["a.example. b", "b.example. a to other.example."]),
            ),
            ("a.zones 0 PTR b.example.\n", Err("it has no version")),
            ("version 0 TXT \"1\"\n", Err("its version is 1")),
            (
                "version 0 TXT \"2\"\na.zones 0 PTR b.example.\na.zones 0 PTR c.example.\n",
                Err("a stands for two members"),
            ),
            (
                "version 0 TXT \"2\"\na.zones 0 PTR b.example.\nb.zones 0 PTR B.example.\n",
                Err("b.example. is a member twice"),
            ),
        ];
        for (text, expected) in table {
            let found = read(text);
            let found = found
                .as_ref()
                .map(|list| list.iter().map(String::as_str).collect());
            assert_eq!(found.map_err(String::as_str), expected, "{text}");
        }
    }
}
