//! `fairlead up` in a node, and a client of its API: for the demo and the benches.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use client::{Client, PatchKind};
use serde_json::{Value, json};

use crate::process::{Place, Process};
use crate::topology::{NODE4, Node, Pod, UPLINK};

/// Name of the Node object that stands for the node.
pub const NODE_NAME: &str = "node-1";

/// How much of Fairlead one process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `fairlead up`: control plane and proxy.
    Up,
    /// `fairlead server`: the control plane alone.
    Server,
}

/// A running control plane, and what it needs to be started again.
#[derive(Debug)]
pub struct Platform {
    role: Role,
    process: Option<Process>,
    place: Place,
    fairlead: PathBuf,
    cgroup: PathBuf,
    bpffs: PathBuf,
    folder: PathBuf,
    flags: Vec<String>,
}

impl Platform {
    /// Starts it in the node and returns once it is ready to answer.
    ///
    /// # Errors
    ///
    /// When it does not get ready; the message ends with what it logged last.
    pub fn start(node: &Node, fairlead: &Path, role: Role) -> Result<Self> {
        let mut platform = Self::begin(node, fairlead, role)?;
        platform.finish_start()?;
        Ok(platform)
    }

    /// As [`Platform::start`], for who looks at it before it is ready; [`Platform::finish_start`] waits for that.
    ///
    /// # Errors
    ///
    /// When it cannot be executed.
    pub fn begin(node: &Node, fairlead: &Path, role: Role) -> Result<Self> {
        let mut platform = Self {
            role,
            process: None,
            place: node.place()?,
            fairlead: fairlead.to_path_buf(),
            cgroup: node.cgroup().to_path_buf(),
            bpffs: node.bpffs().join("fairlead"),
            folder: node.folder().to_path_buf(),
            flags: Vec::new(),
        };
        platform.begin_again()?;
        Ok(platform)
    }

    /// Further flags, for when it starts again.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
    }

    /// Starts it again, on the same data and the same pins.
    ///
    /// # Errors
    ///
    /// As [`Platform::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.begin_again()?;
        self.finish_start()
    }

    fn begin_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = self.place.command(&self.fairlead)?;
        command
            .arg(match self.role {
                Role::Up => "up",
                Role::Server => "server",
            })
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args([
                "--bind-address",
                &NODE4.to_string(),
                "--secure-port",
                "6443",
            ])
            .args(["--service-cluster-ip-range", "10.96.0.0/12,fd10:96::/112"])
            .arg("--write-kubeconfig")
            .arg(self.kubeconfig())
            .stderr(log);
        if self.role == Role::Up {
            self.datapath_flags(&mut command);
        }
        command.args(&self.flags);
        self.process = Some(Process::start(&mut command, "fairlead up")?);
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    ///
    /// As [`Platform::start`].
    pub fn finish_start(&mut self) -> Result<()> {
        let said = match &mut self.process {
            Some(process) => {
                process.line(Duration::from_secs(20), |line| line.starts_with("ready "))
            }
            None => bail!("it does not run"),
        };
        said.with_context(|| format!("it logged last:\n{}", self.last_words()))?;
        let kubeconfig = self.kubeconfig();
        crate::wait_for("the kubeconfig", Duration::from_secs(5), || {
            kubeconfig.exists().then_some(())
        })
    }

    /// The command line of `fairlead proxy` for this control plane, in the node.
    ///
    /// # Errors
    ///
    /// When the testbed's `agent` is missing.
    pub fn proxy(&self) -> Result<Command> {
        let mut command = self.place.command(&self.fairlead)?;
        command
            .arg("proxy")
            .arg("--kubeconfig")
            .arg(self.kubeconfig());
        self.datapath_flags(&mut command);
        command.stderr(File::options().create(true).append(true).open(self.log())?);
        Ok(command)
    }

    fn datapath_flags(&self, command: &mut Command) {
        command
            .args([
                "--node-name",
                NODE_NAME,
                "--devices",
                UPLINK,
                "--xdp",
                "auto",
            ])
            .arg("--cgroup-root")
            .arg(&self.cgroup)
            .arg("--bpffs-root")
            .arg(&self.bpffs);
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    ///
    /// When it was gone already, with its last words.
    pub fn kill(&mut self) -> Result<()> {
        let words = self.last_words();
        let mut process = self.process.take().context("fairlead does not run")?;
        process
            .kill()
            .with_context(|| format!("fairlead ended by itself:\n{words}"))
    }

    /// Its process id.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("fairlead does not run")?.id())
    }

    /// File of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Where its tables are pinned.
    pub fn bpffs(&self) -> &Path {
        &self.bpffs
    }

    /// File of its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join("fairlead.log")
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// kubectl, in the node's namespace but not in its cgroup, with a cache of its own.
    ///
    /// # Errors
    ///
    /// When the testbed's `agent` is missing.
    pub fn kubectl(&self, kubectl: &Path) -> Result<Command> {
        let mut command = self.place.without_cgroup().command(kubectl)?;
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.folder);
        Ok(command)
    }

    /// The `fairlead` binary that runs.
    pub fn binary(&self) -> &Path {
        &self.fairlead
    }

    /// Fairlead's own client commands, in the same place as [`Platform::kubectl`].
    ///
    /// # Errors
    ///
    /// When the testbed's `agent` is missing.
    pub fn fairlead(&self) -> Result<Command> {
        self.kubectl(&self.fairlead)
    }
}

