//! The lines of `kubernetes` in a Corefile.

use std::sync::Arc;

use api::selector::LabelSelector;
use hickory_proto::rr::Name;
use zone::{Config, Pods};

use super::strays::Strays;
use super::{Kubernetes, NAME};
use crate::cluster::{Server, Wanted};
use crate::corefile::{ConfigError, Directive};
use crate::fast::Source;
use crate::names;
use crate::plugin::autopath::{SearchPath, search_of};
use crate::plugin::k8s_external::Outside;
use crate::plugin::setup::{Made, Setup};
use crate::plugin::transfer;

/// What may stand in its block.
const OPTIONS: &[&str] = &[
    "apiserver_burst",
    "apiserver_max_inflight",
    "apiserver_qps",
    "endpoint",
    "endpoint_pod_names",
    "fallthrough",
    "ignore",
    "kubeconfig",
    "labels",
    "multicluster",
    "namespace_labels",
    "namespaces",
    "noendpoints",
    "pods",
    "startup_timeout",
    "tls",
    "ttl",
    "upstream",
    "zonal",
];

/// Reads `kubernetes [ZONES...] { ... }`.
pub(in crate::plugin) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut config = Config::new(wire_names(&setup.zones_of(&line.args)?));
    let mut wanted = Wanted::default();
    let (mut endpoint, mut tls) = (None, None);
    for option in &line.block {
        match option.name.text.as_str() {
            "pods" => {
                let [mode] = option.exactly()?;
                config.pods = match mode.text.as_str() {
                    "disabled" => Pods::Disabled,
                    "insecure" => Pods::Insecure,
                    "verified" => Pods::Verified,
                    other => {
                        return Err(mode.error(
                            format!("{other:?} is no way to treat pods"),
                            "write disabled, insecure or verified",
                        ));
                    }
                };
            }
            "ttl" => config.ttl = option.exactly::<1>()?[0].number(0, 3600)?,
            "namespaces" => {
                let names = option.between(1, usize::MAX)?.iter();
                config.namespaces = names.map(|name| name.text.as_str().into()).collect();
            }
            "namespace_labels" => wanted.namespace_labels = selector(option)?,
            "labels" => wanted.labels = selector(option)?,
            "endpoint_pod_names" => {
                option.exactly::<0>()?;
                wanted.endpoint_pod_names = true;
            }
            "noendpoints" => {
                option.exactly::<0>()?;
                wanted.no_endpoints = true;
            }
            "zonal" => {
                option.exactly::<0>()?;
                config.zonal = true;
            }
            "fallthrough" => {
                config.fallthrough = match option.args.as_slice() {
                    [] => vec![zone::Name::root()],
                    zones => wire_names(&crate::plugin::setup::zones(zones)?),
                };
            }
            "ignore" => {
                let [what] = option.exactly()?;
                if what.text != "empty_service" {
                    return Err(what.error(
                        format!("{:?} cannot be ignored", what.text),
                        "write `ignore empty_service`",
                    ));
                }
                config.ignore_empty_service = true;
            }
            "multicluster" => {
                config.multicluster = wire_names(&crate::plugin::setup::zones(&option.args)?);
                wanted.imports = true;
            }
            "kubeconfig" => {
                let args = option.between(1, 2)?;
                wanted.server = Server::Kubeconfig {
                    file: setup.path(&args[0].text),
                    context: args.get(1).map(|context| context.text.clone()),
                };
            }
            "endpoint" => endpoint = Some(option.exactly::<1>()?[0].text.clone()),
            "tls" => {
                let files = option.exactly::<3>()?;
                tls = Some(files.map(|file| setup.path(&file.text)));
            }
            // The client paces itself, and a query before the first list is told SERVFAIL at once.
            "apiserver_qps"
            | "apiserver_burst"
            | "apiserver_max_inflight"
            | "startup_timeout"
            | "upstream" => {}
            _ => return Err(option.unknown(NAME, OPTIONS)),
        }
    }
    match (endpoint, tls) {
        (Some(url), tls) => wanted.server = Server::Endpoint { url, tls },
        (None, Some(_)) => {
            return Err(line.error(
                format!("{NAME}: `tls` without `endpoint`"),
                "name the API server: `endpoint https://ADDRESS:6443`",
            ));
        }
        (None, None) => {}
    }
    for zone in &config.multicluster {
        if !config.zones.contains(zone) {
            config.zones.push(zone.clone());
        }
    }
    if config.primary().is_none() {
        return Err(line.error(
            format!("{NAME}: none of the zones holds names of Services"),
            "name one that is not reverse, such as cluster.local",
        ));
    }
    wanted.pods = config.pods == Pods::Verified;
    config.nameservers = crate::interface::all();
    let environment = setup.environment;
    let followed = environment.clusters.follow(wanted, &environment.metrics);
    let cluster = followed.map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |e| e.source());
        let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        line.error(
            text,
            "see `kubectl config view` for what a kubeconfig holds",
        )
    })?;
    // Without the file pods of this node append the cluster's suffixes only.
    let resolv_conf = std::fs::read_to_string(&environment.resolv_conf).unwrap_or_default();
    let node_search = search_of(&resolv_conf);
    let plugin = Arc::new(Kubernetes {
        strays: Strays::new(&config, &node_search, &environment.metrics),
        source: Arc::new(Source { config, cluster }),
        node_search,
    });
    setup
        .draft
        .source(Arc::clone(&plugin) as Arc<dyn transfer::Source>);
    setup
        .draft
        .search_paths
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .push((NAME, Arc::clone(&plugin) as Arc<dyn SearchPath>));
    // `once` above: nobody else leaves himself there.
    let _ = setup
        .draft
        .outside
        .set(Arc::clone(&plugin) as Arc<dyn Outside>);
    Ok(Some(plugin))
}

fn wire_names(names: &[Name]) -> Vec<zone::Name> {
    let wires = names.iter().map(names::wire);
    wires
        .filter_map(|wire| zone::Name::from_wire(&wire))
        .collect()
}

/// A selector of labels, which may be written in several words.
fn selector(option: &Directive) -> Result<String, ConfigError> {
    let words: Vec<&str> = option
        .between(1, usize::MAX)?
        .iter()
        .map(|word| word.text.as_str())
        .collect();
    let text = words.join(" ");
    match LabelSelector::parse(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(option.error(
            format!("{NAME}: {}: {}", option.name.text, why.message),
            "write a selector such as `environment in (staging, qa),application=nginx`",
        )),
    }
}
