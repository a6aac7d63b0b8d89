//! `cargo xtask tidy`, and the same as an ordinary test: what ARCHITECTURE.md promises about the house.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use anyhow::Result;

use crate::cmd;

mod manifest;

use manifest::Dependency;

/// Which of our crates each may import. Arrows only go down: a crate's row names only crates with a row
/// above its own.
const ARROWS: &[(&str, &[&str])] = &[
    // Vocabulary.
    ("abi", &[]),
    ("packet", &["abi"]),
    ("model", &[]),
    ("api", &[]),
    ("storage", &[]),
    // Pure.
    ("plan", &["abi", "model"]),
    ("simulator", &["abi", "packet", "plan"]),
    ("ipam", &[]),
    ("view", &["api", "model"]),
    ("reconcile", &["api", "model", "view"]),
    ("authorization", &["api"]),
    ("cel", &[]),
    ("admission", &["api", "authorization", "cel"]),
    ("field-manager", &["api"]),
    ("zone", &["api", "view"]),
    ("custom-resources", &["api", "cel"]),
    // The kernel, and the system around it.
    ("programs", &["abi", "packet"]),
    ("bpf", &["abi", "plan"]),
    ("net", &[]),
    // Shells.
    ("storage-embedded", &["storage"]),
    ("storage-etcd", &["storage"]),
    ("client", &["api", "view"]),
    (
        "apiserver",
        &[
            "admission",
            "api",
            "authorization",
            "custom-resources",
            "field-manager",
            "storage",
        ],
    ),
    (
        "dns-server",
        &["abi", "api", "client", "net", "view", "zone"],
    ),
    ("manager", &["api", "client", "reconcile", "view"]),
    (
        "proxy",
        &[
            "abi", "bpf", "client", "ipam", "model", "net", "plan", "view",
        ],
    ),
    ("cni", &["abi", "bpf", "ipam", "net"]),
    // Where shells meet.
    (
        "fairlead",
        &[
            "abi",
            "api",
            "apiserver",
            "bpf",
            "client",
            "cni",
            "dns-server",
            "manager",
            "model",
            "net",
            "packet",
            "plan",
            "proxy",
            "simulator",
            "storage",
            "storage-embedded",
            "storage-etcd",
            "view",
        ],
    ),
    (
        "testbed",
        &[
            "abi",
            "bpf",
            "client",
            "model",
            "net",
            "packet",
            "plan",
            "simulator",
            "storage-etcd",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that tests of a crate may import beyond its row.
const TEST_ARROWS: &[(&str, &[&str])] = &[
    ("dns-server", &["packet"]),
    ("bpf", &["net"]),
    ("apiserver", &["client", "storage-embedded", "storage-etcd"]),
    ("manager", &["apiserver", "storage", "storage-embedded"]),
    ("proxy", &["abi", "apiserver", "storage"]),
    // Itself, with the server that its tests start.
    ("storage-etcd", &["storage-etcd"]),
];

/// Crates of others that one crate of ours alone may name.
const ONLY: [(&str, &str); 2] = [("aya", "bpf"), ("aya-ebpf", "programs")];

/// The only crates where `unsafe` may be written, and the file that lifts the workspace's refusal there.
const UNSAFE: [(&str, &str); 4] = [
    ("programs", "main.rs"),
    ("bpf", "lib.rs"),
    ("net", "lib.rs"),
    ("fairlead", "memory.rs"),
];

/// A longer file is several rooms.
const LINES_MAX: usize = 900;

/// The test of `abi` that a layout does not change under its version.
const FINGERPRINT_TEST: &str = "a_changed_layout_has_a_new_version";

/// What may lie in the root beside the folders of the crates.
const ROOT: [&str; 26] = [
    ".cargo",
    ".ci",
    ".config",
    ".git",
    ".github",
    ".gitignore",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "NOTICE",
    "README.md",
    "README.zh-CN.md",
    "clippy.toml",
    "control-plane",
    "deny.toml",
    "dns",
    "docs",
    "ebpf",
    "examples",
    "fuzz",
    "rustfmt.toml",
    "target",
    "userspace",
    "xtask",
];

/// Prints what is untidy and fails if anything is.
///
/// # Errors
///
/// When a file cannot be read.
pub(crate) fn run() -> Result<ExitCode> {
    let findings = check(&cmd::workspace_root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    if findings.is_empty() {
        cmd::progress(&format!(
            "tidy; whether the layout's version is right `cargo test -p abi {FINGERPRINT_TEST}` says"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Everything that is wrong with the house, one sentence each.
fn check(root: &Path) -> Result<Vec<String>> {
    let members = members(root)?;
    let mut findings = order(ARROWS);
    findings.extend(known(&members));
    let renamed = manifest::renamed(&read(&root.join("Cargo.toml"))?);
    for (name, folder) in &members {
        let manifest = read(&folder.join("Cargo.toml"))?;
        let imports = manifest::dependencies(&manifest, &renamed);
        findings.extend(arrows(name, &imports, &members));
        findings.extend(others(name, &imports));
        findings.extend(inherits(name, &manifest));
        findings.extend(crate_heads(name, folder)?);
        findings.extend(modules(name, folder)?);
    }
    findings.extend(map(&read(&root.join("ARCHITECTURE.md"))?, root, &members));
    findings.extend(fingerprint(&read(&root.join("ebpf/abi/src/layout.rs"))?));
    findings.extend(strays(root)?);
    let prefix = format!("{}/", root.display());
    Ok(findings
        .into_iter()
        .map(|finding| finding.replace(&prefix, ""))
        .collect())
}

/// Rows name only what stands above them, so that no circle can be drawn.
fn order(arrows: &[(&str, &[&str])]) -> Vec<String> {
    let mut above = BTreeSet::new();
    let mut findings = Vec::new();
    for (name, imports) in arrows {
        let sideways = imports.iter().filter(|import| !above.contains(*import));
        findings.extend(sideways.map(|import| {
            format!(
                "xtask/src/tidy.rs: the row of {name} names {import}, which does not stand above it"
            )
        }));
        above.insert(*name);
    }
    findings
}

/// The map in ARCHITECTURE.md has a row for each crate, in the order of [`ARROWS`], where imports stand above who imports them.
fn map(text: &str, root: &Path, members: &BTreeMap<String, PathBuf>) -> Option<String> {
    let drawn = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter_map(|folder| members.iter().find(|(_, path)| **path == root.join(folder)))
        .map(|(name, _)| name.as_str());
    let wanted = ARROWS.iter().map(|(name, _)| *name);
    let differs = wanted.zip(drawn.map(Some).chain(std::iter::repeat(None)));
    differs
        .into_iter()
        .find(|(wanted, drawn)| Some(*wanted) != *drawn)
        .map(|(wanted, drawn)| {
            format!(
                "ARCHITECTURE.md: the map has {} where xtask/src/tidy.rs has {wanted}",
                drawn.unwrap_or("nothing")
            )
        })
}

/// Every crate has a row, every row a crate, and a folder is named as its crate.
fn known(members: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let rows: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let unknown = members.keys().filter(|name| !rows.contains(name.as_str()));
    let gone = rows.iter().filter(|name| !members.contains_key(**name));
    let misnamed = members.iter().filter(|(name, folder)| {
        // A folder's crates may carry the folder's name in front: dns/server holds dns-server.
        let plain = name.strip_prefix("dns-").unwrap_or(name);
        folder
            .file_name()
            .is_some_and(|file| file != name.as_str() && file != plain)
    });
    unknown
        .map(|name| format!("{name}: no row in xtask/src/tidy.rs says what it may import"))
        .chain(gone.map(|name| format!("xtask/src/tidy.rs: {name} has a row and no crate")))
        .chain(misnamed.map(|(name, folder)| {
            format!(
                "{}: holds a crate of another name, {name}",
                folder.display()
            )
        }))
        .collect()
}

/// Dependencies on our own crates stay within the crate's row.
fn arrows(name: &str, imports: &[Dependency], members: &BTreeMap<String, PathBuf>) -> Vec<String> {
    let row = |table: &[(&str, &'static [&'static str])]| {
        table
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .map_or(&[][..], |(_, imports)| *imports)
    };
    let (always, tests) = (row(ARROWS), row(TEST_ARROWS));
    imports
        .iter()
        .filter(|(import, _)| members.contains_key(import))
        .filter(|(import, table)| {
            let in_tests = *table == "dev-dependencies" && tests.contains(&import.as_str());
            !always.contains(&import.as_str()) && !in_tests
        })
        .map(|(import, table)| {
            format!("{name}: may not import {import} ([{table}]); arrows only go down")
        })
        .collect()
}

/// What [`ONLY`] gives to one crate no other names.
fn others(name: &str, imports: &[Dependency]) -> Vec<String> {
    let only = |import: &str| ONLY.iter().find(|(theirs, _)| *theirs == import);
    imports
        .iter()
        .filter_map(|(import, table)| Some((import, table, only(import)?.1)))
        .filter(|(_, _, ours)| *ours != name)
        .map(|(import, table, ours)| {
            format!("{name}: may not import {import} ([{table}]); only {ours} does")
        })
        .collect()
}

fn inherits(name: &str, manifest: &str) -> Vec<String> {
    let wanted = [
        (
            "[lints]\nworkspace = true",
            "does not inherit the workspace's lints",
        ),
        (
            "rust-version.workspace = true",
            "does not inherit rust-version",
        ),
        ("license.workspace = true", "does not inherit the licence"),
        ("publish.workspace = true", "does not inherit publish"),
        ("\ndescription = \"", "has no description"),
    ];
    wanted
        .iter()
        .filter(|(text, _)| !manifest.contains(text))
        .map(|(_, finding)| format!("{name}: Cargo.toml {finding}"))
        .collect()
}

/// A crate opens with what it is, and forbids `unsafe` unless it is one of [`UNSAFE`].
fn crate_heads(name: &str, folder: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let source = folder.join("src");
    let mut heads: Vec<PathBuf> = ["lib.rs", "main.rs"]
        .iter()
        .map(|file| source.join(file))
        .collect();
    heads.extend(
        rust_files(&source.join("bin"))?
            .into_iter()
            .filter(|path| path.parent().is_some_and(|parent| parent.ends_with("bin"))),
    );
    for head in heads.iter().filter(|head| head.exists()) {
        let text = read(head)?;
        if !text.starts_with("//! ") {
            findings.push(format!(
                "{}: does not begin with a sentence that says what it is",
                head.display()
            ));
        }
        if !UNSAFE.iter().any(|(unsafe_, _)| *unsafe_ == name)
            && !text.contains("#![forbid(unsafe_code)]")
        {
            findings.push(format!("{}: lacks #![forbid(unsafe_code)]", head.display()));
        }
    }
    if !heads.iter().any(|head| head.exists()) {
        findings.push(format!("{name}: has neither lib.rs nor main.rs nor bin/"));
    }
    Ok(findings)
}

/// No file is too long, and none lies beside the module tree unread.
fn modules(name: &str, folder: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let source = folder.join("src");
    let files = rust_files(folder)?;
    let texts: Vec<(PathBuf, String)> = files
        .into_iter()
        .map(|path| read(&path).map(|text| (path, text)))
        .collect::<Result<_>>()?;
    for (path, text) in &texts {
        findings.extend(lifts(name, &source, path, text));
        let lines = text.lines().count();
        if lines > LINES_MAX {
            findings.push(format!(
                "{}: {lines} lines; more than {LINES_MAX} is several rooms",
                path.display()
            ));
        }
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let root = ["lib", "main", "mod"].contains(&stem.as_str())
            || path.parent().is_some_and(|parent| parent.ends_with("bin"));
        let declared = texts.iter().any(|(_, text)| declares(text, &stem));
        if path.starts_with(&source) && !root && !declared {
            findings.push(format!("{}: no `mod {stem};` reads it", path.display()));
        }
    }
    Ok(findings)
}

/// A file that lets `unsafe` be written although it is none of [`UNSAFE`].
fn lifts(name: &str, source: &Path, path: &Path, text: &str) -> Option<String> {
    let listed = UNSAFE
        .iter()
        .any(|(crate_name, file)| *crate_name == name && path == source.join(file));
    let lifted = text.lines().map(str::trim).any(|line| {
        let attribute = line.starts_with("#[") || line.starts_with("#![");
        let kept = line.contains("forbid(") || line.contains("deny(");
        line == "unsafe_code," || (attribute && !kept && line.contains("unsafe_code"))
    });
    (path.starts_with(source) && lifted && !listed)
        .then(|| format!("{}: lets unsafe be written", path.display()))
}

fn declares(text: &str, module: &str) -> bool {
    let declaration = format!("mod {module};");
    text.lines().any(|line| {
        line.trim_start()
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub(super) ")
            .trim_start_matches("pub ")
            == declaration
    })
}

/// The layout's fingerprint is compared with its version where it is defined: here the test is only looked for.
fn fingerprint(layout: &str) -> Vec<String> {
    let compared = layout
        .split_once(&format!("#[test]\n    fn {FINGERPRINT_TEST}() {{"))
        .and_then(|(_, rest)| rest.split_once("\n    }"))
        .is_some_and(|(body, _)| {
            body.contains("assert_eq!(")
                && ["LAYOUT_VERSION", "FINGERPRINT"]
                    .iter()
                    .all(|word| body.contains(word))
        });
    if compared {
        Vec::new()
    } else {
        vec![format!(
            "ebpf/abi/src/layout.rs: no test {FINGERPRINT_TEST} compares FINGERPRINT and LAYOUT_VERSION"
        )]
    }
}

fn strays(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !ROOT.contains(&name.as_str()) {
            findings.push(format!(
                "{name}: nothing says what it is for (xtask/src/tidy.rs lists the root)"
            ));
        }
    }
    Ok(findings)
}

/// Crate name to folder, from the workspace's list of members.
fn members(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let manifest = read(&root.join("Cargo.toml"))?;
    let list = manifest
        .split_once("\nmembers = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("Cargo.toml lists no members")?
        .0;
    let mut members = BTreeMap::new();
    for folder in quoted(list) {
        let folder = root.join(folder);
        let manifest = read(&folder.join("Cargo.toml"))?;
        let name = manifest
            .lines()
            .find_map(|line| line.strip_prefix("name = "))
            .with_context(|| format!("{}: no name", folder.display()))?;
        members.insert(name.trim().trim_matches('"').to_owned(), folder);
    }
    Ok(members)
}

fn quoted(list: &str) -> impl Iterator<Item = &str> {
    list.split('"').skip(1).step_by(2)
}

/// Every `.rs` file below the folder, in order.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        if !folder.exists() {
            continue;
        }
        for entry in std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        let findings = check(&cmd::workspace_root()).expect("the workspace can be read");
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }

    #[test]
    fn an_arrow_that_goes_up_is_found() {
        let members: BTreeMap<String, PathBuf> = ["plan", "bpf", "model"]
            .iter()
            .map(|name| ((*name).to_owned(), PathBuf::from(name)))
            .collect();
        let found = |manifest: &str| {
            let imports = manifest::dependencies(manifest, &BTreeMap::new());
            arrows("plan", &imports, &members)
        };
        let up = "[dependencies]\nbpf.workspace = true\nmodel = { workspace = true }\nserde.workspace = true\n";
        assert_eq!(
            found(up),
            ["plan: may not import bpf ([dependencies]); arrows only go down"]
        );
        let in_tests = "[dev-dependencies]\nbpf.workspace = true\n";
        assert_eq!(found(in_tests).len(), 1);
        assert_eq!(order(&[("a", &["b"]), ("b", &[])]).len(), 1);
    }

    #[test]
    fn a_crate_of_others_that_is_one_of_ours_alone_is_found_elsewhere() {
        let aya = [("aya".to_owned(), "dependencies")];
        assert_eq!(
            others("proxy", &aya),
            ["proxy: may not import aya ([dependencies]); only bpf does"]
        );
        assert!(others("bpf", &aya).is_empty());
    }

    #[test]
    fn a_map_in_another_order_is_found() {
        let members: BTreeMap<String, PathBuf> = ARROWS
            .iter()
            .map(|(name, _)| ((*name).to_owned(), Path::new("/r").join(name)))
            .collect();
        let rows: Vec<String> = ARROWS
            .iter()
            .map(|(name, _)| format!("| `{name}` | words |"))
            .collect();
        let found = |rows: &[String]| map(&rows.join("\n"), Path::new("/r"), &members);
        assert_eq!(found(&rows), None);
        assert!(found(&rows[..rows.len() - 1]).is_some());
        let mut swapped = rows;
        swapped.swap(0, 1);
        assert!(found(&swapped).is_some());
    }

    #[test]
    fn a_file_that_lets_unsafe_be_written_is_found() {
        let (source, lifted) = (Path::new("src"), "#![expect(\n    unsafe_code,\n)]\n");
        let found = |name, file| lifts(name, source, &source.join(file), lifted).is_some();
        assert!(!found("fairlead", "memory.rs"));
        assert!(found("fairlead", "main.rs"));
        assert!(found("plan", "lib.rs"));
    }

    #[test]
    fn a_layout_whose_version_nothing_tests_is_found() {
        let tested = "    #[test]\n    fn a_changed_layout_has_a_new_version() {\n        assert_eq!(LAYOUT_VERSION, FINGERPRINT);\n    }\n";
        assert!(fingerprint(tested).is_empty());
        assert_eq!(
            fingerprint(&tested.replace("#[test]\n", "#[ignore]\n")).len(),
            1
        );
        assert_eq!(fingerprint("#[test] FINGERPRINT").len(), 1);
    }

    #[test]
    fn a_file_that_no_module_names_is_found() {
        assert!(declares("//! Words.\npub(crate) mod table;\n", "table"));
        assert!(declares("    mod table;", "table"));
        assert!(!declares("mod tables;\n// mod table;\n", "table"));
    }
}
