//! Where a webhook is: at a URL, or at a Service.

use serde_json::Value;

use crate::field::FieldError;
use crate::names;
use crate::value::{at, text};

/// Everything wrong with a client that stands at `path`.
pub fn check(path: &str, client: &Value) -> Vec<FieldError> {
    let (url, service) = (at(client, &["url"]), at(client, &["service"]));
    if url.is_null() == service.is_null() {
        return vec![FieldError::required(
            path,
            "exactly one of url or service is required",
        )];
    }
    let mut wrong = Vec::new();
    if let Some(url) = url.as_str() {
        let field = format!("{path}.url");
        let rest = url.strip_prefix("https://");
        let host = rest
            .unwrap_or("")
            .split(['/', '?', '#'])
            .next()
            .unwrap_or("");
        let mut refuse = |why: &str| wrong.push(FieldError::invalid_text(&field, url, why));
        if rest.is_none() {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            wrong.push(FieldError::invalid_text(
                &field,
                scheme,
                "'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ));
            return wrong;
        }
        if host.is_empty() {
            refuse("host must be specified; desired format: https://host[/path]");
        }
        if host.contains('@') {
            refuse("user information is not permitted in the URL");
        }
        if url.contains('#') {
            refuse("fragments are not permitted in the URL");
        }
        if url.contains('?') {
            refuse("query parameters are not permitted in the URL");
        }
    } else {
        for key in ["name", "namespace"] {
            if text(service, &[key]).is_empty() {
                wrong.push(FieldError::required(
                    format!("{path}.service.{key}"),
                    format!("service {key} is required"),
                ));
            }
        }
        let port = at(service, &["port"]);
        for why in names::port_number(port.as_i64().unwrap_or(443)) {
            wrong.push(FieldError::invalid(
                format!("{path}.service.port"),
                port,
                format!("port is not valid: {why}"),
            ));
        }
        let route = text(service, &["path"]);
        let field = format!("{path}.service.path");
        for why in bad_route(route) {
            wrong.push(FieldError::invalid_text(&field, route, why));
        }
    }
    wrong
}

/// What is wrong with the path of a Service: between its slashes stand names.
fn bad_route(route: &str) -> Vec<String> {
    if matches!(route, "" | "/") {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    if !route.starts_with('/') {
        wrong.push("must start with a '/'".to_owned());
    }
    // The first character goes, whatever it is.
    let mut rest = route.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest
        .strip_suffix('/')
        .unwrap_or(rest)
        .split('/')
        .enumerate()
    {
        if segment.is_empty() {
            wrong.push(format!("segment[{i}] may not be empty"));
            continue;
        }
        let reasons = names::subdomain(segment);
        wrong.extend(reasons.iter().map(|why| format!("segment[{i}]: {why}")));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_names_between_slashes() {
        let name = names::subdomain("A_b").remove(0);
        for (route, why) in [
            ("", vec![]),
            ("/", vec![]),
            ("/a/b/", vec![]),
            ("//", vec!["segment[0] may not be empty".to_owned()]),
            ("/a//b", vec!["segment[1] may not be empty".to_owned()]),
            ("/A_b", vec![format!("segment[0]: {name}")]),
            ("xa/b", vec!["must start with a '/'".to_owned()]),
        ] {
            let mut client =
                json!({"service": {"name": "a", "namespace": "b", "port": 443, "path": route}});
            let wanted: Vec<String> = why
                .iter()
                .map(|why| format!("c.service.path: Invalid value: \"{route}\": {why}"))
                .collect();
            let found = check("c", &client);
            let found: Vec<String> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, wanted);
            client["service"]["path"] = Value::Null;
            assert!(check("c", &client).is_empty());
        }
    }
}
