//! What carries requests: a connection to a server, or a call into a router of the same process.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use tower::{Service, ServiceExt};

use crate::error::BoxError;

/// Body of a request: whole.
pub type RequestBody = Full<Bytes>;

/// Body of an answer: a stream.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, BoxError>> + Send>>;

/// Carries a request to where it is answered.
pub(crate) trait Transport: Send + Sync {
    /// The request's URI holds path and query only.
    fn call(&self, request: Request<RequestBody>) -> ResponseFuture;
}

/// Calls a router of this process; no socket, no bytes copied.
pub(crate) struct InProcess<S>(pub(crate) S);

impl<S, B> Transport for InProcess<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    fn call(&self, request: Request<RequestBody>) -> ResponseFuture {
        let service = self.0.clone();
        Box::pin(async move {
            let response = service.oneshot(request).await.map_err(Into::into)?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}
