//! `cargo xtask demo`: sets up, builds, and hands over to the testbed's `demo`.

use std::process::Command;
use std::process::ExitCode;

use anyhow::Result;

use crate::build;
use crate::cmd;

/// Options of `demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Tear down after the tables and exit 0 or 1, instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
}

/// Builds what the demo starts, then is the demo.
///
/// # Errors
///
/// When building fails; the demo reports its own failures by its exit status.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let executables = build::quickly(&["--bins"])?;
    let mut demo = Command::new(cmd::named(&executables, "demo")?);
    demo.arg("--fairlead")
        .arg(cmd::named(&executables, "fairlead")?);
    demo.arg("--examples")
        .arg(cmd::workspace_root().join("examples"));
    if options.once {
        demo.arg("--once");
    }
    cmd::turn_into(&mut demo)
}
