//! What a controller of Jobs must not say: Jobs that end without having begun, that end twice, or that come back.

use serde_json::Value;

use super::job_policies::{bad_indexes, first_overlap};
use super::workload_status::negatives;
use crate::duration::parse_time;
use crate::field::{Fault, FieldError, quoted};
use crate::value::{at, flag, list, number, text};

/// From one status to the next. What was wrong before and has not changed is let be.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let keys = ["active", "succeeded", "failed", "ready", "terminating"];
    let mut wrong = negatives(at(new, &["status"]), &keys);
    wrong.extend(bad_uncounted(at(
        new,
        &["status", "uncountedTerminatedPods"],
    )));
    let both = Both {
        new,
        old,
        wrong: &mut wrong,
    };
    both.check();
    wrong
}

/// A Pod is counted once, whether it succeeded or failed.
fn bad_uncounted(pods: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for key in ["succeeded", "failed"] {
        for (i, uid) in list(pods, &[key]).iter().enumerate() {
            let field = format!("status.uncountedTerminatedPods.{key}[{i}]");
            let uid = uid.as_str().unwrap_or("");
            if uid.is_empty() {
                wrong.push(FieldError::invalid_text(field, uid, "must not be empty"));
            } else if !seen.insert(uid) {
                wrong.push(FieldError::duplicate(field, quoted(uid)));
            }
        }
    }
    wrong
}

struct Both<'a> {
    new: &'a Value,
    old: &'a Value,
    wrong: &'a mut Vec<FieldError>,
}

fn holds(job: &Value, kind: &str) -> bool {
    list(job, &["status", "conditions"])
        .iter()
        .any(|c| text(c, &["type"]) == kind && text(c, &["status"]) == "True")
}

fn finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// A time as Go prints it.
fn shown_time(time: &Value) -> String {
    time.as_str().map_or_else(String::new, |time| {
        format!("{} +0000 UTC", time.replace('T', " ").replace('Z', ""))
    })
}

