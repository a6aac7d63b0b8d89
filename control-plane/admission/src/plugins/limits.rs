//! LimitRanger: what containers get where they ask for nothing, and how much or little they may ask for.

use api::quantity::Quantity;
use api::status::Status;
use api::value::{items_mut, list, object_mut, set, text};
use serde_json::Value;

use crate::pod::{Amounts, amounts, total};
use crate::{Attributes, Lookup, Operation, Plugin, Warnings};

pub(crate) const LIMIT_RANGER: Plugin = Plugin {
    name: "LimitRanger",
    handles: |attributes| match attributes.operation {
        Operation::Create => {
            attributes.is("", "pods") || attributes.is("", "persistentvolumeclaims")
        }
        Operation::Update => {
            attributes.is("", "persistentvolumeclaims")
                || (
                    attributes.group,
                    attributes.resource,
                    attributes.subresource,
                ) == ("", "pods", "resize")
        }
        Operation::Delete | Operation::Connect => false,
    },
    mutate: Some(mutate),
    validate: Some(validate),
};

fn mutate(
    attributes: &Attributes<'_>,
    pod: &mut Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
) -> Result<(), Status> {
    if attributes.resource != "pods" || attributes.operation != Operation::Create {
        return Ok(());
    }
    for range in lookup.list("limitranges", attributes.namespace) {
        let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
        for limit in list(&range, &["spec", "limits"]) {
            if text(limit, &["type"]) == "Container" {
                requests.extend(amounts(limit, &["defaultRequest"]));
                limits.extend(amounts(limit, &["default"]));
            }
        }
        if requests.is_empty() && limits.is_empty() {
            continue;
        }
        let mut told = Vec::new();
        let Some(spec) = object_mut(pod, "spec") else {
            return Ok(());
        };
        for (key, prefix) in [
            ("containers", "container"),
            ("initContainers", "init container"),
        ] {
            for container in items_mut(spec, key) {
                let name = text(container, &["name"]).to_owned();
                let Some(resources) = object_mut(container, "resources") else {
                    continue;
                };
                for (which, defaults) in [("requests", &requests), ("limits", &limits)] {
                    let filled = fill(resources, which, defaults);
                    if !filled.is_empty() {
                        let what = which.trim_end_matches('s');
                        told.push(format!("{} {what} for {prefix} {name}", filled.join(", ")));
                    }
                }
            }
        }
        if !told.is_empty()
            && let Some(metadata) = object_mut(pod, "metadata")
            && let Some(annotations) = object_mut(metadata, "annotations")
        {
            let note = format!("LimitRanger plugin set: {}", told.join("; "));
            set(annotations, "kubernetes.io/limit-ranger", note);
        }
    }
    Ok(())
}

