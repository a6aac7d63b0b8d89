//! What a test stands on: a bpffs, a cgroup and a network namespace of its own, gone when it ends, however it ends.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpf::{Capacities, Datapath, Settings};
use net::Netns;

pub(crate) struct Ground {
    name: String,
    cgroup: Cgroup,
    netns: Netns,
    // Last, so that it is unmounted last.
    bpffs: Bpffs,
}

impl Ground {
    pub(crate) fn new(name: &str) -> Ground {
        Ground {
            name: name.to_owned(),
            cgroup: Cgroup::new(name),
            netns: Netns::create().expect("root may make network namespaces"),
            bpffs: Bpffs::new(),
        }
    }

    /// Where this test pins; a directory below the mount point.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.bpffs.dir.path().join("fairlead")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            bpffs_root: self.bpffs(),
            cgroup_root: Some(self.cgroup.path().to_owned()),
            capacities: Capacities {
                frontends: 1_024,
                rings: 4_096,
                backends: 4_096,
                sources: 64,
                spreads: 1_024,
                affinity: 64,
                flows: 64,
                reverse_sockets: 64,
            },
            tcx: true,
        }
    }

    /// One more cgroup.
    pub(crate) fn cgroup(&self, name: &str) -> Cgroup {
        Cgroup::new(&format!("{}-{name}", self.name))
    }

    /// What a process in this test's cgroup and in the thread's network namespace reads from a TCP connection, or
    /// what it complains about.
    pub(crate) fn connect(&self, address: &str, port: u16) -> Result<String, String> {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec 3<>/dev/tcp/{address}/{port} && head -c 5 <&3",
            self.cgroup.path().display()
        );
        let output = Command::new("bash").args(["-c", &script]).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// Runs the test's body on a thread in its network namespace.
    pub(crate) fn in_netns(&self, work: impl FnOnce() + Send) {
        self.netns.run(work).unwrap();
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // Links and filters end with their pins and devices; this only fails if an agent still runs.
        let _ = Datapath::uninstall(&self.bpffs());
    }
}

pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn new(name: &str) -> Cgroup {
        let root = net::cgroup2_mount().expect("the unified hierarchy is mounted");
        let path = root.join(format!("fl-bpf-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("root may make cgroups");
        Cgroup { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

struct Bpffs {
    dir: tempfile::TempDir,
}

impl Bpffs {
    fn new() -> Bpffs {
        let dir = tempfile::Builder::new()
            .prefix("fl-bpf-")
            .tempdir()
            .unwrap();
        net::ensure_bpffs(dir.path()).expect("root may mount a bpffs");
        Bpffs { dir }
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.dir.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Runs `ip` in the network namespace of this thread.
pub(crate) fn ip(args: &str) {
    output("ip", args);
}

/// What a command prints, in the network namespace of this thread.
pub(crate) fn output(command: &str, args: &str) -> String {
    let output = Command::new(command)
        .args(args.split(' '))
        .output()
        .unwrap_or_else(|error| panic!("{command} of iproute2: {error}"));
    assert!(
        output.status.success(),
        "{command} {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The index of a device in the network namespace of this thread.
pub(crate) fn ifindex(device: &str) -> u32 {
    let shown = output("ip", &format!("-o link show dev {device}"));
    shown.split(':').next().unwrap().trim().parse().unwrap()
}
