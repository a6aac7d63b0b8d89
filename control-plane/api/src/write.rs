//! What happens to an object between the request and the store: the order of defaulting, preparation and validation
//! that all kinds share. Pure; time and identity come in as [`Stamps`].

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use crate::field::FieldError;
use crate::kinds::pod_parts;
use crate::meta::{self, Stamps};
use crate::status::{Status, Subject};
use crate::table::Resource;
use crate::value::{self, at, keep, number, set, text};

/// Which part of an object an update writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status, and labels and annotations.
    Status,
    /// The finalizers in the spec of a Namespace.
    Finalize,
    /// The conditions of a CertificateSigningRequest.
    Approval,
    /// The ephemeral containers of a Pod.
    Ephemeral,
    /// The resources of a Pod's containers.
    Resize,
}

/// Makes `object`, as it was sent, into what is stored: [`fill_new`], then [`check_new`]. `namespace` is that of the
/// request, empty for cluster-wide resources. Service addresses and ports are not yet given out: see [`crate::service`].
///
/// # Errors
/// 400 for another namespace or a set resourceVersion, 422 with everything that is wrong.
pub fn create(
    resource: &Resource,
    object: &mut Value,
    namespace: &str,
    stamps: &Stamps,
) -> Result<(), Status> {
    fill_new(resource, object, namespace, stamps)?;
    check_new(resource, object)
}

