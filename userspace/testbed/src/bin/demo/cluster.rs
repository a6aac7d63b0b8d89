//! The demo's cluster: a node with `fairlead up`, three serving pods, a client pod, an outside client; and
//! the little of a kubelet that a demo needs.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use testbed::platform::{Api, Platform, Role};
use testbed::topology::{NODE4, NODE6};
use testbed::{Node, Place, Pod, Process, wait_for};

/// Port of the pods' HTTP servers, as the examples name it.
pub(crate) const HTTP: u16 = 8080;
/// Port of the pods' UDP servers, as the examples name it.
const ECHO: u16 = 5353;

/// Everything that runs.
pub(crate) struct Cluster {
    pub(crate) api: Api,
    pub(crate) platform: Platform,
    pub(crate) backends: Vec<Backend>,
    pub(crate) client: Pod,
    pub(crate) node: Node,
}

/// A pod with its servers.
pub(crate) struct Backend {
    servers: Vec<Process>,
    pub(crate) pod: Pod,
}

impl Backend {
    fn start(pod: Pod) -> Result<Self> {
        let mut backend = Self {
            servers: Vec::new(),
            pod,
        };
        backend.restart()?;
        Ok(backend)
    }

    /// Starts its servers again.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let any: IpAddr = [0u16; 8].into();
        let (place, name) = (self.pod.place(), self.pod.name());
        self.servers = vec![
            place.serve_http(name, SocketAddr::new(any, HTTP))?,
            place.serve_udp(name, SocketAddr::new(any, ECHO))?,
        ];
        Ok(())
    }

    /// Kills its servers as `kill -9` does.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.servers.iter_mut().try_for_each(Process::kill)
    }
}

impl Cluster {
    pub(crate) fn start(fairlead: &Path) -> Result<Self> {
        let started = Instant::now();
        let node = Node::create()?;
        let backends = (0..3)
            .map(|index| Backend::start(node.add_pod(&format!("web-{index}"))?))
            .collect::<Result<Vec<_>>>()?;
        let client = node.add_pod("client")?;
        say!(
            "a node, {} backend pods with HTTP and UDP servers, a client pod, an outside client: {}",
            backends.len(),
            took(started)
        );
        let started = Instant::now();
        let platform = Platform::start(&node, fairlead, Role::Up)?;
        say!("`fairlead up` is ready: {}", took(started));
        let api = Api::connect(&node, &platform)?;
        Ok(Self {
            api,
            platform,
            backends,
            client,
            node,
        })
    }

    /// Applies the folder of YAML with a real client, reports the pods as running, and waits until every
    /// pod answers through the Service.
    pub(crate) fn apply(&self, folder: &Path, kubectl: Option<&Path>) -> Result<()> {
        let started = Instant::now();
        let (mut command, with) = match kubectl
            .map(Path::to_path_buf)
            .or_else(|| on_path("kubectl"))
        {
            Some(kubectl) => (
                self.platform.kubectl(&kubectl)?,
                kubectl.display().to_string(),
            ),
            None => (
                self.platform.fairlead()?,
                "fairlead's own client".to_owned(),
            ),
        };
        let status = command.arg("apply").arg("-f").arg(folder).status()?;
        if !status.success() {
            bail!(
                "applying {} failed: {status}\n{}",
                folder.display(),
                self.platform.last_words()
            );
        }
        say!(
            "applied {} with {with}: {}",
            folder.display(),
            took(started)
        );
        let started = Instant::now();
        for backend in &self.backends {
            self.api.report_pod(&backend.pod, true)?;
        }
        let web = self.service("web")?;
        for target in [web.cluster_ip(false, 80)?, web.cluster_ip(true, 80)?] {
            self.wait_for_backends(&self.client.place(), target, &["web-0", "web-1", "web-2"])?;
        }
        say!(
            "the pods are ready, and answer at the Service's addresses: {}",
            took(started)
        );
        Ok(())
    }

    /// Waits until exactly these answer there.
    pub(crate) fn wait_for_backends(
        &self,
        place: &Place,
        target: SocketAddr,
        names: &[&str],
    ) -> Result<()> {
        let what = format!("{} to answer at {target}", names.join(", "));
        let answers = || {
            let report = place.load(&testbed::Load::requests(target, 40)).ok()?;
            (report.failed == 0 && report.backends.keys().eq(names)).then_some(())
        };
        wait_for(&what, Duration::from_secs(10), answers)
            .with_context(|| format!("fairlead's last words:\n{}", self.platform.last_words()))
    }

    pub(crate) fn service(&self, name: &str) -> Result<Service> {
        Ok(Service {
            object: self
                .api
                .get(&format!("/api/v1/namespaces/default/services/{name}"))?,
        })
    }

    /// The address of a pod's HTTP server.
    pub(crate) fn direct(&self, v6: bool) -> SocketAddr {
        SocketAddr::new(self.backends[0].pod.address(v6), HTTP)
    }

    pub(crate) fn how_to_reach(&self) -> String {
        let enter = |name: &str| format!("ip netns exec {name}");
        let kubeconfig = self.platform.kubeconfig();
        let cluster_ip = self
            .service("web")
            .and_then(|web| web.cluster_ip(false, 80));
        let cluster_ip =
            cluster_ip.map_or_else(|error| error.to_string(), |address| address.to_string());
        format!(
            "To try by hand:\n  \
             {node} kubectl --kubeconfig {kubeconfig} get nodes,pods,services,endpointslices -o wide\n  \
             {client} curl http://{cluster_ip}/        (a pod: balanced on its link)\n  \
             {outside} curl http://{NODE4}:30080/       (from outside: balanced by XDP)\n  \
             {fairlead} status --bpffs-root {bpffs}\n  \
             {node} {fairlead} service list --bpffs-root {bpffs} --kubeconfig {kubeconfig}\n  \
             log: {log}",
            node = enter(self.node.netns().name()),
            client = enter(self.client.netns().name()),
            outside = enter(self.node.outside().netns().name()),
            kubeconfig = kubeconfig.display(),
            bpffs = self.platform.bpffs().display(),
            fairlead = self.platform.binary().display(),
            log = self.platform.log().display(),
        )
    }
}

/// A Service object as the server returned it.
pub(crate) struct Service {
    object: Value,
}

impl Service {
    /// Its ClusterIP of the family, with a port.
    pub(crate) fn cluster_ip(&self, v6: bool, port: u16) -> Result<SocketAddr> {
        let addresses = self.object["spec"]["clusterIPs"]
            .as_array()
            .context("a Service without clusterIPs")?;
        let addresses = addresses
            .iter()
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
        let address = addresses
            .into_iter()
            .find(|address| address.is_ipv6() == v6);
        Ok(SocketAddr::new(
            address.context("a Service without a ClusterIP of this family")?,
            port,
        ))
    }

    /// The node's address of the family with the Service's NodePort.
    pub(crate) fn node_port(&self, v6: bool) -> Result<SocketAddr> {
        let port = self.object["spec"]["ports"][0]["nodePort"]
            .as_u64()
            .context("a Service without a NodePort")?;
        let address: IpAddr = if v6 { NODE6.into() } else { NODE4.into() };
        Ok(SocketAddr::new(address, u16::try_from(port)?))
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

fn took(started: Instant) -> String {
    format!("{:.2} s", started.elapsed().as_secs_f32())
}
