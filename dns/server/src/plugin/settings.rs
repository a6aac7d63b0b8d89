//! Plugins that only configure: `root`, `debug`, `bind`, `tls`, `timeouts`, and those whose work is done elsewhere.

use std::net::IpAddr;
use std::net::ToSocketAddrs as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::clients::Clients;
use super::setup::Made;
use super::setup::Setup;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
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

/// Reads `multisocket [SOCKETS]`. Each core has a socket here, with or without it; another number is told of.
pub(super) fn multisocket(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let [wanted] = line.between(0, 1)? else {
        return Ok(None);
    };
    let sockets = usize::from(wanted.number(1, u16::MAX)?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if sockets != cores {
        tracing::warn!(
            sockets,
            cores,
            "multisocket: each core has a socket, and there are no more and no fewer"
        );
    }
    Ok(None)
}

/// Reads `shed [N]`: what it switches on is always on here.
pub(super) fn always_on(setup: &mut Setup<'_>) -> Made {
    setup.once()?;
    Ok(None)
}

/// Reads `bind ADDRESS|INTERFACE|HOST... { except ADDRESS|INTERFACE... }`; an exception holds for its own line.
pub(super) fn bind(setup: &mut Setup<'_>) -> Made {
    let mut found = Vec::new();
    for line in setup.lines {
        let mut except = Vec::new();
        for option in &line.block {
            if option.name.text != "except" {
                return Err(option.unknown("bind", &["except"]));
            }
            for word in option.between(1, usize::MAX)? {
                except.extend(addresses(word)?);
            }
        }
        for word in line.between(1, usize::MAX)? {
            let of_word = addresses(word)?.into_iter();
            found.extend(of_word.filter(|address| !except.contains(address)));
        }
    }
    found.sort_unstable();
    found.dedup();
    if found.is_empty() {
        let first = setup.lines.first().map(|line| &line.name);
        return match first {
            Some(name) => Err(name.error(
                "bind: no address is left to listen on",
                "name more, or fewer exceptions",
            )),
            None => Ok(None),
        };
    }
    setup.draft.bind = found;
    Ok(None)
}

/// The addresses of a word: itself, those of the interface that it names, or the first of a host.
fn addresses(word: &Token) -> Result<Vec<IpAddr>, ConfigError> {
    if let Ok(address) = word.text.parse() {
        return Ok(vec![address]);
    }
    let found = crate::interface::addresses(&word.text).map_err(|error| {
        word.error(
            format!(
                "bind: the addresses of {} are not known: {error}",
                word.text
            ),
            "write addresses instead",
        )
    })?;
    if !found.is_empty() {
        return Ok(found);
    }
    // A word without a dot is an interface that is not there: nobody waits for a resolver to say so.
    let host = word.text.contains('.') || word.text == "localhost";
    let known = host.then(|| (word.text.as_str(), 0).to_socket_addrs().ok());
    match known.flatten().and_then(|mut known| known.next()) {
        Some(host) => Ok(vec![host.ip()]),
        None => Err(word.error(
            format!(
                "bind: {} is neither an address nor an interface with addresses, and no host that is known",
                word.text
            ),
            "write an address of this machine or the name of an interface",
        )),
    }
}

/// Reads `timeouts { read D; write D; idle D; maxtcpqueries N }`.
pub(super) fn timeouts(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.exactly::<0>()?;
    for option in &line.block {
        let timeouts = &mut setup.draft.timeouts;
        let place = match option.name.text.as_str() {
            "read" => &mut timeouts.read,
            "write" => &mut timeouts.write,
            "idle" => &mut timeouts.idle,
            "maxtcpqueries" => {
                let [word] = option.exactly()?;
                timeouts.queries = match word.text.as_str() {
                    "-1" => None,
                    _ => Some(word.number(1, usize::MAX)?),
                };
                continue;
            }
            _ => {
                return Err(option.unknown("timeouts", &["read", "write", "idle", "maxtcpqueries"]));
            }
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
    let authorities = || match words.get(2) {
        Some(ca) => roots(ca, &setup.path(&ca.text)),
        None => Ok(client::system_roots()),
    };
    let mut clients = Clients::Unasked;
    for option in &line.block {
        if option.name.text != "client_auth" {
            return Err(option.unknown("tls", &["client_auth"]));
        }
        let [mode] = option.exactly()?;
        clients = match mode.text.as_str() {
            "nocert" => Clients::Unasked,
            "request" => Clients::Anyone { required: false },
            "require" => Clients::Anyone { required: true },
            "verify_if_given" => Clients::Known {
                roots: authorities()?,
                required: false,
            },
            "require_and_verify" => Clients::Known {
                roots: authorities()?,
                required: true,
            },
            other => {
                return Err(mode.error(
                    format!("tls: unknown client_auth {other}"),
                    "write nocert, request, require, verify_if_given or require_and_verify",
                ));
            }
        };
    }
    setup.draft.tls = Some(server_config(setup, line, words, clients)?);
    Ok(None)
}

/// What a server shows, from the files of certificate and key that `words` begin with, and what it wants to see.
pub(crate) fn server_config(
    setup: &Setup<'_>,
    line: &Directive,
    words: &[Token],
    clients: Clients,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let [cert, key, ..] = words else {
        return Err(line.error("tls lacks arguments", "write tls CERT KEY [CA]"));
    };
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
    let verifier = clients.verifier().map_err(|error| {
        line.error(
            format!("tls: {error}"),
            "name a file with certificates of the clients' authorities in PEM",
        )
    })?;
    let builder = builder.with_client_cert_verifier(verifier);
    let config = builder.with_single_cert(chain, private).map_err(|error| {
        cert.error(
            format!("tls: {}: {error}", cert.text),
            "give a certificate and the key that belongs to it",
        )
    })?;
    Ok(Arc::new(config))
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
