//! The ways to a backend, and a node set up for one of them.

use std::net::{IpAddr, SocketAddr};

use abi::Counter;
use abi::protocol::{TCP, UDP as UDP_PROTOCOL};
use anyhow::{Context as _, Result};
use bpf::XdpMode;
use testbed::balancer::{Balancer, Service};
use testbed::topology::{CLIENT4, CLIENT6, NODE4, NODE6};
use testbed::{Netns, Node, Place, Pod, Process};

/// Port of the HTTP servers.
pub(crate) const HTTP: u16 = 8080;
/// Port of the UDP servers.
pub(crate) const UDP: u16 = 5353;

/// Where a packet or a connection is balanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// A pod in the node's cgroup, ClusterIP.
    Socket,
    /// A pod whose sockets are not hooked, ClusterIP, TC on its link.
    PodLink,
    /// An outside client, NodePort, XDP on the uplink.
    XdpNodePort,
    /// An outside client, routed ClusterIP, XDP on the uplink.
    XdpClusterIp,
    /// An outside client, NodePort, TC on the uplink.
    TcNodePort,
    /// An outside client, routed ClusterIP, TC on the uplink.
    TcClusterIp,
}

impl Path {
    pub(crate) const ALL: [Self; 6] = [
        Self::Socket,
        Self::PodLink,
        Self::XdpNodePort,
        Self::XdpClusterIp,
        Self::TcNodePort,
        Self::TcClusterIp,
    ];

    fn outside(self) -> bool {
        !matches!(self, Self::Socket | Self::PodLink)
    }

    fn node_port(self) -> bool {
        matches!(self, Self::XdpNodePort | Self::TcNodePort)
    }

    /// What counts new connections of this path.
    fn counter(self) -> Counter {
        match self {
            Self::Socket => Counter::SocketConnect,
            Self::PodLink | Self::TcNodePort | Self::TcClusterIp => Counter::TcNewFlow,
            Self::XdpNodePort | Self::XdpClusterIp => Counter::XdpNewFlow,
        }
    }
}

/// A node with three serving pods and a client, and the agent's hold on its datapath.
pub(crate) struct Stage {
    path: Path,
    pub(crate) balancer: Option<Balancer>,
    _servers: Vec<Process>,
    pub(crate) backends: Vec<Pod>,
    client: Pod,
    pub(crate) node: Node,
}

impl Stage {
    pub(crate) fn set(path: Path) -> Result<Self> {
        let node = Node::create()?;
        let backends = (0..3)
            .map(|index| node.add_pod(&format!("web-{index}")))
            .collect::<Result<Vec<_>>>()?;
        let client = node.add_pod("client")?;
        let mut servers = Vec::new();
        for pod in &backends {
            servers.push(
                pod.place()
                    .serve_http(pod.name(), SocketAddr::new([0u16; 8].into(), HTTP))?,
            );
            servers.push(
                pod.place()
                    .serve_udp(pod.name(), SocketAddr::new([0u16; 8].into(), UDP))?,
            );
        }
        let mut stage = Self {
            path,
            balancer: None,
            _servers: servers,
            backends,
            client,
            node,
        };
        stage.agent_comes()?;
        Ok(stage)
    }

    /// The agent starts: for the first time, or again.
    pub(crate) fn agent_comes(&mut self) -> Result<()> {
        let mut balancer = Balancer::open(&self.node)?;
        for pod in self.backends.iter().chain([&self.client]) {
            balancer.attach_pod(&self.node, pod)?;
        }
        let mode = match self.path {
            Path::XdpNodePort | Path::XdpClusterIp => XdpMode::Native,
            Path::Socket | Path::PodLink | Path::TcNodePort | Path::TcClusterIp => XdpMode::Off,
        };
        let report = balancer.attach_uplink(&self.node, mode)?;
        assert_eq!(report.xdp, mode);
        self.balancer = Some(balancer);
        Ok(())
    }