/// A client of the platform's API whose connections are made in the node's namespace.
pub struct Api {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

impl Api {
    /// Connects as the administrator.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be read.
    pub fn connect(node: &Node, platform: &Platform) -> Result<Self> {
        // Its one worker thread is made in the namespace and stays there.
        let runtime = node.netns().run(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            Ok(builder.worker_threads(1).enable_all().build()?)
        })?;
        let client = Client::from_kubeconfig(platform.kubeconfig())?;
        Ok(Self { runtime, client })
    }

    /// Runs a conversation with the API to its end, on the thread that is in the namespace.
    ///
    /// # Errors
    ///
    /// What the conversation returns.
    pub fn talk<T, F>(&self, conversation: impl FnOnce(Client) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = self.runtime.spawn(conversation(self.client.clone()));
        self.runtime.block_on(task)?
    }

    /// Whether /readyz is ok.
    pub fn is_ready(&self) -> bool {
        let readyz = client::Path::raw("/readyz");
        let asked = self.talk(|client| async move { Ok(client.get_raw(&readyz).await?) });
        asked.is_ok()
    }

    /// Reads the object at a path: `/api/v1/namespaces/default/services/web`.
    ///
    /// # Errors
    ///
    /// The server's answer.
    pub fn get(&self, path: &str) -> Result<Value> {
        let path = client::Path::raw(path);
        self.talk(|client| async move { Ok(client.get(&path).await?) })
    }

    /// Creates an object in a collection.
    ///
    /// # Errors
    ///
    /// The server's answer.
    pub fn create(&self, collection: &str, object: Value) -> Result<Value> {
        let path = client::Path::raw(collection);
        self.talk(|client| async move { Ok(client.create(&path, &object).await?) })
    }

    /// Merges a patch into an object (RFC 7386).
    ///
    /// # Errors
    ///
    /// The server's answer.
    pub fn merge(&self, path: &str, patch: Value) -> Result<Value> {
        let path = client::Path::raw(path);
        self.talk(|client| async move { Ok(client.patch(&path, PatchKind::Merge, &patch).await?) })
    }

    /// Deletes an object.
    ///
    /// # Errors
    ///
    /// The server's answer.
    pub fn delete(&self, path: &str) -> Result<Value> {
        let path = client::Path::raw(path);
        self.talk(|client| async move { Ok(client.delete(&path, &Value::Null).await?) })
    }

    /// Reports a pod's state, as its kubelet would.
    ///
    /// # Errors
    ///
    /// The server's answer.
    pub fn report_pod(&self, pod: &Pod, ready: bool) -> Result<()> {
        let status = if ready { "True" } else { "False" };
        let path = format!("/api/v1/namespaces/default/pods/{}", pod.name());
        let object = self.get(&path)?;
        let containers = object["spec"]["containers"].as_array();
        let containers = containers.into_iter().flatten().map(|container| {
            json!({
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": ready,
                "restartCount": 0,
                "started": true,
                "state": {"running": {}},
            })
        });
        self.merge(
            &format!("{path}/status"),
            json!({"status": {
                "phase": "Running",
                "hostIP": NODE4,
                "podIP": pod.address(false),
                "podIPs": [{"ip": pod.address(false)}, {"ip": pod.address(true)}],
                "conditions": [{"type": "Ready", "status": status}, {"type": "ContainersReady", "status": status}],
                "containerStatuses": containers.collect::<Vec<_>>(),
            }}),
        )?;
        Ok(())
    }
}
