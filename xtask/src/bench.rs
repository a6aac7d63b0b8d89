//! `cargo xtask bench [NAME]`: optimised builds of the benches that the testbed holds, and a run of them.

use std::process::Command;
use std::process::ExitCode;

use anyhow::Result;

use crate::build;
use crate::cmd;
use crate::setup;

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which bench
    #[arg(default_value = "datapath", value_parser = ["datapath", "dns", "kernel-dns", "apiserver", "cni"])]
    name: String,
    /// Fewer and shorter runs: ends within two minutes
    #[arg(long)]
    quick: bool,
    /// How to print: a table, or one JSON object a line
    #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

/// Builds the bench and is the bench, which exits 1 when a figure misses its bound.
///
/// # Errors
///
/// When building fails.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if options.name == "dns" {
        setup::install_tools(&setup::DNS_BENCH)?;
    }
    if options.name == "cni" {
        setup::install_tools(&setup::CNI_BENCH)?;
    }
    let executables = build::optimised()?;
    let mut bench = Command::new(cmd::named(&executables, "bench")?);
    bench
        .arg("--fairlead")
        .arg(cmd::named(&executables, "fairlead")?);
    bench.arg(&options.name).args(["--output", &options.output]);
    if options.quick {
        bench.arg("--quick");
    }
    cmd::turn_into(&mut bench)
}
