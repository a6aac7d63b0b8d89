//! flowcontrol.apiserver.k8s.io: which requests are served before others.

use serde_json::{Value, json};

use super::named_cells;
use super::webhooks::one_of;
use crate::field::FieldError;
use crate::meta;
use crate::names;
use crate::table::{AGE, BASE, Column, NAME, Resource, STATUS, column};
use crate::value::{self, at, list, number, set_default, text};

const FLOW: Resource = Resource {
    group: "flowcontrol.apiserver.k8s.io",
    namespaced: false,
    subresources: &[STATUS],
    has_generation: true,
    ..BASE
};

/// Which requests are of which level.
pub(crate) static FLOW_SCHEMAS: Resource = Resource {
    kind: "FlowSchema",
    list_kind: "FlowSchemaList",
    plural: "flowschemas",
    singular: "flowschema",
    storage_prefix: "/registry/flowschemas",
    prepare_status: crate::write::keep_said_metadata,
    definition: "io.k8s.api.flowcontrol.v1.FlowSchema",
    columns: SCHEMA_COLUMNS,
    cells: |object, now| {
        let spec = at(object, &["spec"]);
        let method = match text(spec, &["distinguisherMethod", "type"]) {
            "" => "<none>",
            method => method,
        };
        let dangling = list(object, &["status", "conditions"])
            .iter()
            .find(|condition| text(condition, &["type"]) == "Dangling")
            .map_or("?", |condition| text(condition, &["status"]));
        let mut cells = named_cells(
            object,
            [
                text(spec, &["priorityLevelConfiguration", "name"]).into(),
                number(spec, &["matchingPrecedence"]).into(),
                method.into(),
            ],
            now,
        );
        cells.push(dangling.into());
        cells
    },
    default: |object| {
        if let Some(spec) = value::object_mut(object, "spec")
            && number(spec, &["matchingPrecedence"]) == 0
        {
            value::set(spec, "matchingPrecedence", 1000);
        }
        value::object_mut(object, "status");
    },
    prepare_create: |object| value::set(object, "status", json!({})),
    validate: validate_schema,
    validate_update: |new, _| validate_schema(new),
    ..FLOW
};

const SCHEMA_COLUMNS: &[Column] = &[
    NAME,
    column("PriorityLevel", "The level of its requests."),
    column(
        "MatchingPrecedence",
        "Schemas with lower numbers are asked first.",
    ),
    column("DistinguisherMethod", "What tells one flow from another."),
    AGE,
    column("MissingPL", "Whether the level does not exist."),
];

/// The lowest precedence of a schema.
const PRECEDENCE_MAX: i64 = 10_000;

fn validate_schema(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let precedence = number(spec, &["matchingPrecedence"]);
    let field = "spec.matchingPrecedence";
    if precedence <= 0 {
        wrong.push(FieldError::invalid(
            field,
            &precedence.into(),
            "must be a positive value",
        ));
    }
    if precedence > PRECEDENCE_MAX {
        wrong.push(FieldError::invalid(
            field,
            &precedence.into(),
            format!("must not be greater than {PRECEDENCE_MAX}"),
        ));
    }
    if precedence == 1 && meta::name(object) != "exempt" {
        wrong.push(FieldError::invalid(
            field,
            &precedence.into(),
            "only the schema named 'exempt' may have matchingPrecedence 1",
        ));
    }
    wrong.extend(one_of(
        "spec.distinguisherMethod.type",
        text(spec, &["distinguisherMethod", "type"]),
        &["ByNamespace", "ByUser"],
    ));
    let level = text(spec, &["priorityLevelConfiguration", "name"]);
    let field = "spec.priorityLevelConfiguration.name";
    if level.is_empty() {
        wrong.push(FieldError::required(
            field,
            "must reference a priority level",
        ));
    } else {
        for why in names::subdomain(level) {
            wrong.push(FieldError::invalid_text(field, level, why));
        }
    }
    for (i, rule) in list(spec, &["rules"]).iter().enumerate() {
        wrong.extend(bad_rule(&format!("spec.rules[{i}]"), rule));
    }
    let fixed = match meta::name(object) {
        "exempt" => fixed_schema("exempt", 1, &["system:masters"]),
        "catch-all" => {
            let everybody = ["system:unauthenticated", "system:authenticated"];
            let mut fixed = fixed_schema("catch-all", PRECEDENCE_MAX, &everybody);
            value::set(&mut fixed, "distinguisherMethod", json!({"type": "ByUser"}));
            fixed
        }
        _ => return wrong,
    };
    wrong.extend(not_fixed(object, &fixed));
    wrong
}

