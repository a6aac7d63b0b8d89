//! What the runtime says in the environment: which operation, on which container and interface.

use std::path::PathBuf;

use ipam::Attachment;

use crate::failure::{Code, Failure};

/// An operation of the specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    /// Make an interface.
    Add,
    /// Remove it.
    Del,
    /// Is it as it was made?
    Check,
    /// Remove what no attachment needs any more.
    Gc,
    /// Could an interface be made now?
    Status,
    /// Which versions are spoken?
    Version,
}

/// What the environment says, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Environment {
    /// `CNI_COMMAND`.
    pub(crate) operation: Operation,
    /// `CNI_CONTAINERID` and `CNI_IFNAME`; of empty strings where the operation has none.
    pub(crate) attachment: Attachment,
    /// `CNI_NETNS`.
    pub(crate) netns: Option<PathBuf>,
    /// `CNI_ARGS`.
    pub(crate) args: Args,
}

/// What `CNI_ARGS` says.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Args {
    /// `namespace/name` of the pod; empty where nobody said.
    pub(crate) pod: String,
    /// `IP`: an address that is asked for.
    pub(crate) ip: Option<String>,
    /// `MAC`: an Ethernet address that is asked for.
    pub(crate) mac: Option<String>,
}

/// Longer container names are nobody's; what comes from here goes into a file.
const CONTAINER_MAX: usize = 512;
/// linux/if.h: `IFNAMSIZ`, with its zero.
const IFNAME_MAX: usize = 15;

impl Environment {
    /// Reads it with a function that knows the variables.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidEnvironment`], naming the variable.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Environment, Failure> {
        let invalid = |msg: String| Failure::new(Code::InvalidEnvironment, msg);
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let operation = match get("CNI_COMMAND").as_deref() {
            Some("ADD") => Operation::Add,
            Some("DEL") => Operation::Del,
            Some("CHECK") => Operation::Check,
            Some("GC") => Operation::Gc,
            Some("STATUS") => Operation::Status,
            Some("VERSION") => Operation::Version,
            Some(other) => {
                return Err(invalid(format!(
                    "CNI_COMMAND is {other:?}, which is no operation"
                )));
            }
            None => {
                return Err(invalid(
                    "CNI_COMMAND is missing: a container runtime starts this plugin, as the CNI specification has it".to_owned(),
                ));
            }
        };
        let needed = |name: &str| get(name).ok_or_else(|| invalid(format!("{name} is missing")));
        let concerns_one = matches!(
            operation,
            Operation::Add | Operation::Del | Operation::Check
        );
        let (container, ifname) = if concerns_one {
            (needed("CNI_CONTAINERID")?, needed("CNI_IFNAME")?)
        } else {
            (String::new(), String::new())
        };
        if concerns_one {
            if !is_name(&container) || container.len() > CONTAINER_MAX {
                return Err(invalid(format!(
                    "CNI_CONTAINERID is {container:?}: letters, digits, '_', '.' and '-' behind a letter or digit make a name"
                )));
            }
            if !is_ifname(&ifname) {
                return Err(invalid(format!(
                    "CNI_IFNAME is {ifname:?}, which cannot be an interface's name"
                )));
            }
        }
        let netns = match operation {
            Operation::Add | Operation::Check => Some(needed("CNI_NETNS")?),
            Operation::Del => get("CNI_NETNS"),
            Operation::Gc | Operation::Status | Operation::Version => None,
        };
        let args = match operation {
            Operation::Add => args(&get("CNI_ARGS").unwrap_or_default()).map_err(invalid)?,
            _ => Args::default(),
        };
        Ok(Environment {
            operation,
            attachment: Attachment { container, ifname },
            netns: netns.map(PathBuf::from),
            args,
        })
    }
}

/// Whether something can name a container or a network.
pub(crate) fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(inner)
}

/// Whether the kernel takes a name for an interface (`dev_valid_name()`), and it cannot lead out of a folder.
fn is_ifname(text: &str) -> bool {
    (1..=IFNAME_MAX).contains(&text.len())
        && !matches!(text, "." | "..")
        && !text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
}

