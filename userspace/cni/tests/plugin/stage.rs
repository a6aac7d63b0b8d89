//! A node and its pods as namespaces, and the plugin started in the node as a container runtime starts it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use net::{Netns, Rtnl};
use serde_json::{Value, json};

/// A node without pods, its agent's programs loaded. What it made goes with it.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    datapath: Option<bpf::Datapath>,
    bpffs: PathBuf,
    folder: tempfile::TempDir,
}

/// A pod's namespace, empty but for its loopback device.
pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) container: String,
}

/// What the plugin said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) success: bool,
    pub(crate) json: Value,
}

impl Answer {
    /// What it said of an ADD that must succeed.
    pub(crate) fn result(self) -> Value {
        assert!(self.success, "{}", self.json);
        self.json
    }

    /// The code of what must fail.
    pub(crate) fn code(&self) -> u64 {
        assert!(!self.success, "{}", self.json);
        assert!(!self.json["msg"].as_str().unwrap().is_empty());
        self.json["code"].as_u64().unwrap()
    }
}

impl Node {
    pub(crate) fn new() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let bpffs = folder.path().join("bpf");
        std::fs::create_dir(&bpffs).unwrap();
        net::ensure_bpffs(&bpffs).expect("root may mount a bpffs");
        let netns = Netns::create().expect("root may make a namespace");
        let rtnl = netns.run(Rtnl::open).unwrap().unwrap();
        let lo = rtnl.device("lo").unwrap().unwrap();
        rtnl.set_up(lo.ifindex).unwrap();
        let addr = IpAddr::from([192, 0, 2, 1]);
        rtnl.add_address(
            lo.ifindex,
            net::Address {
                addr,
                prefix_len: 32,
            },
        )
        .unwrap();
        let mut node = Node {
            netns,
            datapath: None,
            bpffs,
            folder,
        };
        node.take_hold();
        node
    }

    /// As an agent that starts.
    pub(crate) fn take_hold(&mut self) {
        let settings = bpf::Settings {
            bpffs_root: self.bpffs_root(),
            capacities: bpf::Capacities {
                frontends: 64,
                rings: 256,
                backends: 64,
                sources: 64,
                spreads: 1_024,
                affinity: 64,
                flows: 1024,
                reverse_sockets: 64,
            },
            ..bpf::Settings::default()
        };
        let opened = self.netns.run(|| bpf::Datapath::open(&settings)).unwrap();
        self.datapath = Some(opened.expect("the programs load"));
    }

    /// As an agent that is killed.
    pub(crate) fn let_go(&mut self) {
        self.datapath = None;
    }

    pub(crate) fn bpffs_root(&self) -> PathBuf {
        self.bpffs.join("fairlead")
    }

    /// Lets packets go straight to pods until then.
    pub(crate) fn lease(&mut self, until_secs: u32) {
        let lease = abi::HostRouting {
            until_secs4: until_secs,
            until_secs6: until_secs,
            ..abi::HostRouting::default()
        };
        self.with_datapath(|datapath| datapath.set_host_routing(&lease).unwrap());
    }

    /// In the node's namespace.
    pub(crate) fn with_datapath<T: Send>(
        &mut self,
        work: impl FnOnce(&mut bpf::Datapath) -> T + Send,
    ) -> T {
        let datapath = self.datapath.as_mut().unwrap();
        self.netns.run(|| work(datapath)).unwrap()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn datapath(&self) -> &bpf::Datapath {
        self.datapath.as_ref().unwrap()
    }

    /// A configuration with two ranges.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "pods",
            "type": "fairlead-cni",
            "stateDir": self.state(),
            "nodeFile": self.folder.path().join("node.json"),
            "bpffsRoot": self.bpffs.join("fairlead"),
            "ipam": {"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd10:244::/64"}]]},
        })
    }

    pub(crate) fn start(
        &self,
        operation: &str,
        pod: Option<&Pod>,
        config: &Value,
        more: &[(&str, &str)],
    ) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fairlead-cni"));
        command
            .env_clear()
            .env("CNI_COMMAND", operation)
            .env("CNI_PATH", "/nowhere");
        if let Some(pod) = pod {
            command
                .env("CNI_CONTAINERID", &pod.container)
                .env("CNI_NETNS", pod.path())
                .env("CNI_IFNAME", "eth0")
                .env(
                    "CNI_ARGS",
                    "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
                );
        }
        command.envs(more.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn()).unwrap().unwrap();
        // One that refuses early does not read.
        let _ = write!(child.stdin.take().unwrap(), "{config}");
        child
    }

    pub(crate) fn run_with(
        &self,
        operation: &str,
        pod: Option<&Pod>,
        config: &Value,
        more: &[(&str, &str)],
    ) -> Answer {
        let output = self
            .start(operation, pod, config, more)
            .wait_with_output()
            .unwrap();
        let json = match output.stdout.as_slice() {
            [] => Value::Null,
            text => serde_json::from_slice(text).expect("JSON or nothing"),
        };
        Answer {
            success: output.status.success(),
            json,
        }
    }

    pub(crate) fn run(&self, operation: &str, pod: &Pod, config: &Value) -> Answer {
        self.run_with(operation, Some(pod), config, &[])
    }

    /// A plugin of Debian's package containernetworking-plugins; what it said.
    pub(crate) fn run_peer(&self, name: &str, operation: &str, pod: &Pod, config: &Value) -> Value {
        const PEERS: &str = "/usr/lib/cni";
        let mut command = Command::new(Path::new(PEERS).join(name));
        command
            .env_clear()
            .env("CNI_COMMAND", operation)
            .env("CNI_PATH", PEERS)
            .env("CNI_CONTAINERID", &pod.container)
            .env("CNI_NETNS", pod.path())
            .env("CNI_IFNAME", "eth0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let spawned = self.netns.run(|| command.spawn()).unwrap();
        let mut child = spawned.expect("Debian's containernetworking-plugins are installed");
        write!(child.stdin.take().unwrap(), "{config}").unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name} {operation}: {said}");
        serde_json::from_str(&said).unwrap_or_default()
    }

    /// Adds a pod with the usual configuration.
    pub(crate) fn add(&self, container: &str) -> (Pod, Value) {
        let pod = Pod::new(container);
        let result = self.run("ADD", &pod, &self.config()).result();
        (pod, result)
    }

    /// Names of the links that the plugin made and that are there.
    pub(crate) fn links(&self) -> Vec<String> {
        let rtnl = self.netns.run(Rtnl::open).unwrap().unwrap();
        let names = rtnl
            .devices()
            .unwrap()
            .into_iter()
            .map(|device| device.name);
        names
            .filter(|name| name.starts_with("pod") || name.starts_with("tmp"))
            .collect()
    }

    /// What is left of pods anywhere: links, pins, endpoints, leases.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut traces = self.links();
        let pins = self
            .bpffs
            .join(format!("fairlead/v{}/links", abi::LAYOUT_VERSION));
        traces.extend(
            std::fs::read_dir(pins)
                .unwrap()
                .map(|entry| entry.unwrap().path().display().to_string()),
        );
        traces.extend(
            self.datapath()
                .endpoints()
                .unwrap()
                .keys()
                .map(|addr| format!("endpoint {addr}")),
        );
        let journal = std::fs::read(self.state().join("pods/leases")).unwrap_or_default();
        let leases = ipam::journal::read(&journal).leases;
        traces.extend(
            leases
                .iter()
                .map(|(who, lease)| format!("lease {who:?} {lease:?}")),
        );
        traces
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(datapath) = self.datapath.take() {
            let _ = self.netns.run(|| datapath.detach_all());
        }
        let _ = rustix::mount::unmount(&self.bpffs, rustix::mount::UnmountFlags::DETACH);
    }
}

