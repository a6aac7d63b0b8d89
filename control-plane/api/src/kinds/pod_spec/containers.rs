//! The containers of a Pod: those that run, those that prepare it, and those that come later to look at it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, Path};
use super::volumes::Volumes;
use super::{env, handlers, mounts, resources, security};
use crate::field::FieldError;
use crate::names;
use crate::value::{at, is_empty, list, text};

pub(super) const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];

/// What containers are judged by beside themselves.
pub(super) struct Around<'a> {
    pub(super) spec: &'a Value,
    pub(super) volumes: &'a Volumes<'a>,
    /// Names of the Pod's resource claims.
    pub(super) claims: &'a BTreeSet<&'a str>,
    pub(super) is_pod: bool,
}

impl Around<'_> {
    /// Seconds.
    fn grace(&self) -> i64 {
        at(self.spec, &["terminationGracePeriodSeconds"])
            .as_i64()
            .unwrap_or(30)
    }

    /// What any container must be.
    fn common(&self, container: &Value, path: &Path<'_>, found: &mut Findings) {
        let name = text(container, &["name"]);
        if found.needs(container, path, "name") {
            found.against(&path.child("name"), name, names::label(name));
        }
        found.needs(container, path, "image");
        found.one_of(
            &path.child("terminationMessagePolicy"),
            text(container, &["terminationMessagePolicy"]),
            &["File", "FallbackToLogsOnError"],
        );
        env::ports(container, path, found);
        env::env(container, path, found);
        env::env_from(container, path, found);
        mounts::check(container, self.volumes, path, found);
        found.one_of(
            &path.child("imagePullPolicy"),
            text(container, &["imagePullPolicy"]),
            PULL_POLICIES,
        );
        resources::check(
            at(container, &["resources"]),
            resources::Owner::Container,
            self.claims,
            &path.child("resources"),
            found,
        );
        let restarts = text(self.spec, &["restartPolicy"]);
        resources::resize_policies(container, restarts, path, found);
        let host_users = at(self.spec, &["hostUsers"]).as_bool() != Some(false);
        security::container(
            at(container, &["securityContext"]),
            host_users,
            &path.child("securityContext"),
            found,
        );
    }
}

/// `containers`.
pub(super) fn running(around: &Around<'_>, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("containers");
    let containers = list(around.spec, &["containers"]);
    if containers.is_empty() {
        return found.required(&path, "");
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let here = path.index(i);
        around.common(container, &here, found);
        let name = text(container, &["name"]);
        if !seen.insert(name) {
            found.duplicate(&here.child("name"), name);
        }
        handlers::check(container, around.grace(), &here, found);
        restart(container, &here, found);
    }
    env::port_conflicts(containers, &path, found);
}

/// `initContainers`.
pub(super) fn preparing(around: &Around<'_>, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("initContainers");
    let mut seen: BTreeSet<&str> = list(around.spec, &["containers"])
        .iter()
        .map(|container| text(container, &["name"]))
        .collect();
    for (i, container) in list(around.spec, &["initContainers"]).iter().enumerate() {
        let here = path.index(i);
        around.common(container, &here, found);
        restart(container, &here, found);
        let name = text(container, &["name"]);
        if !name.is_empty() && !seen.insert(name) {
            found.duplicate(&here.child("name"), name);
        }
        // They run one after another: each conflicts with itself alone.
        env::port_conflicts([container], &path, found);
        if text(container, &["restartPolicy"]) == "Always" {
            handlers::check(container, around.grace(), &here, found);
        } else {
            handlers::none(container, &here, found);
        }
    }
}

const RULES_MAX: usize = 20;
const CODES_MAX: usize = 255;

/// Its own way to be started again (KEP-5307).
fn restart(container: &Value, path: &Path<'_>, found: &mut Findings) {
    let policy = at(container, &["restartPolicy"]);
    let rules = list(container, &["restartPolicyRules"]);
    let here = path.child("restartPolicy");
    if policy.is_string() {
        found.one_of_given(&here, policy, &["Always", "Never", "OnFailure"]);
    } else if !rules.is_empty() {
        let why = "must specify restartPolicy when container restart rules are used";
        found.required(&here, why);
    }
    let here = path.child("restartPolicyRules");
    if rules.len() > RULES_MAX {
        found.push(FieldError::too_many(&here, rules.len(), RULES_MAX));
    }
    for (i, rule) in rules.iter().enumerate() {
        let here = here.index(i);
        let action = text(rule, &["action"]);
        if action != "Restart" {
            found.unsupported(&here.child("action"), action, &["Restart"]);
        }
        let (codes, here) = (at(rule, &["exitCodes"]), here.child("exitCodes"));
        if !codes.is_object() {
            found.required(&here, "must be specified");
            continue;
        }
        let operator = text(codes, &["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            found.unsupported(&here.child("operator"), operator, &["In", "NotIn"]);
        }
        let count = list(codes, &["values"]).len();
        if count > CODES_MAX {
            let here = here.child("values");
            found.push(FieldError::too_many(&here, count, CODES_MAX));
        }
    }
}

/// `ephemeralContainers`.
pub(super) fn passing(around: &Around<'_>, path: &Path<'_>, found: &mut Findings) {
    let path = path.child("ephemeralContainers");
    let others: BTreeSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|key| list(around.spec, &[key]))
        .map(|container| text(container, &["name"]))
        .collect();
    let mut seen = others.clone();
    let containers = list(around.spec, &["ephemeralContainers"]);
    for (i, container) in containers.iter().enumerate() {
        let here = path.index(i);
        around.common(container, &here, found);
        untrimmed(container, &here, found);
        let name = text(container, &["name"]);
        if !seen.insert(name) {
            found.duplicate(&here.child("name"), name);
        }
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            found.not_found(&here.child("targetContainerName"), target);
        }
        const WHY: &str = "cannot be set for an Ephemeral Container";
        for key in [
            "ports",
            "resources",
            "resizePolicy",
            "restartPolicy",
            "restartPolicyRules",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
        ] {
            if !is_empty(at(container, &[key])) {
                found.forbidden(&here.child(key), WHY);
            }
        }
        let mounts = here.child("volumeMounts");
        for (j, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
            for key in ["subPath", "subPathExpr"] {
                if !text(mount, &[key]).is_empty() {
                    found.forbidden(&mounts.index(j).child(key), WHY);
                }
            }
        }
    }
}

/// Images of a Pod's own containers have no blanks around them; those of templates may.
pub(super) fn images(around: &Around<'_>, path: &Path<'_>, found: &mut Findings) {
    if !around.is_pod {
        return;
    }
    for key in ["containers", "initContainers"] {
        let path = path.child(key);
        for (i, container) in list(around.spec, &[key]).iter().enumerate() {
            untrimmed(container, &path.index(i), found);
        }
    }
}

fn untrimmed(container: &Value, path: &Path<'_>, found: &mut Findings) {
    let image = text(container, &["image"]);
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        found.invalid_text(&path.child("image"), image, why);
    }
}

/// Every container of the Pod with its place, in the order in which clients see them.
pub(super) fn visit<'a>(
    spec: &'a Value,
    path: &Path<'_>,
    mut each: impl FnMut(&'a Value, &Path<'_>),
) {
    for key in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.child(key);
        for (i, container) in list(spec, &[key]).iter().enumerate() {
            each(container, &path.index(i));
        }
    }
}
