//! Running other programs: progress lines on stderr, failures that name the command.

use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::ExitCode;
use std::process::ExitStatus;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;

/// The folder that holds the workspace's Cargo.toml.
pub(crate) fn workspace_root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    xtask.parent().map(Path::to_path_buf).unwrap_or(xtask)
}

/// A line that says what happens now, on stderr: stdout belongs to data.
pub(crate) fn progress(line: &str) {
    eprintln!("xtask: {line}");
}

/// The cargo that started us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

/// Runs to the end, with our own stdin, stdout and stderr.
///
/// # Errors
///
/// When the program cannot be started or reports failure; the message names it with its arguments.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(command));
    }
    Ok(())
}

/// As [`run`], but hands back how the program ended.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))
}

/// Becomes the program, so that signals reach it and whoever started us waits for its end.
///
/// # Errors
///
/// When the program cannot be started; otherwise there is no return.
pub(crate) fn turn_into(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", line(command)))
}

/// Ends as the program that did the work ended; killed by a signal counts as failure.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// What a program writes to stdout, trimmed; `None` when it is absent or fails.
pub(crate) fn output(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(args)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Where a program is found on PATH.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&std::env::var_os("PATH")?)
        .chain(sbin)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// Builds with cargo and returns the executables that it made or found up to date, by file name order of
/// cargo's own messages, so that no folder layout is assumed.
///
/// # Errors
///
/// When cargo fails; its own diagnostics are on stderr by then.
pub(crate) fn cargo_build(arguments: &[&str]) -> Result<Vec<PathBuf>> {
    let mut command = cargo();
    command
        .arg("build")
        .args(arguments)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{}`", line(&command)))?;
    let mut executables = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for message in BufReader::new(stdout).lines() {
            executables.extend(executable(&message?));
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` failed: {status}", line(&command));
    }
    Ok(executables)
}

/// The executable with this name among those that [`cargo_build`] returned.
pub(crate) fn named<'a>(executables: &'a [PathBuf], name: &str) -> Result<&'a Path> {
    executables
        .iter()
        .map(PathBuf::as_path)
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .with_context(|| format!("cargo built no executable named {name}"))
}

/// The `executable` field of one of cargo's JSON messages.
fn executable(message: &str) -> Option<PathBuf> {
    const FIELD: &str = r#""executable":""#;
    let rest = &message[message.find(FIELD)? + FIELD.len()..];
    Some(PathBuf::from(&rest[..rest.find('"')?]))
}

fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let cases = [
            (
                r#"{"reason":"compiler-artifact","executable":"/t/debug/fairlead","fresh":true}"#,
                Some("/t/debug/fairlead"),
            ),
            (
                r#"{"reason":"compiler-artifact","executable":null,"fresh":true}"#,
                None,
            ),
            (r#"{"reason":"build-finished","success":true}"#, None),
        ];
        for (message, expected) in cases {
            assert_eq!(
                executable(message),
                expected.map(PathBuf::from),
                "{message}"
            );
        }
    }

    /// Tells this test that it is the one to turn into something else.
    const TURNS: &str = "FAIRLEAD_TEST_TURNS";

    #[test]
    fn a_signal_ends_whoever_turned_into_a_program_as_it_ends_the_program() -> Result<()> {
        if std::env::var_os(TURNS).is_some() {
            turn_into(Command::new("sh").args(["-c", "kill -TERM $$"]))?;
        }
        let name = "cmd::tests::a_signal_ends_whoever_turned_into_a_program_as_it_ends_the_program";
        let status = Command::new(std::env::current_exe()?)
            .args(["--exact", name])
            .env(TURNS, "1")
            .stdout(Stdio::null())
            .status()?;
        assert_eq!(status.signal(), Some(15), "{status}");
        Ok(())
    }
}