/// The spec of a schema that every server has: all that these groups ask for.
fn fixed_schema(level: &str, precedence: i64, groups: &[&str]) -> Value {
    let subjects: Vec<Value> = groups
        .iter()
        .map(|group| json!({"kind": "Group", "group": {"name": group}}))
        .collect();
    json!({
        "matchingPrecedence": precedence,
        "priorityLevelConfiguration": {"name": level},
        "rules": [{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    })
}

/// The refusal of a spec that is another than the one that every server has under this name.
fn not_fixed(object: &Value, fixed: &Value) -> Option<FieldError> {
    let spec = at(object, &["spec"]);
    let why = format!(
        "spec of '{}' must equal the fixed value",
        meta::name(object)
    );
    (spec != fixed).then(|| FieldError::invalid("spec", spec, why))
}

fn bad_rule(path: &str, rule: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let subjects = list(rule, &["subjects"]);
    if subjects.is_empty() {
        wrong.push(FieldError::required(
            format!("{path}.subjects"),
            "subjects must contain at least one value",
        ));
    }
    for (i, subject) in subjects.iter().enumerate() {
        let kind = text(subject, &["kind"]);
        let key = match kind {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            other => {
                wrong.push(FieldError::not_supported(
                    format!("{path}.subjects[{i}].kind"),
                    other,
                    &["Group", "ServiceAccount", "User"],
                ));
                continue;
            }
        };
        let field = format!("{path}.subjects[{i}].{key}");
        if !at(subject, &[key]).is_object() {
            wrong.push(FieldError::required(
                field,
                format!("{key} is required when subject kind is '{kind}'"),
            ));
            continue;
        }
        for name in ["name", "namespace"] {
            if (name == "name" || key == "serviceAccount") && text(subject, &[key, name]).is_empty()
            {
                wrong.push(FieldError::required(format!("{field}.{name}"), ""));
            }
        }
    }
    let (resources, urls) = (
        list(rule, &["resourceRules"]),
        list(rule, &["nonResourceRules"]),
    );
    if resources.is_empty() && urls.is_empty() {
        wrong.push(FieldError::required(
            path,
            "at least one of resourceRules and nonResourceRules has to be non-empty",
        ));
    }
    let mut check = |field: &str, rule: &Value, key: &str, needed: &str, others: &str| {
        let (field, given) = (format!("{field}.{key}"), list(rule, &[key]));
        if given.is_empty() && !needed.is_empty() {
            wrong.push(FieldError::required(field, needed));
        } else if given.len() > 1 && given.iter().any(|one| one == "*") {
            let why = format!("if '*' is present, must not specify other {others}");
            wrong.push(FieldError::invalid(field, at(rule, &[key]), why));
        }
    };
    let verbs = "verbs must contain at least one value";
    for (i, rule) in resources.iter().enumerate() {
        let field = format!("{path}.resourceRules[{i}]");
        check(&field, rule, "verbs", verbs, "verbs");
        let needed = "resource rules must supply at least one api group";
        check(&field, rule, "apiGroups", needed, "api groups");
        let needed = "resource rules must supply at least one resource";
        check(&field, rule, "resources", needed, "resources");
        let needed = if value::flag(rule, &["clusterScope"]) {
            ""
        } else {
            "resource rules that are not cluster scoped must supply at least one namespace"
        };
        check(&field, rule, "namespaces", needed, "namespaces");
    }
    for (i, rule) in urls.iter().enumerate() {
        let field = format!("{path}.nonResourceRules[{i}]");
        check(&field, rule, "verbs", verbs, "verbs");
        let needed = "nonResourceURLs must contain at least one value";
        check(&field, rule, "nonResourceURLs", needed, "non-resource URLs");
    }
    wrong
}

/// How many requests of a level are served at a time, and which wait.
pub(crate) static PRIORITY_LEVEL_CONFIGURATIONS: Resource = Resource {
    kind: "PriorityLevelConfiguration",
    list_kind: "PriorityLevelConfigurationList",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    storage_prefix: "/registry/prioritylevelconfigurations",
    prepare_status: crate::write::keep_said_metadata,
    definition: "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    columns: LEVEL_COLUMNS,
    cells: |object, now| {
        let limited = at(object, &["spec", "limited"]);
        let exempt = at(object, &["spec", "exempt"]);
        let queuing = at(limited, &["limitResponse", "queuing"]);
        let or_none = |value: &Value| match value.as_i64() {
            Some(number) => Value::from(number),
            None => "<none>".into(),
        };
        let shares = if limited.is_object() { limited } else { exempt };
        named_cells(
            object,
            [
                text(object, &["spec", "type"]).into(),
                or_none(at(shares, &["nominalConcurrencyShares"])),
                or_none(at(queuing, &["queues"])),
                or_none(at(queuing, &["handSize"])),
                or_none(at(queuing, &["queueLengthLimit"])),
            ],
            now,
        )
    },
    default: default_level,
    prepare_create: |object| value::set(object, "status", json!({})),
    validate: validate_level,
    validate_update: |new, _| validate_level(new),
    ..FLOW
};

const LEVEL_COLUMNS: &[Column] = &[
    NAME,
    column("Type", "Whether its requests are limited."),
    column("NominalConcurrencyShares", "Its part of the server."),
    column("Queues", "How many queues it has."),
    column("HandSize", "Queues among which a flow is spread."),
    column("QueueLengthLimit", "Requests that may wait in one queue."),
    AGE,
];

fn default_level(object: &mut Value) {
    value::object_mut(object, "status");
    let Some(spec) = value::object_mut(object, "spec") else {
        return;
    };
    match text(spec, &["type"]) {
        "Exempt" => {
            if let Some(exempt) = value::object_mut(spec, "exempt") {
                set_default(exempt, "nominalConcurrencyShares", 0);
                set_default(exempt, "lendablePercent", 0);
            }
        }
        "Limited" => {
            let Some(limited) = spec.get_mut("limited").filter(|l| l.is_object()) else {
                return;
            };
            set_default(limited, "nominalConcurrencyShares", 30);
            set_default(limited, "lendablePercent", 0);
            let queuing = limited
                .get_mut("limitResponse")
                .and_then(|response| response.get_mut("queuing"));
            if let Some(queuing) = queuing.filter(|queuing| queuing.is_object()) {
                for (key, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                    if number(queuing, &[key]) == 0 {
                        value::set(queuing, key, default);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Queues that a level may have.
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of a flow's hash from which its queues are dealt.
const HASH_BITS_MAX: i64 = 60;

/// Bits that it takes to deal a hand of queues.
fn hash_bits(queues: i64, hand: i64) -> i64 {
    ((queues as f64).log2() * hand as f64).ceil() as i64
}

fn validate_level(object: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let spec = at(object, &["spec"]);
    let (limited, exempt) = (at(spec, &["limited"]), at(spec, &["exempt"]));
    let kind = text(spec, &["type"]);
    if (meta::name(object) == "exempt") != (kind == "Exempt") {
        wrong.push(FieldError::invalid_text(
            "spec.type",
            kind,
            "type must be 'Exempt' if and only if name is 'exempt'",
        ));
    }
    match kind {
        "Exempt" => {
            if !limited.is_null() {
                wrong.push(FieldError::forbidden(
                    "spec.limited",
                    "must be nil if the type is not Limited",
                ));
            }
        }
        "Limited" => {
            if !exempt.is_null() {
                wrong.push(FieldError::forbidden(
                    "spec.exempt",
                    "must be nil if the type is Limited",
                ));
            }
            if limited.is_null() {
                wrong.push(FieldError::required(
                    "spec.limited",
                    "must not be empty when type is Limited",
                ));
            } else {
                wrong.extend(bad_limited(limited));
            }
        }
        other => wrong.push(FieldError::not_supported(
            "spec.type",
            other,
            &["Exempt", "Limited"],
        )),
    }
    if meta::name(object) == "catch-all" {
        let fixed = json!({
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
        });
        wrong.extend(not_fixed(object, &fixed));
    }
    wrong
}

fn bad_limited(limited: &Value) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let shares = number(limited, &["nominalConcurrencyShares"]);
    if shares < 0 {
        wrong.push(FieldError::invalid(
            "spec.limited.nominalConcurrencyShares",
            &shares.into(),
            "must be a non-negative integer",
        ));
    }
    let borrowed = at(limited, &["borrowingLimitPercent"]);
    if borrowed.as_i64().is_some_and(|percent| percent < 0) {
        wrong.push(FieldError::invalid(
            "spec.limited.borrowingLimitPercent",
            borrowed,
            "if specified, must be a non-negative integer",
        ));
    }
    let lent = number(limited, &["lendablePercent"]);
    if !(0..=100).contains(&lent) {
        wrong.push(FieldError::invalid(
            "spec.limited.lendablePercent",
            &lent.into(),
            "must be between 0 and 100, inclusive",
        ));
    }
    let path = "spec.limited.limitResponse";
    let response = at(limited, &["limitResponse"]);
    let queuing = at(response, &["queuing"]);
    match text(response, &["type"]) {
        "Reject" => {
            if !queuing.is_null() {
                wrong.push(FieldError::forbidden(
                    format!("{path}.queuing"),
                    "must be nil if limited.limitResponse.type is not Limited",
                ));
            }
        }
        "Queue" => {
            if queuing.is_null() {
                wrong.push(FieldError::required(
                    format!("{path}.queuing"),
                    "must not be empty if limited.limitResponse.type is Limited",
                ));
                return wrong;
            }
            for key in ["queueLengthLimit", "queues", "handSize"] {
                let given = number(queuing, &[key]);
                if given <= 0 {
                    wrong.push(FieldError::invalid(
                        format!("{path}.queuing.{key}"),
                        &given.into(),
                        "must be positive",
                    ));
                }
            }
            let (hand, queues) = (number(queuing, &["handSize"]), number(queuing, &["queues"]));
            if queues > QUEUES_MAX {
                wrong.push(FieldError::invalid(
                    format!("{path}.queuing.queues"),
                    &queues.into(),
                    format!("must not be greater than {QUEUES_MAX}"),
                ));
            }
            let bad_hand = if hand <= 0 || queues <= 0 {
                None
            } else if hand > queues {
                Some(format!("should not be greater than queues ({queues})"))
            } else if hash_bits(queues, hand) > HASH_BITS_MAX {
                Some(format!(
                    "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
                ))
            } else {
                None
            };
            if let Some(why) = bad_hand {
                let field = format!("{path}.queuing.handSize");
                wrong.push(FieldError::invalid(field, &hand.into(), why));
            }
        }
        other => wrong.push(FieldError::not_supported(
            format!("{path}.type"),
            other,
            &["Queue", "Reject"],
        )),
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_that_a_hash_cannot_deal_are_refused() {
        let refused = |queues: i64, hand: i64| {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 100});
            let limited = json!({"nominalConcurrencyShares": 100, "limitResponse": {"type": "Queue", "queuing": queuing}});
            let wrong = bad_limited(&limited);
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for (queues, hand, why) in [
            (
                512,
                8,
                "required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
            ),
            (
                128,
                10,
                "required entropy bits of deckSize 128 and handSize 10 should not be greater than 60",
            ),
            (4, 5, "should not be greater than queues (4)"),
            (10_000_001, 1, "must not be greater than 10000000"),
        ] {
            let wrong = refused(queues, hand);
            assert!(wrong.len() == 1 && wrong[0].ends_with(why), "{wrong:?}");
        }
        for (queues, hand) in [(512, 4), (1024, 6), (64, 8), (1, 1)] {
            assert!(refused(queues, hand).is_empty(), "{queues} {hand}");
        }
    }

    #[test]
    fn nothing_less_than_nothing_is_borrowed() {
        let refused = |percent: i64| {
            let limited =
                json!({"borrowingLimitPercent": percent, "limitResponse": {"type": "Reject"}});
            let wrong = bad_limited(&limited);
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            refused(-1),
            [
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer"
            ]
        );
        assert!(refused(0).is_empty());
    }

    #[test]
    fn rules_and_fixed_specs() {
        let user = json!([{"kind": "User", "user": {"name": "a"}}]);
        let schema = |name: &str, rule: Value| {
            json!({"metadata": {"name": name}, "spec": {
                "matchingPrecedence": 7, "priorityLevelConfiguration": {"name": "x"}, "rules": [rule]}})
        };
        for (name, rule, wanted) in [
            (
                "a",
                json!({"subjects": user, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/x"]}]}),
                vec![],
            ),
            (
                "a",
                json!({"subjects": user, "nonResourceRules": [{"verbs": ["*", "get"], "nonResourceURLs": ["/x"]}]}),
                vec![
                    "spec.rules[0].nonResourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                ],
            ),
            (
                "a",
                json!({"subjects": user, "resourceRules": [{"verbs": ["get"], "apiGroups": ["*"], "resources": []}]}),
                vec![
                    "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                ],
            ),
        ] {
            let found: Vec<String> = validate_schema(&schema(name, rule))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, wanted);
        }
        let mut exempt = json!({"metadata": {"name": "exempt"}, "spec": fixed_schema("exempt", 1, &["system:masters"])});
        assert!(validate_schema(&exempt).is_empty());
        exempt["spec"]["matchingPrecedence"] = json!(5);
        let found = validate_schema(&exempt);
        assert_eq!(
            found.last().map(|e| e.detail.as_str()),
            Some("spec of 'exempt' must equal the fixed value")
        );
    }
}
