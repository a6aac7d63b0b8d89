//! `transfer`: whole zones to those who may have them (RFC 5936, RFC 1995).

use hickory_proto::rr::Name;
use hickory_proto::rr::Record;

/// A plugin with zones that can be transferred.
pub trait Source: Send + Sync {
    /// All records of the zone, the SOA first and not repeated at the end; nothing if it does not have the zone.
    fn records(&self, zone: &Name) -> Option<Vec<Record>>;
}
