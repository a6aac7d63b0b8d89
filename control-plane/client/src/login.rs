//! Who we say we are, in the `Authorization` header.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::error::Error;
use crate::kubeconfig::Login;

/// Tokens in files are replaced long before they expire; a minute is how old client-go lets them grow.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(60);

/// Makes the header; reads a token file again when it is old or was refused.
pub(crate) enum Credentials {
    Fixed(Option<HeaderValue>),
    File {
        path: PathBuf,
        cached: Mutex<Option<(HeaderValue, Instant)>>,
    },
}

impl Credentials {
    /// `None` when the token holds what a header cannot.
    pub(crate) fn new(login: Login) -> Option<Credentials> {
        let fixed = match login {
            Login::Nothing => None,
            Login::Token(token) => Some(header(&format!("Bearer {}", token.trim()))?),
            Login::Basic { username, password } => {
                let pair = STANDARD.encode(format!("{username}:{password}"));
                Some(header(&format!("Basic {pair}"))?)
            }
            Login::TokenFile(path) => {
                return Some(Credentials::File {
                    path,
                    cached: Mutex::new(None),
                });
            }
        };
        Some(Credentials::Fixed(fixed))
    }

    /// The header to send now.
    pub(crate) fn header(&self) -> Result<Option<HeaderValue>, Error> {
        let (path, cached) = match self {
            Credentials::Fixed(header) => return Ok(header.clone()),
            Credentials::File { path, cached } => (path, cached),
        };
        let mut cached = cached
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((value, read_at)) = cached.as_ref()
            && read_at.elapsed() < TOKEN_AGE_MAX
        {
            return Ok(Some(value.clone()));
        }
        let unreadable = |source| Error::TokenFile {
            path: path.clone(),
            source,
        };
        let token = std::fs::read_to_string(path).map_err(unreadable)?;
        let value = header(&format!("Bearer {}", token.trim())).ok_or_else(|| {
            unreadable(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "it holds more than one line or is not text",
            ))
        })?;
        *cached = Some((value.clone(), Instant::now()));
        Ok(Some(value))
    }

    /// The server refused `sent`. True when there is another token to try.
    pub(crate) fn refused(&self, sent: Option<&HeaderValue>) -> bool {
        match self {
            Credentials::Fixed(_) => false,
            Credentials::File { cached, .. } => {
                *cached
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
                self.header().is_ok_and(|now| now.as_ref() != sent)
            }
        }
    }
}

fn header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
