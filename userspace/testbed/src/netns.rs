//! Network namespaces by name, and running code inside them.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where iproute2 keeps names of namespaces.
const FOLDER: &str = "/run/netns";

/// A network namespace of ours; removed when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes an empty namespace with its loopback up.
    ///
    /// # Errors
    ///
    /// Without root, without iproute2, or when the name is taken.
    pub fn create(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]), "")?;
        let netns = Self {
            name: name.to_owned(),
        };
        netns.ip("link set lo up\n")?;
        Ok(netns)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// Runs lines of `ip -batch` inside it: `link add …`, `-6 route add …`.
    ///
    /// # Errors
    ///
    /// The first line that `ip` refuses, with its words.
    pub fn ip(&self, lines: &str) -> Result<()> {
        run(
            Command::new("ip").args(["-n", &self.name, "-batch", "-"]),
            lines,
        )
    }

    /// Runs a closure on a thread of its own inside the namespace; sockets that it makes stay there. The
    /// thread keeps the process's cgroup.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, or what the closure returns.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let thread = || {
            enter(&self.path())?;
            inside()
        };
        match std::thread::scope(|scope| scope.spawn(thread).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Writes settings below `/proc/sys` as this namespace sees them: ("net/ipv4/ip_forward", "1").
    ///
    /// # Errors
    ///
    /// Names the setting that could not be written.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in settings {
                std::fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("cannot set {name} to {value}"))?;
            }
            Ok(())
        })
    }

    /// Runs another command inside it, with `input` as its stdin.
    ///
    /// # Errors
    ///
    /// When it fails, with what it wrote to stderr.
    pub fn command(&self, program: &str, args: &[&str], input: &str) -> Result<()> {
        self.run(|| run(Command::new(program).args(args), input))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// Moves the calling thread into the namespace behind a file. Threads that it starts later are there too.
///
/// # Errors
///
/// When there is no such namespace, or without root.
pub fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("no namespace at {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the namespace {}", path.display()))
}

/// Names of all namespaces that start so.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let folder = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    folder
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Removes a namespace, and its devices with it; nothing when there is none.
pub(crate) fn remove(name: &str) {
    // Nothing useful can be done in a drop: the next process's sweep tries again.
    let _ = Command::new("ip")
        .args(["netns", "del", name])
        .stderr(Stdio::null())
        .status();
}

/// Runs a command with `input` as its stdin.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<()> {
    let words = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {words}; `cargo xtask setup` installs it"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that fails early closes its stdin; its own words follow below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let words_back = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{words} failed: {}\n{}",
            words_back.trim(),
            first_lines(input)
        );
    }
    Ok(())
}

fn first_lines(text: &str) -> String {
    text.lines().take(30).collect::<Vec<_>>().join("\n")
}
