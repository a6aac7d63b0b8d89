//! Loads the programs, attaches them to one device and prints what the kernel then holds;
//! `cargo xtask load --device IF` starts it.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use bpf::{Datapath, DeviceReport, Place, Settings, Status, XdpMode};
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

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Where the device cannot be had, what was made for it is taken away again.
fn run(options: &Options) -> Result<()> {
    let root = &options.bpffs_root;
    refuse_fleeting(root)?;
    let mounted = !net::is_bpffs(root);
    net::ensure_bpffs(root)?;
    let fresh = Datapath::layouts(root)?.is_empty();
    let (report, status) = match load(options) {
        Ok(loaded) => loaded,
        Err(error) => {
            if fresh {
                Datapath::uninstall(root)?;
                net::release_bpffs(root)?;
            }
            return Err(error);
        }
    };
    print(&report, &status, root, mounted).context("all is loaded, but cannot be shown")
}

/// A bpffs that is mounted from the mount namespace of a single command would go with the command, and all that it holds.
fn refuse_fleeting(root: &Path) -> Result<()> {
    if !net::is_bpffs(root) && !shares_mounts() {
        bail!(
            "{} is on no BPF file system, and one that is mounted from here ends with this command, whose mount namespace is \
             its own (`ip netns exec` makes one): enter the network namespace alone, by `nsenter --net=/run/netns/NAME`, or \
             name a folder on a BPF file system that is mounted here already by --bpffs-root",
            root.display()
        );
    }
    Ok(())
}

/// Whether the processes that this one descends from have its mount namespace, as far as they may be looked at.
fn shares_mounts() -> bool {
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let parent = |process: &String| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        Some(line.trim().to_owned())
    };
    let here = mounts("self");
    std::iter::successors(parent(&"self".to_owned()), parent)
        .filter_map(|process| mounts(&process))
        .all(|theirs| Some(&theirs) == here.as_ref())
}

fn load(options: &Options) -> Result<(DeviceReport, Status)> {
    let settings = Settings {
        bpffs_root: options.bpffs_root.clone(),
        ..Settings::default()
    };
    let mut datapath = Datapath::open(&settings)?;
    let report = datapath.attach_device(&options.device, options.xdp)?;
    Ok((report, datapath.status()?))
}

fn print(report: &DeviceReport, status: &Status, root: &Path, mounted: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<16} {:>6}  {:<17} {:>9} {:>8}",
        "PROGRAM", "ID", "TAG", "VERIFIED", "BYTES"
    )?;
    for program in &status.programs {
        writeln!(
            out,
            "{:<16} {:>6}  {:<17} {:>9} {:>8}",
            program.name,
            program.id,
            program.tag,
            program.verified_instructions,
            program.jited_bytes
        )?;
    }
    writeln!(out, "\n{:<16} {:<15} ON", "PROGRAM", "HOOK")?;
    for link in &status.links {
        let on = match &link.on {
            Place::Cgroup { id, path } => path
                .as_ref()
                .map_or_else(|| format!("cgroup {id}"), |path| path.display().to_string()),
            Place::Device { name, ifindex, .. } => format!("{name} ({ifindex})"),
            Place::Gone { was } => format!("gone: {was}"),
        };
        writeln!(out, "{:<16} {:<15} {on}", link.program, link.hook)?;
    }
    writeln!(out, "\n{:<16} {:>8} {:>9}", "TABLE", "USED", "CAPACITY")?;
    for table in &status.tables {
        writeln!(
            out,
            "{:<16} {:>8} {:>9}",
            table.table, table.used, table.capacity
        )?;
    }
    if let Some(reason) = &report.native_refused {
        writeln!(
            out,
            "\nXDP is {} on {}: {reason}",
            report.xdp, report.device
        )?;
    }
    writeln!(
        out,
        "\nAll of it stays in the kernel. `fairlead status --bpffs-root {}` shows it again; `{}` lets the kernel forget it.",
        root.display(),
        forgetting(root, mounted)?
    )?;
    Ok(())
}

/// The command that takes all away. The root of a bpffs has files of the kernel's own, which cannot be removed.
fn forgetting(root: &Path, mounted: bool) -> Result<String> {
    let root = root.canonicalize()?;
    let filesystem = |path: &Path| path.metadata().map(|facts| facts.dev());
    let above = root.parent().unwrap_or(&root);
    let whole = filesystem(&root)? != filesystem(above)?;
    let root = root.display();
    Ok(match (whole, mounted) {
        (false, _) => format!("rm -r {root}"),
        (true, false) => format!("rm -r {root}/v{}", abi::LAYOUT_VERSION),
        (true, true) => format!("rm -r {root}/v{} && umount {root}", abi::LAYOUT_VERSION),
    })
}
