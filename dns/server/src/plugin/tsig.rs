//! `tsig`: signed queries and answers (RFC 8945).

use hickory_proto::rr::Name;

/// The key that signed a query, once its signature was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The key's name.
    pub key: Name,
}
