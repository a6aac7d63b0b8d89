//! Who may approve and sign certificates, and which subjects nobody may ask for.

use api::status::Status;
use api::value::{at, text};
use authorization::{ResourceTarget, Target};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

const GROUP: &str = "certificates.k8s.io";
const REQUESTS: &str = "certificatesigningrequests";

fn part(attributes: &Attributes<'_>, subresource: &str) -> bool {
    (
        attributes.group,
        attributes.resource,
        attributes.subresource,
    ) == (GROUP, REQUESTS, subresource)
        && attributes.operation == Operation::Update
}

pub(crate) const CERTIFICATE_APPROVAL: Plugin = Plugin {
    name: "CertificateApproval",
    handles: |attributes| part(attributes, "approval"),
    mutate: None,
    validate: Some(|attributes, new, old, lookup, _| {
        may(attributes, old.unwrap_or(new), lookup, "approve")
    }),
};

pub(crate) const CERTIFICATE_SIGNING: Plugin = Plugin {
    name: "CertificateSigning",
    handles: |attributes| part(attributes, "status"),
    mutate: None,
    validate: Some(sign),
};

pub(crate) const CERTIFICATE_SUBJECT_RESTRICTION: Plugin = Plugin {
    name: "CertificateSubjectRestriction",
    handles: |attributes| {
        attributes.is(GROUP, REQUESTS) && attributes.operation == Operation::Create
    },
    mutate: None,
    validate: Some(restrict),
};

fn sign(
    attributes: &Attributes<'_>,
    new: &Value,
    old: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    let old = old.unwrap_or(&Value::Null);
    let same = |key: &str| {
        let (new, old) = (at(new, &["status", key]), at(old, &["status", key]));
        new == old || (api::value::is_empty(new) && api::value::is_empty(old))
    };
    if same("certificate") && same("conditions") {
        return Ok(());
    }
    may(attributes, old, lookup, "sign")
}

/// Whether the user may do that for the signer: for it alone, or for all of its domain.
fn may(
    attributes: &Attributes<'_>,
    request: &Value,
    lookup: &dyn Lookup,
    verb: &str,
) -> Result<(), Status> {
    let signer = text(request, &["spec", "signerName"]);
    let domain = signer.split('/').next().unwrap_or_default();
    let allowed = [signer.to_owned(), format!("{domain}/*")]
        .iter()
        .any(|name| {
            let target = ResourceTarget {
                group: GROUP,
                version: "*",
                resource: "signers",
                name,
                ..ResourceTarget::default()
            };
            lookup.allows(&authorization::Attributes {
                user: attributes.user,
                verb,
                target: Target::Resource(target),
            })
        });
    if allowed {
        return Ok(());
    }
    Err(attributes.forbid(format!(
        "user not permitted to {verb} requests with signerName {signer:?}"
    )))
}

/// What a request for a client's certificate may not ask for: to be an administrator of everything.
const MASTERS: &str = "system:masters";

fn restrict(
    attributes: &Attributes<'_>,
    request: &Value,
    _: Option<&Value>,
    _: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    if text(request, &["spec", "signerName"]) != "kubernetes.io/kube-apiserver-client" {
        return Ok(());
    }
    let pem = STANDARD
        .decode(text(request, &["spec", "request"]))
        .unwrap_or_default();
    if asks_for(&pem, MASTERS) {
        return Err(attributes.forbid(
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed",
        ));
    }
    Ok(())
}

/// Whether a PEM-encoded request has a subject with that organisation (PKCS #10; X.520 attribute 2.5.4.10).
fn asks_for(pem: &[u8], organisation: &str) -> bool {
    let text = String::from_utf8_lossy(pem);
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(body.trim()).unwrap_or_default();
    // The attribute's identifier, then a string of any type with the name: enough to find it wherever it stands.
    let identifier = [0x06, 0x03, 0x55, 0x04, 0x0a];
    let wanted = organisation.as_bytes();
    der.windows(identifier.len() + 2 + wanted.len())
        .any(|window| window.starts_with(&identifier) && window.ends_with(wanted))
}
