//! A node on which the binary runs with one good Service, and commands run to their end.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use abi::Counter;
use anyhow::{Context as _, Result, ensure};
use client::Client;
use serde_json::{Value, json};
use testbed::probe::How;
use testbed::topology::NODE4;
use testbed::{Node, Pod, Process, wait_for};

/// Where the good Service is reached.
pub(crate) const GOOD: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 30)), 80);
/// No start or end takes longer, in a debug build on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Services and EndpointSlices of the default namespace.
pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// It failed with this status, on purpose, and said all of `words`.
    pub(crate) fn assert_refused(&self, status: i32, words: &[&str]) {
        assert_eq!(self.status, status, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:?}");
        }
        self.assert_no_panic();
    }

    pub(crate) fn assert_done(&self) {
        assert_eq!(self.status, 0, "{self:?}");
        self.assert_no_panic();
    }

    fn assert_no_panic(&self) {
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Runs a command to its end; one that does not end is killed.
pub(crate) fn run(command: &mut Command) -> Result<Ended> {
    let words = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {words}"))?;
    // Both are read to the end beside each other, so that a full pipe stops nobody.
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().context("stdout")?));
    let stderr = read(Box::new(child.stderr.take().context("stderr")?));
    let status = wait_for("a command to end", PATIENCE, || {
        child.try_wait().ok().flatten()
    });
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let said = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (stdout, stderr) = (said(stdout), said(stderr));
    let status = status.with_context(|| format!("{words}\n{stdout}\n{stderr}"))?;
    let status = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(-1);
    Ok(Ended {
        status,
        stdout,
        stderr,
    })
}

/// The binary under test: `FAIRLEAD`, or the one beside this test's own.
pub(crate) fn fairlead() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FAIRLEAD") {
        return Ok(path.into());
    }
    let executable = std::env::current_exe()?;
    let found = executable
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("fairlead"))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "no `fairlead` near {}: `cargo build -p fairlead`, or name it with FAIRLEAD",
            executable.display()
        )
    })
}

/// A started `fairlead`, with its log in a file.
pub(crate) struct Running {
    pub(crate) process: Process,
    log: PathBuf,
}

impl Running {
    /// Starts a command that logs to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        command.stderr(File::options().create(true).append(true).open(log)?);
        Ok(Self {
            process: Process::start(command, "fairlead")?,
            log: log.to_owned(),
        })
    }

    /// The URL that it says it is ready at.
    pub(crate) fn ready(&mut self) -> Result<String> {
        let line = self
            .process
            .line(PATIENCE, |line| line.starts_with("ready "))
            .with_context(|| self.log())?;
        Ok(line["ready ".len()..].to_owned())
    }

    /// Everything that it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has logged this.
    pub(crate) fn logged(&self, words: &str) -> Result<()> {
        wait_for(&format!("{words:?} in the log"), PATIENCE, || {
            self.log().contains(words).then_some(())
        })
        .with_context(|| self.log())
    }

    /// SIGTERM ends it with status 0 within ten seconds.
    pub(crate) fn assert_terminates(mut self) -> Result<()> {
        let status = self.process.terminate(Duration::from_secs(10));
        let log = self.log();
        assert_eq!(
            status.with_context(|| log.clone())?.code(),
            Some(0),
            "{log}"
        );
        assert!(!log.contains("panicked"), "{log}");
        Ok(())
    }
}

/// A client whose connections are made in a node's namespace.
pub(crate) struct Api {
    runtime: tokio::runtime::Runtime,
    pub(crate) client: Client,
}

impl Api {
    /// Of a server in the node.
    pub(crate) fn in_node(node: &Node, kubeconfig: &Path) -> Result<Self> {
        node.netns().run(|| Self::here(kubeconfig))
    }

    /// Of a server in this thread's namespace.
    pub(crate) fn here(kubeconfig: &Path) -> Result<Self> {
        wait_for("the kubeconfig", PATIENCE, || {
            kubeconfig.exists().then_some(())
        })?;
        // The one worker stays in the namespace where it was made.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Ok(Self {
            runtime: builder.worker_threads(1).enable_all().build()?,
            client: Client::from_kubeconfig(kubeconfig)?,
        })
    }

    pub(crate) fn talk<T, F>(&self, conversation: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.runtime.spawn(conversation(self.client.clone()));
        self.runtime.block_on(task)?
    }

    pub(crate) fn create(&self, collection: &str, object: Value) -> Result<Value> {
        let path = client::Path::raw(collection);
        self.talk(|client| async move { Ok(client.create(&path, &object).await?) })
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Value> {
        let path = client::Path::raw(path);
        self.talk(|client| async move { Ok(client.delete(&path, &Value::Null).await?) })
    }

    /// How many objects a collection has.
    pub(crate) fn count(&self, collection: &str) -> Result<usize> {
        let path = client::Path::raw(collection);
        self.talk(|client| async move {
            let all = client::ListParams::default();
            Ok(client.list::<Value>(&path, &all).await?.items.len())
        })
    }
}

/// A node with a serving pod and a client pod; the binary runs there and balances one good Service.
pub(crate) struct Stage {
    pub(crate) running: Option<Running>,
    pub(crate) api: Api,
    _server: Process,
    pub(crate) web: Pod,
    client: Pod,
    pub(crate) node: Node,
}

