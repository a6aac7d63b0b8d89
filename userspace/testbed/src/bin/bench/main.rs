//! Measures Fairlead beside its peers in the same run: the datapath beside the direct path and an nftables ruleset
//! of the shape that kube-proxy writes, the DNS server beside knot and nsd, the API server beside etcd, the CNI plugin beside bridge and host-local. `cargo xtask bench
//! NAME` builds what it starts.
#![forbid(unsafe_code)]

mod apiserver;
mod changes;
mod cni;
mod dns;
mod figures;
mod kernel_dns;
mod nft;
mod policy;
mod programming;
mod programs;
mod sockets;
mod traffic;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use figures::{Figures, Format};

#[derive(Parser)]
struct Options {
    /// Which bench
    #[arg(default_value = "datapath", value_parser = ["datapath", "dns", "kernel-dns", "apiserver", "cni"])]
    name: String,
    /// The `fairlead` binary
    #[arg(long)]
    fairlead: PathBuf,
    /// Fewer and shorter runs: ends within two minutes
    #[arg(long)]
    quick: bool,
    /// A table, or one JSON object a line
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Of the traffic only this path, and the one that it is compared with; may be given several times
    #[arg(long = "case", value_name = "CASE")]
    cases: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Requests and bytes on each path
    Traffic,
    /// From the API to the kernel
    Programming,
    /// Each program by itself
    Programs,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut figures = Figures::new(&options.name, options.output);
    if let Err(error) = run(&options, &mut figures) {
        eprintln!("bench: {error:#}");
        return ExitCode::FAILURE;
    }
    let missed = figures.missed();
    for miss in missed {
        eprintln!("missed: {miss}");
    }
    if missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(options: &Options, figures: &mut Figures) -> Result<()> {
    if options.name == "dns" {
        return dns::measure(figures, &options.fairlead, options.quick);
    }
    if options.name == "apiserver" {
        return apiserver::measure(figures, &options.fairlead, options.quick);
    }
    if options.name == "kernel-dns" {
        return kernel_dns::measure(figures, &options.fairlead, options.quick);
    }
    if options.name == "cni" {
        return cni::measure(figures, &options.fairlead, options.quick);
    }
    let wanted = |part| options.only.is_none_or(|only| only == part);
    if wanted(Part::Programs) {
        programs::measure(figures)?;
    }
    if wanted(Part::Programming) {
        programming::measure(figures, &options.fairlead, options.quick)?;
    }
    if wanted(Part::Traffic) {
        traffic::measure(figures, options.quick, &options.cases)?;
    }
    Ok(())
}
