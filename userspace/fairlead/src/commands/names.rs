//! Names beside what the kernel holds. The kernel knows identifiers; the API server knows names. A server that does
//! not answer costs the names, not the list.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use client::{ListParams, Resource};
use proxy::listing::ServiceRow;
use view::objects::Service;

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Names of service ports by their identifier in the kernel, such as `default/web:http`. Empty without a
/// kubeconfig; a server that cannot be asked is reported on stderr.
pub(crate) fn of(rows: &[ServiceRow], kubeconfig: Option<&Path>) -> BTreeMap<u32, String> {
    let Some(kubeconfig) = kubeconfig else {
        return BTreeMap::new();
    };
    match services(kubeconfig) {
        Ok(services) => join(rows, &services),
        Err(error) => {
            eprintln!("fairlead: names are not shown: {error:#}");
            BTreeMap::new()
        }
    }
}

fn services(kubeconfig: &Path) -> anyhow::Result<Vec<Service>> {
    let client = super::connect(kubeconfig)?;
    let path = Resource::of::<Service>().everywhere();
    let params = ListParams::default();
    let page = super::runtime()?.block_on(async {
        tokio::time::timeout(PATIENCE, client.list::<Service>(&path, &params)).await
    });
    match page {
        Ok(page) => Ok(page?.items),
        Err(_) => anyhow::bail!("{} did not answer in time", client.server()),
    }
}

/// A ClusterIP belongs to one Service, and all frontends of a service port share its identifier.
fn join(rows: &[ServiceRow], services: &[Service]) -> BTreeMap<u32, String> {
    let mut known = BTreeMap::new();
    for service in services {
        for address in &service.spec.cluster_ips {
            let Ok(address) = address.parse::<IpAddr>() else {
                continue;
            };
            for port in &service.spec.ports {
                let name = format!(
                    "{}/{}{}{}",
                    service.metadata.namespace,
                    service.metadata.name,
                    if port.name.is_empty() { "" } else { ":" },
                    port.name
                );
                known.insert(
                    (address, i64::from(port.port), port.protocol.as_str()),
                    name,
                );
            }
        }
    }
    rows.iter()
        .filter_map(|row| {
            let key = (
                row.frontend.ip(),
                i64::from(row.frontend.port()),
                row.protocol,
            );
            known.get(&key).map(|name| (row.id, name.clone()))
        })
        .collect()
}
