//! `cargo xtask test`: every test of the workspace, those that need root included, under nextest where it
//! is installed and under cargo's own runner elsewhere. What CI runs is this.

use std::ffi::OsString;
use std::io::BufRead as _;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

use crate::build;
use crate::cmd;
use crate::python;
use crate::setup;

/// Options of `test`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the tests that need no root; their number is not asserted
    #[arg(long)]
    unprivileged: bool,
    /// Passed on to the runner: a filter, for one
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Where the tests that need root are: packages, and what nextest calls their test binaries.
const PRIVILEGED: [(&str, &str); 5] = [
    ("bpf", "bpf::kernel"),
    ("cni", "cni::plugin"),
    ("net", "net::namespace"),
    ("proxy", "proxy::kernel"),
    ("testbed", "testbed::"),
];

/// So many of them there are at least. Raised as tests are added; lowered only by who removes one.
const PRIVILEGED_MIN: usize = 240;

/// Runs the tests. With no filter it asserts that the privileged ones have run.
///
/// # Errors
///
/// When building fails or fewer than [`PRIVILEGED_MIN`] privileged tests ran.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if !options.unprivileged && cmd::output("id", &["-u"]).is_none_or(|uid| uid != "0") {
        bail!(
            "tests that load programs and make namespaces need root; as another user run `cargo xtask test --unprivileged`"
        );
    }
    build::programs()?;
    if !options.unprivileged {
        setup::install_tools(&setup::TEST)?;
    }
    let python = python::environment();
    // Tests start the binary itself; building it here keeps that out of their time limits.
    let executables = cmd::cargo_build(&build::together(&["--bins", "--tests"]))?;
    let fairlead = cmd::named(&executables, "fairlead")?;
    let expected = (!options.unprivileged && options.rest.is_empty()).then_some(PRIVILEGED_MIN);
    if cmd::output("cargo", &["nextest", "--version"]).is_some() {
        nextest(options, fairlead, python, expected)
    } else {
        cargo_test(options, fairlead, python, expected)
    }
}

fn nextest(
    options: &Options,
    fairlead: &Path,
    python: Option<(&str, OsString)>,
    expected: Option<usize>,
) -> Result<ExitCode> {
    let mut command = cmd::cargo();
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--exclude",
        "programs",
        "--no-fail-fast",
    ]);
    if options.unprivileged {
        command.args([
            "--filterset",
            "not (package(testbed) and kind(test)) and not binary_id(bpf::kernel) \
             and not binary_id(net::namespace) and not binary_id(proxy::kernel) \
             and not binary_id(cni::plugin)",
        ]);
    }
    command
        .args(&options.rest)
        .env("FAIRLEAD", fairlead)
        .envs(python)
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start cargo nextest")?;
    let mut ran = 0;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines() {
            let line = line?;
            ran += usize::from(nextest_passed(&line));
            if line.contains("Summary [") && expected.is_some() {
                cmd::progress(&counted(ran, expected));
            }
            eprintln!("{line}");
        }
    }
    finish(child.wait()?, ran, expected)
}

/// Cargo's own runner: one summary per test binary, so the privileged ones run last and by themselves.
fn cargo_test(
    options: &Options,
    fairlead: &Path,
    python: Option<(&str, OsString)>,
    expected: Option<usize>,
) -> Result<ExitCode> {
    let cargo = |arguments: &[&str]| {
        let mut command = cmd::cargo();
        command
            .arg("test")
            .args(arguments)
            .arg("--no-fail-fast")
            .args(&options.rest)
            .env("FAIRLEAD", fairlead)
            .envs(python.clone());
        command
    };
    let packages: Vec<&str> = PRIVILEGED.iter().map(|(package, _)| *package).collect();
    let flags = |flag: &'static str| packages.iter().flat_map(move |package| [flag, *package]);
    let mut rest = vec!["--workspace", "--exclude", "programs"];
    rest.extend(flags("--exclude"));
    let mut libraries = vec!["--lib"];
    libraries.extend(flags("--package"));
    let others = cmd::status(&mut cargo(&rest))?;
    let libraries = cmd::status(&mut cargo(&libraries))?;
    let status = if others.success() { libraries } else { others };
    if options.unprivileged {
        return Ok(cmd::exit_code(status));
    }
    let mut tests = vec!["--test", "*"];
    tests.extend(flags("--package"));
    let mut command = cargo(&tests);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo test")?;
    let mut ran = 0;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            ran += cargo_passed(&line);
            println!("{line}");
        }
    }
    let privileged = child.wait()?;
    finish(
        if status.success() { privileged } else { status },
        ran,
        expected,
    )
}

fn finish(
    status: std::process::ExitStatus,
    ran: usize,
    expected: Option<usize>,
) -> Result<ExitCode> {
    if status.success() && expected.is_some_and(|expected| ran < expected) {
        bail!(
            "{}: one that cannot run must fail, not stay away",
            counted(ran, expected)
        );
    }
    Ok(cmd::exit_code(status))
}

fn counted(ran: usize, expected: Option<usize>) -> String {
    format!(
        "{ran} privileged tests passed, of at least {}",
        expected.unwrap_or(0)
    )
}

/// `        PASS [   0.012s] testbed::datapath name`, perhaps coloured, perhaps with a counter in between.
fn nextest_passed(line: &str) -> bool {
    let of_ours = |(_, binary): &(&str, &str)| line.contains(&format!(" {binary}"));
    line.contains("PASS") && PRIVILEGED.iter().any(of_ours)
}

/// `test result: ok. 5 passed; 0 failed; …`
fn cargo_passed(line: &str) -> usize {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["test", "result:", _, passed, "passed;", ..] => passed.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_from_what_the_runners_print() {
        assert!(nextest_passed(
            "        PASS [   0.012s] testbed::datapath udp_reply_comes_from_the_service"
        ));
        assert!(nextest_passed(
            "        PASS [   0.012s] (12/90) testbed::datapath udp"
        ));
        assert!(!nextest_passed(
            "        FAIL [   0.012s] testbed::datapath udp"
        ));
        assert!(!nextest_passed("        PASS [   0.012s] api selector"));
        assert_eq!(
            cargo_passed("test result: ok. 5 passed; 0 failed; 0 ignored"),
            5
        );
        assert_eq!(
            cargo_passed("test result: FAILED. 4 passed; 1 failed; 0 ignored"),
            4
        );
        assert_eq!(cargo_passed("test name ... ok"), 0);
    }
}
