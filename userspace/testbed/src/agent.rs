//! What the testbed's `agent` does: enters a place, then serves, asks, or becomes another program.
//!
//! A cgroup holds whole processes, so whatever is to be balanced at its sockets, or not, is a process.

use std::io::Read as _;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::load::Load;
use crate::probe::{self, How};
use crate::{cgroup, http, netns, udp};

/// Command line of the agent.
#[derive(Debug, clap::Parser)]
pub struct Options {
    /// File of the network namespace to enter
    #[arg(long)]
    netns: Option<PathBuf>,
    /// Folder of the cgroup to join
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// CPU to stay on
    #[arg(long)]
    cpu: Option<usize>,
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Serve HTTP
    Http(Server),
    /// Answer datagrams
    Udp(Server),
    /// Send requests and print a report as JSON; the end of stdin ends it early
    Load(Load),
    /// Send one request and print what was seen as JSON
    Probe {
        /// Kind of request
        #[arg(long, value_enum)]
        how: How,
        /// Where to
        #[arg(long)]
        target: SocketAddr,
    },
    /// Print `ready`, then connect again and again; print the Unix time in seconds when it worked
    First {
        /// Where to
        #[arg(long)]
        target: SocketAddr,
    },
    /// Become another program
    Exec {
        /// The program and its arguments
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Server {
    /// What it calls itself
    #[arg(long)]
    name: String,
    /// Address and port
    #[arg(long)]
    listen: SocketAddr,
}

/// Does what the command line says. Prints `ready` once a server listens.
///
/// # Errors
///
/// When the place cannot be entered or the address is taken.
pub fn run(options: Options) -> Result<()> {
    // Whoever started us may be killed before it can clean up.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if let Some(cpu) = options.cpu {
        let mut cpus = rustix::thread::CpuSet::new();
        cpus.set(cpu);
        rustix::thread::sched_setaffinity(None, &cpus)
            .with_context(|| format!("cannot stay on CPU {cpu}"))?;
    }
    if let Some(cgroup) = &options.cgroup {
        cgroup::join(cgroup)?;
    }
    if let Some(netns) = &options.netns {
        netns::enter(netns)?;
    }
    match options.task {
        Task::Http(server) => http::serve(&server.name, server.listen, || println!("ready")),
        Task::Udp(server) => udp::serve(&server.name, server.listen, || println!("ready")),
        Task::Load(load) => {
            println!("{}", serde_json::to_string(&load.run(stopped_by_stdin()))?);
            Ok(())
        }
        Task::Probe { how, target } => {
            println!(
                "{}",
                serde_json::to_string(&probe::ask(how, target, Duration::from_secs(3)))?
            );
            Ok(())
        }
        Task::First { target } => {
            println!("ready");
            println!("{}", probe::first_connect(target, Duration::from_secs(20))?);
            Ok(())
        }
        Task::Exec { words } => {
            let (program, arguments) = words.split_first().context("no program")?;
            let error = Command::new(program).args(arguments).exec();
            Err(error).with_context(|| format!("cannot start {program}"))
        }
    }
}

/// Becomes true when stdin ends.
fn stopped_by_stdin() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        // An error ends it as well: nobody can tell us to stop any more.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    &STOP
}
