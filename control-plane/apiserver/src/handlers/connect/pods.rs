//! `log`, `exec`, `attach` and `portforward` of a Pod: which container is meant, and what its node is asked.

use api::field::FieldError;
use api::meta;
use api::status::Status;
use api::value::{list, text};
use serde_json::Value;

use super::targets::{kubelet, stored};
use super::{Ask, Route};

/// The node's path for the request. `None`: the Pod runs on no node, and its log is asked for.
pub(super) async fn route(ask: &Ask<'_>) -> Result<Option<Route>, Status> {
    let pod = stored(ask.state, ask.row, ask.namespace, ask.name).await?;
    let log = ask.subresource.name == "log";
    if log {
        check_log(ask)?;
    }
    let (namespace, name) = (ask.namespace, ask.name);
    let place = if ask.subresource.name == "portforward" {
        format!("{namespace}/{name}")
    } else {
        format!(
            "{namespace}/{name}/{}",
            container(&pod, ask.query.text("container"))?
        )
    };
    let node = text(&pod, &["spec", "nodeName"]);
    if node.is_empty() {
        if log {
            return Ok(None);
        }
        return Err(Status::bad_request(format!(
            "pod {name} does not have a host assigned"
        )));
    }
    let verb = match ask.subresource.name {
        "log" => "containerLogs",
        "portforward" => "portForward",
        other => other,
    };
    let query = query(ask);
    let path = format!("/{verb}/{place}");
    Ok(Some(Route {
        peer: kubelet(ask.state, node).await?,
        path_and_query: if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        },
        proxied: false,
    }))
}

/// What the node's own parameters are called, by those of the API.
fn query(ask: &Ask<'_>) -> String {
    #[rustfmt::skip]
    let names: &[(&str, &str)] = match ask.subresource.name {
        "log" => &[
            ("follow", "follow"), ("limitBytes", "limitBytes"), ("previous", "previous"),
            ("sinceSeconds", "sinceSeconds"), ("sinceTime", "sinceTime"), ("stream", "stream"),
            ("tailLines", "tailLines"), ("timestamps", "timestamps"),
        ],
        "portforward" => &[("ports", "port")],
        _ => &[
            ("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty"), ("command", "command"),
        ],
    };
    let mut out = Vec::new();
    for (ours, theirs) in names {
        for given in ask.query.values(ours) {
            let flag = matches!(*ours, "stdin" | "stdout" | "stderr" | "tty");
            match (flag, given) {
                (true, "true" | "1") => out.push(format!("{theirs}=1")),
                (true, _) => {}
                (false, "") => {}
                (false, given) => out.push(format!("{theirs}={}", encoded(given))),
            }
        }
    }
    out.join("&")
}

/// Percent-encoding of a value in a query (RFC 3986: all but the unreserved).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The annotation that names the container that is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

fn container<'a>(pod: &'a Value, asked: &'a str) -> Result<&'a str, Status> {
    let names = |key: &str| -> Vec<&'a str> {
        list(pod, &["spec", key])
            .iter()
            .map(|container| text(container, &["name"]))
            .collect()
    };
    let (main, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let name = meta::name(pod);
    if asked.is_empty() {
        let annotated = text(pod, &["metadata", "annotations", DEFAULT_CONTAINER]);
        if main.contains(&annotated) {
            return Ok(annotated);
        }
        if let ([only], true, true) = (main.as_slice(), init.is_empty(), ephemeral.is_empty()) {
            return Ok(only);
        }
        if main.is_empty() {
            return Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}"
            )));
        }
        let mut why = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            main.join(" ")
        );
        for (kind, names) in [("init", init), ("ephemeral", ephemeral)] {
            if !names.is_empty() {
                why.push_str(&format!(
                    " or one of the {kind} containers: [{}]",
                    names.join(" ")
                ));
            }
        }
        return Err(Status::bad_request(why));
    }
    if [main, init, ephemeral].concat().contains(&asked) {
        Ok(asked)
    } else {
        Err(Status::bad_request(format!(
            "container {asked} is not valid for pod {name}"
        )))
    }
}

/// The parameters of `log` that are out of bounds.
fn check_log(ask: &Ask<'_>) -> Result<(), Status> {
    let mut wrong = Vec::new();
    for (key, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        let given = ask.query.text(key);
        if given.is_empty() {
            continue;
        }
        let number: i64 = given.parse().map_err(|_| {
            Status::bad_request(format!(
                "strconv.ParseInt: parsing {}: invalid syntax",
                api::field::quoted(given)
            ))
        })?;
        if number < least {
            wrong.push(FieldError::invalid(key, &number.into(), why));
        }
    }
    if !ask.query.text("sinceSeconds").is_empty() && !ask.query.text("sinceTime").is_empty() {
        wrong.push(FieldError::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "PodLogOptions", ask.name, &wrong))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn which_container_is_meant() {
        let one = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        let mut two = one.clone();
        two["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
        let mut annotated = two.clone();
        annotated["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        #[rustfmt::skip]
        let cases = [
            (&one, "", Ok("a")),
            (&two, "b", Ok("b")),
            (&annotated, "", Ok("b")),
            (&two, "", Err("a container name must be specified for pod p, choose one of: [a b]")),
            (&two, "c", Err("container c is not valid for pod p")),
        ];
        for (pod, asked, expected) in cases {
            let found = container(pod, asked).map_err(|status| status.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{pod} {asked}");
        }
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(encoded("a b/ü&c"), "a%20b%2F%C3%BC%26c");
    }
}
