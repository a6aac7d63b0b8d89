//! Shows Kubernetes Services balanced along every path, then takes a backend and Fairlead itself away under
//! load. `cargo xtask demo` builds what it starts.
#![forbid(unsafe_code)]

/// Prints a line, and leaves the function with an error where that fails or Ctrl-C was pressed.
macro_rules! say {
    ($($line:tt)*) => {
        crate::say(format_args!($($line)*))?
    };
}

mod cluster;
mod faults;
mod paths;

use std::fmt::Arguments;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use testbed::wait::INTERRUPTED;

use cluster::Cluster;

#[derive(Parser)]
struct Options {
    /// The `fairlead` binary
    #[arg(long)]
    fairlead: PathBuf,
    /// Folder with the YAML to apply
    #[arg(long)]
    examples: PathBuf,
    /// kubectl to apply it with; looked for on PATH when absent, and Fairlead's own client where there is none
    #[arg(long, env = "KUBECTL")]
    kubectl: Option<PathBuf>,
    /// Tear down after the tables instead of staying up until Ctrl-C
    #[arg(long)]
    once: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Err(error) = on_interrupt() {
        eprintln!("demo: {error:#}");
        return ExitCode::FAILURE;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was shown is as it should be. Whatever was made is gone when this returns.
fn run(options: &Options) -> Result<bool> {
    let started = Instant::now();
    let mut cluster = Cluster::start(&options.fairlead)?;
    cluster.apply(&options.examples, options.kubectl.as_deref())?;
    let good_paths = paths::show(&cluster)?;
    let good_faults = faults::show(&mut cluster)?;
    let good = good_paths && good_faults;
    let verdict = if good {
        "everything is as it should be"
    } else {
        "NOT everything is as it should be, see above"
    };
    say!("\n{verdict} ({:.1} s)", started.elapsed().as_secs_f32());
    if !options.once {
        say!("\n{}\n\nUp until Ctrl-C.", cluster.how_to_reach());
        while !INTERRUPTED.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        line(format_args!("\nClearing away."))?;
    }
    Ok(good)
}

fn say(words: Arguments<'_>) -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    line(words)
}

fn line(words: Arguments<'_>) -> Result<()> {
    writeln!(std::io::stdout(), "{words}").context("cannot print what happens")
}

/// Ctrl-C and SIGTERM end the demo in order, from wherever it is.
fn on_interrupt() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}
