//! The keys that tokens of service accounts are signed with, and the compact form of a signed token (RFC 7515, 7519).
//!
//! The server signs with ECDSA over P-256 (ES256), whose keys and signatures are small and quick to make; RSA keys
//! that are given to it (RS256) sign and verify too, so that the tokens of another cluster stay valid. This is done
//! over aws-lc-rs, which TLS brings anyway: a JWT library would add its own parser and several crates for what are two
//! calls.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use aws_lc_rs::{digest, rand::SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::PublicKeyData as _;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey as Parsed;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::{Error, pki};

/// The most bytes of a token; a request's headers are bounded by less than that.
const TOKEN_MAX: usize = 16 << 10;

/// A key that tokens are verified with.
struct PublicKey {
    id: String,
    kind: Kind,
    /// As the algorithm wants it: the point, or the RSA modulus and exponent in DER.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    P256,
    Rsa,
}

impl Kind {
    fn algorithm(self) -> &'static str {
        match self {
            Kind::P256 => "ES256",
            Kind::Rsa => "RS256",
        }
    }
}

enum Signer {
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// The keys of a server: one that signs, and all whose signatures are accepted.
pub(crate) struct Keys {
    signer: Signer,
    signer_id: String,
    accepted: Vec<PublicKey>,
}

impl Keys {
    /// Reads the signing key (made as `DIR/sa.key` where none is named and that is missing) and accepts its
    /// signatures, those of every `DIR/sa*.pub`, and those of the keys in the `more` files. A key that is replaced
    /// goes on being accepted while its public half lies there.
    pub(crate) fn load_or_make(
        dir: &Path,
        signing: Option<&Path>,
        more: &[PathBuf],
    ) -> Result<Self, Error> {
        let own = dir.join("sa.key");
        let path = signing.unwrap_or(&own);
        if signing.is_none() && !path.exists() {
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
                .map_err(Error::certificate)?;
            pki::write_private(path, key.serialize_pem().as_bytes())?;
        }
        let pem = read(path)?;
        let key = rcgen::KeyPair::from_pem(&pem).map_err(|e| Error::damaged(path, &e))?;
        let public = public_key(&key.subject_public_key_info(), path)?;
        let der = key.serialize_der();
        let refused = |error| Error::damaged(path, &error);
        let signer = match public.kind {
            Kind::P256 => Signer::P256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
                    .map_err(refused)?,
            ),
            Kind::Rsa => Signer::Rsa(Box::new(RsaKeyPair::from_pkcs8(&der).map_err(refused)?)),
        };
        if signing.is_none() {
            // So that the key may be replaced: what it signed is verified with this file.
            let name = format!("sa-{}.pub", &public.id[..8].replace(['-', '_'], "0"));
            let file = dir.join(name);
            if !file.exists() {
                pki::write_private(&file, key.public_key_pem().as_bytes())?;
            }
        }
        let mut keys = Keys {
            signer,
            signer_id: public.id.clone(),
            accepted: vec![public],
        };
        for path in beside(dir)?.iter().chain(more) {
            keys.accept(&read(path)?, path)?;
        }
        Ok(keys)
    }

