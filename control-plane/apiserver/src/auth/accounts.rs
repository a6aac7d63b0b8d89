//! Tokens of service accounts: what is in them, and whether they still hold.
//!
//! A token is bound to its account and, where asked for, to a Pod, Secret or Node: it ends when one of these is gone
//! or another has taken its name.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use api::field::quoted;
use api::meta;
use api::value::{at, list, text};
use authorization::User;
use serde_json::{Value, json};

use super::certificate::CREDENTIAL_ID;
use super::keys::{self, Keys};
use crate::{Error, State, object};

/// How far clocks may differ.
const LEEWAY: i64 = 10;
/// A bound object that is on its way out is trusted for so long, as in Kubernetes: what runs in a Pod may end tidily.
const AFTER_DELETION: Duration = Duration::from_secs(60);

/// Who signs, and for whom tokens are when nobody says.
pub(crate) struct Accounts {
    pub(crate) keys: Keys,
    pub(crate) issuer: String,
    audiences: Vec<String>,
}

/// A token that holds.
pub(crate) struct Known {
    pub(crate) user: User,
    /// Those of the audiences asked about that it is for.
    pub(crate) audiences: Vec<String>,
}

/// What a token is bound to besides its account.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    /// `pod`, `secret` or `node`: the name of the claim.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Accounts {
    pub(crate) fn new(keys: Keys, issuer: String, audiences: &[String]) -> Self {
        let audiences = if audiences.is_empty() {
            vec![issuer.clone()]
        } else {
            audiences.to_vec()
        };
        Accounts {
            keys,
            issuer,
            audiences,
        }
    }

    /// What the server itself calls itself.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// A token for the account.
    pub(crate) fn issue(
        &self,
        account: &Value,
        audiences: &[String],
        bound: &[Bound],
        now: i64,
        seconds: i64,
    ) -> Result<String, Error> {
        let (namespace, name) = (meta::namespace(account), meta::name(account));
        let mut about = json!({
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": meta::uid(account)},
        });
        for bound in bound {
            about[bound.kind] = json!({"name": bound.name, "uid": bound.uid});
        }
        self.keys.sign(&json!({
            "iss": self.issuer,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "aud": audiences,
            "iat": now,
            "nbf": now,
            "exp": now.saturating_add(seconds),
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": about,
        }))
    }
}

/// Why a token is not believed.
pub(crate) enum Doubt {
    /// It is nothing that this server knows, and may be somebody else's.
    Foreign,
    /// It names this server as its issuer and does not hold; why, in the words of Kubernetes' reviews.
    Invalid(String),
}

impl Display for Doubt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Doubt::Foreign => f.write_str("invalid bearer token"),
            Doubt::Invalid(why) => write!(f, "[invalid bearer token, {why}]"),
        }
    }
}

impl From<&str> for Doubt {
    fn from(why: &str) -> Self {
        Doubt::Invalid(why.to_owned())
    }
}

/// Of a token whose account, Pod, Secret or Node is no more.
const INVALIDATED: &str = "service account token has been invalidated";

