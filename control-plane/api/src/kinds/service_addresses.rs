//! Which cluster addresses and families a Service must not have.

use serde_json::Value;

use crate::field::{FieldError, quoted};
use crate::net;
use crate::service::Family;
use crate::value::{at, list, text};

/// Everything wrong with `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` of a spec.
pub(super) fn addresses(spec: &Value, headless: bool) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let field = "spec.clusterIPs";
    let one = text(spec, &["clusterIP"]);
    let shown = at(spec, &["clusterIPs"]);
    let all: Vec<&str> = list(shown, &[])
        .iter()
        .map(|a| a.as_str().unwrap_or(""))
        .collect();
    if one.is_empty() && !all.is_empty() {
        wrong.push(FieldError::invalid(
            field,
            shown,
            "must be empty when `clusterIP` is not specified",
        ));
    } else if !one.is_empty() {
        match all.first() {
            None => wrong.push(FieldError::required(field, "")),
            Some(first) if *first != one => {
                wrong.push(FieldError::invalid(
                    field,
                    shown,
                    "first value must match `clusterIP`",
                ));
            }
            Some(_) => {}
        }
    }
    let families: Vec<&str> = list(spec, &["ipFamilies"])
        .iter()
        .map(|f| f.as_str().unwrap_or(""))
        .collect();
    for (i, family) in families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{i}]");
        if Family::parse(family).is_none() {
            wrong.push(FieldError::not_supported(
                path.clone(),
                family,
                &["IPv4", "IPv6"],
            ));
        }
        if families[..i].contains(family) {
            wrong.push(FieldError::duplicate(path, quoted(family)));
        }
    }
    if let Some(policy) = at(spec, &["ipFamilyPolicy"]).as_str() {
        let known = ["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !known.contains(&policy) {
            wrong.push(FieldError::not_supported(
                "spec.ipFamilyPolicy",
                policy,
                &known,
            ));
        }
    }
    let before = wrong.len();
    for (i, address) in all.iter().enumerate() {
        if i == 0 && *address == "None" {
            if all.len() > 1 {
                wrong.push(FieldError::invalid(
                    field,
                    shown,
                    "'None' must be the first and only value",
                ));
            }
            continue;
        }
        wrong.extend(
            net::bad_ip(address)
                .map(|why| FieldError::invalid_text(format!("{field}[{i}]"), address, why)),
        );
    }
    if all.len() > 2 {
        wrong.push(FieldError::invalid(
            field,
            shown,
            "may only hold up to 2 values",
        ));
    }
    if wrong.len() > before {
        return wrong;
    }
    if let [first, second] = all.as_slice()
        && Family::of(first) == Family::of(second)
    {
        wrong.push(FieldError::invalid(
            field,
            shown,
            "may specify no more than one IP for each IP family",
        ));
    }
    if !headless {
        for (i, (address, family)) in all.iter().zip(&families).enumerate() {
            let wanted = Family::parse(family);
            if wanted.is_some() && Family::of(address) != wanted {
                let why = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                wrong.push(FieldError::invalid_text(
                    format!("{field}[{i}]"),
                    address,
                    why,
                ));
            }
        }
    }
    wrong
}

/// The first address and family stay for good; the second may come and go.
pub(super) fn kept_addresses(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    for key in ["clusterIPs", "ipFamilies"] {
        let (before, after) = (list(old, &["spec", key]), list(new, &["spec", key]));
        let shown = at(new, &["spec", key]);
        if !before.is_empty() && before.first() != after.first() {
            wrong.push(FieldError::invalid(
                format!("spec.{key}[0]"),
                shown,
                "may not change once set",
            ));
        }
        if let (Some(b), Some(a)) = (before.get(1), after.get(1))
            && a != b
        {
            wrong.push(FieldError::invalid(
                format!("spec.{key}[1]"),
                shown,
                "may not change once set",
            ));
        }
        let releases = before.len() == 2 && after.len() == 1;
        if releases && text(new, &["spec", "ipFamilyPolicy"]) != "SingleStack" {
            let what = if key == "clusterIPs" {
                "clusterIP"
            } else {
                "ipFamily"
            };
            let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
            wrong.push(FieldError::invalid(
                "spec.ipFamilyPolicy",
                at(new, &["spec", "ipFamilyPolicy"]),
                why,
            ));
        }
    }
    wrong
}
