//! The parameters of each verb, read from the query and checked as Kubernetes checks them.

use api::decode::FieldValidation;
use api::field::{Fault, FieldError};
use api::status::Status;
use api::write::Deletion;
use serde_json::{Value, json};

use crate::query::Query;

/// Of create, update and patch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) field_validation: FieldValidation,
    /// Of an apply patch: whether fields are taken from their managers.
    pub(crate) force: bool,
}

impl WriteOptions {
    /// `kind` is the name under which faults are reported: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub(crate) fn parse(query: &Query, kind: &str) -> Result<Self, Status> {
        Self::read(query, kind, Vec::new())
    }

    /// Of a patch; an apply patch says who applies, and no other may be forced.
    pub(crate) fn of_patch(query: &Query, applies: bool) -> Result<Self, Status> {
        let mut errors = Vec::new();
        if applies && query.text("fieldManager").is_empty() {
            errors.push(FieldError::required(
                "fieldManager",
                "is required for apply patch",
            ));
        }
        if !applies && query.flag("force").is_some() {
            errors.push(FieldError::forbidden(
                "force",
                "may not be specified for non-apply patch",
            ));
        }
        Self::read(query, "PatchOptions", errors)
    }

    fn read(query: &Query, kind: &str, mut errors: Vec<FieldError>) -> Result<Self, Status> {
        let manager = query.text("fieldManager");
        if manager.len() > field_manager::NAME_MAX {
            errors.push(FieldError::too_long(
                "fieldManager",
                field_manager::NAME_MAX,
            ));
        }
        if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
            errors.push(FieldError::invalid_text(
                "fieldManager",
                manager,
                format!(
                    "invalid character U+{:04X} (at position {at})",
                    u32::from(c)
                ),
            ));
        }
        let dry_run = dry_run(query, &mut errors);
        let asked = query.text("fieldValidation");
        let field_validation = FieldValidation::parse(asked).unwrap_or_else(|| {
            errors.push(FieldError::not_supported(
                "fieldValidation",
                asked,
                &["", "Ignore", "Strict", "Warn"],
            ));
            FieldValidation::default()
        });
        if errors.is_empty() {
            Ok(WriteOptions {
                dry_run,
                field_validation,
                force: query.flag("force").unwrap_or(false),
            })
        } else {
            Err(Status::invalid_options(kind, &errors))
        }
    }
}

fn dry_run(query: &Query, errors: &mut Vec<FieldError>) -> bool {
    let values: Vec<&str> = query
        .values("dryRun")
        .filter(|value| !value.is_empty())
        .collect();
    check_dry_run(&values, errors)
}

fn check_dry_run(values: &[&str], errors: &mut Vec<FieldError>) -> bool {
    if values.iter().any(|value| *value != "All") {
        errors.push(FieldError::not_supported_shown(
            "dryRun",
            Value::from(values).to_string(),
            &["All"],
        ));
    }
    !values.is_empty()
}

/// What a DELETE asks for, and whether it is only to be tried: from the body where there is one, else from the query.
pub(crate) fn deletion(query: &Query, body: Option<Value>) -> Result<(Deletion, bool), Status> {
    let mut errors = Vec::new();
    let (options, dry_run) = if let Some(body) = body {
        let values: Vec<&str> = api::value::list(&body, &["dryRun"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let dry_run = check_dry_run(&values, &mut errors);
        (body, dry_run)
    } else {
        let mut options = json!({});
        let grace = query.text("gracePeriodSeconds");
        if !grace.is_empty() {
            options["gracePeriodSeconds"] = number(grace)?.into();
        }
        let policy = query.text("propagationPolicy");
        if !policy.is_empty() {
            options["propagationPolicy"] = policy.into();
        }
        if let Some(orphan) = query.flag("orphanDependents") {
            options["orphanDependents"] = orphan.into();
        }
        (options, dry_run(query, &mut errors))
    };
    if !errors.is_empty() {
        return Err(Status::invalid_options("DeleteOptions", &errors));
    }
    Ok((Deletion::parse(&options)?, dry_run))
}

/// How a list's or watch's resourceVersion is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Match {
    Unset,
    Exact,
    NotOlderThan,
}

/// Of list and watch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListOptions {
    pub(crate) watch: bool,
    /// `None`: not given.
    pub(crate) resource_version: Option<u64>,
    pub(crate) version_match: Match,
    /// Zero: all.
    pub(crate) limit: usize,
    pub(crate) continue_token: String,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) bookmarks: bool,
    pub(crate) initial_events: Option<bool>,
    /// Seconds that a watch lives.
    pub(crate) timeout: Option<u64>,
}