/// Whose token it is, if it is for one of `audiences` and everything that it is bound to is still there.
pub(crate) async fn verify(
    state: &State,
    token: &str,
    audiences: &[String],
) -> Result<Known, Doubt> {
    let Some(claims) = state.accounts.keys.verify(token) else {
        let issuer = keys::unverified(token).map(|mut claims| claims["iss"].take());
        return Err(match issuer {
            Some(Value::String(issuer)) if issuer == state.accounts.issuer => {
                "go-jose/go-jose: error in cryptographic primitive".into()
            }
            _ => Doubt::Foreign,
        });
    };
    if text(&claims, &["iss"]) != state.accounts.issuer {
        return Err(Doubt::Foreign);
    }
    let named: Vec<&str> = match at(&claims, &["aud"]) {
        Value::String(one) => vec![one.as_str()],
        many => list(many, &[]).iter().filter_map(Value::as_str).collect(),
    };
    let wanted: Vec<String> = audiences
        .iter()
        .filter(|audience| named.contains(&audience.as_str()))
        .cloned()
        .collect();
    if wanted.is_empty() {
        let shown = |texts: Vec<&str>| {
            let quoted: Vec<String> = texts.into_iter().map(api::field::quoted).collect();
            format!("[{}]", quoted.join(" "))
        };
        let asked = audiences.iter().map(String::as_str).collect();
        return Err(Doubt::Invalid(format!(
            "token audiences {} is invalid for the target audiences {}",
            shown(named),
            shown(asked)
        )));
    }
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let moment = |key: &str| at(&claims, &[key]).as_i64();
    if moment("exp").is_none_or(|end| now > end.saturating_add(LEEWAY)) {
        return Err("service account token has expired".into());
    }
    if moment("nbf").is_some_and(|begin| now < begin.saturating_sub(LEEWAY)) {
        return Err("service account token is not valid yet".into());
    }
    let about = at(&claims, &["kubernetes.io"]);
    let namespace = text(about, &["namespace"]);
    let account = at(about, &["serviceaccount"]);
    let name = text(account, &["name"]);
    let sub = format!("system:serviceaccount:{namespace}:{name}");
    if text(&claims, &["sub"]) != sub || name.is_empty() || namespace.is_empty() {
        return Err(
            "service account name or namespace is missing or does not match the subject".into(),
        );
    }
    still_there(state, "serviceaccounts", namespace, account, now).await?;
    let mut user = User {
        uid: text(account, &["uid"]).to_owned(),
        ..User::service_account(namespace, name)
    };
    let mut tell = |key: &str, value: &str| {
        user.extra.insert(
            format!("authentication.kubernetes.io/{key}"),
            vec![value.to_owned()],
        );
    };
    for (claim, plural) in [("pod", "pods"), ("secret", "secrets"), ("node", "nodes")] {
        let bound = at(about, &[claim]);
        if bound.is_null() {
            continue;
        }
        let within = if claim == "node" { "" } else { namespace };
        // A node beside a pod is told of; the pod is what the token is bound to.
        if claim != "node" || at(about, &["pod"]).is_null() {
            still_there(state, plural, within, bound, now).await?;
        }
        if claim != "secret" {
            tell(&format!("{claim}-name"), text(bound, &["name"]));
            tell(&format!("{claim}-uid"), text(bound, &["uid"]));
        }
    }
    let id = text(&claims, &["jti"]);
    if !id.is_empty() {
        user.extra
            .insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    Ok(Known {
        user,
        audiences: wanted,
    })
}

/// Whether the object that the claim names is there and is the same one.
async fn still_there(
    state: &State,
    plural: &str,
    namespace: &str,
    claim: &Value,
    now: i64,
) -> Result<(), Doubt> {
    let (name, uid) = (text(claim, &["name"]), text(claim, &["uid"]));
    let account = plural == "serviceaccounts";
    let gone = || match account {
        true => Doubt::Invalid(format!("serviceaccounts {} not found", quoted(name))),
        false => INVALIDATED.into(),
    };
    if name.contains('/') || namespace.contains('/') {
        return Err(gone());
    }
    let row = api::table::find("", "v1", plural).ok_or_else(gone)?;
    let entry = state.storage.get(&row.key(namespace, name)).await;
    let entry = entry.map_err(|error| Doubt::Invalid(error.to_string()))?;
    let found = object::decode(row, &entry.ok_or_else(gone)?);
    let deleted = text(&found, &["metadata", "deletionTimestamp"]);
    let deleted =
        time::OffsetDateTime::parse(deleted, &time::format_description::well_known::Rfc3339).ok();
    #[expect(clippy::cast_possible_wrap, reason = "a minute")]
    let ended = deleted.is_some_and(|time| {
        now > time
            .unix_timestamp()
            .saturating_add(AFTER_DELETION.as_secs() as i64)
    });
    if ended && account {
        let why = format!("service account {namespace}/{name} has been deleted");
        return Err(Doubt::Invalid(why));
    }
    if ended {
        return Err(gone());
    }
    let met = meta::uid(&found);
    if met == uid {
        return Ok(());
    }
    let word = plural.trim_end_matches('s');
    Err(Doubt::Invalid(match account {
        true => format!("service account UID ({met}) does not match claim ({uid})"),
        false => {
            format!("{word} UID ({met}) does not match service account {word} ref claim ({uid})")
        }
    }))
}
