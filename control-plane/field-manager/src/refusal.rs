//! Why an apply was not carried out.

use std::collections::BTreeMap;

use api::status::{Cause, Details, Status};

use crate::entries::Key;

/// Why an apply was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Others own fields that the apply would change: who, and which, as people read paths.
    Conflicts(Vec<(Owner, String)>),
    /// The request makes no sense.
    BadRequest(String),
    /// The object does not fit the schema, or its record of managers cannot be read.
    Failed(String),
}

/// A manager, as a message names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Owner(String);

impl From<&Key> for Owner {
    fn from(key: &Key) -> Self {
        Owner(key.shown())
    }
}

impl Refusal {
    /// The answer, in Kubernetes' words.
    pub fn status(&self) -> Status {
        match self {
            Refusal::Conflicts(conflicts) => {
                let causes = conflicts.iter().map(|(Owner(owner), path)| Cause {
                    reason: "FieldManagerConflict".into(),
                    message: format!("conflict with {owner}"),
                    field: path.clone(),
                });
                let details = Details {
                    causes: causes.collect(),
                    ..Details::default()
                };
                let mut status = Status::new(409, "Conflict", told(conflicts));
                status.details = Some(Box::new(details));
                status
            }
            Refusal::BadRequest(why) => Status::bad_request(why.clone()),
            Refusal::Failed(why) => Status::new(500, "", why.clone()),
        }
    }
}

fn told(conflicts: &[(Owner, String)]) -> String {
    if let [(Owner(owner), path)] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {owner}: {path}");
    }
    let mut by_owner: BTreeMap<&Owner, Vec<&str>> = BTreeMap::new();
    for (owner, path) in conflicts {
        by_owner.entry(owner).or_default().push(path);
    }
    let mut lines = Vec::new();
    for (Owner(owner), paths) in by_owner {
        lines.push(format!("conflicts with {owner}:"));
        lines.extend(paths.iter().map(|path| format!("- {path}")));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}
