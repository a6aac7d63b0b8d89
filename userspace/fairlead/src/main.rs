//! The fairlead binary: command line, configuration, wiring and output.

use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::filter::LevelFilter;

mod cli;
mod commands;
mod config;
mod duration;
mod logging;
mod memory;
mod output;
mod shutdown;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(plugin) = plugin() {
        return cni::run(plugin);
    }
    let outcome = cli::parse().and_then(|cli| {
        let (like_coredns, level) = match &cli.command {
            cli::Command::Dns(dns) if dns.command.is_none() => (true, LevelFilter::INFO),
            // An answer is shown, not what a server would tell beside it.
            cli::Command::Dns(_) => (false, LevelFilter::ERROR),
            _ => (false, LevelFilter::INFO),
        };
        logging::init(cli.log_format, like_coredns, level)?;
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

/// Container runtimes know plugins by the name of their file and say everything else in the environment: such a process
/// has no command line, and no time for one.
fn plugin() -> Option<cni::Plugin> {
    let mut args = std::env::args_os();
    let program = PathBuf::from(args.next()?);
    let plugin = cni::Plugin::named(program.file_name()?.to_str()?);
    let asked =
        || (args.next()? == "cni" && args.next().is_none()).then_some(cni::Plugin::Fairlead);
    plugin.or_else(asked)
}
