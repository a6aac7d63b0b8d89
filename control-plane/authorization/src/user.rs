//! Who asks.

use std::collections::BTreeMap;

/// Those who gave no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group of those who gave none.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of those who gave some.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";

/// What every service account's name begins with.
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const ACCOUNTS: &str = "system:serviceaccounts";

/// A user as authentication found it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct User {
    /// For instance `jane` or `system:serviceaccount:default:web`.
    pub name: String,
    /// Tells users apart that had the same name at different times; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// More about the user, by key.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of that name in these groups.
    pub fn new(name: impl Into<String>, groups: &[&str]) -> Self {
        User {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        User::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// A service account, in the groups that all of its kind are in.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        User::new(
            format!("{ACCOUNT_PREFIX}{namespace}:{name}"),
            &[ACCOUNTS, &format!("{ACCOUNTS}:{namespace}")],
        )
    }

    /// Whether the user is in the group.
    pub fn is(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// Namespace and name of the service account behind a user name.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
