//! Tells other API servers whom to believe: ConfigMap `kube-system/extension-apiserver-authentication`, which they read
//! to know us by our certificate, and users by theirs.

use std::sync::Arc;
use std::time::Duration;

use api::value::text;
use futures_util::StreamExt as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use storage::{Range, Revision, WatchEvent};
use tokio::time::sleep;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::pki::{FRONT_PROXY, Pki};
use crate::{Error, State, namespaces, object, serving};

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// How often it is looked at although nobody changed it: authorities end, and files change.
const EVERY: Duration = Duration::from_secs(60);
/// After the store failed.
const AGAIN: Duration = Duration::from_secs(2);

/// Keeps the ConfigMap; until it is dropped.
pub(crate) async fn announce(state: Arc<State>) {
    loop {
        match keep(&state).await {
            Ok(revision) => tokio::select! {
                () = changed(&state, revision) => {}
                () = sleep(EVERY) => {}
            },
            Err(error) => {
                tracing::warn!(%error, "other API servers cannot be told whom to believe");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Makes the ConfigMap what it should be; returns the revision at which it was looked at.
async fn keep(state: &State) -> Result<Revision, Error> {
    let Some(row) = api::table::find("", "v1", "configmaps") else {
        return Ok(state.storage.revision());
    };
    let failed = |source| Error::Storage {
        doing: "telling other API servers whom to believe",
        source,
    };
    let range = Range {
        prefix: row.key(NAMESPACE, NAME),
        ..Range::default()
    };
    let page = state.storage.list(range).await.map_err(failed)?;
    let found = page.entries.iter().find(|entry| entry.key.ends_with(NAME));
    let found = found.map(|entry| object::decode(row, entry));
    let clients = serving::client_authorities(&state.config, &state.pki)?;
    let wanted = wanted(found.as_ref(), &clients, &state.pki);
    namespaces::keep(state, NAMESPACE, &wanted)
        .await
        .map_err(failed)?;
    Ok(page.revision)
}

async fn changed(state: &State, since: Revision) {
    let Some(row) = api::table::find("", "v1", "configmaps") else {
        return;
    };
    let watched = state.storage.watch(row.key(NAMESPACE, NAME), Some(since));
    match watched.await {
        Ok(mut events) => while let Some(Ok(WatchEvent::Progress(_))) = events.next().await {},
        Err(error) => tracing::debug!(%error, "a ConfigMap can't be followed"),
    }
    // Our own change comes back too; somebody who changes it all the time does not keep us at it.
    sleep(AGAIN).await;
}

/// The ConfigMap, given the one that is there. The authorities in it stay: other servers over the same store have
/// theirs.
fn wanted(found: Option<&Value>, clients: &str, pki: &Pki) -> Value {
    let all = |key: &str, ours: &str| {
        let theirs = found.map_or("", |found| text(found, &["data", key]));
        together(ours, theirs)
    };
    let names = |names: &[&str]| Value::from(names).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {
            "client-ca-file": all("client-ca-file", clients),
            "requestheader-client-ca-file": all("requestheader-client-ca-file", &pki.front_ca),
            "requestheader-allowed-names": names(&[FRONT_PROXY]),
            "requestheader-username-headers": names(&["X-Remote-User"]),
            "requestheader-uid-headers": names(&["X-Remote-Uid"]),
            "requestheader-group-headers": names(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": names(&["X-Remote-Extra-"]),
        },
    })
}

/// Our certificates, and those of others that have not ended.
fn together(ours: &str, theirs: &str) -> String {
    let mut all: Vec<&str> = Vec::new();
    for certificate in certificates(ours).chain(certificates(theirs).filter(|c| is_valid(c))) {
        if !all.contains(&certificate) {
            all.push(certificate);
        }
    }
    let mut text = all.join("\n");
    text.push('\n');
    text
}

/// Each with its first and last line.
fn certificates(pem: &str) -> impl Iterator<Item = &str> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END).filter_map(|part| {
        let begin = part.find("-----BEGIN CERTIFICATE-----")?;
        part.ends_with(END).then(|| &part[begin..])
    })
}

fn is_valid(pem: &str) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return false;
    };
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.validity().is_valid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_of_others_stay_until_they_end() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let names = crate::pki::Names::default();
        let ours = Pki::load_or_make(dir.path(), &names).unwrap().front_ca;
        let theirs = Pki::load_or_make(other.path(), &names).unwrap().front_ca;
        let mut ended = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ended.not_after = time::OffsetDateTime::UNIX_EPOCH;
        let key = rcgen::KeyPair::generate().unwrap();
        let ended = ended.self_signed(&key).unwrap().pem();
        let lines = |pem: &str| pem.replace("\r\n", "\n");
        let (ours, theirs) = (lines(&ours), lines(&theirs));
        let both = together(&ours, &format!("x\n{theirs}{ended}{theirs}nonsense"));
        assert_eq!(both, format!("{ours}{theirs}"));
        assert_eq!(together(&ours, &both), both);
        assert_eq!(together(&ours, ""), ours);
    }
}
