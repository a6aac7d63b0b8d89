//! The user whom a client certificate names.

use std::fmt::Write as _;

use authorization::User;
use aws_lc_rs::digest;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The key under which a user's credential is told.
pub(crate) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The part of a subject that holds the user's uid: the object identifier that Kubernetes registered for it.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The subject of a client certificate whose chain the TLS layer has verified. `None`: it names nobody.
pub(crate) fn user(der: &[u8]) -> Option<User> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .map(str::to_owned)
        .collect();
    let uid = subject
        .iter_attributes()
        .find(|attribute| attribute.attr_type().to_id_string() == UID)
        .and_then(|attribute| attribute.as_str().ok())
        .unwrap_or_default()
        .to_owned();
    let mut fingerprint = "X509SHA256=".to_owned();
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        // Writing to a String can't fail.
        let _ = write!(fingerprint, "{byte:02x}");
    }
    Some(User {
        name,
        uid,
        groups,
        extra: [(CREDENTIAL_ID.to_owned(), vec![fingerprint])].into(),
    })
}
