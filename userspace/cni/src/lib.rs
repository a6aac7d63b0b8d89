//! The CNI plugin (specification 1.1.0, and older versions down to 0.3.0): a pod's link, its addresses and the
//! programs on it.
//!
//! A process that a container runtime starts and that is gone after a few milliseconds: [`run`] has no runtime, no
//! threads but those that look into the pod's namespace, and talks to nobody but the kernel. It attaches the programs
//! itself, those that the agent has pinned, rather than to ask the agent for it: so pods come and go while the agent
//! is restarted, and there is no protocol between the two. What it must know of the node it reads from a file that
//! the agent keeps, or from its configuration.
//!
//! Alone it makes a veth pair (`wire`) and gives addresses (`store`); as a later plugin of a chain it attaches the
//! programs to what the one before it made, and passes its result on.
//!
//! This crate knows nothing about Kubernetes: no API, no Services.
#![forbid(unsafe_code)]

mod config;
mod environment;
mod failure;
mod loopback;
mod names;
mod operations;
mod result;
mod store;
mod version;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

pub use config::NAME;

use config::Config;
use environment::{Environment, Operation};
use failure::Failure;
use version::Version;

/// Which plugin this process is, by the name that it was started under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plugin {
    /// `fairlead-cni`.
    Fairlead,
    /// `loopback`, which container runtimes start for every pod whatever the configuration says.
    Loopback,
}

impl Plugin {
    /// The plugin of a program's name, if it is one's.
    #[must_use]
    pub fn named(program: &str) -> Option<Plugin> {
        match program {
            NAME => Some(Plugin::Fairlead),
            "loopback" => Some(Plugin::Loopback),
            _ => None,
        }
    }
}

/// Does what the environment says with what stdin says, and answers on stdout.
#[must_use]
pub fn run(plugin: Plugin) -> ExitCode {
    let mut version = String::new();
    let answer = match answer(plugin, &mut version) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err(failure) => {
            eprintln!("{NAME}: {failure}");
            let version = if version.is_empty() {
                Version::ALL[Version::ALL.len() - 1].1
            } else {
                &version
            };
            (failure.json(version), ExitCode::FAILURE)
        }
    };
    let (json, code) = answer;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{json}").and_then(|()| out.flush()) {
        Ok(()) => code,
        Err(error) => {
            eprintln!("{NAME}: cannot write to stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(plugin: Plugin, version: &mut String) -> Result<Option<Value>, Failure> {
    let environment = Environment::read(|name| std::env::var(name).ok())?;
    if environment.operation == Operation::Version {
        // What it says is no configuration yet; all that counts is its version.
        let mut text = Vec::new();
        let _ = std::io::Read::read_to_end(
            &mut std::io::Read::take(std::io::stdin().lock(), 1 << 16),
            &mut text,
        );
        let said: Value = serde_json::from_slice(&text).unwrap_or_default();
        return Ok(Some(Version::answer(
            said["cniVersion"].as_str().unwrap_or_default(),
        )));
    }
    let config = Config::read(std::io::stdin().lock())?;
    config.version_name().clone_into(version);
    if plugin == Plugin::Loopback {
        return loopback::answer(&environment, &config);
    }
    match environment.operation {
        Operation::Add => operations::add(&environment, &config).map(Some),
        Operation::Del => operations::del(&environment, &config).map(|()| None),
        Operation::Check => operations::check(&environment, &config).map(|()| None),
        Operation::Gc => operations::gc(&config).map(|()| None),
        Operation::Status => operations::status(&config).map(|()| None),
        Operation::Version => Ok(None),
    }
}