/// `KEY=VALUE;KEY=VALUE`.
fn args(text: &str) -> Result<Args, String> {
    let mut args = Args::default();
    let (mut namespace, mut name) = ("", "");
    let mut unknown = None;
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("CNI_ARGS holds {pair:?}, which is no KEY=VALUE"))?;
        match key {
            "IgnoreUnknown" => ignore_unknown = matches!(value, "1" | "true"),
            "K8S_POD_NAMESPACE" => namespace = value,
            "K8S_POD_NAME" => name = value,
            "IP" => args.ip = Some(value.to_owned()),
            "MAC" => args.mac = Some(value.to_owned()),
            _ if key.starts_with("K8S_POD_") => {}
            _ => unknown = Some(key),
        }
    }
    if let Some(key) = unknown.filter(|_| !ignore_unknown) {
        return Err(format!(
            "CNI_ARGS holds {key:?}, which is not known here; IgnoreUnknown=1 passes over it"
        ));
    }
    if !name.is_empty() {
        args.pod = format!("{namespace}/{name}");
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, Failure> {
        Environment::read(|name| {
            let found = pairs.iter().rev().find(|(its, _)| *its == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_cannot_be_is_named() {
        let long = "x".repeat(600);
        let whole = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "abc.1_2-3"),
            ("CNI_NETNS", "/run/netns/a"),
            ("CNI_IFNAME", "eth0"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;X=Y",
            ),
        ];
        let good = read(&whole).unwrap();
        assert_eq!(good.args.pod, "default/web");
        assert_eq!(good.attachment.ifname, "eth0");
        let cases = [
            ("CNI_COMMAND", "", "CNI_COMMAND is missing"),
            ("CNI_COMMAND", "add", "no operation"),
            ("CNI_CONTAINERID", "", "CNI_CONTAINERID is missing"),
            ("CNI_CONTAINERID", "../x", "CNI_CONTAINERID is"),
            ("CNI_CONTAINERID", "-x", "CNI_CONTAINERID is"),
            ("CNI_CONTAINERID", "a b", "CNI_CONTAINERID is"),
            ("CNI_CONTAINERID", &long, "CNI_CONTAINERID is"),
            ("CNI_NETNS", "", "CNI_NETNS is missing"),
            ("CNI_IFNAME", "", "CNI_IFNAME is missing"),
            ("CNI_IFNAME", "..", "CNI_IFNAME is"),
            ("CNI_IFNAME", "a/b", "CNI_IFNAME is"),
            ("CNI_IFNAME", "a:b", "CNI_IFNAME is"),
            ("CNI_IFNAME", "a b", "CNI_IFNAME is"),
            ("CNI_IFNAME", "a\u{a0}b", "CNI_IFNAME is"),
            ("CNI_IFNAME", "sixteen-letters-", "CNI_IFNAME is"),
            ("CNI_ARGS", "X", "no KEY=VALUE"),
            ("CNI_ARGS", "X=Y", "not known here"),
            ("CNI_ARGS", "X=Y;IgnoreUnknown=0", "not known here"),
        ];
        for (name, value, expected) in cases {
            let mut pairs = whole.to_vec();
            pairs.push((name, value));
            let failure = read(&pairs).unwrap_err();
            assert_eq!(failure.code, Code::InvalidEnvironment);
            assert!(failure.msg.contains(expected), "{name}={value}: {failure}");
        }
    }

    #[test]
    fn each_operation_needs_its_own() {
        let cases: [(&str, &[(&str, &str)], bool); 6] = [
            (
                "DEL",
                &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")],
                true,
            ),
            ("DEL", &[("CNI_IFNAME", "eth0")], false),
            (
                "CHECK",
                &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "eth0")],
                false,
            ),
            ("GC", &[], true),
            ("STATUS", &[], true),
            ("VERSION", &[], true),
        ];
        for (operation, more, good) in cases {
            let mut pairs = vec![("CNI_COMMAND", operation)];
            pairs.extend(more);
            assert_eq!(read(&pairs).is_ok(), good, "{operation} {more:?}");
        }
    }
}