/// The first half of a create: metadata and defaults. Field managers and admission look at the object as it is then.
///
/// # Errors
/// 400 for another namespace or a set resourceVersion.
pub fn fill_new(
    resource: &Resource,
    object: &mut Value,
    namespace: &str,
    stamps: &Stamps,
) -> Result<(), Status> {
    match_namespace(resource, object, namespace)?;
    if !matches!(meta::resource_version(object), "" | "0") {
        return Err(Status::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let Some(metadata) = value::object_mut(object, "metadata") else {
        return Err(Status::bad_request("metadata must be an object"));
    };
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
        "generation",
    ] {
        value::remove(metadata, key);
    }
    set(metadata, "uid", stamps.uid.clone());
    set(metadata, "creationTimestamp", meta::timestamp(stamps.now));
    if text(metadata, &["name"]).is_empty() && !text(metadata, &["generateName"]).is_empty() {
        let name = meta::generated_name(text(metadata, &["generateName"]), &stamps.suffix);
        set(metadata, "name", name);
    }
    if resource.has_generation {
        set(metadata, "generation", 1);
    }
    resource.fill(object);
    Ok(())
}

/// The second half of a create: what a creator has no say in is cleared, and the object is validated.
///
/// # Errors
/// 422 with everything that is wrong.
pub fn check_new(resource: &Resource, object: &mut Value) -> Result<(), Status> {
    (resource.prepare_create)(object);
    if resource.custom.is_some() {
        // A status that was cleared may have a default of its own.
        resource.fill(object);
    }
    let mut wrong = meta::validate(resource, object);
    wrong.extend((resource.validate)(object));
    if let Some(rules) = resource.rules() {
        wrong.extend(rules.validate(object, None, Part::Main));
    }
    verdict(resource, object, &wrong)
}

/// Makes `new`, as it was sent or patched, into what is stored in the place of `old`: [`fill_changed`], then
/// [`check_changed`]. The resourceVersion of `new` is left for the caller to compare and to drop.
///
/// # Errors
/// 400 for another name or namespace, 409 for another uid, 422 with everything that is wrong.
pub fn update(resource: &Resource, new: &mut Value, old: &Value, part: Part) -> Result<(), Status> {
    fill_changed(resource, new, old, part)?;
    check_changed(resource, new, old, part)
}

/// The first half of an update: defaults, and what this part of the object cannot change. Field managers and admission
/// look at the object as it is then.
///
/// # Errors
/// 400 for another name or namespace, 409 for another uid.
pub fn fill_changed(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    part: Part,
) -> Result<(), Status> {
    match_namespace(resource, new, meta::namespace(old))?;
    let name = meta::name(old);
    if !new.get("metadata").is_some_and(Value::is_object) {
        return Err(Status::bad_request("metadata must be an object"));
    }
    match meta::name(new) {
        "" => {
            return Err(Status::bad_request(format!(
                "the name of the object (based on URL) was undeterminable: name must be provided, expected {name}"
            )));
        }
        sent if sent != name => return Err(Status::bad_request(name_mismatch(sent, name))),
        _ => {}
    }
    let (sent, stored) = (meta::uid(new), meta::uid(old));
    if !sent.is_empty() && sent != stored {
        return Err(Status::conflict(
            resource,
            name,
            &format!(
                "Precondition failed: UID in precondition: {sent}, UID in object meta: {stored}"
            ),
        ));
    }
    if meta::resource_version(new).is_empty() && !resource.unconditional_update {
        let wrong = [FieldError::invalid(
            "metadata.resourceVersion",
            &0.into(),
            "must be specified for an update",
        )];
        return Err(Status::invalid_object(resource, name, &wrong));
    }
    resource.fill(new);
    keep_metadata(new, old);
    match part {
        Part::Main if resource.has_status() => keep(new, old, "status"),
        Part::Main => {}
        Part::Status => take_status(resource, new, old),
        Part::Finalize => take_finalizers(new, old),
        Part::Approval => take_conditions(new, old),
        Part::Ephemeral => pod_parts::take_ephemeral(new, old),
        Part::Resize => pod_parts::take_resize(new, old),
    }
    Ok(())
}

/// The second half of an update: what a client has no say in is put back, the generation counts, and the object is
/// validated.
///
/// # Errors
/// 422 with everything that is wrong.
pub fn check_changed(
    resource: &Resource,
    new: &mut Value,
    old: &Value,
    part: Part,
) -> Result<(), Status> {
    match part {
        Part::Main => (resource.prepare_update)(new, old),
        Part::Status => (resource.prepare_status)(new, old),
        Part::Finalize | Part::Approval | Part::Ephemeral | Part::Resize => {}
    }
    if let Some(metadata) = new.get_mut("metadata") {
        keep(metadata, &old["metadata"], "generation");
        let wishes = matches!(part, Part::Main | Part::Ephemeral | Part::Resize);
        if resource.has_generation && wishes && wishes_differ(resource, new, old) {
            set(
                &mut new["metadata"],
                "generation",
                number(old, &["metadata", "generation"]) + 1,
            );
        }
    }
    let mut wrong = meta::validate_update(new, old);
    wrong.extend(match part {
        Part::Ephemeral => pod_parts::validate_ephemeral(new, old),
        Part::Resize => pod_parts::validate_resize(new, old),
        Part::Status => resource.validate_status.unwrap_or(resource.validate_update)(new, old),
        Part::Main | Part::Finalize | Part::Approval => (resource.validate_update)(new, old),
    });
    if let Some(rules) = resource.rules() {
        wrong.extend(rules.validate(new, Some(old), part));
    }
    verdict(resource, new, &wrong)
}

/// The refusal of an object whose name is another than the path's.
pub fn name_mismatch(sent: &str, path: &str) -> String {
    format!("the name of the object ({sent}) does not match the name on the URL ({path})")
}

/// What a DELETE asks for.
#[derive(Clone, Default, Debug)]
pub struct Deletion {
    /// Seconds that the object is given to end; `None`: what the object itself asks for.
    pub grace_period_secs: Option<i64>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation: Option<String>,
    /// Delete only this one.
    pub uid: Option<String>,
    /// Delete only at this revision.
    pub resource_version: Option<String>,
}

/// What a DELETE does.
#[derive(Clone, PartialEq, Debug)]
pub enum Fate {
    /// Remove the key.
    Remove,
    /// Store this instead: the object is marked and waits for its finalizers or its grace period.
    Mark(Box<Value>),
    /// It is on its way out already.
    Waits,
}

impl Deletion {
    /// From the body of a DELETE, a `DeleteOptions` object.
    ///
    /// # Errors
    /// 422 in Kubernetes' words for values out of range.
    pub fn parse(options: &Value) -> Result<Self, Status> {
        let mut wrong = Vec::new();
        let propagation = at(options, &["propagationPolicy"])
            .as_str()
            .map(str::to_owned);
        let orphan = at(options, &["orphanDependents"]).as_bool();
        if propagation.is_some() && orphan.is_some() {
            wrong.push(FieldError::invalid(
                "propagationPolicy",
                at(options, &["propagationPolicy"]),
                "orphanDependents and deletionPropagation cannot be both set",
            ));
        }
        if let Some(policy) = propagation.as_deref() {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            if !known[..3].contains(&policy) {
                wrong.push(FieldError::not_supported(
                    "propagationPolicy",
                    policy,
                    &known,
                ));
            }
        }
        if !wrong.is_empty() {
            return Err(Status::invalid_options("DeleteOptions", &wrong));
        }
        let orphan = orphan.map(|yes| if yes { "Orphan" } else { "Background" }.to_owned());
        let filled = |path: &[&str]| Some(text(options, path).to_owned()).filter(|t| !t.is_empty());
        Ok(Deletion {
            grace_period_secs: at(options, &["gracePeriodSeconds"]).as_i64(),
            propagation: propagation.or(orphan),
            uid: filled(&["preconditions", "uid"]),
            resource_version: filled(&["preconditions", "resourceVersion"]),
        })
    }

    /// Whether the object is the one that the request means.
    ///
    /// # Errors
    /// 409 that names both sides; 403 for an object that is never deleted.
    pub fn check(&self, resource: &Resource, object: &Value) -> Result<(), Status> {
        if let Some(why) = (resource.keeps)(object) {
            return Err(Status::forbidden(resource, meta::name(object), why));
        }
        let refuse = |what: &str, asked: &str, met: &str, hint: &str| {
            let why = format!(
                "the {what} in the precondition ({asked}) does not match the {what} in record ({met}). {hint}"
            );
            let subject = Subject {
                group: resource.group,
                name: resource.kind,
            };
            Status::conflict(subject, meta::name(object), &why)
        };
        if let Some(uid) = self.uid.as_deref().filter(|uid| *uid != meta::uid(object)) {
            return Err(refuse(
                "UID",
                uid,
                meta::uid(object),
                "The object might have been deleted and then recreated",
            ));
        }
        let version = self
            .resource_version
            .as_deref()
            .filter(|v| *v != meta::resource_version(object));
        if let Some(version) = version {
            return Err(refuse(
                "ResourceVersion",
                version,
                meta::resource_version(object),
                "The object might have been modified",
            ));
        }
        Ok(())
    }

    /// What becomes of `object`.
    pub fn fate(&self, resource: &Resource, object: &Value, now: OffsetDateTime) -> Fate {
        let mut marked = object.clone();
        let mut finalizers: Vec<Value> = meta::finalizers(object).to_vec();
        let wanted = match self.propagation.as_deref() {
            Some("Orphan") => Some("orphan"),
            Some("Foreground") => Some("foregroundDeletion"),
            _ => None,
        };
        if self.propagation.is_some() {
            finalizers.retain(|f| !matches!(f.as_str(), Some("orphan" | "foregroundDeletion")));
            finalizers.extend(wanted.map(Value::from));
        }
        let definition = resource.is("apiextensions.k8s.io", "CustomResourceDefinition");
        if definition && !meta::is_terminating(object) {
            // Its objects go first.
            let cleanup = Value::from("customresourcecleanup.apiextensions.k8s.io");
            if !finalizers.contains(&cleanup) {
                finalizers.push(cleanup);
            }
            if let Some(status) = value::object_mut(&mut marked, "status") {
                let condition = serde_json::json!({
                    "type": "Terminating", "status": "True", "lastTransitionTime": meta::timestamp(now),
                    "reason": "InstanceDeletionPending",
                    "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
                });
                let mut conditions = value::list(status, &["conditions"]).to_vec();
                conditions.retain(|condition| text(condition, &["type"]) != "Terminating");
                conditions.push(condition);
                set(status, "conditions", conditions);
            }
        }
        let grace = self.grace(resource, object);

        if finalizers.is_empty() && grace == 0 && !waits_to_be_emptied(resource, object) {
            return Fate::Remove;
        }
        let metadata = &mut marked["metadata"];
        if finalizers.is_empty() {
            value::remove(metadata, "finalizers");
        } else {
            set(metadata, "finalizers", finalizers);
        }
        let before = at(object, &["metadata", "deletionGracePeriodSeconds"]).as_i64();
        if !meta::is_terminating(object) || before.is_some_and(|before| grace < before) {
            set(
                metadata,
                "deletionTimestamp",
                meta::timestamp(now.saturating_add(Duration::seconds(grace))),
            );
            set(metadata, "deletionGracePeriodSeconds", grace);
            if resource.has_generation && !meta::is_terminating(object) {
                let generation = number(object, &["metadata", "generation"]);
                set(metadata, "generation", generation + 1);
            }
        }
        if resource.is("", "Namespace")
            && let Some(status) = value::object_mut(&mut marked, "status")
        {
            set(status, "phase", "Terminating");
        }
        if marked == *object {
            Fate::Waits
        } else {
            Fate::Mark(Box::new(marked))
        }
    }

    /// The grace period in seconds. A Pod that no node runs, or that has ended, needs none.
    fn grace(&self, resource: &Resource, object: &Value) -> i64 {
        if !resource.graceful_deletion {
            return 0;
        }
        let asked = self.grace_period_secs.unwrap_or_else(|| {
            at(object, &["spec", "terminationGracePeriodSeconds"])
                .as_i64()
                .unwrap_or(30)
        });
        let unscheduled = text(object, &["spec", "nodeName"]).is_empty();
        let ended = matches!(text(object, &["status", "phase"]), "Succeeded" | "Failed");
        if unscheduled || ended {
            return 0;
        }
        let asked = if asked < 0 { 1 } else { asked };
        // Once begun, a grace period can only be shortened.
        at(object, &["metadata", "deletionGracePeriodSeconds"])
            .as_i64()
            .map_or(asked, |before| asked.min(before))
    }
}

/// Whether an object that is marked for deletion has nothing left to wait for, so that an update removes it.
pub fn is_done(resource: &Resource, object: &Value) -> bool {
    meta::is_terminating(object)
        && meta::finalizers(object).is_empty()
        && number(object, &["metadata", "deletionGracePeriodSeconds"]) == 0
        && !waits_to_be_emptied(resource, object)
}

/// Whether a Namespace still has to be emptied.
fn waits_to_be_emptied(resource: &Resource, object: &Value) -> bool {
    resource.is("", "Namespace") && !value::list(object, &["spec", "finalizers"]).is_empty()
}

fn match_namespace(resource: &Resource, object: &mut Value, namespace: &str) -> Result<(), Status> {
    let sent = meta::namespace(object);
    let wanted = if resource.namespaced { namespace } else { "" };
    if sent == wanted {
        return Ok(());
    }
    if !sent.is_empty() && !wanted.is_empty() {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let wanted = wanted.to_owned();
    if let Some(metadata) = value::object_mut(object, "metadata") {
        if wanted.is_empty() {
            value::remove(metadata, "namespace");
        } else {
            set(metadata, "namespace", wanted);
        }
    }
    Ok(())
}

/// What the server sets, and a client that left it out does not mean to erase.
fn keep_metadata(new: &mut Value, old: &Value) {
    let Some(metadata) = value::object_mut(new, "metadata") else {
        return;
    };
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ] {
        keep(metadata, &old["metadata"], key);
    }
    if text(metadata, &["generateName"]).is_empty() {
        keep(metadata, &old["metadata"], "generateName");
    }
}

/// A write of the status leaves all else as it is, but for metadata; of a custom resource that as well. Kinds that keep
/// more say so as [`Resource::prepare_status`].
fn take_status(resource: &Resource, new: &mut Value, old: &Value) {
    let status = new.get("status").cloned();
    let mut whole = old.clone();
    let mut metadata = new["metadata"].take();
    if resource.custom.is_some() {
        let mut before = old["metadata"].clone();
        for key in ["managedFields", "resourceVersion"] {
            keep(&mut before, &metadata, key);
        }
        metadata = before;
    }
    set(&mut whole, "metadata", metadata);
    match status {
        Some(status) => set(&mut whole, "status", status),
        None => {
            value::remove(&mut whole, "status");
        }
    }
    *new = whole;
}

/// For kinds whose status is written with none of what clients say in metadata (`ResetObjectMetaForStatus`).
pub(crate) fn keep_said_metadata(new: &mut Value, old: &Value) {
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        keep(&mut new["metadata"], &old["metadata"], key);
    }
}

