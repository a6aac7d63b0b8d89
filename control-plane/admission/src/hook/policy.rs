//! ValidatingAdmissionPolicy: what a policy says of a request, given one set of parameters.

use api::status::{Cause, Status};
use api::value::{at, list, text};
use cel::value::Value as Cel;
use serde_json::Value;

use super::conditions;
use super::expression::{Compiled, Gives, Inputs, Scope, Vocabulary, compile};
use super::{OnFailure, Request};

/// Why a policy does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// For people.
    pub message: String,
    /// `Invalid`, `Forbidden`, `Unauthorized` or `RequestEntityTooLarge`.
    pub reason: String,
    /// Which of the policy's validations.
    pub index: usize,
}

/// What a policy says of a request.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Judgement {
    /// What it has against the request.
    pub denials: Vec<Denial>,
    /// What it wants in the audit log, by the key in the policy.
    pub annotations: Vec<(String, String)>,
}

impl Denial {
    /// Of a policy that could not be asked; `None` where that is to be ignored.
    pub fn of_failure(policy: &Value, why: String) -> Option<Self> {
        let on_failure = OnFailure::parse(text(policy, &["spec", "failurePolicy"]));
        (on_failure == OnFailure::Fail).then(|| Denial {
            message: why,
            reason: String::new(),
            index: 0,
        })
    }
}

/// What a policy says of the request.
pub fn judge(policy: &Value, inputs: &Inputs<'_>) -> Judgement {
    let mut judgement = Judgement::default();
    let spec = at(policy, &["spec"]);
    let mut vocabulary = Vocabulary::of_policy(at(spec, &["paramKind"]).is_object());
    match conditions::hold(list(spec, &["matchConditions"]), &vocabulary, inputs) {
        Ok(true) => {}
        Ok(false) => return judgement,
        Err(why) => {
            judgement.denials.extend(Denial::of_failure(policy, why));
            return judgement;
        }
    }
    let (variables, validations) = (list(spec, &["variables"]), list(spec, &["validations"]));
    let mut defined = Vec::new();
    for variable in variables {
        let compiled = compile(text(variable, &["expression"]), Gives::Any, &vocabulary);
        vocabulary.add(text(variable, &["name"]), &compiled);
        defined.push(compiled);
    }
    let compiled = |items: &[Value], key: &str, gives: Gives| -> Vec<Compiled> {
        items
            .iter()
            .map(|item| compile(text(item, &[key]), gives, &vocabulary))
            .collect()
    };
    let rules = compiled(validations, "expression", Gives::Bool);
    let messages = compiled(validations, "messageExpression", Gives::Text);
    let annotations = list(spec, &["auditAnnotations"]);
    let annotated = compiled(annotations, "valueExpression", Gives::Annotation);
    let mut scope = Scope::new(inputs);
    for (variable, compiled) in variables.iter().zip(&defined) {
        scope.define(text(variable, &["name"]), compiled);
    }
    let denials = &mut judgement.denials;
    for (annotation, compiled) in annotations.iter().zip(&annotated) {
        match scope.value(compiled) {
            Ok(Cel::String(said)) if !said.trim().is_empty() => {
                let key = text(annotation, &["key"]).to_owned();
                judgement.annotations.push((key, said.trim().to_owned()));
            }
            // What is null or empty is not published.
            Ok(_) => {}
            Err(why) => {
                let source = text(annotation, &["valueExpression"]).trim();
                let why = format!("valueExpression '{source}' resulted in error: {why}");
                denials.extend(Denial::of_failure(policy, why));
            }
        }
    }
    let all = validations.iter().zip(&rules).zip(&messages);
    for (index, ((validation, rule), message)) in all.enumerate() {
        let expression = text(validation, &["expression"]).trim();
        match scope.holds(rule) {
            Ok(true) => {}
            Ok(false) => {
                let made = (!text(validation, &["messageExpression"]).is_empty())
                    .then(|| scope.message(message))
                    .flatten();
                denials.push(Denial {
                    message: made.unwrap_or_else(|| match text(validation, &["message"]).trim() {
                        "" => format!("failed expression: {expression}"),
                        message => message.to_owned(),
                    }),
                    reason: text(validation, &["reason"]).to_owned(),
                    index,
                });
            }
            Err(why) => {
                let why = format!("expression '{expression}' resulted in error: {why}");
                let denial = Denial::of_failure(policy, why);
                denials.extend(denial.map(|denial| Denial { index, ..denial }));
            }
        }
    }
    judgement
}