/// Sets what is absent; returns the names of that.
fn fill(resources: &mut Value, which: &str, defaults: &Amounts) -> Vec<String> {
    let known = amounts(resources, &[which]);
    let missing: Vec<(&String, &Quantity)> = defaults
        .iter()
        .filter(|(name, _)| !known.contains_key(*name))
        .collect();
    if missing.is_empty() {
        return Vec::new();
    }
    let Some(slot) = object_mut(resources, which) else {
        return Vec::new();
    };
    for (name, amount) in &missing {
        set(slot, name, amount.to_string());
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

fn validate(
    attributes: &Attributes<'_>,
    object: &Value,
    _: Option<&Value>,
    lookup: &dyn Lookup,
    _: &mut Warnings,
) -> Result<(), Status> {
    for range in lookup.list("limitranges", attributes.namespace) {
        let mut wrong = Vec::new();
        for limit in list(&range, &["spec", "limits"]) {
            let bounds = Bounds::of(limit);
            match (bounds.kind, attributes.resource) {
                ("Container", "pods") => {
                    for key in ["containers", "initContainers"] {
                        for container in list(object, &["spec", key]) {
                            let asked = |which| amounts(container, &["resources", which]);
                            bounds.check(&asked("requests"), &asked("limits"), &mut wrong);
                        }
                    }
                }
                ("Pod", "pods") => {
                    let (requests, limits) = whole(object);
                    bounds.check(&requests, &limits, &mut wrong);
                }
                ("PersistentVolumeClaim", "persistentvolumeclaims") => {
                    let requests = amounts(object, &["spec", "resources", "requests"]);
                    bounds.check_requests(&requests, &mut wrong);
                }
                _ => {}
            }
        }
        if !wrong.is_empty() {
            let mut told: Vec<String> = Vec::new();
            for why in wrong {
                if !told.contains(&why) {
                    told.push(why);
                }
            }
            return Err(attributes.forbid(match told.as_slice() {
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            }));
        }
    }
    Ok(())
}

/// Requests and limits of a Pod, whose overhead does not count here.
fn whole(pod: &Value) -> (Amounts, Amounts) {
    let mut without = pod.clone();
    if let Some(spec) = without.get_mut("spec") {
        api::value::remove(spec, "overhead");
    }
    (total(&without, "requests"), total(&without, "limits"))
}

/// One item of a LimitRange.
struct Bounds<'a> {
    kind: &'a str,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

impl<'a> Bounds<'a> {
    fn of(limit: &'a Value) -> Self {
        Bounds {
            kind: text(limit, &["type"]),
            min: amounts(limit, &["min"]),
            max: amounts(limit, &["max"]),
            ratio: amounts(limit, &["maxLimitRequestRatio"]),
        }
    }

    fn check(&self, requests: &Amounts, limits: &Amounts, wrong: &mut Vec<String>) {
        let kind = self.kind;
        for (name, least) in &self.min {
            let head = format!("minimum {name} usage per {kind} is {least}");
            match (requests.get(name), limits.get(name)) {
                (None, _) => wrong.push(format!("{head}.  No request is specified")),
                (Some(request), _) if request < least => {
                    wrong.push(format!("{head}, but request is {request}"));
                }
                (_, Some(limit)) if limit < least => {
                    wrong.push(format!("{head}, but limit is {limit}"));
                }
                _ => {}
            }
        }
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {kind} is {most}");
            match (limits.get(name), requests.get(name)) {
                (None, _) => wrong.push(format!("{head}.  No limit is specified")),
                (Some(limit), _) if limit > most => {
                    wrong.push(format!("{head}, but limit is {limit}"));
                }
                (_, Some(request)) if request > most => {
                    wrong.push(format!("{head}, but request is {request}"));
                }
                _ => {}
            }
        }
        for (name, most) in &self.ratio {
            let head = format!("{name} max limit to request ratio per {kind} is {most}");
            let set = |amounts: &Amounts| amounts.get(name).copied().filter(|a| !a.is_zero());
            match (set(requests), set(limits)) {
                (None, _) => {
                    wrong.push(format!(
                        "{head}, but no request is specified or request is 0"
                    ));
                }
                (_, None) => wrong.push(format!("{head}, but no limit is specified or limit is 0")),
                (Some(request), Some(limit)) => {
                    let float = |amount: &Quantity| {
                        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
                        let float = amount.nanos() as f64;
                        float
                    };
                    let ratio = float(&limit) / float(&request);
                    if ratio > float(most) / 1e9 {
                        wrong.push(format!("{head}, but provided ratio is {ratio:.6}"));
                    }
                }
            }
        }
    }

    fn check_requests(&self, requests: &Amounts, wrong: &mut Vec<String>) {
        let kind = self.kind;
        for (name, least) in &self.min {
            let head = format!("minimum {name} usage per {kind} is {least}");
            match requests.get(name) {
                None => wrong.push(format!("{head}.  No request is specified")),
                Some(request) if request < least => {
                    wrong.push(format!("{head}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
        for (name, most) in &self.max {
            let head = format!("maximum {name} usage per {kind} is {most}");
            match requests.get(name) {
                None => wrong.push(format!("{head}.  No request is specified")),
                Some(request) if request > most => {
                    wrong.push(format!("{head}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
}
