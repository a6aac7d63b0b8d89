//! Which compiler builds the kernel programs: one that has the source of `core`, because no toolchain
//! ships `core` compiled for BPF.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use crate::cmd;

/// The oldest compiler that builds the workspace (`rust-version` in Cargo.toml), as (major, minor).
const OLDEST: (u32, u32) = (1, 95);

/// A compiler with the source of `core` beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// Kept by rustup; the value is the toolchain's folder.
    Rustup(PathBuf),
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src`.
    Debian,
}

impl Toolchain {
    /// Looks without installing or downloading anything; reads folders, starts at most one process.
    pub(crate) fn find() -> Option<Self> {
        rustup().map(Self::Rustup).or_else(debian)
    }

    /// Its cargo, set up so that unstable flags are accepted and only its own compiler is used.
    pub(crate) fn cargo(&self) -> Command {
        let bin = match self {
            Self::Rustup(folder) => folder.join("bin"),
            Self::Debian => PathBuf::from("/usr/bin"),
        };
        let mut command = Command::new(bin.join("cargo"));
        command
            .current_dir(cmd::workspace_root())
            .env("RUSTC", bin.join("rustc"))
            .env("RUSTC_BOOTSTRAP", "1")
            // Set by the cargo that started us, for its own toolchain's libraries.
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("RUSTUP_TOOLCHAIN")
            .env_remove("CARGO")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        command
    }

    /// For people.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Rustup(folder) => {
                let name = folder.file_name().unwrap_or(folder.as_os_str());
                format!("rustup's {}", name.to_string_lossy())
            }
            Self::Debian => "Debian's rustc-web".to_owned(),
        }
    }
}

/// A rustup toolchain with rust-src: the newest nightly first, then any other new enough.
fn rustup() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))?;
    let mut toolchains: Vec<PathBuf> = std::fs::read_dir(home.join("toolchains"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| has_core(folder) && new_enough(&folder.join("bin/rustc")))
        .collect();
    toolchains.sort_by_key(|folder| {
        let name = folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        (name.starts_with("nightly"), name)
    });
    toolchains.pop()
}

fn debian() -> Option<Toolchain> {
    let usable = has_core(Path::new("/usr"))
        && Path::new("/usr/bin/cargo").exists()
        && new_enough(Path::new("/usr/bin/rustc"));
    usable.then_some(Toolchain::Debian)
}

fn has_core(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
}

fn new_enough(rustc: &Path) -> bool {
    cmd::output(rustc, &["--version"])
        .and_then(|text| version(&text))
        .is_some_and(|version| version >= OLDEST)
}

/// (major, minor) of `rustc --version`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn a_compilers_version_is_read() {
        let cases = [
            (
                "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)",
                Some((1, 96)),
            ),
            ("rustc 1.97.0-nightly (e50aa6fba 2026-05-19)", Some((1, 97))),
            ("rustc", None),
            ("rustc unknown", None),
        ];
        for (text, expected) in cases {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