    /// Packets go straight to pods from now on.
    pub(crate) fn go_straight(&mut self) -> Result<()> {
        let balancer = self.balancer.as_mut().context("the agent runs")?;
        for pod in self.backends.iter().chain([&self.client]) {
            balancer.route_pod(&self.node, pod)?;
        }
        Ok(())
    }

    /// The agent's process ends; what it made stays.
    pub(crate) fn agent_goes(&mut self) {
        self.balancer = None;
    }

    pub(crate) fn take_balancer(&mut self) -> Balancer {
        self.balancer.take().expect("the agent runs")
    }

    /// Gives the HTTP and the UDP service these backends.
    pub(crate) fn serve(
        &mut self,
        v6: bool,
        backends: &[IpAddr],
        affinity_secs: u32,
    ) -> Result<()> {
        let services = [(TCP, HTTP), (UDP_PROTOCOL, UDP)].map(|(protocol, port)| Service {
            frontends: vec![self.target(v6, port)],
            protocol,
            backends: backends
                .iter()
                .map(|address| SocketAddr::new(*address, port))
                .collect(),
            affinity_secs,
        });
        self.balancer()?.put(&services)
    }

    /// What is written into the tables with.
    pub(crate) fn balancer(&mut self) -> Result<&mut Balancer> {
        self.balancer.as_mut().context("the agent runs")
    }

    /// What a client connects to for the servers' port.
    pub(crate) fn target(&self, v6: bool, port: u16) -> SocketAddr {
        let address: IpAddr = match (self.path.node_port(), v6) {
            (true, false) => NODE4.into(),
            (true, true) => NODE6.into(),
            (false, false) => [10, 96, 0, 10].into(),
            (false, true) => [0xfd10, 0x96, 0, 0, 0, 0, 0, 0xa].into(),
        };
        SocketAddr::new(
            address,
            if self.path.node_port() {
                port / 10 + 30_000
            } else {
                port + 1
            },
        )
    }

    pub(crate) fn pods(&self, v6: bool) -> Vec<IpAddr> {
        self.backends.iter().map(|pod| pod.address(v6)).collect()
    }

    pub(crate) fn client(&self) -> Place {
        match self.path {
            Path::Socket => self.client.place(),
            Path::PodLink => self.client.place().without_cgroup(),
            Path::XdpNodePort | Path::XdpClusterIp | Path::TcNodePort | Path::TcClusterIp => {
                self.node.outside().place()
            }
        }
    }

    /// The pod that asks, where one does.
    pub(crate) fn client_pod(&self) -> &Pod {
        &self.client
    }

    pub(crate) fn client_netns(&self) -> &Netns {
        if self.path.outside() {
            self.node.outside().netns()
        } else {
            self.client.netns()
        }
    }

    pub(crate) fn client_address(&self, v6: bool) -> IpAddr {
        match (self.path.outside(), v6) {
            (true, false) => CLIENT4.into(),
            (true, true) => CLIENT6.into(),
            (false, v6) => self.client.address(v6),
        }
    }

    /// How often something was counted on the node.
    pub(crate) fn counted(&self, counter: Counter) -> Result<u64> {
        let balancer = self.balancer.as_ref().context("the agent runs")?;
        let counters = balancer.datapath().counters()?;
        let found = counters.into_iter().find(|(other, _)| *other == counter);
        Ok(found.context("it is counted")?.1.packets)
    }

    /// How many connections or flows of the path were begun.
    pub(crate) fn begun(&self) -> Result<u64> {
        self.counted(self.path.counter())
    }

    /// The path that the test names is the one that was taken.
    pub(crate) fn assert_used(&self) -> Result<()> {
        let counters = self
            .balancer
            .as_ref()
            .context("the agent runs")?
            .datapath()
            .counters()?;
        let new = [
            Counter::SocketConnect,
            Counter::TcNewFlow,
            Counter::XdpNewFlow,
        ];
        for (counter, value) in counters
            .into_iter()
            .filter(|(counter, _)| new.contains(counter))
        {
            let expected = counter == self.path.counter();
            assert_eq!(
                value.packets > 0,
                expected,
                "{}: {}",
                counter.label(),
                value.packets
            );
        }
        Ok(())
    }
}
