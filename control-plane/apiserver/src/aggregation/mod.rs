//! Groups that another API server answers for: APIServices that name a Service, as with Kubernetes' kube-aggregator.
//!
//! Who asks and whether he may is decided here; the other server is told who it is for ([`forward`]) and believes it for
//! the certificate that it is shown ([`announce`]). Whether it can be reached is looked at all the time ([`tend`]), and
//! what it has stands in discovery and schemas beside our own ([`discovery`]). APIServices of what this server answers for
//! by itself, and that come and go with definitions, are made here too ([`register`]).

mod announce;
mod backend;
mod condition;
mod discovery;
mod forward;
mod register;
mod routes;
mod tend;
mod told;

pub(crate) use announce::announce;
pub(crate) use discovery::{Remote, group_versions, index, merged, root_paths, swaggers};
pub(crate) use forward::{Passing, forward, schema};
pub(crate) use register::register;
pub(crate) use routes::{Aggregator, Route};
pub(crate) use tend::follow;

const GROUP: &str = "apiregistration.k8s.io";
const API_SERVICES: &str = "apiservices";

/// Whom the other server hears of where we ask for ourselves.
const OURSELVES: &str = "system:kube-aggregator";
/// As whom schemas are read, as with kube-aggregator: as one who has no rights but everybody's.
const READER: &str = "system:aggregator";
