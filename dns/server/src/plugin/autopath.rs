//! `autopath`: follows a client's search path on its behalf.

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// Who knows the search path of a client.
pub trait SearchPath: Send + Sync {
    /// The suffixes that the client's resolver appends, first to last; nothing for a client not known.
    fn search_path(&self, client: IpAddr) -> Option<Vec<Name>>;
}