    fn accept(&mut self, pem: &str, path: &Path) -> Result<(), Error> {
        let mut found = 0;
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            let (kind, bytes) = section.map_err(|e| Error::damaged(path, &e))?;
            let key = match kind {
                SectionKind::PublicKey => public_key(&bytes, path)?,
                SectionKind::PrivateKey
                | SectionKind::EcPrivateKey
                | SectionKind::RsaPrivateKey => {
                    let pair =
                        rcgen::KeyPair::from_pem(pem).map_err(|e| Error::damaged(path, &e))?;
                    public_key(&pair.subject_public_key_info(), path)?
                }
                SectionKind::Certificate => {
                    let (_, cert) = x509_parser::prelude::X509Certificate::from_der(&bytes)
                        .map_err(|e| Error::damaged(path, &e))?;
                    public_key(cert.public_key().raw, path)?
                }
                _ => continue,
            };
            found += 1;
            if self.accepted.iter().all(|known| known.id != key.id) {
                self.accepted.push(key);
            }
        }
        if found == 0 {
            return Err(Error::damaged(path, &"there is no key in it"));
        }
        Ok(())
    }

    /// The claims, signed.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, Error> {
        let kind = match self.signer {
            Signer::P256(_) => Kind::P256,
            Signer::Rsa(_) => Kind::Rsa,
        };
        let header = json!({"alg": kind.algorithm(), "kid": self.signer_id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", part(&header), part(claims));
        let random = SystemRandom::new();
        let signature = match &self.signer {
            Signer::P256(key) => {
                let signature = key.sign(&random, token.as_bytes());
                signature.map_err(|_| Error::Random)?.as_ref().to_vec()
            }
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, token.as_bytes(), &mut signature)
                    .map_err(|_| Error::Random)?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }

    /// The claims of a token that one of the keys signed.
    pub(crate) fn verify(&self, token: &str) -> Option<Value> {
        if token.len() > TOKEN_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let value = |part: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
        };
        let header = value(header)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let (algorithm, id) = (header["alg"].as_str()?, header["kid"].as_str());
        let valid = self
            .accepted
            .iter()
            .filter(|key| key.kind.algorithm() == algorithm && id.is_none_or(|id| id == key.id))
            .any(|key| key.verifies(signed.as_bytes(), &signature));
        if valid { value(claims) } else { None }
    }

    /// What anybody needs to verify tokens: a set of keys as in RFC 7517.
    pub(crate) fn public(&self) -> Value {
        let keys: Vec<Value> = self.accepted.iter().map(PublicKey::to_value).collect();
        json!({"keys": keys})
    }

    /// Which algorithms they are for.
    pub(crate) fn algorithms(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self
            .accepted
            .iter()
            .map(|key| key.kind.algorithm())
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// What a token claims, whoever signed it: to tell somebody why it is refused, and for nothing else.
pub(crate) fn unverified(token: &str) -> Option<Value> {
    if token.len() > TOKEN_MAX {
        return None;
    }
    let mut parts = token.split('.');
    let claims = parts.nth(1)?;
    parts.next()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

impl PublicKey {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self.kind {
            Kind::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.bytes)
                .verify(message, signature),
            Kind::Rsa => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.bytes)
                .verify(message, signature),
        };
        verified.is_ok()
    }

    fn to_value(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let algorithm = self.kind.algorithm();
        let mut key = json!({"use": "sig", "kid": self.id, "alg": algorithm});
        match self.kind {
            // An uncompressed point: 4, then the coordinates (SEC 1, section 2.3.3).
            Kind::P256 => {
                let (x, y) = self.bytes[1..].split_at(32);
                key["kty"] = "EC".into();
                key["crv"] = "P-256".into();
                key["x"] = text(x).into();
                key["y"] = text(y).into();
            }
            Kind::Rsa => {
                if let Ok((_, rsa)) = x509_parser::public_key::RSAPublicKey::from_der(&self.bytes) {
                    let strip = |bytes: &[u8]| {
                        text(&bytes[bytes.iter().take_while(|b| **b == 0).count()..])
                    };
                    key["kty"] = "RSA".into();
                    key["n"] = strip(rsa.modulus).into();
                    key["e"] = strip(rsa.exponent).into();
                }
            }
        }
        key
    }
}

/// Reads a SubjectPublicKeyInfo. Its id is that of Kubernetes: the SHA-256 of these bytes.
fn public_key(der: &[u8], path: &Path) -> Result<PublicKey, Error> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).map_err(|e| Error::damaged(path, &e))?;
    let bytes = info.subject_public_key.data.to_vec();
    let kind = match info.parsed() {
        Ok(Parsed::EC(_)) if bytes.len() == 65 && bytes[0] == 4 => Kind::P256,
        Ok(Parsed::RSA(_)) => Kind::Rsa,
        _ => {
            let why = "only RSA keys and ECDSA keys on the curve P-256 sign tokens";
            return Err(Error::damaged(path, &why));
        }
    };
    let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, der));
    Ok(PublicKey { id, kind, bytes })
}

/// `DIR/sa*.pub`, in order of name.
fn beside(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = std::fs::read_dir(dir).map_err(|e| Error::io("reading the directory", dir, e))?;
    let mut found: Vec<PathBuf> = list
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with("sa") && name.ends_with(".pub")
        })
        .collect();
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|e| Error::io("reading the key", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_was_signed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load_or_make(dir.path(), None, &[]).unwrap();
        let claims = json!({"sub": "me", "exp": 1});
        let token = keys.sign(&claims).unwrap();
        assert_eq!(keys.verify(&token), Some(claims.clone()));
        assert_eq!(keys.algorithms(), ["ES256"]);
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(json!({"sub": "root", "exp": 1}).to_string());
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for bad in [
            format!("{}.{forged}.{}", parts[0], parts[2]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{token}x"),
            "..".into(),
            String::new(),
            "a".repeat(1 << 20),
        ] {
            assert_eq!(keys.verify(&bad), None, "{bad:.80}");
        }
        // Another server's token.
        let elsewhere = tempfile::tempdir().unwrap();
        let others = Keys::load_or_make(elsewhere.path(), None, &[]).unwrap();
        assert_eq!(keys.verify(&others.sign(&claims).unwrap()), None);
    }

    #[test]
    fn a_replaced_key_is_still_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let old = Keys::load_or_make(dir.path(), None, &[]).unwrap();
        let token = old.sign(&json!({"sub": "me"})).unwrap();
        std::fs::remove_file(dir.path().join("sa.key")).unwrap();
        let new = Keys::load_or_make(dir.path(), None, &[]).unwrap();
        assert_ne!(new.signer_id, old.signer_id);
        assert!(new.verify(&token).is_some());
        assert_eq!(new.public()["keys"].as_array().unwrap().len(), 2);
    }
}