impl ListOptions {
    pub(crate) fn parse(query: &Query) -> Result<Self, Status> {
        let watch = query.flag("watch").unwrap_or(false);
        let version = query.text("resourceVersion");
        let continue_token = query.text("continue").to_owned();
        let initial_events = query.flag("sendInitialEvents");
        let version_match = query.text("resourceVersionMatch");

        let mut errors = Vec::new();
        let mut forbid =
            |field: &str, why: &str| errors.push(FieldError::new(field, Fault::Forbidden, why));
        if watch {
            if initial_events.is_some() && version_match != "NotOlderThan" {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                forbid("resourceVersionMatch", why);
            }
            if !version_match.is_empty() {
                if initial_events.is_none() {
                    let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    forbid("resourceVersionMatch", why);
                }
                if version_match != "NotOlderThan" {
                    let supported = &["NotOlderThan"];
                    errors.push(FieldError::not_supported(
                        "resourceVersionMatch",
                        version_match,
                        supported,
                    ));
                }
                if !continue_token.is_empty() {
                    errors.push(FieldError::forbidden(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    ));
                }
            }
        } else {
            if !version_match.is_empty() {
                if version.is_empty() {
                    let why =
                        "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    forbid("resourceVersionMatch", why);
                }
                if !continue_token.is_empty() {
                    forbid(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden when continue is provided",
                    );
                }
                if version_match == "Exact" && version == "0" {
                    let why =
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    forbid("resourceVersionMatch", why);
                }
                if !matches!(version_match, "Exact" | "NotOlderThan") {
                    let supported = &["Exact", "NotOlderThan", ""];
                    errors.push(FieldError::not_supported(
                        "resourceVersionMatch",
                        version_match,
                        supported,
                    ));
                }
            }
            if initial_events.is_some() {
                errors.push(FieldError::forbidden(
                    "sendInitialEvents",
                    "sendInitialEvents is forbidden for list",
                ));
            }
        }
        if !errors.is_empty() {
            return Err(Status::invalid_options("ListOptions", &errors));
        }
        let limit = match query.text("limit") {
            "" => 0,
            text => usize::try_from(number(text)?).unwrap_or(0),
        };
        let timeout = match query.text("timeoutSeconds") {
            "" => None,
            text => u64::try_from(number(text)?)
                .ok()
                .filter(|seconds| *seconds > 0),
        };
        Ok(ListOptions {
            watch,
            resource_version: resource_version(version)?,
            version_match: match version_match {
                "Exact" => Match::Exact,
                "NotOlderThan" => Match::NotOlderThan,
                _ => Match::Unset,
            },
            limit,
            continue_token,
            label_selector: query.text("labelSelector").to_owned(),
            field_selector: query.text("fieldSelector").to_owned(),
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or(false),
            initial_events,
            timeout,
        })
    }
}

/// `None` for the empty text.
pub(crate) fn resource_version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| digits)
        .map(Some)
        .ok_or_else(|| {
            let why = if digits {
                "value out of range"
            } else {
                "invalid syntax"
            };
            let why = format!("strconv.ParseUint: parsing {text:?}: {why}");
            let error = FieldError::invalid_text("resourceVersion", text, why);
            Status::bad_request(format!("invalid resource version: {error}"))
        })
}

fn number(text: &str) -> Result<i64, Status> {
    text.parse().map_err(|_| {
        Status::bad_request(format!(
            "strconv.ParseInt: parsing {text:?}: invalid syntax"
        ))
    })
}
