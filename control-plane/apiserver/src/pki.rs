//! The certificates of one control plane: an authority, the server's certificate and the administrator's client
//! certificate; and an authority of its own for the one certificate with which the server passes on requests of others.
//! Made at the first start, reused afterwards, renewed when they come near their end.
//!
//! `DIR/ca.crt`, `DIR/server.crt`, `DIR/admin.crt`, `DIR/front-proxy-ca.crt`, `DIR/front-proxy-client.crt` and the `.key`
//! beside each: PEM, PKCS#8, ECDSA P-256, mode 0600.

mod client;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::Error;

pub(crate) use client::{Certificates, believing};

const CA_LIFETIME: Duration = Duration::days(3650);
const LEAF_LIFETIME: Duration = Duration::days(365);
/// A certificate with less than this share of its lifetime left is made anew.
const RENEW_BELOW: f64 = 0.2;

/// The name of the certificate with which the server passes on requests of others, as kubeadm has it.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// Certificates and keys, PEM.
#[derive(Clone)]
pub(crate) struct Pki {
    pub(crate) ca_cert: String,
    pub(crate) server: Pair,
    pub(crate) admin: Pair,
    /// Who signs [`Pki::front`], and nothing else: whoever has such a certificate speaks for any user.
    pub(crate) front_ca: String,
    pub(crate) front: Pair,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Who the server says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) dns: BTreeSet<String>,
    pub(crate) addresses: BTreeSet<IpAddr>,
}

impl Pki {
    /// Reads the certificates in `dir` and makes those that are missing, near their end or lack one of `names`.
    pub(crate) fn load_or_make(dir: &Path, names: &Names) -> Result<Self, Error> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| Error::io("making the directory", dir, source))?;
        let ca = authority(dir, "ca")?;
        let server = leaf(dir, "server", &ca, names, || {
            let mut params = leaf_params(
                "fairlead-apiserver",
                &[],
                ExtendedKeyUsagePurpose::ServerAuth,
            )?;
            for name in &names.dns {
                let name = name.as_str().try_into().map_err(Error::certificate)?;
                params.subject_alt_names.push(SanType::DnsName(name));
            }
            params
                .subject_alt_names
                .extend(names.addresses.iter().copied().map(SanType::IpAddress));
            Ok(params)
        })?;
        let admin = leaf(dir, "admin", &ca, &Names::default(), || {
            leaf_params(
                "fairlead-admin",
                &["system:masters"],
                ExtendedKeyUsagePurpose::ClientAuth,
            )
        })?;
        let front_ca = authority(dir, "front-proxy-ca")?;
        let front = leaf(dir, FRONT_PROXY, &front_ca, &Names::default(), || {
            leaf_params(FRONT_PROXY, &[], ExtendedKeyUsagePurpose::ClientAuth)
        })?;
        Ok(Self {
            ca_cert: ca.cert,
            server,
            admin,
            front_ca: front_ca.cert,
            front,
        })
    }
}

/// The one provider of cryptography, named wherever it is needed rather than installed for the process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Fills a buffer with bytes fit for secrets.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| Error::Random)
}

/// Who signs.
struct Authority {
    path: PathBuf,
    /// PEM.
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(path: PathBuf, cert: String, key: KeyPair) -> Result<Self, Error> {
        let issuer = Issuer::new(ca_params(&common_name(&cert, &path)?)?, key);
        Ok(Authority { path, cert, issuer })
    }
}

