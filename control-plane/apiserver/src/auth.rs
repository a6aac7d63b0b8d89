//! Who asks, and whether they may.
//!
//! Authentication: a client certificate (common name = user, organisations = groups) or a static bearer token.
//! Authorisation of this floor: `system:masters` may do everything, everybody else may read what describes the
//! server (discovery, schema, version, health), and those without credentials may see health and version.

use std::path::Path;
use std::sync::Arc;

use api::status::Status;
use base64::Engine as _;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::request::Target;
use crate::{Error, pki};

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// Who asks. In a request's extensions it stands for the certificate of the connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

impl User {
    fn anonymous() -> Self {
        User {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        }
    }

    /// The subject of a client certificate whose chain the TLS layer has verified. `None`: it names nobody.
    pub(crate) fn from_certificate(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let name = cert
            .subject()
            .iter_common_name()
            .next()?
            .as_str()
            .ok()?
            .to_owned();
        let groups = cert
            .subject()
            .iter_organization()
            .filter_map(|o| o.as_str().ok())
            .map(str::to_owned)
            .collect();
        Some(User { name, groups })
    }

    fn is(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}

/// The static tokens: a file of lines `token,user,uid,"group1,group2"`, as kube-apiserver's `--token-auth-file`.
pub(crate) struct Tokens {
    users: Vec<(String, Arc<User>)>,
    admin: String,
}

impl Tokens {
    /// Reads the file; makes it with one token for the administrator where it is missing.
    pub(crate) fn load_or_make(path: &Path) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                pki::random(&mut secret)?;
                let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(secret);
                let text = format!("{token},fairlead-admin,fairlead-admin,\"{MASTERS}\"\n");
                pki::write_private(path, text.as_bytes())?;
                text
            }
            Err(source) => return Err(Error::io("reading the tokens in", path, source)),
        };
        let mut users = Vec::new();
        let mut admin = None;
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let (token, user) = parse_line(line).ok_or_else(|| {
                let why = format!(
                    "line {} is not `token,user,uid,\"group1,group2\"`",
                    index + 1
                );
                Error::damaged(path, &why)
            })?;
            if admin.is_none() && user.is(MASTERS) {
                admin = Some(token.to_owned());
            }
            users.push((token.to_owned(), Arc::new(user)));
        }
        let admin = admin.ok_or_else(|| {
            Error::damaged(path, &format!("no token in it is of the group {MASTERS}"))
        })?;
        Ok(Tokens { users, admin })
    }

    /// The first token of the group `system:masters`.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }
}

fn parse_line(line: &str) -> Option<(&str, User)> {
    let mut fields = line.splitn(4, ',');
    let token = fields
        .next()
        .map(str::trim)
        .filter(|token| !token.is_empty())?;
    let name = fields
        .next()
        .map(str::trim)
        .filter(|name| !name.is_empty())?;
    fields.next()?;
    let groups = fields.next().unwrap_or_default().trim().trim_matches('"');
    let groups = groups
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(str::to_owned)
        .collect();
    Some((
        token,
        User {
            name: name.into(),
            groups,
        },
    ))
}

/// Compares in a time that says nothing about where two tokens differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes()
            .zip(b.bytes())
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
}

/// The user behind a request. A certificate counts before a token, as with kube-apiserver.
pub(crate) fn authenticate(
    certificate: Option<&User>,
    headers: &HeaderMap,
    tokens: &Tokens,
) -> Result<User, Status> {
    let mut user = if let Some(user) = certificate {
        user.clone()
    } else if let Some(value) = headers.get(AUTHORIZATION) {
        let token = value
            .to_str()
            .ok()
            .and_then(bearer)
            .ok_or_else(Status::unauthorized)?;
        let known = tokens.users.iter().find(|(known, _)| same(known, token));
        known
            .map(|(_, user)| User::clone(user))
            .ok_or_else(Status::unauthorized)?
    } else {
        return Ok(User::anonymous());
    };
    user.groups.push("system:authenticated".into());
    Ok(user)
}

/// What follows `Bearer`, in any case of letters.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whether the user may do what the request asks; a refusal is worded as Kubernetes does.
pub(crate) fn authorize(user: &User, verb: &str, target: &Target<'_>) -> Result<(), Status> {
    if user.is(MASTERS) {
        return Ok(());
    }
    match target {
        Target::Path(path) => {
            let public = ["/healthz", "/livez", "/readyz", "/version"];
            let described = ["/api", "/apis", "/openapi"];
            let within = |root: &&str| {
                path == root || path.strip_prefix(*root).is_some_and(|r| r.starts_with('/'))
            };
            let allowed = public.iter().any(within)
                || (user.is("system:authenticated") && described.iter().any(within));
            if allowed && verb == "get" {
                return Ok(());
            }
            let mut status = Status::new(
                403,
                "Forbidden",
                format!(
                    "forbidden: User {:?} cannot {verb} path {path:?}",
                    user.name
                ),
            );
            status.details = Some(Box::default());
            Err(status)
        }
        Target::Resource(at) => {
            let resource = match at.subresource {
                Some(sub) => format!("{}/{sub}", at.resource),
                None => at.resource.to_owned(),
            };
            let scope = match at.namespace {
                Some(namespace) => format!("in the namespace {namespace:?}"),
                None => "at the cluster scope".to_owned(),
            };
            let subject = api::status::Subject {
                group: at.group,
                name: at.resource,
            };
            let why = format!(
                "User {:?} cannot {verb} resource {resource:?} in API group {:?} {scope}",
                user.name, at.group
            );
            Err(Status::forbidden(
                subject,
                at.name.unwrap_or_default(),
                &why,
            ))
        }
    }
}
