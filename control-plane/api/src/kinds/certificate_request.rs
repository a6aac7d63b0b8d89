//! CertificateSigningRequest: somebody asks for a certificate.

use serde_json::{Value, json};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::immutable;
use crate::duration::{age, human};
use crate::field::{Fault, FieldError};
use crate::meta;
use crate::table::{
    AGE, BASE, Column, Field, NAME, NameRule, Resource, STATUS, Subresource, column,
};
use crate::value::{self, at, list, text};

/// Requests for certificates.
pub(crate) static CERTIFICATE_SIGNING_REQUESTS: Resource = Resource {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    list_kind: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        Subresource {
            name: "approval",
            kind: "",
            group_version: None,
            verbs: &["get", "patch", "update"],
        },
        STATUS,
    ],
    storage_prefix: "/registry/certificatesigningrequests",
    definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    name_rule: NameRule::PathSegment,
    columns: COLUMNS,
    cells: |object, now| {
        let seconds = at(object, &["spec", "expirationSeconds"]).as_i64();
        vec![
            meta::name(object).into(),
            age(at(object, &["metadata", "creationTimestamp"]), now).into(),
            text(object, &["spec", "signerName"]).into(),
            text(object, &["spec", "username"]).into(),
            seconds.map_or_else(|| "<none>".to_owned(), human).into(),
            condition(object).into(),
        ]
    },
    fields: &[Field {
        label: "spec.signerName",
        get: |object| text(object, &["spec", "signerName"]).to_owned(),
    }],
    default: |object| {
        if let Some(spec) = value::object_mut(object, "spec")
            && at(spec, &["usages"]).is_null()
        {
            value::set(
                spec,
                "usages",
                json!(["digital signature", "key encipherment"]),
            );
        }
    },
    // Who asks is set by the handler, which knows.
    prepare_create: |object| value::set(object, "status", json!({})),
    prepare_update: |new, old| value::keep(new, old, "spec"),
    validate,
    validate_update: |new, old| {
        let mut wrong: Vec<FieldError> = immutable(new, old, &["spec"]).into_iter().collect();
        wrong.extend(bad_conditions(new));
        wrong
    },
    ..BASE
};

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    column("SignerName", "Who is asked to sign."),
    column("Requestor", "Who asks."),
    column(
        "RequestedDuration",
        "How long the certificate should be valid.",
    ),
    column("Condition", "Whether it was approved, denied or issued."),
];

fn condition(object: &Value) -> String {
    let has = |kind: &str| {
        list(object, &["status", "conditions"])
            .iter()
            .any(|condition| text(condition, &["type"]) == kind)
    };
    let mut shown = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has("Failed") {
        shown.push_str(",Failed");
    }
    if !text(object, &["status", "certificate"]).is_empty() {
        shown.push_str(",Issued");
    }
    shown
}

/// What a certificate may be used for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn validate(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    if let Some(why) = not_a_request(text(spec, &["request"])) {
        wrong.push(FieldError::new(
            "spec.request",
            Fault::Invalid(at(spec, &["request"]).to_string()),
            why,
        ));
    }
    let usages = list(spec, &["usages"]);
    if usages.is_empty() {
        wrong.push(FieldError::required("spec.usages", ""));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (i, usage) in usages.iter().enumerate() {
        let usage = usage.as_str().unwrap_or("");
        if !USAGES.contains(&usage) {
            wrong.push(FieldError::not_supported(
                format!("spec.usages[{i}]"),
                usage,
                USAGES,
            ));
        }
        if !seen.insert(usage) {
            wrong.push(FieldError::duplicate(
                format!("spec.usages[{i}]"),
                crate::field::quoted(usage),
            ));
        }
    }
    let signer = text(spec, &["signerName"]);
    if signer == "kubernetes.io/legacy-unknown" {
        wrong.push(FieldError::invalid_text(
            "spec.signerName",
            signer,
            "the legacy signerName is not allowed via this API version",
        ));
    } else {
        wrong.extend(bad_signer(signer));
    }
    let seconds = at(spec, &["expirationSeconds"]);
    if seconds.as_i64().is_some_and(|seconds| seconds < 600) {
        wrong.push(FieldError::invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    wrong
}

/// Why the base64 text is not a PEM block with a certificate request.
fn not_a_request(encoded: &str) -> Option<&'static str> {
    let decoded = STANDARD.decode(encoded).unwrap_or_default();
    let pem = String::from_utf8(decoded).unwrap_or_default();
    let found = pem.contains("-----BEGIN CERTIFICATE REQUEST-----")
        && pem.contains("-----END CERTIFICATE REQUEST-----");
    (!found).then_some("PEM block type must be CERTIFICATE REQUEST")
}

/// A signer is a domain and a path: `example.com/name`.
fn bad_signer(signer: &str) -> Vec<FieldError> {
    if signer.is_empty() {
        return vec![FieldError::required("spec.signerName", "")];
    }
    let refuse = |why: &str| vec![FieldError::invalid_text("spec.signerName", signer, why)];
    let Some((domain, path)) = signer.split_once('/') else {
        return refuse(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    };
    if path.contains('/') {
        return refuse(
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
    }
    let mut wrong = Vec::new();
    for why in crate::names::subdomain(domain) {
        wrong.extend(refuse(&format!("validating label \"{domain}\": {why}")));
    }
    if domain.split('.').count() < 2 {
        wrong.extend(refuse(
            "should be a domain with at least two segments separated by dots",
        ));
    }
    for why in path.split('.').flat_map(crate::names::label) {
        wrong.extend(refuse(&format!("validating label \"{path}\": {why}")));
    }
    wrong
}

fn bad_conditions(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let conditions = list(object, &["status", "conditions"]);
    let mut seen = std::collections::BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let path = format!("status.conditions[{i}]");
        let kind = text(condition, &["type"]);
        if kind.is_empty() {
            wrong.push(FieldError::required(format!("{path}.type"), ""));
        }
        match text(condition, &["status"]) {
            "" => wrong.push(FieldError::required(format!("{path}.status"), "")),
            "True" => {}
            other if matches!(kind, "Approved" | "Denied" | "Failed") => {
                wrong.push(FieldError::not_supported(
                    format!("{path}.status"),
                    other,
                    &["True"],
                ));
            }
            "False" | "Unknown" => {}
            other => wrong.push(FieldError::not_supported(
                format!("{path}.status"),
                other,
                &["False", "True", "Unknown"],
            )),
        }
        if !seen.insert(kind) {
            wrong.push(FieldError::duplicate(
                format!("{path}.type"),
                crate::field::quoted(kind),
            ));
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => continue,
        };
        if seen.contains(other) {
            wrong.push(FieldError::invalid_text(
                format!("{path}.type"),
                kind,
                "Approved and Denied conditions are mutually exclusive",
            ));
        }
    }
    wrong
}
