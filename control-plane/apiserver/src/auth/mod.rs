//! Who asks.
//!
//! In the order in which Kubernetes looks: whom a front proxy speaks for ([`front`]), the certificate of the connection
//! (common name = user, organisations = groups), static tokens, tokens of service accounts. Whoever shows none of these is anonymous; whoever shows a
//! token that nobody knows is refused. Then whom the user says he acts for ([`impersonate`]).

pub(crate) mod accounts;
pub(crate) mod certificate;
pub(crate) mod front;
pub(crate) mod impersonate;
pub(crate) mod keys;
pub(crate) mod tokens;

use std::sync::Arc;

use api::status::Status;
use authorization::{AUTHENTICATED, User};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::State;
use crate::pki::FRONT_PROXY;

/// What the certificate of a connection says, in the extensions of each of its requests.
#[derive(Clone)]
pub(crate) enum Connected {
    /// Whose it is.
    User(Arc<User>),
    /// It is the front proxy's, whose requests say for whom they are.
    Front,
    /// It is of the front proxy's authority, but another's.
    Stranger,
}

/// What a chain says that the TLS layer has verified; `None`: nothing.
pub(crate) fn connected(
    chain: &[CertificateDer<'_>],
    fronts: &dyn ClientCertVerifier,
) -> Option<Connected> {
    let (leaf, others) = chain.split_first()?;
    let user = certificate::user(leaf);
    if fronts
        .verify_client_cert(leaf, others, UnixTime::now())
        .is_ok()
    {
        return Some(match user {
            Some(user) if user.name == FRONT_PROXY => Connected::Front,
            _ => Connected::Stranger,
        });
    }
    user.map(|user| Connected::User(Arc::new(authenticated(user))))
}

/// The user behind a request. A certificate counts before a token.
pub(crate) async fn authenticate(state: &State, parts: &Parts) -> Result<Arc<User>, Status> {
    let connected = parts.extensions.get::<Connected>();
    match connected {
        Some(Connected::User(user)) => return Ok(user.clone()),
        Some(Connected::Front) => {
            if let Some(user) = front::user(&parts.headers) {
                return Ok(Arc::new(user));
            }
        }
        Some(Connected::Stranger) | None => {}
    }
    let Some(token) = token(&parts.headers) else {
        // Who shows a certificate that names nobody is not taken for one who shows none.
        if state.config.anonymous_auth && connected.is_none() {
            return Ok(state.anonymous.clone());
        }
        return Err(Status::unauthorized());
    };
    if let Some(user) = state.tokens.user(&token) {
        return Ok(user);
    }
    let audiences = state.accounts.audiences();
    match accounts::verify(state, &token, audiences).await {
        Ok(known) => Ok(Arc::new(authenticated(known.user))),
        Err(why) => {
            tracing::debug!(%why, "a token was refused");
            Err(Status::unauthorized())
        }
    }
}

/// The user, in the group of all who showed who they are.
pub(crate) fn authenticated(mut user: User) -> User {
    if !user.is(AUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
    user
}

/// The bearer token, from the header or, where a browser cannot set that, from a WebSocket's subprotocol.
fn token(headers: &HeaderMap) -> Option<String> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, rest) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = rest.split(' ').next().unwrap_or_default();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
    });
    bearer.or_else(|| {
        let protocols = headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
        let encoded = protocols.split(',').find_map(|p| {
            p.trim()
                .strip_prefix("base64url.bearer.authorization.k8s.io.")
        })?;
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn where_a_token_stands() {
        #[rustfmt::skip]
        let cases = [
            ("authorization", "Bearer abc", Some("abc")),
            ("authorization", "bEARER  abc", None),
            ("authorization", "bEARER abc ", Some("abc")),
            ("authorization", "Bearer ", None),
            ("authorization", "Basic abc", None),
            ("sec-websocket-protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj", Some("abc")),
            ("sec-websocket-protocol", "v5.channel.k8s.io", None),
        ];
        for (name, value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(token(&headers).as_deref(), expected, "{value}");
        }
    }
}
