//! A server over the store in memory, asked within the process.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod extension;
pub(crate) mod hook;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{App, Config};
use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use http::{HeaderMap, Request};
use serde_json::Value;
use storage::Storage;
use storage::memory::Memory;
use tower::ServiceExt as _;

pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| {
            panic!("{e}: {} {}", self.code, String::from_utf8_lossy(&self.body))
        })
    }

    /// The object, after asserting that the answer is a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.code),
            "{} {}",
            self.code,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// The message, after asserting the code of the refusal.
    #[track_caller]
    pub(crate) fn refused(&self, code: u16) -> String {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self.json()["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

pub(crate) fn config(dir: &std::path::Path) -> Config {
    Config {
        bind_address: [127, 0, 0, 1].into(),
        port: 0,
        // Nobody makes accounts here; the tests of admission switch it on.
        disable_admission_plugins: vec!["ServiceAccount".into()],
        ..Config::new(dir)
    }
}

impl Server {
    pub(crate) async fn new() -> Self {
        Self::with(Arc::new(Memory::new()), |_| {}).await
    }

    pub(crate) async fn with(storage: Arc<dyn Storage>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        change(&mut config);
        let app = apiserver::build(config, storage.clone()).await.unwrap();
        Server { app, storage, dir }
    }

    pub(crate) async fn raw(&self, request: Request<Body>) -> http::Response<Body> {
        self.app.router().oneshot(request).await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header(
                "authorization",
                format!("Bearer {}", self.app.admin_token()),
            );
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.raw(request.body(body.into()).unwrap()).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX)
            .await
            .unwrap()
            .to_vec();
        Reply {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.send("GET", path, &[("accept", accept)], Body::empty())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(
            "PUT",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    /// `kind`: `json`, `merge` or `strategic-merge`.
    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let content_type = format!("application/{kind}-patch+json");
        self.send(
            "PATCH",
            path,
            &[("content-type", &content_type)],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], Body::empty()).await
    }

    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.watch_as(path, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Watch {
        let request = Request::builder()
            .uri(path)
            .header("accept", accept)
            .header(
                "authorization",
                format!("Bearer {}", self.app.admin_token()),
            )
            .body(Body::empty())
            .unwrap();
        let response = self.raw(request).await;
        assert_eq!(response.status(), 200, "{path}");
        Watch {
            body: response.into_body().into_data_stream(),
            unread: Vec::new(),
        }
    }
}

/// A watch being read.
pub(crate) struct Watch {
    body: BodyDataStream,
    unread: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end of the stream. Fails where neither comes in ten seconds.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.next_within(Duration::from_secs(10)).await
    }

    pub(crate) async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(patience, self.body.next()).await;
            match chunk.expect("an event or the end in time") {
                Some(chunk) => self.unread.extend_from_slice(&chunk.unwrap()),
                None => return None,
            }
        }
    }

    /// `TYPE name` of the next event.
    pub(crate) async fn line(&mut self) -> String {
        match self.next().await {
            None => "end".into(),
            Some(event) => {
                let name = event["object"]["metadata"]["name"]
                    .as_str()
                    .unwrap_or_default();
                format!("{} {name}", event["type"].as_str().unwrap_or_default())
                    .trim_end()
                    .to_owned()
            }
        }
    }
}
