//! `cargo xtask setup`: a toolchain for the kernel programs, bpf-linker, and the commands that
//! namespaces, demo and benches call. Quick and silent about what is already there.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

use crate::cmd;
use crate::toolchain::Toolchain;

/// The LLVM that Debian's `rustc-web` is built with; bpf-linker must read the bitcode that it writes.
pub(crate) const LLVM: &str = "22";

/// Commands that are started at run time: (command, Debian package, what for).
const TOOLS: [Tool; 5] = [
    ("ip", "iproute2", "makes the namespaces' links"),
    (
        "ethtool",
        "ethtool",
        "switches checksum offload off on links that stand for wires",
    ),
    (
        "nft",
        "nftables",
        "the bench's peer, a ruleset of kube-proxy's shape",
    ),
    (
        "etcd",
        "etcd-server",
        "the store that tests of the etcd engine run on, and the bench's peer",
    ),
    (
        "cc",
        "gcc",
        "links the host's binaries and compiles the TLS library's assembly",
    ),
];

/// A command that is started at run time: command, Debian package, what for.
pub(crate) type Tool = (&'static str, &'static str, &'static str);

/// What `bench dns` compares with, and what it asks with.
pub(crate) const DNS_BENCH: [Tool; 3] = [
    (
        "dnsperf",
        "dnsperf",
        "asks DNS servers as fast as they answer",
    ),
    ("knotd", "knot", "a DNS server to compare with"),
    ("nsd", "nsd", "a DNS server to compare with"),
];

/// What `bench cni` needs beside: plugins, which are on no PATH.
pub(crate) const CNI_BENCH: [Tool; 1] = [CNI_PLUGINS];

const CNI_PLUGINS: Tool = (
    "/usr/lib/cni/bridge",
    "containernetworking-plugins",
    "CNI plugins to compare with, and to come after in a chain",
);

/// What tests compare with, look names up with, and write rules of others with.
pub(crate) const TEST: [Tool; 7] = [
    CNI_PLUGINS,
    (
        "iptables",
        "iptables",
        "writes chains of kube-proxy's shape, which a takeover removes",
    ),
    (
        "dnsperf",
        "dnsperf",
        "asks DNS servers as fast as they answer",
    ),
    (
        "knotd",
        "knot",
        "a DNS server whose answers ours must equal",
    ),
    ("nsd", "nsd", "a DNS server whose answers ours must equal"),
    (
        "unbound",
        "unbound",
        "a DNS server whose answers ours must equal",
    ),
    (
        "musl-gcc",
        "musl-tools",
        "compiles a program that looks names up as musl does",
    ),
];

/// Options of `setup`.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Print what is missing and how to get it, install nothing; exits 1 when something is missing
    #[arg(long)]
    check: bool,
}

/// Installs what is missing and returns the toolchain for the kernel programs.
///
/// # Errors
///
/// When something cannot be installed here; the message says what to install by hand.
pub(crate) fn run(options: &Options) -> Result<Toolchain> {
    let missing = Missing::look();
    if options.check && !missing.is_empty() {
        bail!("missing: {}", missing.describe());
    }
    missing.install()?;
    let toolchain = Toolchain::find().context(BY_HAND)?;
    if missing.is_empty() && options.check {
        cmd::progress(&format!(
            "everything is there; {} builds the programs",
            toolchain.describe()
        ));
    }
    Ok(toolchain)
}

/// Installs the tools that are not there; servers among them are not started.
///
/// # Errors
///
/// When they cannot be installed here.
pub(crate) fn install_tools(tools: &[Tool]) -> Result<()> {
    let missing: Vec<&Tool> = tools
        .iter()
        .filter(|(command, ..)| cmd::which(command).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package, _)| *package).collect();
    if cmd::which("apt-get").is_none() {
        bail!(
            "please install {} with your system's package manager and run this again",
            packages.join(", ")
        );
    }
    let policy = Path::new("/usr/sbin/policy-rc.d");
    if policy.exists() {
        return apt(&packages);
    }
    // Debian's packages ask this file whether their services may start; 101 says no.
    cmd::run(
        Command::new("install")
            .args(["-m", "755", "/dev/null"])
            .arg(policy),
    )?;
    std::fs::write(policy, "#!/bin/sh\nexit 101\n")?;
    let installed = apt(&packages);
    std::fs::remove_file(policy)?;
    installed
}