impl Stage {
    /// Starts `fairlead up`, with flags beside the usual ones.
    pub(crate) fn up(flags: &[&str]) -> Result<Self> {
        let node = Node::create()?;
        let (web, client) = (node.add_pod("web")?, node.add_pod("client")?);
        let server = web.place().serve_http("web", "[::]:8080".parse()?)?;
        let running = start_up(&node, flags)?;
        let stage = Self {
            running: Some(running),
            api: Api::in_node(&node, &kubeconfig(&node))?,
            _server: server,
            web,
            client,
            node,
        };
        let endpoint = stage.web.address(false).to_string();
        stage.api.create(
            SERVICES,
            json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "good"},
                "spec": {"clusterIP": GOOD.ip(), "ports": [{"port": GOOD.port(), "targetPort": 8080}]},
            }),
        )?;
        stage
            .api
            .create(SLICES, slice("good", "IPv4", &[&endpoint], 8080))?;
        wait_for("the good Service to answer", PATIENCE, || {
            stage.answers(GOOD).ok()?.then_some(())
        })
        .with_context(|| stage.log())?;
        stage.assert_good()?;
        Ok(stage)
    }

    /// Whether a client pod gets an answer there.
    pub(crate) fn answers(&self, target: SocketAddr) -> Result<bool> {
        let seen = self.client.place().probe(How::Tcp, target)?;
        Ok(seen.error.is_none() && seen.backend.as_deref() == Some("web"))
    }

    /// The good Service answers, by way of the socket hook, and the process is there and did not panic.
    pub(crate) fn assert_good(&self) -> Result<()> {
        let balanced = || -> Result<u64> {
            let counters = bpf::Datapath::inspect(&bpffs_root(&self.node))?.counters()?;
            let count = counters
                .iter()
                .find(|(counter, _)| *counter == Counter::SocketConnect);
            Ok(count.context("no such counter")?.1.packets)
        };
        let before = balanced()?;
        assert!(self.answers(GOOD)?, "{}", self.log());
        assert!(balanced()? > before, "not by the socket hook");
        assert!(!self.log().contains("panicked"), "{}", self.log());
        if let Some(running) = &self.running {
            let stat = format!("/proc/{}", running.process.id());
            ensure!(Path::new(&stat).exists(), "it ended: {}", self.log());
        }
        Ok(())
    }

    /// Everything that the process logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file(&self.node)).unwrap_or_default()
    }

    pub(crate) fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("it was stopped")
    }

    /// A command of the binary in the node, as the administrator.
    pub(crate) fn fairlead(&self, arguments: &[&str]) -> Result<Ended> {
        let mut command = in_node(&self.node)?;
        command
            .args(arguments)
            .env("KUBECONFIG", kubeconfig(&self.node));
        run(&mut command)
    }

    /// A listing or the status, of this node's pins.
    pub(crate) fn show(&self, words: &[&str]) -> Result<Ended> {
        let root = bpffs_root(&self.node);
        let root = root.to_str().context("a path of letters")?;
        self.fairlead(&[words, &["--bpffs-root", root]].concat())
    }
}

/// The binary, in the node's namespace but not in its cgroup.
pub(crate) fn in_node(node: &Node) -> Result<Command> {
    let mut command = node.place()?.without_cgroup().command(&fairlead()?)?;
    command.env_remove("KUBECONFIG");
    Ok(command)
}

/// Starts `fairlead up` in a node and waits until it is ready.
pub(crate) fn start_up(node: &Node, flags: &[&str]) -> Result<Running> {
    let mut running = begin_up(node, flags)?;
    running.ready()?;
    Ok(running)
}

/// Starts `fairlead up` in a node.
pub(crate) fn begin_up(node: &Node, flags: &[&str]) -> Result<Running> {
    let mut command = node.place()?.command(&fairlead()?)?;
    command.arg("up").args(up_flags(node)).args(flags);
    Running::start(&mut command, &log_file(node))
}

/// The usual flags of `up` in a node: its own data, pins and cgroup, and no Services in the tables but the test's and
/// the API server's own.
pub(crate) fn up_flags(node: &Node) -> Vec<String> {
    let mut flags = datapath_flags(node);
    flags.extend([
        format!("--bind-address={NODE4}"),
        format!("--data-dir={}", data_dir(node).display()),
        format!("--write-kubeconfig={}", kubeconfig(node).display()),
        "--no-cluster-dns".to_owned(),
    ]);
    flags
}

/// The flags that keep the kernel's side to the node.
pub(crate) fn datapath_flags(node: &Node) -> Vec<String> {
    vec![
        "--node-name=node-1".to_owned(),
        format!("--cgroup-root={}", node.cgroup().display()),
        format!("--bpffs-root={}", bpffs_root(node).display()),
    ]
}

pub(crate) fn data_dir(node: &Node) -> PathBuf {
    node.folder().join("data")
}

pub(crate) fn bpffs_root(node: &Node) -> PathBuf {
    node.bpffs().join("fairlead")
}

pub(crate) fn kubeconfig(node: &Node) -> PathBuf {
    node.folder().join("kube/config")
}

pub(crate) fn log_file(node: &Node) -> PathBuf {
    node.folder().join("log")
}

/// A slice of a Service's endpoints.
pub(crate) fn slice(service: &str, kind: &str, addresses: &[&str], port: u32) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"name": "", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": addresses, "conditions": {"ready": true}, "nodeName": "node-1"}],
    })
}
