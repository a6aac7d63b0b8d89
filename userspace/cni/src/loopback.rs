//! The plugin `loopback`: the loopback device of a pod is up. containerd starts one for every pod, so that whoever
//! installs this plugin alone needs no other.

use net::{Netns, Rtnl};
use serde_json::{Value, json};

use crate::config::Config;
use crate::environment::{Environment, Operation};
use crate::failure::{Code, Failure};
use crate::version::Version;

/// Its name in every namespace.
const DEVICE: &str = "lo";

/// Does what the environment says.
///
/// # Errors
///
/// Where the container's namespace is not there, or the kernel refuses.
pub(crate) fn answer(environment: &Environment, config: &Config) -> Result<Option<Value>, Failure> {
    match environment.operation {
        Operation::Add => add(environment, config).map(Some),
        Operation::Check => check(environment).map(|()| None),
        // The device goes with its namespace.
        Operation::Del | Operation::Gc | Operation::Status | Operation::Version => Ok(None),
    }
}

fn inside(environment: &Environment) -> Result<Rtnl, Failure> {
    let path = environment.netns.clone().unwrap_or_default();
    let netns = Netns::open(&path).map_err(|error| Failure::of(Code::UnknownContainer, &error))?;
    Ok(netns.run(Rtnl::open)??)
}

fn add(environment: &Environment, config: &Config) -> Result<Value, Failure> {
    let rtnl = inside(environment)?;
    let missing = || Failure::new(Code::Io, "the container has no loopback device");
    let device = rtnl.device(DEVICE)?.ok_or_else(missing)?;
    rtnl.set_up(device.ifindex)?;
    if let Some(before) = &config.prev_result {
        return Ok(before.clone());
    }
    let sandbox = environment
        .netns
        .as_deref()
        .map(|path| path.display().to_string());
    let ips = rtnl.addresses(device.ifindex)?.into_iter().map(|address| {
        let mut json = json!({
            "address": format!("{}/{}", address.addr, address.prefix_len),
            "interface": 0,
        });
        if config.version() < Version::V1_0_0 {
            json["version"] = json!(if address.addr.is_ipv4() { "4" } else { "6" });
        }
        json
    });
    Ok(json!({
        "cniVersion": config.version_name(),
        "interfaces": [{"name": DEVICE, "mac": "00:00:00:00:00:00", "sandbox": sandbox}],
        "ips": ips.collect::<Vec<_>>(),
        "dns": {},
    }))
}

fn check(environment: &Environment) -> Result<(), Failure> {
    match inside(environment)?.device(DEVICE)? {
        Some(device) if device.up => Ok(()),
        _ => Err(Failure::new(Code::NotAsMade, "the loopback device is down")),
    }
}
