//! Kubernetes' Python client, for the tests that drive the server with it.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use crate::cmd;

/// What the tests use of it.
const IMPORTS: &str = "import kubernetes.informer, kubernetes.dynamic";
/// What pip is asked for.
const PACKAGE: &str = "kubernetes>=36,<38";

/// What tests need in their environment to find the client. Where it is missing it is installed below `target`; where
/// that fails too, the tests are told to do without, and so is whoever reads the log.
pub(crate) fn environment() -> Option<(&'static str, OsString)> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    if has_client(&python, None) {
        return None;
    }
    let folder = cmd::workspace_root().join("target/python");
    if !has_client(&python, Some(&folder)) {
        cmd::progress("Kubernetes' Python client is missing; pip installs it into target/python");
        let _ = Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--target"])
            .args([folder.as_os_str(), OsStr::new(PACKAGE)])
            .status();
    }
    if has_client(&python, Some(&folder)) {
        return Some(("PYTHONPATH", folder.into()));
    }
    cmd::progress(
        "tests with Kubernetes' Python client are left out: `pip install kubernetes` for them, and name the interpreter in $PYTHON",
    );
    Some(("FAIRLEAD_WITHOUT_PYTHON", "1".into()))
}

fn has_client(python: &OsStr, folder: Option<&Path>) -> bool {
    let mut command = Command::new(python);
    command.args(["-c", IMPORTS]);
    if let Some(folder) = folder {
        command.env("PYTHONPATH", folder);
    }
    command.output().is_ok_and(|output| output.status.success())
}
