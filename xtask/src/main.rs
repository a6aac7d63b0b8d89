//! Starts things: `cargo xtask setup | build | load | demo | test | bench | tidy`, a file per command.
//!
//! It imports none of the other crates and has two dependencies, so that a fresh clone answers within
//! seconds; what is heavy is a crate of its own that a command here builds and starts.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod cmd;
mod demo;
mod load;
mod python;
mod setup;
mod test;
mod tidy;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, loads, shows, tests and measures Fairlead."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building the kernel programs needs.
    Setup(setup::Options),
    /// Compile the kernel programs and the `fairlead` binary that carries them.
    Build(build::Options),
    /// Load the programs, attach them to a device and print what the kernel holds.
    Load(load::Options),
    /// Show Kubernetes Services balanced along every path, in namespaces of its own.
    Demo(demo::Options),
    /// Run every test, those that need root included.
    Test(test::Options),
    /// Measure, beside peers in the same run.
    Bench(bench::Options),
    /// Check the house: arrows, lints, first sentences, file sizes.
    Tidy,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup(options) => setup::run(&options).map(|_toolchain| ExitCode::SUCCESS),
        Command::Build(options) => build::run(&options).map(|_built| ExitCode::SUCCESS),
        Command::Load(options) => load::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tidy => tidy::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
