//! `cargo xtask build`: the kernel programs, then the binary that carries them.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

use crate::cmd;
use crate::setup;

/// Options of `build`.
#[derive(clap::Args, Default)]
pub(crate) struct Options {
    /// Build `fairlead` optimised (the kernel programs always are)
    #[arg(long)]
    pub(crate) release: bool,
    /// Build the kernel programs alone
    #[arg(long)]
    pub(crate) ebpf: bool,
}

/// Builds and returns the path of `fairlead`, or of the object with `--ebpf`.
///
/// # Errors
///
/// What setup or a compiler says.
pub(crate) fn run(options: &Options) -> Result<PathBuf> {
    let object = programs()?;
    if options.ebpf {
        return Ok(object);
    }
    let started = Instant::now();
    let executables = if options.release {
        // What is handed out has the features that it asks for itself.
        cmd::cargo_build(&["--package", "fairlead", "--release"])?
    } else {
        cmd::cargo_build(&together(&["--bin", "fairlead"]))?
    };
    let fairlead = cmd::named(&executables, "fairlead")?;
    cmd::progress(&format!(
        "{} ({:.1} s)",
        fairlead.display(),
        started.elapsed().as_secs_f32()
    ));
    Ok(fairlead.to_path_buf())
}

/// Builds what `demo` or `load` starts, and returns the executables. Nothing that they show is slower for being compiled
/// quickly: packets are balanced by the kernel programs.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn quickly(targets: &[&str]) -> Result<Vec<PathBuf>> {
    programs()?;
    cmd::cargo_build(&together(targets))
}

/// Arguments for some targets of the workspace. Cargo settles on features by the packages that are selected; every build
/// that is not optimised selects the same, so that none compiles again what another did, but for the few crates that
/// tests ask more of.
pub(crate) fn together<'a>(targets: &[&'a str]) -> Vec<&'a str> {
    [&["--workspace", "--exclude", "programs"], targets].concat()
}

/// Builds what the benches start, and returns the executables.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn optimised() -> Result<Vec<PathBuf>> {
    programs()?;
    cmd::cargo_build(&[
        "--release",
        "--package",
        "fairlead",
        "--package",
        "testbed",
        "--bins",
    ])
}

/// Compiles the kernel programs to `target/bpf/fairlead.o`, from where `userspace/bpf` embeds them.
pub(crate) fn programs() -> Result<PathBuf> {
    let started = Instant::now();
    let toolchain = setup::run(&setup::Options::default())?;
    let linker = setup::linker().context("bpf-linker is not there although setup has run")?;
    let target = cmd::workspace_root().join("target");
    let build = target.join("bpf-build");
    // Debug information becomes BTF; the flags are separated by 0x1f so that a path may hold blanks.
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    cmd::run(
        toolchain
            .cargo()
            .args(["build", "--release", "--package", "programs"])
            .args(["--target", bpf_target(), "-Z", "build-std=core"])
            .arg("--target-dir")
            .arg(&build)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env_remove("RUSTFLAGS"),
    )?;
    let built = build.join(bpf_target()).join("release/programs");
    let bytes = without_dwarf(&built)?;
    if !has_section(&bytes, ".BTF") || !has_section(&bytes, ".BTF.ext") {
        bail!(
            "{} carries no BTF: bpf-linker at {} is too old, reinstall it",
            built.display(),
            linker.display()
        );
    }
    let object = target.join("bpf/fairlead.o");
    let changed = write_if_changed(&object, &bytes)?;
    // By its time `userspace/bpf` tells whether the sources have changed since.
    let checked = object.with_file_name("checked");
    std::fs::write(&checked, "").with_context(|| format!("cannot write {}", checked.display()))?;
    let took = started.elapsed().as_secs_f32();
    let word = if changed { "new" } else { "unchanged" };
    cmd::progress(&format!(
        "{} ({word}, {} bytes, {took:.1} s, by {})",
        object.display(),
        bytes.len(),
        toolchain.describe()
    ));
    Ok(object)
}

/// The object without DWARF, which is most of it and which the kernel does not read; BTF was made of it and stays.
/// Where no tool of LLVM's is there to take it out, the object stays large.
fn without_dwarf(built: &Path) -> Result<Vec<u8>> {
    let stripped = built.with_extension("stripped");
    let of_debian = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-strip", setup::LLVM));
    let tool = Some(of_debian)
        .filter(|path| path.exists())
        .or_else(|| cmd::which("llvm-strip"));
    let object = match tool {
        Some(tool) => {
            let mut strip = Command::new(tool);
            strip.args(["--strip-debug", "-o"]).arg(&stripped);
            cmd::run(strip.arg(built))?;
            stripped.as_path()
        }
        None => built,
    };
    std::fs::read(object).with_context(|| format!("cannot read {}", object.display()))
}

/// BPF in the byte order of this machine: what runs in its kernel.
fn bpf_target() -> &'static str {
    if cfg!(target_endian = "little") {
        "bpfel-unknown-none"
    } else {
        "bpfeb-unknown-none"
    }
}

/// Whether the ELF's table of names knows the section. A name may be the tail of a longer one there, so
/// only its end is marked.
fn has_section(elf: &[u8], name: &str) -> bool {
    let mut pattern = name.as_bytes().to_vec();
    pattern.push(0);
    elf.windows(pattern.len()).any(|window| window == pattern)
}

/// Leaves an equal file alone: its time stamp decides whether cargo rebuilds what embeds it.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<bool> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let folder = path.parent().context("an object has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Renamed into place, so that a build running at the same time never reads half an object.
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("cannot replace {}", path.display()))?;
    Ok(true)
}
