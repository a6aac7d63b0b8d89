//! What a typed view of an object says of itself, so that a client can list and watch it.

/// A typed view of one resource of the API.
pub trait Kind: serde::de::DeserializeOwned + Send + 'static {
    /// API group; empty for the core group.
    const GROUP: &'static str;
    /// API version, for instance `v1`.
    const VERSION: &'static str;
    /// As in `kind:`.
    const KIND: &'static str;
    /// As in the path.
    const PLURAL: &'static str;
    /// Whether objects live in a namespace.
    const NAMESPACED: bool;
}