/// A write of the approval changes the conditions alone.
fn take_conditions(new: &mut Value, old: &Value) {
    let conditions = at(new, &["status", "conditions"]).clone();
    let metadata = new["metadata"].take();
    *new = old.clone();
    for key in ["resourceVersion", "managedFields"] {
        keep(&mut new["metadata"], &metadata, key);
    }
    if let Some(status) = value::object_mut(new, "status") {
        set(status, "conditions", conditions);
    }
}

fn take_finalizers(new: &mut Value, old: &Value) {
    let finalizers = at(new, &["spec", "finalizers"]).clone();
    let version = at(new, &["metadata", "resourceVersion"]).clone();
    *new = old.clone();
    set(&mut new["metadata"], "resourceVersion", version);
    if let Some(spec) = value::object_mut(new, "spec") {
        if value::is_empty(&finalizers) {
            value::remove(spec, "finalizers");
        } else {
            set(spec, "finalizers", finalizers);
        }
    }
}

/// Whether anything but metadata and status differs. A custom resource without a status of its own wishes all of it.
fn wishes_differ(resource: &Resource, new: &Value, old: &Value) -> bool {
    let whole = resource.custom.is_some() && !resource.has_status();
    // A Deployment's annotations are its ReplicaSets' too.
    let annotations = |object: &Value| at(object, &["metadata", "annotations"]).clone();
    if resource.is("apps", "Deployment") && annotations(new) != annotations(old) {
        return true;
    }
    let wishes = |object: &Value| -> Vec<(String, Value)> {
        value::entries(object, &[])
            .filter(|(key, _)| {
                let key = key.as_str();
                !matches!(key, "metadata" | "apiVersion" | "kind") && (whole || key != "status")
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    wishes(new) != wishes(old)
}

fn verdict(resource: &Resource, object: &Value, wrong: &[FieldError]) -> Result<(), Status> {
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid_object(resource, meta::name(object), wrong))
    }
}