/// The refusal in Kubernetes' words.
pub fn refusal(request: &Request<'_>, policy: &str, binding: &str, denial: &Denial) -> Status {
    let message = format!(
        "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {}",
        denial.message
    );
    let mut status = request.attributes.forbid(&message);
    (status.code, status.reason) = match denial.reason.as_str() {
        "Forbidden" => (403, "Forbidden".into()),
        "Unauthorized" => (401, "Unauthorized".into()),
        "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".into()),
        _ => (422, "Invalid".into()),
    };
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            message,
            ..Cause::default()
        });
    }
    status
}

/// The annotation of the audit log, key and value, for a denial that a binding wants there.
pub fn annotation(
    policy: &str,
    binding: &str,
    actions: &[Value],
    denial: &Denial,
) -> (String, String) {
    let text = |text: &str| Value::from(text);
    // Written by hand, for Kubernetes' order of keys.
    let said = format!(
        "[{{\"message\":{},\"policy\":{},\"binding\":{},\"expressionIndex\":{},\"validationActions\":{}}}]",
        text(&denial.message),
        text(policy),
        text(binding),
        denial.index,
        Value::from(actions)
    );
    let escaped = said
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    let key = "validation.policy.admission.k8s.io/validation_failure";
    (key.to_owned(), escaped)
}

/// What the client is warned with.
pub fn warning(policy: &str, binding: &str, denial: &Denial) -> String {
    format!(
        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {}",
        denial.message
    )
}

#[cfg(test)]
mod tests {
    use cel::authorizer::{Authority, Decision, Question};
    use serde_json::json;

    use super::*;

    /// Knows only what jane may do.
    #[derive(Debug)]
    struct Nobody;

    impl Authority for Nobody {
        fn decide(&self, question: &Question) -> Decision {
            Decision {
                allowed: question.resource == "pods" && question.verb == "get",
                reason: String::new(),
            }
        }

        fn request_resource(&self) -> Question {
            Question::default()
        }
    }

