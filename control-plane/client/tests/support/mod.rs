//! A server in this process that answers as a test wants it to.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use client::{BoxError, Client, RequestBody};
use futures_util::stream::{self, StreamExt};
use http::{Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use serde::Deserialize;
use serde_json::{Value, json};

pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// What to answer.
pub(crate) enum Answer {
    /// A whole body.
    Whole(u16, String),
    /// A body in pieces.
    Pieces(Vec<String>, End),
    /// No answer: the connection breaks.
    Break,
}

/// How a body in pieces ends.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// As it should.
    Close,
    /// With an error.
    Break,
    /// Not at all.
    Hang,
}

/// A client whose requests `answer` answers.
pub(crate) fn serve(
    answer: impl Fn(Request<RequestBody>) -> Answer + Send + Sync + 'static,
) -> Client {
    let answer = Arc::new(answer);
    let service = tower::service_fn(move |request: Request<RequestBody>| {
        let answer = respond(answer(request));
        async move { answer }
    });
    Client::in_process(service, "secret")
}

fn respond(answer: Answer) -> Result<Response<Body>, BoxError> {
    let (code, body) = match answer {
        Answer::Break => return Err("connection reset".into()),
        Answer::Whole(code, text) => {
            let body = Full::new(Bytes::from(text)).map_err(|error: Infallible| match error {});
            (code, body.boxed_unsync())
        }
        Answer::Pieces(pieces, end) => {
            let pieces = stream::iter(
                pieces
                    .into_iter()
                    .map(|piece| Ok(Frame::data(Bytes::from(piece)))),
            );
            let rest = match end {
                End::Close => stream::empty().boxed(),
                End::Break => stream::iter([Err(BoxError::from("connection reset"))]).boxed(),
                End::Hang => stream::pending().boxed(),
            };
            (
                200,
                BodyExt::boxed_unsync(StreamBody::new(pieces.chain(rest))),
            )
        }
    };
    Ok(Response::builder().status(code).body(body).unwrap())
}

/// A small object of the core group.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(crate) struct Thing {
    pub(crate) metadata: Meta,
    pub(crate) size: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) resource_version: String,
}

impl api::Kind for Thing {
    const GROUP: &'static str = "";
    const VERSION: &'static str = "v1";
    const KIND: &'static str = "Thing";
    const PLURAL: &'static str = "things";
    const NAMESPACED: bool = true;
}

pub(crate) fn thing(name: &str, version: u64, size: impl Into<Value>) -> Value {
    json!({
        "metadata": {"namespace": "n", "name": name, "resourceVersion": version.to_string()},
        "size": size.into(),
    })
}

pub(crate) fn page(version: u64, next: &str, items: &[Value]) -> Answer {
    let meta = json!({"resourceVersion": version.to_string(), "continue": next});
    Answer::Whole(200, json!({"metadata": meta, "items": items}).to_string())
}

pub(crate) fn status(code: u16, reason: &str) -> Answer {
    let body = json!({"kind": "Status", "code": code, "reason": reason, "message": "no"});
    Answer::Whole(code, body.to_string())
}

pub(crate) fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
