//! Loads the programs, attaches them to one device and prints what the kernel then holds;
//! `cargo xtask load --device IF` starts it.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use bpf::{Datapath, Place, Settings, XdpMode};
use clap::Parser;

#[derive(Parser)]
struct Options {
    /// Device to attach to
    #[arg(long)]
    device: String,
    /// How XDP is attached: auto, native, generic or off
    #[arg(long, default_value = "auto")]
    xdp: XdpMode,
    /// Where everything is pinned
    #[arg(long)]
    bpffs_root: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    net::ensure_bpffs(&options.bpffs_root)?;
    let settings = Settings {
        bpffs_root: options.bpffs_root.clone(),
        ..Settings::default()
    };
    let mut datapath = Datapath::open(&settings)?;
    let report = datapath.attach_device(&options.device, options.xdp)?;
    let status = datapath.status()?;
    println!(
        "{:<16} {:>6}  {:<17} {:>9} {:>8}",
        "PROGRAM", "ID", "TAG", "VERIFIED", "BYTES"
    );
    for program in &status.programs {
        println!(
            "{:<16} {:>6}  {:<17} {:>9} {:>8}",
            program.name,
            program.id,
            program.tag,
            program.verified_instructions,
            program.jited_bytes
        );
    }
    println!("\n{:<16} {:<15} ON", "PROGRAM", "HOOK");
    for link in &status.links {
        let on = match &link.on {
            Place::Cgroup { id, path } => path
                .as_ref()
                .map_or_else(|| format!("cgroup {id}"), |path| path.display().to_string()),
            Place::Device { name, ifindex, .. } => format!("{name} ({ifindex})"),
            Place::Gone { was } => format!("gone: {was}"),
        };
        println!("{:<16} {:<15} {on}", link.program, link.hook);
    }
    println!("\n{:<16} {:>8} {:>9}", "TABLE", "USED", "CAPACITY");
    for table in &status.tables {
        println!(
            "{:<16} {:>8} {:>9}",
            table.table, table.used, table.capacity
        );
    }
    if let Some(reason) = &report.native_refused {
        println!("\nXDP is {} on {}: {reason}", report.xdp, report.device);
    }
    println!(
        "\nAll of it stays in the kernel. `fairlead status --bpffs-root {root}` shows it again; \
         `rm -r {root}` lets the kernel forget it.",
        root = options.bpffs_root.display()
    );
    Ok(())
}