impl Pod {
    pub(crate) fn new(container: &str) -> Pod {
        Pod {
            netns: Netns::create().unwrap(),
            container: container.to_owned(),
        }
    }

    /// A path that other processes find the namespace at, as long as this one has it.
    pub(crate) fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.netns.as_fd().as_raw_fd()
        )
    }
}

/// Addresses in a result.
pub(crate) fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter()
        .map(|ip| {
            ip["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

/// A word over TCP from one namespace to an address of another; the address that the server saw.
pub(crate) fn talk(from: &Netns, to: &Netns, addr: IpAddr) -> IpAddr {
    let listener = to
        .run(|| TcpListener::bind(SocketAddr::new(addr, 0)))
        .unwrap()
        .unwrap();
    let target = listener.local_addr().unwrap();
    // The kernel accepts for the listener.
    let mut client = from
        .run(|| TcpStream::connect_timeout(&target, Duration::from_secs(5)))
        .unwrap()
        .unwrap_or_else(|error| panic!("connect to {target}: {error}"));
    let (mut stream, peer) = listener.accept().unwrap();
    stream.write_all(b"word").unwrap();
    drop(stream);
    let mut word = String::new();
    client.read_to_string(&mut word).unwrap();
    assert_eq!(word, "word");
    peer.ip()
}

pub(crate) fn distinct<T: Ord>(values: impl IntoIterator<Item = T>) -> usize {
    values.into_iter().collect::<BTreeSet<T>>().len()
}

/// Sends datagrams as fast as they go for a second; how many octets a second arrived, headers included.
pub(crate) fn flood(from: &Netns, to: &Netns, addr: IpAddr) -> f64 {
    const LEN: usize = 972;
    let bind = |netns: &Netns, addr: IpAddr| {
        netns
            .run(|| UdpSocket::bind(SocketAddr::new(addr, 0)))
            .unwrap()
            .unwrap()
    };
    let server = bind(to, addr);
    let anywhere = if addr.is_ipv4() { "0.0.0.0" } else { "::" };
    let client = bind(from, anywhere.parse().unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let begun = std::time::Instant::now();
    let sender = std::thread::spawn(move || {
        while begun.elapsed() < Duration::from_secs(1) {
            for _ in 0..4 {
                let _ = client.send(&[7; LEN]);
            }
            // Faster than any limit of a test, slower than the receiver's queue fills.
            std::thread::sleep(Duration::from_micros(300));
        }
    });
    let (mut got, mut last) = (0, begun);
    let mut room = [0; LEN];
    while let Ok(len) = server.recv(&mut room) {
        // Ethernet and the IP and UDP headers.
        got += len + 14 + if addr.is_ipv4() { 28 } else { 48 };
        last = std::time::Instant::now();
    }
    sender.join().unwrap();
    got as f64 / last.duration_since(begun).as_secs_f64().max(0.1)
}
