//! `fairlead up --config FILE`: a YAML mapping of long flags to values, put before the flags of the command line
//! so that those win.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The flags of a configuration file, as arguments.
pub(crate) fn arguments(file: &Path) -> anyhow::Result<Vec<OsString>> {
    let text = std::fs::read_to_string(file).with_context(|| {
        format!(
            "read the configuration {} that --config names",
            file.display()
        )
    })?;
    flags(&text).with_context(|| format!("configuration {}", file.display()))
}

fn flags(text: &str) -> anyhow::Result<Vec<OsString>> {
    let value: Option<Value> = serde_saphyr::from_str(text).context("malformed YAML")?;
    let Some(Value::Object(fields)) = value else {
        return match value {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => {
                anyhow::bail!("want a mapping of flags to values, for instance `secure-port: 6443`")
            }
        };
    };
    let mut out = Vec::new();
    for (name, value) in fields {
        let text = match &value {
            Value::Bool(true) => None,
            Value::Bool(false) | Value::Null => continue,
            Value::Array(items) => Some(
                items
                    .iter()
                    .map(|item| scalar(&name, item))
                    .collect::<anyhow::Result<Vec<_>>>()?
                    .join(","),
            ),
            other => Some(scalar(&name, other)?),
        };
        out.push(match text {
            None => format!("--{name}").into(),
            Some(text) => format!("--{name}={text}").into(),
        });
    }
    Ok(out)
}

fn scalar(name: &str, value: &Value) -> anyhow::Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            anyhow::bail!("{name}: want a text, a number, or a list of them")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::flags;

    #[test]
    fn a_mapping_becomes_flags() {
        let cases = [
            ("", "[]"),
            ("secure-port: 6443", r#"["--secure-port=6443"]"#),
            ("devices: [eth0, eth1]", r#"["--devices=eth0,eth1"]"#),
            ("a: true\nb: false\nc: null", r#"["--a"]"#),
        ];
        for (yaml, want) in cases {
            assert_eq!(format!("{:?}", flags(yaml).unwrap()), want, "{yaml}");
        }
        for bad in ["- a", "x: {y: 1}", "a: [", "a: [[1]]"] {
            assert!(flags(bad).is_err(), "{bad}");
        }
    }
}
