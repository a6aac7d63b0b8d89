//! The fairlead binary: command line, configuration, wiring and output.
#![forbid(unsafe_code)]

use std::process::ExitCode;

mod cli;
mod commands;
mod config;
mod logging;
mod output;
mod shutdown;

fn main() -> ExitCode {
    let outcome = cli::parse().and_then(|cli| {
        logging::init(cli.log_format)?;
        commands::run(cli.command)
    });
    match outcome {
        Ok(status) => status,
        Err(error) => {
            eprintln!("fairlead: {error:#}");
            ExitCode::FAILURE
        }
    }
}