impl Both<'_> {
    fn status(&self, key: &str) -> &Value {
        at(self.new, &["status", key])
    }

    fn changed(&self, keys: &[&str]) -> bool {
        keys.iter()
            .any(|key| self.status(key) != at(self.old, &["status", key]))
    }

    fn turned(&self, kinds: &[&str]) -> bool {
        kinds
            .iter()
            .any(|kind| holds(self.new, kind) != holds(self.old, kind))
    }

    fn conditions(&mut self, why: &str) {
        self.wrong
            .push(FieldError::invalid_unshown("status.conditions", why));
    }

    fn invalid(&mut self, key: &str, why: impl Into<String>) {
        let value = self.status(key);
        let shown = if key == "completionTime" {
            shown_time(value)
        } else {
            value.to_string()
        };
        let error = FieldError::new(format!("status.{key}"), Fault::Invalid(shown), why);
        self.wrong.push(error);
    }

    fn required(&mut self, key: &str, why: &str) {
        self.wrong
            .push(FieldError::required(format!("status.{key}"), why));
    }

    fn check(mut self) {
        let (new, old) = (self.new, self.old);
        let (complete, failed) = (holds(new, "Complete"), holds(new, "Failed"));
        let (target, met) = (
            holds(new, "FailureTarget"),
            holds(new, "SuccessCriteriaMet"),
        );
        let ended = finished(new) != finished(old);
        if self.turned(&["Complete", "Failed"]) && complete && failed {
            self.conditions("cannot set Complete=True and Failed=true conditions");
        }
        if self.turned(&["Complete", "FailureTarget"]) && complete && target {
            self.conditions("cannot set Complete=True and FailureTarget=true conditions");
        }
        self.times(complete);
        if (self.turned(&["Failed"]) || self.changed(&["failedIndexes"])) && failed && !target {
            self.conditions(
                "cannot set Failed=True condition without the FailureTarget=true condition",
            );
        }
        if self.turned(&["Complete", "SuccessCriteriaMet"]) && complete && !met {
            self.conditions(
                "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
            );
        }
        if (ended || self.changed(&["active"]))
            && number(new, &["status", "active"]) > 0
            && finished(new)
        {
            self.invalid("active", "active>0 is invalid for finished job");
        }
        if (ended || self.changed(&["startTime"]))
            && self.status("startTime").is_null()
            && finished(new)
        {
            self.required("startTime", "startTime is required for finished job");
        }
        let uncounted = ["succeeded", "failed"]
            .iter()
            .any(|key| !list(new, &["status", "uncountedTerminatedPods", key]).is_empty());
        if (ended || self.changed(&["uncountedTerminatedPods"])) && finished(new) && uncounted {
            self.invalid(
                "uncountedTerminatedPods",
                "uncountedTerminatedPods needs to be empty for finished job",
            );
        }
        self.indexes();
        if (ended || self.changed(&["terminating"]))
            && number(new, &["status", "terminating"]) > 0
            && finished(new)
        {
            self.invalid("terminating", "terminating>0 is invalid for finished job");
        }
        if !self.status("ready").is_null()
            && self.changed(&["ready", "active"])
            && number(new, &["status", "ready"]) > number(new, &["status", "active"])
        {
            self.invalid("ready", "cannot set more ready pods than active");
        }
        if met && failed {
            self.conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions");
        }
        if met && target {
            self.conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        }
        if !at(new, &["spec", "successPolicy"]).is_null() && !met && complete {
            self.conditions(
                "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
            );
        }
        self.backwards(met);
    }

    fn times(&mut self, complete: bool) {
        let (start, end) = (
            self.status("startTime").clone(),
            self.status("completionTime").clone(),
        );
        if self.turned(&["Complete"]) || self.changed(&["completionTime"]) {
            if !end.is_null() && !complete {
                self.invalid(
                    "completionTime",
                    "cannot set completionTime when there is no Complete=True condition",
                );
            }
            if end.is_null() && complete {
                self.required(
                    "completionTime",
                    "completionTime is required for Complete jobs",
                );
            }
        }
        let moment = |time: &Value| time.as_str().and_then(parse_time);
        if self.changed(&["startTime", "completionTime"])
            && let (Some(start), Some(end)) = (moment(&start), moment(&end))
            && end < start
        {
            self.invalid(
                "completionTime",
                "completionTime cannot be set before startTime",
            );
        }
    }

    fn indexes(&mut self) {
        let spec = at(self.new, &["spec"]);
        let completions = at(spec, &["completions"]).as_i64();
        let (done, failed) = (
            text(self.new, &["status", "completedIndexes"]).to_owned(),
            self.status("failedIndexes").as_str().map(str::to_owned),
        );
        let (new_done, new_failed) = (
            self.changed(&["completedIndexes"]),
            self.changed(&["failedIndexes"]),
        );
        let per_index = !at(spec, &["backoffLimitPerIndex"]).is_null();
        if let Some(completions) = completions {
            if new_done && let Err(why) = bad_indexes(&done, completions) {
                self.invalid(
                    "completedIndexes",
                    format!("error parsing completedIndexes: {why}"),
                );
            }
            if new_failed
                && per_index
                && let Some(Err(why)) = failed.as_deref().map(|f| bad_indexes(f, completions))
            {
                self.invalid(
                    "failedIndexes",
                    format!("error parsing failedIndexes: {why}"),
                );
            }
        }
        if new_done && !done.is_empty() && text(spec, &["completionMode"]) != "Indexed" {
            self.invalid(
                "completedIndexes",
                "cannot set non-empty completedIndexes when non-indexed completion mode",
            );
        }
        if new_failed && failed.is_some() && !per_index {
            self.invalid(
                "failedIndexes",
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            );
        }
        if (new_done || new_failed)
            && let (Some(failed), Some(completions)) = (&failed, completions)
            && let Some(index) = first_overlap(&done, failed, completions)
        {
            let why = format!("failedIndexes and completedIndexes overlap at index: {index}");
            self.invalid("failedIndexes", why);
        }
    }

    /// What has happened stays so.
    fn backwards(&mut self, met: bool) {
        let (new, old) = (self.new, self.old);
        for kind in ["Failed", "Complete", "FailureTarget"] {
            if holds(old, kind) && !holds(new, kind) {
                self.conditions(&format!(
                    "cannot disable the terminal {kind}=True condition"
                ));
            }
        }
        let spec = at(new, &["spec"]);
        // An indexed Job that is made smaller forgets the indexes that it no longer has.
        let elastic = text(spec, &["completionMode"]) == "Indexed"
            && at(spec, &["completions"]) == at(spec, &["parallelism"]);
        for (key, counted) in [("failed", true), ("succeeded", !elastic)] {
            let count = number(new, &["status", key]);
            if counted && count < number(old, &["status", key]) {
                self.wrong.push(FieldError::invalid(
                    format!("status.{key}"),
                    &count.into(),
                    format!("cannot decrease the {key} counter"),
                ));
            }
        }
        let was = |key: &str| at(old, &["status", key]);
        if !self.status("completionTime").is_null()
            && !was("completionTime").is_null()
            && self.changed(&["completionTime"])
        {
            self.invalid("completionTime", "completionTime cannot be mutated");
        }
        if !was("startTime").is_null()
            && self.changed(&["startTime"])
            && !flag(new, &["spec", "suspend"])
        {
            self.required(
                "startTime",
                "startTime cannot be removed for unsuspended job",
            );
        }
        let met_before = holds(old, "SuccessCriteriaMet");
        if met_before && !met {
            self.conditions("cannot disable the SuccessCriteriaMet=True condition");
        }
        if holds(old, "Complete") && !met_before && met {
            self.conditions(
                "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn jobs_end_once_and_in_order() {
        let condition = |kinds: &[&str]| -> Value {
            kinds
                .iter()
                .map(|kind| json!({"type": kind, "status": "True"}))
                .collect()
        };
        let (begun, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z");
        let complete = json!({"startTime": begun, "completionTime": later, "succeeded": 1,
            "conditions": condition(&["SuccessCriteriaMet", "Complete"])});
        let table: &[(Value, Value, &[&str])] = &[
            (json!({"active": 1, "ready": 1}), json!({}), &[]),
            (complete.clone(), json!({"startTime": begun}), &[]),
            (
                json!({"active": -1}),
                json!({}),
                &["status.active: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"conditions": condition(&["Complete"])}),
                json!({}),
                &[
                    "status.completionTime: Required value: completionTime is required for Complete jobs",
                    "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                    "status.startTime: Required value: startTime is required for finished job",
                ],
            ),
            (
                json!({"startTime": begun, "succeeded": 1}),
                complete,
                &[
                    "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                    "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
                ],
            ),
            (
                json!({"startTime": later, "completionTime": begun, "conditions": condition(&["SuccessCriteriaMet", "Complete"])}),
                json!({"startTime": later}),
                &[
                    "status.completionTime: Invalid value: 2026-01-01 00:00:00 +0000 UTC: completionTime cannot be set before startTime",
                ],
            ),
            (
                json!({"ready": 2, "active": 1, "completedIndexes": "0"}),
                json!({"failed": 1}),
                &[
                    "status.completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
                    "status.ready: Invalid value: 2: cannot set more ready pods than active",
                    "status.failed: Invalid value: 0: cannot decrease the failed counter",
                ],
            ),
            (
                json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a", ""]}}),
                json!({}),
                &[
                    "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                    "status.uncountedTerminatedPods.failed[1]: Invalid value: \"\": must not be empty",
                ],
            ),
        ];
        for (new, old, wanted) in table {
            let job = |status: &Value| json!({"spec": {"completions": 3}, "status": status});
            let found: Vec<String> = validate(&job(new), &job(old))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, *wanted, "{new}");
        }
    }
}