    fn said(spec: &Value, object: &Value, params: &Value) -> Vec<String> {
        let policy = json!({"metadata": {"name": "p"}, "spec": spec});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "jane"}});
        let namespace = json!({"metadata": {"name": "web", "labels": {"env": "prod"}}});
        let inputs = Inputs {
            object,
            old: &Value::Null,
            request: &request,
            params,
            namespace: &namespace,
            authority: &Nobody,
        };
        judge(&policy, &inputs)
            .denials
            .into_iter()
            .map(|denial| {
                format!("{} {}", denial.reason, denial.message)
                    .trim()
                    .to_owned()
            })
            .collect()
    }

    #[test]
    fn policies() {
        let object = json!({"spec": {"replicas": 7}, "metadata": {"name": "a"}});
        let rule = |expression: &str| json!({"validations": [{"expression": expression}]});
        #[rustfmt::skip]
        let cases = [
            (rule("object.spec.replicas <= 5"), json!(null), vec!["failed expression: object.spec.replicas <= 5"]),
            (rule("object.spec.replicas <= 7 && oldObject == null"), json!(null), vec![]),
            (rule("namespaceObject.metadata.labels.env == 'prod' && request.userInfo.username == 'jane'"), json!(null), vec![]),
            (rule("object.spec.absent > 1"), json!(null), vec!["expression 'object.spec.absent > 1' resulted in error: no such key: absent"]),
            (json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.spec.absent > 1"}]}), json!(null), vec![]),
            (json!({"matchConditions": [{"name": "no", "expression": "object.metadata.name == 'b'"}], "validations": [{"expression": "false"}]}), json!(null), vec![]),
            (json!({"matchConditions": [{"name": "a", "expression": "object.x.y"}, {"name": "b", "expression": "false"}], "validations": [{"expression": "false"}]}), json!(null), vec![]),
            (json!({"variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "m", "expression": "variables.n + 1"}],
                "validations": [{"expression": "variables.m < 8", "reason": "Forbidden", "messageExpression": "'got ' + string(variables.m)", "message": "not shown"}]}),
                json!(null), vec!["Forbidden got 8"]),
            (json!({"variables": [{"name": "n", "expression": "object.metadata.labels.x"}, {"name": "m", "expression": "variables.n + '1'"}],
                "validations": [{"expression": "variables.m == 'a'"}, {"expression": "true || variables.n == 'a'"}]}), json!(null),
                vec!["expression 'variables.m == 'a'' resulted in error: composited variable \"m\" fails to evaluate: composited variable \"n\" fails to evaluate: no such key: labels"]),
            (json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [
                {"expression": "object.spec.replicas <= int(params.data.max)", "message": "too many"}]}),
                json!({"data": {"max": "6"}}), vec!["too many"]),
            (rule("authorizer.group('').resource('pods').check('get').allowed()"), json!(null), vec![]),
            (rule("authorizer.requestResource.check('delete').allowed()"), json!(null), vec!["failed expression: authorizer.requestResource.check('delete').allowed()"]),
            (json!({"auditAnnotations": [{"key": "a", "valueExpression": "string(object.spec.replicas)"}], "validations": []}), json!(null), vec![]),
            (json!({"auditAnnotations": [{"key": "a", "valueExpression": "string(object.spec.none)"}]}), json!(null),
                vec!["valueExpression 'string(object.spec.none)' resulted in error: no such key: none"]),
        ];
        for (spec, params, expected) in cases {
            assert_eq!(said(&spec, &object, &params), expected, "{spec}");
        }
    }

    #[test]
    fn what_the_audit_log_is_told() {
        let inputs = Inputs {
            object: &json!({"n": 7}),
            old: &Value::Null,
            request: &Value::Null,
            params: &Value::Null,
            namespace: &Value::Null,
            authority: &Nobody,
        };
        let policy = json!({"spec": {
            "validations": [{"expression": "true"}, {"expression": "object.n <= 5"}],
            "auditAnnotations": [
                {"key": "a", "valueExpression": "'n is ' + string(object.n)"},
                {"key": "b", "valueExpression": "null"},
            ],
        }});
        let judged = judge(&policy, &inputs);
        assert_eq!(judged.annotations, [("a".to_owned(), "n is 7".to_owned())]);
        let actions = [json!("Warn"), json!("Audit")];
        let (_, said) = annotation("p", "b", &actions, &judged.denials[0]);
        assert_eq!(
            said,
            "[{\"message\":\"failed expression: object.n \\u003c= 5\",\"policy\":\"p\",\"binding\":\"b\",\
             \"expressionIndex\":1,\"validationActions\":[\"Warn\",\"Audit\"]}]"
        );
    }

    #[test]
    fn expressions_are_checked_when_written() {
        let faults = |spec: Value| -> Vec<String> {
            conditions::faults(
                "ValidatingAdmissionPolicy",
                &json!({"spec": spec}),
                &Value::Null,
            )
            .iter()
            .map(|fault| fault.field.clone())
            .collect()
        };
        assert_eq!(
            faults(json!({
                "matchConditions": [{"expression": "1"}], "variables": [{"expression": "nope"}],
                "validations": [{"expression": "params.x", "messageExpression": "1"}, {"expression": "true"}],
            })),
            [
                "spec.matchConditions[0].expression",
                "spec.variables[0].expression",
                "spec.validations[0].expression",
                "spec.validations[0].messageExpression",
            ]
        );
    }
}