/// Where bpf-linker is, as installed by cargo or found on PATH.
pub(crate) fn linker() -> Option<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    cmd::which("bpf-linker")
        .or_else(|| Some(cargo_home?.join("bin/bpf-linker")).filter(|path| path.is_file()))
}

const BY_HAND: &str = "no compiler with the source of `core` was found, and this is not a Debian system where \
    it could be installed. Install one with `rustup toolchain install nightly --component rust-src`, then \
    `cargo install bpf-linker --locked`, and run this again";

/// What is not there yet.
struct Missing {
    toolchain: bool,
    linker: bool,
    tools: Vec<Tool>,
}

impl Missing {
    fn look() -> Self {
        Self {
            toolchain: Toolchain::find().is_none(),
            linker: linker().is_none(),
            tools: TOOLS
                .into_iter()
                .filter(|(command, ..)| cmd::which(command).is_none())
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.toolchain && !self.linker && self.tools.is_empty()
    }

    fn describe(&self) -> String {
        let toolchain = self
            .toolchain
            .then(|| "a compiler with the source of `core`".to_owned());
        let linker = self
            .linker
            .then(|| "bpf-linker (links the kernel programs)".to_owned());
        let tools = self
            .tools
            .iter()
            .map(|(command, _, why)| format!("{command} ({why})"));
        toolchain
            .into_iter()
            .chain(linker)
            .chain(tools)
            .collect::<Vec<_>>()
            .join(", ")
    }

    fn install(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        cmd::progress(&format!("installing {}", self.describe()));
        let debian = cmd::which("apt-get").is_some() && Path::new("/etc/debian_version").exists();
        let mut packages: Vec<&str> = self.tools.iter().map(|(_, package, _)| *package).collect();
        if self.toolchain {
            if !debian {
                bail!(BY_HAND);
            }
            packages.extend(["rustc-web", "cargo-web", "rust-web-src"]);
        }
        // The Debian compiler wants a linker built against Debian's LLVM; rustup's brings its own.
        let against_debian = self.toolchain || Toolchain::find() == Some(Toolchain::Debian);
        let llvm = format!("/usr/lib/llvm-{LLVM}");
        let llvm_dev = format!("llvm-{LLVM}-dev");
        if self.linker && against_debian && !Path::new(&llvm).join("bin/llvm-config").exists() {
            packages.push(&llvm_dev);
            packages.extend(["g++", "zlib1g-dev", "libzstd-dev"]);
        }
        if !packages.is_empty() {
            if !debian {
                bail!(
                    "please install {} with your system's package manager and run this again",
                    self.describe()
                );
            }
            apt(&packages)?;
        }
        if self.linker {
            install_linker(against_debian.then_some(llvm.as_str()))?;
        }
        Ok(())
    }
}

/// Installs Debian packages; the package lists are fetched only when they do not know one of them.
fn apt(packages: &[&str]) -> Result<()> {
    let root = cmd::output("id", &["-u"]).is_some_and(|uid| uid == "0");
    if !root {
        bail!(
            "`apt-get install {}` needs root; run it, or `cargo xtask setup` as root",
            packages.join(" ")
        );
    }
    let known = Command::new("apt-get")
        .args(["install", "--simulate", "-qq"])
        .args(packages)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !known {
        cmd::progress("apt-get update");
        cmd::run(Command::new("apt-get").args(["update", "-qq"]))?;
    }
    cmd::progress(&format!("apt-get install {}", packages.join(" ")));
    cmd::run(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .with_context(|| {
        format!(
            "this Debian release may lack one of {}; {BY_HAND}",
            packages.join(", ")
        )
    })
}

/// Compiles bpf-linker: against Debian's LLVM where `llvm` names its folder, else as it comes, which takes
/// the LLVM inside the rustup toolchain.
fn install_linker(llvm: Option<&str>) -> Result<()> {
    cmd::progress("compiling bpf-linker (about two minutes, once)");
    let mut cargo = cmd::cargo();
    cargo.args(["install", "bpf-linker", "--locked"]);
    // Its build must not land in the workspace's target folder or be cut short by our profile.
    cargo.current_dir("/").env_remove("CARGO_TARGET_DIR");
    if let Some(llvm) = llvm {
        cargo.args([
            "--no-default-features",
            "--features",
            &format!("llvm-{LLVM}"),
        ]);
        cargo.env("LLVM_PREFIX", llvm);
    }
    cmd::run(&mut cargo)
}
