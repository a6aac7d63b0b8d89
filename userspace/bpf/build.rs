//! Finds the object with the kernel programs, so that it becomes part of the binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the programs are made of, relative to the workspace.
const SOURCES: [&str; 3] = ["ebpf/abi", "ebpf/packet", "ebpf/programs"];

fn main() {
    println!("cargo:rerun-if-env-changed=FAIRLEAD_BPF_OBJECT");
    let object = match std::env::var_os("FAIRLEAD_BPF_OBJECT") {
        Some(object) => PathBuf::from(object),
        None => built_here(),
    };
    println!("cargo:rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(object) => println!("cargo:rustc-env=FAIRLEAD_BPF_OBJECT={}", object.display()),
        Err(error) => panic!(
            "the object with the kernel programs is missing ({}: {error}): run `cargo xtask build`",
            object.display()
        ),
    }
}

/// What `cargo xtask build` made of this checkout. Warns where the sources are newer.
fn built_here() -> PathBuf {
    // Asked at run time: a build directory may be shared between checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = PathBuf::from(here).join("../..");
    let mut newest = None;
    for folder in SOURCES.map(|folder| root.join(folder)) {
        println!("cargo:rerun-if-changed={}", folder.display());
        newest = newest.max(last_change(&folder));
    }
    let checked = fs::metadata(root.join("target/bpf/checked")).and_then(|it| it.modified());
    if newest > checked.ok() {
        println!(
            "cargo:warning=the kernel programs have changed since they were built: run `cargo xtask build`"
        );
    }
    root.join("target/bpf/fairlead.o")
}

/// When a file below this folder was last written.
fn last_change(folder: &Path) -> Option<SystemTime> {
    let entries = fs::read_dir(folder).ok()?;
    let changes = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => last_change(&entry.path()),
        _ => entry.metadata().and_then(|it| it.modified()).ok(),
    });
    changes.max().flatten()
}
