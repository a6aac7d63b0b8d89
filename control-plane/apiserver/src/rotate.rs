//! Certificates change without a restart: files that somebody replaced are read again, and the server's own are made
//! anew when they come near their end. Connections that are open keep theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use crate::pki::Pki;
use crate::{Error, State, names, serving};

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// How often everything is checked although no file changed: certificates age by themselves.
const CHECK: Duration = Duration::from_secs(3600);

/// What connections are made with from now on.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) config: Arc<rustls::ServerConfig>,
    /// Knows the certificates of those who speak for users; all others name users.
    pub(crate) fronts: Arc<dyn ClientCertVerifier>,
}

/// From the certificates as they lie there; makes those that are missing or near their end.
pub(crate) fn load(state: &State) -> Result<Tls, Error> {
    let config = &state.config;
    let pki = Pki::load_or_make(&config.data_dir.join("pki"), &names(config))?;
    let tls = Tls {
        config: Arc::new(serving::tls(config, &pki)?),
        fronts: serving::fronts(&pki)?,
    };
    state.aggregator.shows(&pki);
    Ok(tls)
}

/// Keeps `tls` what the files say; until it is dropped. Files that cannot be used are told of, and what was read
/// before goes on being used.
pub(crate) async fn follow(state: Arc<State>, tls: watch::Sender<Tls>) {
    let mut seen = stamps(&state);
    let mut checked = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamps(&state);
        if now == seen && checked.elapsed() < CHECK {
            continue;
        }
        checked = tokio::time::Instant::now();
        let loading = state.clone();
        // Keys are read and may be made: not on a thread that serves.
        let loaded = tokio::task::spawn_blocking(move || load(&loading)).await;
        match loaded {
            Ok(Ok(new)) => {
                if now != seen {
                    tracing::info!("certificates were replaced; new connections use them");
                }
                tls.send_replace(new);
            }
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "the certificates in use stay in use");
            }
            Err(error) => tracing::warn!(%error, "the certificates could not be looked at"),
        }
        seen = stamps(&state);
    }
}

/// When each file was last written, and how long it is.
fn stamps(state: &State) -> Vec<Option<(SystemTime, u64)>> {
    let pki = state.config.data_dir.join("pki");
    let own = [
        "ca.crt",
        "ca.key",
        "server.crt",
        "server.key",
        "front-proxy-ca.crt",
        "front-proxy-client.crt",
    ]
    .map(|name| pki.join(name));
    own.into_iter()
        .chain(state.config.client_ca_file.clone())
        .chain(state.config.tls_cert_file.clone())
        .chain(state.config.tls_private_key_file.clone())
        .map(|path: PathBuf| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}
