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
    // Who asks is set by the handler, which knows.
    prepare_create: |object| value::set(object, "status", json!({})),
    prepare_update: |new, old| value::keep(new, old, "spec"),
    validate,
    validate_update: |new, old| {
        let mut wrong: Vec<FieldError> = immutable(new, old, &["spec"]).into_iter().collect();
        wrong.extend(bad_conditions(new));
        wrong.extend(lost_conditions(new, old));
        wrong
    },
    validate_status: Some(|new, old| {
        let mut wrong = bad_conditions(new);
        wrong.extend(lost_conditions(new, old));
        wrong.extend(decided(new, old));
        wrong.extend(bad_certificate(new, old));
        wrong
    }),
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

/// The conditions of a type.
fn conditions_of<'a>(object: &'a Value, kind: &str) -> Vec<&'a Value> {
    list(object, &["status", "conditions"])
        .iter()
        .filter(|condition| text(condition, &["type"]) == kind)
        .collect()
}

/// What was decided is not taken back.
fn lost_conditions(new: &Value, old: &Value) -> Vec<FieldError> {
    ["Approved", "Denied", "Failed"]
        .into_iter()
        .filter(|kind| conditions_of(new, kind).len() < conditions_of(old, kind).len())
        .map(|kind| {
            let why = format!("updates may not remove a condition of type {kind:?}");
            FieldError::forbidden("status.conditions", why)
        })
        .collect()
}

/// A signer, who writes the status, does not decide.
fn decided(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for kind in ["Approved", "Denied"] {
        let (after, before) = (conditions_of(new, kind), conditions_of(old, kind));
        let what = match after.len().cmp(&before.len()) {
            std::cmp::Ordering::Greater => "add",
            std::cmp::Ordering::Equal if after != before => "modify",
            _ => continue,
        };
        wrong.push(FieldError::forbidden(
            "status.conditions",
            format!("updates may not {what} a condition of type {kind:?}"),
        ));
    }
    wrong
}

/// A certificate is issued once, as PEM blocks that hold nothing else.
fn bad_certificate(new: &Value, old: &Value) -> Option<FieldError> {
    let field = "status.certificate";
    let (after, before) = (
        text(new, &["status", "certificate"]),
        text(old, &["status", "certificate"]),
    );
    if after == before {
        return None;
    }
    if !before.is_empty() {
        let why = "updates may not modify existing certificate content";
        return Some(FieldError::forbidden(field, why));
    }
    let pem = STANDARD.decode(after).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem);
    let blocks: Vec<&str> = pem
        .lines()
        .filter_map(|line| line.trim_end().strip_prefix("-----BEGIN "))
        .filter_map(|rest| rest.strip_suffix("-----"))
        .collect();
    let why = match blocks.iter().find(|kind| **kind != "CERTIFICATE") {
        Some(kind) => format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}"),
        None if blocks.is_empty() => "must contain at least one CERTIFICATE PEM block".to_owned(),
        None => return None,
    };
    let shown = Fault::Invalid("\"<certificate data>\"".into());
    Some(FieldError::new(field, shown, why))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_stay_and_certificates_are_pem() {
        let status = |conditions: &[&str], certificate: &str| -> Value {
            let conditions: Vec<Value> = conditions
                .iter()
                .map(|kind| json!({"type": kind, "status": "True"}))
                .collect();
            json!({"status": {"conditions": conditions, "certificate": STANDARD.encode(certificate)}})
        };
        let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let key = "-----BEGIN KEY-----\nAA==\n-----END KEY-----\n";
        let (approve, sign) = (
            CERTIFICATE_SIGNING_REQUESTS.validate_update,
            CERTIFICATE_SIGNING_REQUESTS.validate_status.unwrap(),
        );
        for (check, new, old, wanted) in [
            (approve, status(&["Approved"], ""), status(&[], ""), ""),
            (
                approve,
                status(&[], ""),
                status(&["Approved"], ""),
                "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"",
            ),
            (
                sign,
                status(&["Approved"], pem),
                status(&["Approved"], ""),
                "",
            ),
            (
                sign,
                status(&["Denied"], ""),
                status(&[], ""),
                "status.conditions: Forbidden: updates may not add a condition of type \"Denied\"",
            ),
            (
                sign,
                status(&[], "x"),
                status(&[], ""),
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
            ),
            (
                sign,
                status(&[], key),
                status(&[], ""),
                "status.certificate: Invalid value: \"<certificate data>\": only CERTIFICATE PEM blocks are allowed, found \"KEY\"",
            ),
            (
                sign,
                status(&[], pem),
                status(&[], "x"),
                "status.certificate: Forbidden: updates may not modify existing certificate content",
            ),
        ] {
            let found: Vec<String> = check(&new, &old).iter().map(ToString::to_string).collect();
            assert_eq!(found.join("\n"), wanted);
        }
    }
}
