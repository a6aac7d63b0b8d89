//! List, watch and write against an API server, over HTTPS or wired straight into a router.
//!
//! [`Client`] sends requests, [`Client::watch`] follows a resource for ever, [`Client::apply`] sends a manifest's
//! documents. Nothing here knows any particular kind: objects are `serde_json::Value` or a view of the caller's.
#![forbid(unsafe_code)]

mod apply;
mod backoff;
mod error;
mod head;
mod https;
mod kubeconfig;
mod lines;
mod login;
mod page;
mod path;
mod request;
mod tls;
mod transport;
mod watch;

pub use apply::{Applied, Location, Resources, documents};
pub use backoff::Backoff;
pub use error::{BoxError, Error, Status, StatusCause, StatusDetails};
pub use kubeconfig::KubeconfigError;
pub use page::{Finding, ListParams, Page};
pub use path::{Path, Resource};
pub use request::{Client, Observer, PatchKind};
pub use tls::{Anyone, system_roots};
pub use transport::RequestBody;
pub use view::Event;
pub use watch::{Params, Watch};
