//! Plugins that only configure: `root`, `debug`, `bind`, `tls`, `timeouts`, and those whose work is done elsewhere.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::setup::Made;
use super::setup::Setup;
use crate::corefile::ConfigError;
use crate::corefile::Token;

/// Reads `root FOLDER`.
pub(super) fn root(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let [folder] = line.exactly()?;
    let folder = setup.folder.join(&folder.text);
    if !folder.is_dir() {
        tracing::warn!(folder = %folder.display(), "root: there is no such folder");
    }
    setup.draft.root = Some(folder);
    Ok(None)
}

/// Reads `debug`.
pub(super) fn debug(setup: &mut Setup<'_>) -> Made {
    setup.once()?.exactly::<0>()?;
    setup.draft.debug = true;
    Ok(None)
}

/// Reads `metadata [ZONE...]`: plugins tell what they know of a request before views and other plugins look at it.
pub(super) fn metadata(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    setup.draft.metadata = setup.zones_of(&line.args)?;
    Ok(None)
}

/// Reads `multisocket [N]`, `shed [N]`: what they switch on in CoreDNS is always on here.
pub(super) fn always_on(setup: &mut Setup<'_>) -> Made {
    setup.once()?;
    Ok(None)
}

/// Reads `bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }`.
pub(super) fn bind(setup: &mut Setup<'_>) -> Made {
    let mut except = Vec::new();
    let mut found = Vec::new();
    for line in setup.lines {
        for word in line.between(1, usize::MAX)? {
            found.extend(addresses(word)?);
        }
        for option in &line.block {
            if option.name.text != "except" {
                return Err(option.unknown("bind", &["except"]));
            }
            for word in option.between(1, usize::MAX)? {
                except.extend(addresses(word)?);
            }
        }
    }
    found.retain(|address| !except.contains(address));
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        return Err(setup.once()?.error(
            "bind: no address is left to listen on",
            "name more, or fewer exceptions",
        ));
    }
    setup.draft.bind = found;
    Ok(None)
}

/// The addresses of a word: itself, or those of the interface that it names.
fn addresses(word: &Token) -> Result<Vec<IpAddr>, ConfigError> {
    if let Ok(address) = word.text.parse() {
        return Ok(vec![address]);
    }
    let found = crate::interface::addresses(&word.text);
    if found.is_empty() {
        return Err(word.error(
            format!(
                "bind: {} is neither an address nor an interface with addresses",
                word.text
            ),
            "write an address of this machine or the name of an interface",
        ));
    }
    Ok(found)
}

/// Reads `timeouts { read D; write D; idle D }`.
pub(super) fn timeouts(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    for option in &line.block {
        let timeouts = &mut setup.draft.timeouts;
        let place = match option.name.text.as_str() {
            "read" => &mut timeouts.read,
            "write" => &mut timeouts.write,
            "idle" => &mut timeouts.idle,
            _ => return Err(option.unknown("timeouts", &["read", "write", "idle"])),
        };
        let [word] = option.exactly()?;
        let time = word.duration()?;
        if !(Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&time) {
            return Err(word.error(
                format!("timeouts: {} is out of bounds", word.text),
                "write 1s to 24h",
            ));
        }
        *place = time;
    }
    Ok(None)
}

/// Reads `tls CERT KEY [CA] { client_auth nocert|request|require|verify_if_given|require_and_verify }`.
pub(super) fn tls(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let words = line.between(2, 3)?;
    let [cert, key, ca @ ..] = words else {
        return Err(line.error("tls lacks arguments", "write tls CERT KEY [CA]"));
    };
    let mut verify = None;
    for option in &line.block {
        if option.name.text != "client_auth" {
            return Err(option.unknown("tls", &["client_auth"]));
        }
        let [mode] = option.exactly()?;
        verify = match mode.text.as_str() {
            "nocert" => None,
            "request" | "verify_if_given" => Some(false),
            "require" | "require_and_verify" => Some(true),
            other => {
                return Err(mode.error(
                    format!("tls: unknown client_auth {other}"),
                    "write nocert, request, require, verify_if_given or require_and_verify",
                ));
            }
        };
    }
    let chain = certificates(cert, &setup.path(&cert.text))?;
    let private = PrivateKeyDer::from_pem_file(setup.path(&key.text)).map_err(|error| {
        key.error(
            format!("tls: {}: {error}", key.text),
            "name a file with a private key in PEM",
        )
    })?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| line.error(format!("tls: {error}"), "report this"))?;
    let builder = match (verify, ca) {
        (None, _) => builder.with_no_client_auth(),
        (Some(_), []) => {
            return Err(line.error(
                "tls: client_auth needs the authority of the clients",
                "write tls CERT KEY CA",
            ));
        }
        (Some(required), [ca, ..]) => {
            let roots = Arc::new(roots(ca, &setup.path(&ca.text))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = if required {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            let verifier = verifier.build().map_err(|error| {
                ca.error(
                    format!("tls: {error}"),
                    "name a file with certificates of authorities in PEM",
                )
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, private).map_err(|error| {
        cert.error(
            format!("tls: {}: {error}", cert.text),
            "give a certificate and the key that belongs to it",
        )
    })?;
    setup.draft.tls = Some(Arc::new(config));
    Ok(None)
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Certificates out of a PEM file.
pub(crate) fn certificates(
    word: &Token,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let wrong = |error: String| {
        word.error(
            format!("tls: {}: {error}", word.text),
            "name a readable file with certificates in PEM",
        )
    };
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .map_err(|error| wrong(error.to_string()))?
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("no certificate in it".to_owned()));
    }
    Ok(found)
}

/// The authorities in a PEM file.
pub(crate) fn roots(word: &Token, path: &Path) -> Result<rustls::RootCertStore, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(word, path)? {
        roots.add(certificate).map_err(|error| {
            word.error(
                format!("tls: {}: {error}", word.text),
                "name certificates of authorities",
            )
        })?;
    }
    Ok(roots)
}
