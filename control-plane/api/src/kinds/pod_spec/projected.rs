//! Volumes made of several sources, and those that tell a container of its Pod.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use super::volumes::{Place, key_to_path};
use super::{paths, selectors};
use crate::kinds::label_selector::bad_selector;
use crate::names;
use crate::value::{at, list, number, text};

/// Ten minutes.
const TOKEN_LEAST: i64 = 10 * 60;
const TOKEN_MOST: i64 = 1 << 32;

pub(super) fn downward(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    paths::mode(found, path, source, "defaultMode");
    for item in list(source, &["items"]) {
        downward_file(item, path, found);
    }
}

fn downward_file(item: &Value, path: &Path<'_>, found: &mut Findings) {
    found.needs(item, path, "path");
    paths::local(found, &path.child("path"), text(item, &["path"]));
    let (field, resource) = (at(item, &["fieldRef"]), at(item, &["resourceFieldRef"]));
    if field.is_object() {
        selectors::field(
            found,
            &path.child("fieldRef"),
            field,
            selectors::FILE_FIELDS,
        );
        if resource.is_object() {
            let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
            found.invalid_text(path, "resource", why);
        }
    } else if resource.is_object() {
        selectors::resource(found, &path.child("resourceFieldRef"), resource, true);
    } else {
        found.required(path, "one of fieldRef and resourceFieldRef is required");
    }
    paths::mode(found, path, item, "mode");
}

pub(super) fn projected(source: &Value, path: &Path<'_>, _: &Place<'_>, found: &mut Findings) {
    paths::mode(found, path, source, "defaultMode");
    let sources = path.child("sources");
    let mut files = BTreeSet::new();
    for (i, source) in list(source, &["sources"]).iter().enumerate() {
        let here = sources.index(i);
        let mut count = 0;
        for key in ["secret", "configMap"] {
            let given = at(source, &[key]);
            if given.is_object() {
                count += 1;
                let here = here.child(key);
                found.needs(given, &here, "name");
                let items = here.child("items");
                for (i, item) in list(given, &["items"]).iter().enumerate() {
                    key_to_path(item, &items.index(i), found);
                    let file = text(item, &["path"]);
                    if !file.is_empty() && !files.insert(file) {
                        twice(path, text(given, &["name"]), found);
                    }
                }
            }
        }
        let given = at(source, &["downwardAPI"]);
        if given.is_object() {
            count += 1;
            for item in list(given, &["items"]) {
                downward_file(item, &here.child("downwardAPI"), found);
                let file = text(item, &["path"]);
                if !file.is_empty() && !files.insert(file) {
                    twice(path, file, found);
                }
            }
        }
        let given = at(source, &["serviceAccountToken"]);
        if given.is_object() {
            count += 1;
            token(given, path, &here.child("serviceAccountToken"), found);
        }
        let given = at(source, &["clusterTrustBundle"]);
        if given.is_object() {
            count += 1;
            trust_bundle(given, &here.child("clusterTrustBundle"), found);
            let file = text(given, &["path"]);
            if !files.insert(file) {
                twice(path, file, found);
            }
        }
        if count > 1 {
            let why = "may not specify more than 1 volume type per source";
            found.forbidden(&here, why);
        }
    }
}

fn twice(path: &Path<'_>, shown: &str, found: &mut Findings) {
    found.invalid_text(path, shown, "conflicting duplicate paths");
}

fn token(token: &Value, volume: &Path<'_>, path: &Path<'_>, found: &mut Findings) {
    let seconds = at(token, &["expirationSeconds"]);
    let here = path.child("expirationSeconds");
    if number(token, &["expirationSeconds"]) < TOKEN_LEAST && !seconds.is_null() {
        found.invalid(
            &here,
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if number(token, &["expirationSeconds"]) > TOKEN_MOST {
        let why = "may not specify a duration larger than 2^32 seconds";
        found.invalid(&here, seconds, why);
    }
    let file = text(token, &["path"]);
    if file.is_empty() {
        found.required(&volume.child("path"), "");
    } else {
        paths::local(found, &volume.child("path"), file);
    }
}

fn trust_bundle(bundle: &Value, path: &Path<'_>, found: &mut Findings) {
    let (name, signer) = (at(bundle, &["name"]), at(bundle, &["signerName"]));
    match (name.as_str(), signer.as_str()) {
        (Some(_), Some(_)) => {
            found.invalid(path, bundle, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            let here = path.child("name");
            if name.is_empty() {
                found.required(&here, "must be a valid object name");
            }
            // The part before the last colon is that of the signer, whose slash was replaced.
            let own = name.rsplit_once(':').map_or(name, |(_, own)| own);
            for why in names::subdomain(own) {
                let why = format!("not a valid clustertrustbundlename: {why}");
                found.invalid_text(&here, name, why);
            }
            let selector = at(bundle, &["labelSelector"]);
            if !selector.is_null() {
                let why = "labelSelector must be unset if name is specified";
                found.invalid(&path.child("labelSelector"), selector, why);
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                found.required(&path.child("signerName"), "must be a valid signer name");
            }
            let here = path.child("labelSelector").to_string();
            found.extend(bad_selector(&here, at(bundle, &["labelSelector"])));
        }
        (None, None) => found.required(path, "either name or signerName must be specified"),
    }
    found.needs(bundle, path, "path");
    paths::local(found, &path.child("path"), text(bundle, &["path"]));
}
