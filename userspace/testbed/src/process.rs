//! Processes in a place: a network namespace and a cgroup.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::load::{Load, Mode, Report};
use crate::probe::{How, Seen};

/// Where a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File of the network namespace.
    pub netns: PathBuf,
    /// Cgroup to join; without one the process stays in ours.
    pub cgroup: Option<PathBuf>,
    /// CPU to stay on; without one the kernel chooses.
    pub cpu: Option<usize>,
}

impl Place {
    /// The same namespace, but the process stays in our own cgroup, which no program of a node watches.
    pub fn without_cgroup(&self) -> Self {
        Self {
            cgroup: None,
            ..self.clone()
        }
    }

    /// The same, but on one CPU.
    pub fn on_cpu(&self, cpu: usize) -> Self {
        Self {
            cpu: Some(cpu),
            ..self.clone()
        }
    }

    /// A command that runs here. It becomes `program` itself, so that its process id is the program's, and
    /// dies with the thread that starts it.
    ///
    /// # Errors
    ///
    /// When the testbed's own `agent` is not beside the running executable.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let mut command = self.agent()?;
        command.arg("exec").arg("--").arg(program);
        Ok(command)
    }

    /// Starts an HTTP server that calls itself `name` and returns once it listens.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn serve_http(&self, name: &str, address: SocketAddr) -> Result<Process> {
        self.serve("http", name, address)
    }

    /// Starts a UDP server that calls itself `name` and returns once it is bound.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn serve_udp(&self, name: &str, address: SocketAddr) -> Result<Process> {
        self.serve("udp", name, address)
    }

    fn serve(&self, what: &str, name: &str, address: SocketAddr) -> Result<Process> {
        let mut command = self.agent()?;
        command.args([what, "--name", name, "--listen", &address.to_string()]);
        let mut process = Process::start(&mut command, &format!("{what} server {name}"))?;
        process.line(Duration::from_secs(10), |line| line == "ready")?;
        Ok(process)
    }

    /// Sends requests from here to the end of the load.
    ///
    /// # Errors
    ///
    /// When the client itself breaks; failed requests are in the report.
    pub fn load(&self, load: &Load) -> Result<Report> {
        self.start_load(load)?.finish()
    }

    /// Sends requests from here until [`RunningLoad::stop`].
    ///
    /// # Errors
    ///
    /// When the client cannot be started.
    pub fn start_load(&self, load: &Load) -> Result<RunningLoad> {
        let mode = match load.mode {
            Mode::Close => "close",
            Mode::Keep => "keep",
            Mode::Bulk => "bulk",
            Mode::Udp => "udp",
        };
        let mut command = self.agent()?;
        command
            .arg("load")
            .args(["--target", &load.target.to_string(), "--mode", mode]);
        for (name, value) in [
            ("--connections", load.connections as u64),
            ("--requests", load.requests),
            ("--millis", load.millis),
            ("--pause-micros", load.pause_micros),
        ] {
            command.arg(name).arg(value.to_string());
        }
        Ok(RunningLoad {
            process: Process::start(&mut command, "load")?,
        })
    }

    /// One request from here, and what both ends saw of it.
    ///
    /// # Errors
    ///
    /// When the client itself breaks; a failed request is in the answer.
    pub fn probe(&self, how: How, target: SocketAddr) -> Result<Seen> {
        let how = match how {
            How::Tcp => "tcp",
            How::UdpUnconnected => "udp-unconnected",
            How::UdpConnected => "udp-connected",
        };
        let mut command = self.agent()?;
        command.args(["probe", "--how", how, "--target", &target.to_string()]);
        let text = Process::start(&mut command, "probe")?.finish()?;
        serde_json::from_str(&text).with_context(|| format!("the probe said {text:?}"))
    }

    /// Starts connecting from here, again and again. Returns once it has begun; [`Process::finish`] gives the
    /// Unix time in seconds at which it worked.
    ///
    /// # Errors
    ///
    /// When the client cannot be started.
    pub fn first_connect(&self, target: SocketAddr) -> Result<Process> {
        let mut command = self.agent()?;
        command.args(["first", "--target", &target.to_string()]);
        let mut process = Process::start(&mut command, "first")?;
        process.line(Duration::from_secs(10), |line| line == "ready")?;
        Ok(process)
    }

    fn agent(&self) -> Result<Command> {
        let mut command = Command::new(agent()?);
        command.arg("--netns").arg(&self.netns);
        if let Some(cgroup) = &self.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        if let Some(cpu) = self.cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        Ok(command)
    }
}

/// A started process; killed and waited for when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a command whose stdout we read, in a process group of its own so that Ctrl-C at the terminal
    /// reaches only us. Stdin stays open as long as the process is ours.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(command: &mut Command, name: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || forward(stdout, &sender));
        }
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
        })
    }

    /// Waits for a line of its stdout; lines before it are dropped.
    ///
    /// # Errors
    ///
    /// When it ends, or the time does, before such a line.
    pub fn line(&mut self, limit: Duration, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let until = std::time::Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("{} was not ready within {limit:?}", self.name)
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    bail!(
                        "{} ended before it was ready: {}",
                        self.name,
                        self.child.wait()?
                    )
                }
            }
        }
    }

    /// Waits for its end and returns what it wrote to stdout.
    ///
    /// # Errors
    ///
    /// When it failed.
    pub fn finish(mut self) -> Result<String> {
        let text: Vec<String> = self.lines.iter().collect();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} failed: {status} {}", self.name, text.join("\n"));
        }
        Ok(text.join("\n"))
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it is not there any more.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Errors
    ///
    /// When it has not ended within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        crate::wait_for(&format!("{} to end", self.name), limit, || {
            self.child.try_wait().ok().flatten()
        })
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load that goes on while something else happens.
#[derive(Debug)]
pub struct RunningLoad {
    process: Process,
}

impl RunningLoad {
    /// Ends it now and returns what became of its requests.
    ///
    /// # Errors
    ///
    /// When the client itself broke.
    pub fn stop(mut self) -> Result<Report> {
        // The agent stops when its stdin ends.
        drop(self.process.child.stdin.take());
        self.finish()
    }

    fn finish(self) -> Result<Report> {
        let text = self.process.finish()?;
        serde_json::from_str(&text).with_context(|| format!("the load said {text:?}"))
    }
}

fn forward(stdout: ChildStdout, lines: &mpsc::Sender<String>) {
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        if lines.send(line.trim_end().to_owned()).is_err() {
            // Nobody listens, but a full pipe would stop the process.
            let _ = std::io::copy(&mut reader.by_ref(), &mut std::io::sink());
            return;
        }
        line.clear();
    }
}

/// The testbed's `agent`, beside the running executable or, for a test, in the folder above.
fn agent() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("agent"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no `agent` near {}; build the testbed's binaries",
                executable.display()
            )
        })
}