fn authority(dir: &Path, name: &str) -> Result<Authority, Error> {
    let cert_path = dir.join(format!("{name}.crt"));
    let key_path = dir.join(format!("{name}.key"));
    let key = match read(&key_path)? {
        Some(pem) => KeyPair::from_pem(&pem).map_err(|e| Error::damaged(&key_path, &e))?,
        None => {
            if cert_path.exists() {
                let why = format!("it is missing, though {name}.crt beside it is there");
                return Err(Error::damaged(&key_path, &why));
            }
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::certificate)?;
            write_private(&key_path, key.serialize_pem().as_bytes())?;
            key
        }
    };
    if let Some(pem) = read(&cert_path)? {
        let der = first(&pem, &cert_path)?;
        let cert = parse(&der, &cert_path)?;
        require_match(&cert, &key, &cert_path)?;
        if share_left(&cert) >= RENEW_BELOW {
            return Authority::new(cert_path, pem, key);
        }
    }
    // With the key kept, certificates signed before a renewal stay valid.
    let now = OffsetDateTime::now_utc();
    let mut params = ca_params(&format!("fairlead-{name}@{}", now.unix_timestamp()))?;
    if let Some(pem) = read(&cert_path)? {
        params = ca_params(&common_name(&pem, &cert_path)?)?;
    }
    params.not_before = now - Duration::hours(1);
    params.not_after = now + CA_LIFETIME;
    let pem = params.self_signed(&key).map_err(Error::certificate)?.pem();
    write_private(&cert_path, pem.as_bytes())?;
    Authority::new(cert_path, pem, key)
}

fn leaf(
    dir: &Path,
    name: &str,
    ca: &Authority,
    wanted: &Names,
    params: impl FnOnce() -> Result<CertificateParams, Error>,
) -> Result<Pair, Error> {
    let cert_path = dir.join(format!("{name}.crt"));
    let key_path = dir.join(format!("{name}.key"));
    if let (Some(cert_pem), Some(key_pem)) = (read(&cert_path)?, read(&key_path)?) {
        let key = KeyPair::from_pem(&key_pem).map_err(|e| Error::damaged(&key_path, &e))?;
        let der = first(&cert_pem, &cert_path)?;
        let cert = parse(&der, &cert_path)?;
        require_match(&cert, &key, &cert_path)?;
        let ca_der = first(&ca.cert, &ca.path)?;
        let ours = cert.issuer().as_raw() == parse(&ca_der, &ca.path)?.subject().as_raw();
        if ours && share_left(&cert) >= RENEW_BELOW && covers(&cert, wanted) {
            return Ok(Pair {
                cert: cert_pem,
                key: key_pem,
            });
        }
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(Error::certificate)?;
    let cert = params()?
        .signed_by(&key, &ca.issuer)
        .map_err(Error::certificate)?;
    let pair = Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    };
    // The certificate goes first: a crash in between leaves a pair that does not match only if an old key stood
    // there, so the old key is removed before.
    match fs::remove_file(&key_path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("removing the old key", &key_path, source));
        }
        Ok(()) | Err(_) => {}
    }
    write_private(&cert_path, pair.cert.as_bytes())?;
    write_private(&key_path, pair.key.as_bytes())?;
    Ok(pair)
}

fn ca_params(common_name: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(Error::certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn leaf_params(
    common_name: &str,
    organisations: &[&str],
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, Error> {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(Error::certificate)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    for organisation in organisations {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *organisation);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now - Duration::hours(1);
    params.not_after = now + LEAF_LIFETIME;
    params.serial_number = Some(serial()?);
    Ok(params)
}

fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = [0; 16];
    random(&mut bytes)?;
    bytes[0] &= 0x7f; // positive
    bytes[0] |= 0x40; // and never empty
    Ok(SerialNumber::from_slice(&bytes))
}

fn covers(cert: &X509Certificate<'_>, wanted: &Names) -> bool {
    let mut present = Names::default();
    if let Ok(Some(extension)) = cert.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                present.dns.insert((*name).to_owned());
            } else if let GeneralName::IPAddress(octets) = name {
                if let Ok(v4) = <[u8; 4]>::try_from(*octets) {
                    present.addresses.insert(v4.into());
                } else if let Ok(v6) = <[u8; 16]>::try_from(*octets) {
                    present.addresses.insert(v6.into());
                }
            }
        }
    }
    wanted.dns.is_subset(&present.dns) && wanted.addresses.is_subset(&present.addresses)
}

