//! A node with an API server and a DNS server.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::platform::{Api, Platform, Role};
use testbed::{Node, Process, wait_for};

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Where the server answers, in the node's namespace.
pub(crate) const SERVER: &str = "127.0.0.1:53";

/// The cluster, a name outside it, and names that an upstream would deny.
const COREFILE: &str = "
.:53 {
    bind 127.0.0.1
    errors
    kubernetes cluster.local in-addr.arpa {
        pods insecure
        ttl 30
    }
    hosts /nonexistent {
        192.0.2.80 www.example.org
        fallthrough
    }
    cache 30
    loadbalance
}
corp.example:53 missing:53 {
    bind 127.0.0.1
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

pub(crate) struct Stage {
    _dns: Process,
    pub(crate) api: Api,
    _platform: Platform,
    pub(crate) node: Node,
}

impl Stage {
    /// Returns once the DNS server has heard of the cluster.
    pub(crate) fn set() -> Result<Self> {
        let node = Node::create()?;
        let platform = Platform::start(&node, &fairlead()?, Role::Server)?;
        let api = Api::connect(&node, &platform)?;
        let corefile = node.folder().join("Corefile");
        std::fs::write(&corefile, COREFILE)?;
        let mut command = node.place()?.without_cgroup().command(&fairlead()?)?;
        command.args(["dns", "--conf"]).arg(&corefile);
        command.arg("--kubeconfig").arg(platform.kubeconfig());
        let mut dns = Process::start(&mut command, "fairlead dns")?;
        dns.line(Duration::from_secs(20), |line| {
            line.starts_with("listening ")
        })?;
        let stage = Self {
            _dns: dns,
            api,
            _platform: platform,
            node,
        };
        let socket = stage.socket()?;
        wait_for(
            "the DNS server to be ready",
            Duration::from_secs(30),
            || {
                let answer = ask(&socket, "kubernetes.default.svc.cluster.local").ok()?;
                matches!(answer, Answer::Address(_)).then_some(())
            },
        )?;
        Ok(stage)
    }

    /// A socket in the node's namespace whose peer is the server.
    pub(crate) fn socket(&self) -> Result<UdpSocket> {
        self.node.netns().run(|| {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.connect(SERVER.parse::<SocketAddr>()?)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok(socket)
        })
    }
}

/// The binary: beside ours, or as the environment says.
pub(crate) fn fairlead() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FAIRLEAD") {
        return Ok(path.into());
    }
    let ours = std::env::current_exe()?;
    let folder = ours.parent().and_then(|deps| deps.parent());
    let path = folder.context("no folder")?.join("fairlead");
    anyhow::ensure!(path.is_file(), "{} is not built", path.display());
    Ok(path)
}

/// What a name came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The only address, or the last of several.
    Address(u32),
    NxDomain,
    /// Another code, or no address.
    Other(u8),
}

/// Asks for A records.
pub(crate) fn ask(socket: &UdpSocket, name: &str) -> Result<Answer> {
    let mut octets = vec![0x47, 0x11, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        octets.push(label.len() as u8);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&octets)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).context("no answer")?;
    let last = answer[..length].last_chunk::<4>().copied();
    Ok(match (answer[3] & 15, answer[7], last) {
        (0, 1.., Some(last)) => Answer::Address(u32::from_be_bytes(last)),
        (3, ..) => Answer::NxDomain,
        (code, ..) => Answer::Other(code),
    })
}
