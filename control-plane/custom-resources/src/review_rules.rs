//! Whether rules are expressions that can be compiled, and what they would cost.

use api::field::FieldError;
use api::value::{at, list, text};
use cel::cost::{DEFINITION_MAX, ESTIMATE_MAX, exceeds};
use serde_json::Value;

use crate::declare;
use crate::rules;
use crate::schema::{ListType, Schema};
use crate::structural::Place;

/// What is wrong with the rules of a schema.
pub(crate) fn check(body: &Value, place: Place<'_>) -> Vec<FieldError> {
    let mut schema = Schema::parse(body);
    if !schema.has_rules {
        return Vec::new();
    }
    rules::compile(&mut schema);
    let mut review = Review {
        wrong: Vec::new(),
        total: 0,
        dearest: Vec::new(),
    };
    review.node(&schema, body, place, Some(1), None);
    if review.total > DEFINITION_MAX {
        for (field, _) in &review.dearest {
            review.wrong.push(FieldError::forbidden(
                field.clone(),
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema",
            ));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        let why = exceeds(what, review.total, DEFINITION_MAX);
        review
            .wrong
            .push(FieldError::forbidden(place.to_string(), why));
    }
    review.wrong
}

/// How many of the dearest expressions are named.
const DEAREST: usize = 4;

struct Review {
    wrong: Vec<FieldError>,
    total: u64,
    dearest: Vec<(String, u64)>,
}

impl Review {
    /// `often`: how often the node can be there, if that is bounded. `loose`: the place above whose items an update
    /// cannot tell apart.
    fn node(
        &mut self,
        schema: &Schema,
        body: &Value,
        place: Place<'_>,
        often: Option<u64>,
        loose: Option<&str>,
    ) {
        if !schema.has_rules {
            return;
        }
        for (index, rule) in schema.rules.iter().flatten().enumerate() {
            let here = Place::Index(&place, "x-kubernetes-validations", index);
            let said = &list(body, &["x-kubernetes-validations"])[index];
            self.words(said, here);
            self.rule(rule, said, here, schema, often, loose);
        }
        for (name, below) in &schema.properties {
            let inner = at(body, &["properties", name]);
            self.node(
                below,
                inner,
                Place::Key(&place, "properties", name),
                often,
                loose,
            );
        }
        let checks = schema.checks.as_deref();
        let times = |max: Option<u64>| Some(often?.saturating_mul(max?));
        if let Some(below) = schema.additional.as_deref() {
            let inner = at(body, &["additionalProperties"]);
            let often = times(checks.and_then(|checks| checks.max_properties));
            self.node(
                below,
                inner,
                Place::Child(&place, "additionalProperties"),
                often,
                loose,
            );
        }
        if let Some(below) = schema.items.as_deref() {
            let own = place.to_string();
            let loose = match schema.list {
                ListType::Map(_) => loose,
                ListType::Atomic | ListType::Set => loose.or(Some(&own)),
            };
            let often = times(checks.and_then(|checks| checks.max_items));
            self.node(
                below,
                at(body, &["items"]),
                Place::Child(&place, "items"),
                often,
                loose,
            );
        }
    }

    fn words(&mut self, said: &Value, here: Place<'_>) {
        let wrong = &mut self.wrong;
        let (rule, message) = (text(said, &["rule"]), text(said, &["message"]));
        let lines = |text: &str| text.contains(['\n', '\r']);
        if rule.trim().is_empty() {
            wrong.push(FieldError::required(
                here.field("rule"),
                "rule is not specified",
            ));
        } else if !message.is_empty() && message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            wrong.push(FieldError::invalid_text(
                here.field("message"),
                message,
                why,
            ));
        } else if lines(message.trim()) {
            let why = "message must not contain line breaks";
            wrong.push(FieldError::invalid_text(
                here.field("message"),
                message,
                why,
            ));
        } else if lines(rule.trim()) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            wrong.push(FieldError::required(here.field("message"), why));
        }
        let expression = text(said, &["messageExpression"]);
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            wrong.push(FieldError::required(here.field("messageExpression"), why));
        }
        let reason = text(said, &["reason"]);
        let reasons = [
            "FieldValueDuplicate",
            "FieldValueForbidden",
            "FieldValueInvalid",
            "FieldValueRequired",
        ];
        if !reason.is_empty() && !reasons.contains(&reason) {
            wrong.push(FieldError::not_supported(
                here.field("reason"),
                reason,
                &reasons,
            ));
        }
        let path = text(said, &["fieldPath"]);
        if lines(path) {
            let why = "fieldPath must not contain line breaks";
            wrong.push(FieldError::invalid_text(here.field("fieldPath"), path, why));
        }
    }

    fn rule(
        &mut self,
        rule: &rules::Rule,
        said: &Value,
        here: Place<'_>,
        schema: &Schema,
        often: Option<u64>,
        loose: Option<&str>,
    ) {
        let path = text(said, &["fieldPath"]);
        if !path.is_empty() && !leads_somewhere(schema, path) {
            let why = "fieldPath must be a valid path";
            self.wrong
                .push(FieldError::invalid_text(here.field("fieldPath"), path, why));
        }
        let Some(compiled) = rule.compiled().filter(|_| !rule.rule.trim().is_empty()) else {
            return;
        };
        let often = often.unwrap_or_else(|| declare::most_often(schema));
        match &compiled.rule {
            Err(why) => self
                .wrong
                .push(FieldError::invalid(here.field("rule"), said, why)),
            Ok(program) => self.cost(
                "estimated rule cost",
                here.field("rule"),
                program.cost.saturating_mul(often),
            ),
        }
        match &compiled.message {
            Some(Err(why)) => self.wrong.push(FieldError::invalid(
                here.field("messageExpression"),
                said,
                why,
            )),
            Some(Ok(program)) => {
                let what = "estimated messageExpression cost";
                self.cost(what, here.field("messageExpression"), program.cost);
            }
            None => {}
        }
        if compiled.uses_old {
            if let Some(loose) = loose {
                let why = format!(
                    "oldSelf cannot be used on the uncorrelatable portion of the schema within {loose}"
                );
                self.wrong.push(FieldError::invalid_text(
                    here.field("rule"),
                    &rule.rule,
                    why,
                ));
            }
        } else if said.get("optionalOldSelf").is_some() && compiled.rule.is_ok() {
            let why = "may not be set if oldSelf is not used in rule";
            let value = at(said, &["optionalOldSelf"]);
            self.wrong.push(FieldError::invalid(
                here.field("optionalOldSelf"),
                value,
                why,
            ));
        }
    }

    fn cost(&mut self, what: &str, field: String, cost: u64) {
        if cost > ESTIMATE_MAX {
            self.wrong.push(FieldError::forbidden(
                field.clone(),
                exceeds(what, cost, ESTIMATE_MAX),
            ));
        }
        self.total = self.total.saturating_add(cost);
        if cost < 1 {
            return;
        }
        self.dearest.push((field, cost));
        self.dearest
            .sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        self.dearest.truncate(DEAREST);
    }
}

/// Whether a path such as `.a.b['c']` names a field below the node.
fn leads_somewhere(schema: &Schema, path: &str) -> bool {
    let mut here = schema;
    let mut rest = path;
    while !rest.is_empty() {
        let (name, after) = if let Some(inner) = rest.strip_prefix("['") {
            match inner.split_once("']") {
                Some(parts) => parts,
                None => return false,
            }
        } else if let Some(inner) = rest.strip_prefix('.') {
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        } else {
            return false;
        };
        let Some(below) = here.property(name).or(here.additional.as_deref()) else {
            return false;
        };
        here = below;
        rest = after;
    }
    true
}
