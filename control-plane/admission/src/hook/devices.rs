//! Selectors of devices: expressions in CEL over `device`, which claims and classes of devices carry
//! (KEP-4381, structured parameters).

use std::sync::Arc;

use api::field::FieldError;
use api::value::{at, list, text};
use cel::Program;
use cel::types::{Decl, DeclKind, FieldDecl, QUANTITY, Type};
use serde_json::Value;

/// The API group of devices.
pub const GROUP: &str = "resource.k8s.io";

/// What is wrong with the selectors of a claim, a template of claims or a class that is to be stored. What stands
/// there already was good when it was written.
pub fn faults(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let (path, spec): (&str, &[&str]) = match kind {
        "DeviceClass" => {
            let path = ["spec", "selectors"];
            if old.is_none_or(|old| at(old, &path) != at(new, &path)) {
                wrong.extend(bad_selectors("spec.selectors", at(new, &path)));
            }
            return wrong;
        }
        // The specs of claims and templates never change.
        _ if old.is_some() => return wrong,
        "ResourceClaim" => ("spec", &["spec"]),
        "ResourceClaimTemplate" => ("spec.spec", &["spec", "spec"]),
        _ => return wrong,
    };
    let requests = list(at(new, spec), &["devices", "requests"]);
    for (i, request) in requests.iter().enumerate() {
        let path = format!("{path}.devices.requests[{i}]");
        let field = format!("{path}.exactly.selectors");
        wrong.extend(bad_selectors(
            &field,
            at(request, &["exactly", "selectors"]),
        ));
        for (j, one) in list(request, &["firstAvailable"]).iter().enumerate() {
            let field = format!("{path}.firstAvailable[{j}].selectors");
            wrong.extend(bad_selectors(&field, at(one, &["selectors"])));
        }
    }
    wrong
}

fn bad_selectors(field: &str, selectors: &Value) -> Vec<FieldError> {
    let expressions = list(selectors, &[]).iter().enumerate();
    expressions
        .filter(|(_, selector)| at(selector, &["cel"]).is_object())
        .filter_map(|(i, selector)| {
            let source = text(selector, &["cel", "expression"]);
            let why = bad_expression(source)?;
            let field = format!("{field}[{i}].cel.expression");
            Some(FieldError::invalid_text(field, source, why))
        })
        .collect()
}

/// Functions that expressions over devices have and others have not.
const OWN_FUNCTIONS: &[&str] = &["cel.bind", ".includes("];

/// Why the text is no expression that chooses devices. Only what is surely wrong is told: types of attributes are known
/// when a device is looked at.
fn bad_expression(source: &str) -> Option<String> {
    if OWN_FUNCTIONS.iter().any(|own| source.contains(own)) {
        return None;
    }
    match Program::compile(source, &[("device", device(), false)], &Type::Dyn) {
        Ok(program) => match program.of {
            Type::Bool | Type::Dyn => None,
            other => Some(format!(
                "must evaluate to bool or the unknown type, not {other}"
            )),
        },
        Err(why) => ["Syntax error", "undeclared reference"]
            .iter()
            .any(|sure| why.contains(sure))
            .then_some(why),
    }
}

/// What is known of `device`.
fn device() -> Arc<Decl> {
    let of = |kind| {
        Arc::new(Decl {
            kind,
            max: u64::MAX,
        })
    };
    let by_domain = |values| of(DeclKind::Map(of(DeclKind::Map(values))));
    let field = |name: &str, decl| FieldDecl {
        escaped: name.into(),
        name: name.into(),
        decl,
    };
    of(DeclKind::Object {
        name: "kubernetes.DRADevice".into(),
        // Sorted by name.
        fields: Box::new([
            field("allowMultipleAllocations", of(DeclKind::Bool)),
            field("attributes", by_domain(Decl::any())),
            field("capacity", by_domain(of(DeclKind::Opaque(QUANTITY)))),
            field("driver", of(DeclKind::String)),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_devices() {
        for good in [
            "true",
            "device.driver == 'gpu.example.com'",
            "device.attributes['gpu.example.com'].type == 'gpu'",
            "device.attributes['gpu.example.com'].flag",
            "'gpu.example.com' in device.attributes && has(device.attributes['gpu.example.com'].model)",
            "device.capacity['gpu.example.com'].memory.compareTo(quantity('40Gi')) >= 0",
            "device.capacity['gpu.example.com'].memory.isGreaterThan(quantity('1Gi')) && device.attributes['gpu.example.com'].model == 'large'",
            "device.attributes['gpu.example.com'].driverVersion.compareTo(semver('1.2.3')) >= 0",
            "device.attributes['gpu.example.com'].productName.lowerAscii().matches('^.*a100.*$')",
            "device.attributes['gpu.example.com'].?family.orValue('') == 'one'",
            "cel.bind(a, device.attributes['gpu.example.com'], a.one && a.two)",
            "device.allowMultipleAllocations == true",
        ] {
            assert_eq!(bad_expression(good), None, "{good}");
        }
        for (bad, why) in [
            ("", "Syntax error"),
            ("1+", "Syntax error"),
            ("foo.bar", "undeclared reference to 'foo'"),
            ("1", "must evaluate to bool or the unknown type, not int"),
            (
                "device.driver",
                "must evaluate to bool or the unknown type, not string",
            ),
        ] {
            let found = bad_expression(bad).unwrap_or_default();
            assert!(found.contains(why), "{bad}: {found}");
        }
        let claim = json!({"spec": {"devices": {"requests": [{"exactly": {"selectors": [{"cel": {"expression": "1"}}]}}]}}});
        let found: Vec<String> = faults("ResourceClaim", &claim, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"1\": must evaluate to bool or the unknown type, not int"
            ]
        );
        assert!(faults("ResourceClaim", &claim, Some(&claim)).is_empty());
    }
}