/// The part of its lifetime that a certificate has left, 0 to 1.
fn share_left(cert: &X509Certificate<'_>) -> f64 {
    let validity = cert.validity();
    let whole = validity.not_after.timestamp() - validity.not_before.timestamp();
    let left = validity.not_after.timestamp() - OffsetDateTime::now_utc().unix_timestamp();
    #[expect(clippy::cast_precision_loss, reason = "seconds within a few decades")]
    if whole > 0 {
        left.max(0) as f64 / whole as f64
    } else {
        0.0
    }
}

fn require_match(cert: &X509Certificate<'_>, key: &KeyPair, path: &Path) -> Result<(), Error> {
    if cert.public_key().subject_public_key.data.as_ref() == key.public_key_raw() {
        Ok(())
    } else {
        Err(Error::damaged(
            path,
            &"it does not belong to the key beside it",
        ))
    }
}

fn common_name(pem: &str, path: &Path) -> Result<String, Error> {
    let der = first(pem, path)?;
    let cert = parse(&der, path)?;
    let name = cert
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok());
    name.map(str::to_owned)
        .ok_or_else(|| Error::damaged(path, &"its subject has no common name"))
}

fn parse<'a>(der: &'a CertificateDer<'_>, path: &Path) -> Result<X509Certificate<'a>, Error> {
    X509Certificate::from_der(der)
        .map(|(_, cert)| cert)
        .map_err(|e| Error::damaged(path, &e))
}

fn first(pem: &str, path: &Path) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::damaged(path, &e))
}

pub(crate) fn certificates(pem: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| Error::damaged(path, &e))
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::damaged(path, &"it is not text"))
        }
        Err(source) => Err(Error::io("reading", path, source)),
    }
}

/// Replaces a file in one step, readable by its owner alone, on disk before this returns.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let scratch: PathBuf = path.with_file_name(name);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&scratch, path)
    };
    write().map_err(|source| Error::io("writing", path, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dns: &[&str]) -> Names {
        Names {
            dns: dns.iter().map(|name| (*name).to_owned()).collect(),
            addresses: [IpAddr::from([127, 0, 0, 1])].into(),
        }
    }

    #[test]
    fn a_second_start_reuses_what_the_first_made() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_make(dir.path(), &names(&["localhost"])).unwrap();
        let second = Pki::load_or_make(dir.path(), &names(&["localhost"])).unwrap();
        assert_eq!(first.server.cert, second.server.cert);
        assert_eq!(first.admin.key, second.admin.key);
        for file in fs::read_dir(dir.path()).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_new_name_gives_a_new_serving_certificate_under_the_same_authority() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::load_or_make(dir.path(), &names(&["localhost"])).unwrap();
        let second = Pki::load_or_make(dir.path(), &names(&["localhost", "api.example"])).unwrap();
        assert_eq!(first.ca_cert, second.ca_cert);
        assert_ne!(first.server.cert, second.server.cert);
        assert_eq!(first.admin.cert, second.admin.cert);
        let config = crate::Config::new(dir.path());
        crate::serving::tls(&config, &second).unwrap();
    }

    #[test]
    fn damage_names_the_file() {
        let cases: &[(&str, &[u8])] = &[
            ("ca.crt", b"nonsense"),
            ("front-proxy-ca.crt", b"nonsense"),
            ("front-proxy-client.key", b""),
            (
                "ca.key",
                b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            ),
            ("server.crt", b""),
            ("server.key", b"\xff\xfe"),
            (
                "admin.crt",
                b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ),
        ];
        for (file, bytes) in cases {
            let dir = tempfile::tempdir().unwrap();
            Pki::load_or_make(dir.path(), &names(&["localhost"])).unwrap();
            fs::write(dir.path().join(file), bytes).unwrap();
            let error = Pki::load_or_make(dir.path(), &names(&["localhost"]))
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains(file), "{file}: {error}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        Pki::load_or_make(dir.path(), &names(&["localhost"])).unwrap();
        fs::copy(dir.path().join("admin.key"), dir.path().join("server.key")).unwrap();
        let error = Pki::load_or_make(dir.path(), &names(&["localhost"]))
            .map(|_| ())
            .unwrap_err();
        assert!(error.to_string().contains("server.crt"), "{error}");
    }
}
