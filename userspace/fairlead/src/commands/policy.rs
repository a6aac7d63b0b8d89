//! `fairlead policy list`: which policies hold for which pods of this node, and since when.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bpf::Datapath;
use client::{Client, ListParams, Resource};
use proxy::listing::{self, PolicyRow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use view::objects::{ClusterNetworkPolicy, NetworkPolicy, Pod};
use view::policies::{cgroup_uid, cluster_network_policy, network_policy};

use crate::cli::Listing;
use crate::output::{self, Row};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) fn list(flags: &Listing) -> anyhow::Result<()> {
    let view = Datapath::inspect(&flags.bpffs.bpffs_root)?;
    let rows = listing::policies(&view.policies()?, &view.endpoints()?, &view.policy_pods()?);
    let names = match flags.kubeconfig.as_deref().map(names) {
        None => Names::default(),
        Some(Ok(names)) => names,
        Some(Err(error)) => {
            eprintln!("fairlead: names are not shown: {error:#}");
            Names::default()
        }
    };
    let mut named: Vec<NamedPolicy> = rows.into_iter().map(|row| names.of(row)).collect();
    named.sort_by(|a, b| (&a.policy, &a.pod).cmp(&(&b.policy, &b.pod)));
    output::rows(&named, flags.output.output)
}

/// A policy at a pod, and what the API calls both.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NamedPolicy {
    kind: Option<&'static str>,
    policy: Option<String>,
    pod: Option<String>,
    /// What is not known here of the policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
    #[serde(flatten)]
    row: PolicyRow,
}

impl Row for NamedPolicy {
    const HEADER: &'static [&'static str] = &["POLICY", "KIND", "POD", "LINK", "SINCE", "STATE"];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        let addresses: Vec<String> = row.addresses.iter().map(IpAddr::to_string).collect();
        vec![
            self.policy
                .clone()
                .unwrap_or_else(|| format!("{:016x}", row.mark)),
            self.kind.unwrap_or("-").to_owned(),
            self.pod.clone().unwrap_or_else(|| match &row.uid {
                Some(uid) => format!("pod {uid}"),
                None => addresses.join(","),
            }),
            match &row.uid {
                Some(_) => "cgroup".to_owned(),
                None => row.ifindex.to_string(),
            },
            row.since.clone(),
            if row.open {
                "open: no cgroup".to_owned()
            } else if row.closed {
                "closed: no room".to_owned()
            } else if !row.altered {
                "holds".to_owned()
            } else if self.findings.is_empty() {
                "not as written".to_owned()
            } else {
                format!("not as written: {}", self.findings.join("; "))
            },
        ]
    }
}

#[derive(Default)]
struct Names {
    policies: BTreeMap<u64, (&'static str, String, Vec<String>)>,
    pods: BTreeMap<IpAddr, String>,
    host_pods: BTreeMap<String, String>,
}

impl Names {
    fn of(&self, row: PolicyRow) -> NamedPolicy {
        let policy = self.policies.get(&row.mark);
        let of_host = row.uid.iter().filter_map(|uid| self.host_pods.get(uid));
        let mut pods = row
            .addresses
            .iter()
            .filter_map(|addr| self.pods.get(addr))
            .chain(of_host);
        NamedPolicy {
            kind: policy.map(|(kind, ..)| *kind),
            policy: policy.map(|(_, name, _)| name.clone()),
            pod: pods.next().cloned(),
            findings: policy.map_or_else(Vec::new, |(.., findings)| findings.clone()),
            row,
        }
    }
}

fn names(kubeconfig: &Path) -> anyhow::Result<Names> {
    let client = super::connect(kubeconfig)?;
    super::runtime()?.block_on(async {
        match tokio::time::timeout(PATIENCE, ask(&client)).await {
            Ok(names) => names,
            Err(_) => anyhow::bail!("{} did not answer in time", client.server()),
        }
    })
}

async fn ask(client: &Client) -> anyhow::Result<Names> {
    let mut names = Names::default();
    for object in items::<NetworkPolicy>(client).await? {
        let (key, policy, findings) = network_policy(&object);
        let name = ("NetworkPolicy", key.to_string(), findings);
        names.policies.insert(policy.mark, name);
    }
    // Not served everywhere.
    for object in items::<ClusterNetworkPolicy>(client)
        .await
        .unwrap_or_default()
    {
        let (key, policy, findings) = cluster_network_policy(&object);
        let name = ("ClusterNetworkPolicy", key.to_string(), findings);
        names.policies.insert(policy.mark, name);
    }
    for pod in items::<Pod>(client).await? {
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            continue;
        }
        let name = format!("{}/{}", pod.metadata.namespace, pod.metadata.name);
        if pod.spec.host_network {
            names.host_pods.insert(cgroup_uid(&pod).to_owned(), name);
            continue;
        }
        let addresses = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
        for addr in addresses.chain([pod.status.pod_ip.as_str()]) {
            if let Ok(addr) = addr.parse() {
                names.pods.insert(addr, name.clone());
            }
        }
    }
    Ok(names)
}

async fn items<T: api::Kind + DeserializeOwned>(client: &Client) -> Result<Vec<T>, client::Error> {
    let path = Resource::of::<T>().everywhere();
    let page = client.list::<T>(&path, &ListParams::default()).await?;
    Ok(page.items)
}
