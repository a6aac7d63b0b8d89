//! What is wanted of one Service, made of what its objects declare.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Clients, Frontend, FrontendKind, ServiceKey, ServicePort};

use super::{Change, HealthCheck, Services};
use crate::endpoints::{Answering, answering, ready_here};
use crate::node_ports::NodePortAddresses;
use crate::service::{Declared, Port};
use crate::slice::Slice;

type Slices = [(Arc<str>, Slice)];

impl Services {
    pub(super) fn look_up(&self, key: ServiceKey) -> Change {
        let mut change = Change {
            service: None,
            findings: Vec::new(),
            health_check: None,
            key,
        };
        if let Some(host_ports) = self.host_ports.get(&change.key) {
            let loopback = NodePortAddresses::All.loopback();
            change.service = Some(host_ports.model(&self.node.addresses, &loopback));
        }
        let Some(declared) = self.declared.get(&change.key) else {
            return change;
        };
        let slices: &Slices = self.slices.get(&change.key).map_or(&[], |slices| slices);
        change.findings.clone_from(&declared.findings);
        for (_, slice) in slices {
            change.findings.extend(slice.findings.iter().cloned());
        }
        change.service = Some(self.model(declared, slices));
        change.health_check = declared.health_check_port.map(|port| HealthCheck {
            port,
            addresses: (self.node_ports != NodePortAddresses::All)
                .then(|| self.node_port_addresses.clone()),
            local_endpoints: ready_here(slices),
        });
        change
    }

    fn model(&self, declared: &Declared, slices: &Slices) -> model::Service {
        let mut ports = Vec::with_capacity(declared.ports.len() * declared.cluster_ips.len());
        for cluster_ip in &declared.cluster_ips {
            for port in &declared.ports {
                let ipv4 = cluster_ip.is_ipv4();
                let zone = &self.node.zone;
                let mut answering = answering(
                    slices,
                    &port.name,
                    port.protocol,
                    ipv4,
                    zone,
                    &declared.weights,
                );
                self.find_here(&mut answering.cluster);
                ports.extend(self.of_port(declared, *cluster_ip, port, answering));
            }
        }
        model::Service {
            created: declared.created,
            flows_max: declared.flows_max,
            ports,
        }
    }

    /// The frontends of a port under each traffic policy, if there are any.
    ///
    /// The addresses that are reached from outside serve clients inside of the cluster under `Cluster` in any case:
    /// for them it is as if they had gone out to the load balancer, which knows a node with an endpoint.
    fn of_port(
        &self,
        declared: &Declared,
        cluster_ip: IpAddr,
        port: &Port,
        answering: Answering,
    ) -> impl Iterator<Item = ServicePort> + use<> {
        let inside = Frontend {
            addr: cluster_ip,
            port: port.port,
            kind: FrontendKind::ClusterIp,
            clients: Clients::All,
        };
        let outside = self.outside(declared, cluster_ip.is_ipv4(), port);
        let (mut cluster, mut local) = (Vec::new(), Vec::new());
        if declared.internal_local {
            local.push(inside);
        } else {
            cluster.push(inside);
        }
        if declared.external_local {
            let from_outside = outside.iter().filter(|f| f.clients == Clients::All);
            local.extend(from_outside.map(|frontend| Frontend {
                clients: Clients::External,
                ..*frontend
            }));
        }
        cluster.extend(outside);
        let of_policy = |frontends: Vec<Frontend>, backends, drops| {
            let restricted = frontends
                .iter()
                .any(|f| f.kind == FrontendKind::LoadBalancer);
            let sources = if restricted {
                declared.sources_of(cluster_ip.is_ipv4())
            } else {
                Vec::new()
            };
            (!frontends.is_empty()).then(|| ServicePort {
                name: port.name.clone(),
                protocol: port.protocol,
                frontends,
                backends,
                affinity_secs: declared.affinity_secs,
                drops,
                sources,
                choice: declared.choice,
            })
        };
        let drops = answering.anywhere && answering.local.is_empty();
        let of_policies = [
            of_policy(cluster, answering.cluster, false),
            of_policy(local, answering.local, drops),
        ];
        of_policies.into_iter().flatten()
    }

    /// Where clients outside of the cluster connect, and what stands for it inside.
    fn outside(&self, declared: &Declared, ipv4: bool, port: &Port) -> Vec<Frontend> {
        let mut frontends = Vec::new();
        let mut add = |addr: IpAddr, port, kind, clients| {
            if addr.is_ipv4() == ipv4 {
                frontends.push(Frontend {
                    addr,
                    port,
                    kind,
                    clients,
                });
            }
        };
        if let Some(node_port) = port.node_port {
            for addr in &self.node_port_addresses {
                add(*addr, node_port, FrontendKind::NodePort, Clients::All);
            }
            let clients = self.node_ports.loopback_clients();
            for addr in &self.node_port_loopback {
                add(*addr, node_port, FrontendKind::NodePort, clients);
            }
        }
        for (addr, kind) in &declared.further_ips {
            add(*addr, port.port, *kind, Clients::All);
        }
        frontends
    }
}
