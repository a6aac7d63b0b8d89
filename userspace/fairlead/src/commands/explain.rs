//! `fairlead explain`: what would become of a connection, decided by the programs themselves.
//!
//! Nothing is sent and nothing live changes. Packets go through this build's packet programs, loaded a second time over
//! the live tables and over copies of those that programs write ([`bpf::Trial`]); the kernel runs no socket program for
//! a try, so that call is decided by the same logic compiled natively, over tables read back ([`simulator`]).

mod ends;
mod frame;
mod way;

use std::net::SocketAddr;

use bpf::Datapath;
use serde::Serialize;

use super::cluster::Cluster;
use crate::cli;
use crate::output::{self, Format};

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Step {
    /// Where it is made.
    at: String,
    /// What makes it.
    by: String,
    /// What is decided.
    decision: String,
    /// Why.
    why: String,
}

/// How it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// A backend of this node gets it.
    Backend,
    /// It is sent to a backend that is not on this node, where others decide.
    Sent,
    /// It goes where it was sent: no Service has that address and port.
    Unchanged,
    /// The client hears that nobody listens.
    Refused,
    /// It is dropped.
    Dropped,
}

/// The whole way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Explanation {
    client: Named,
    to: SocketAddr,
    protocol: &'static str,
    service: Option<String>,
    steps: Vec<Step>,
    outcome: End,
    /// Who gets it.
    backend: Option<Named>,
    /// The node of the backend, where that is another one and known.
    node: Option<String>,
    /// Why it ends so.
    reason: String,
    /// What else to know.
    notes: Vec<String>,
}

/// An end, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Named {
    address: SocketAddr,
    name: Option<String>,
}

pub(crate) fn run(flags: &cli::Explain) -> anyhow::Result<()> {
    let root = &flags.bpffs.bpffs_root;
    let view = Datapath::inspect(root)?;
    let tables = view.observe()?;
    let cluster = match &flags.kubeconfig {
        Some(kubeconfig) => Cluster::read(kubeconfig)?,
        None => Cluster::default(),
    };
    let names = cluster.names(&tables);
    let links = super::runtime()?.block_on(async { net::Links::open()?.list().await })?;
    let to = ends::destination(&flags.to, flags.from.as_deref(), &cluster)?;
    let client = ends::client(flags, to.ip(), &cluster, &view, &links)?;
    let way = way::Way {
        view: &view,
        trial: bpf::Trial::over(root)?,
        tables: &tables,
        names: &names,
        links: &links,
        client: &client,
        to,
        protocol: flags.protocol,
    };
    let explanation = way.explain()?;
    match flags.output.output {
        Format::Table => output::emit(&text(&explanation)),
        format @ (Format::Json | Format::Yaml) => output::document(&explanation, format),
    }
}

fn named(address: SocketAddr, names: &super::cluster::Names) -> Named {
    Named {
        address,
        name: names.address(address.ip()).map(str::to_owned),
    }
}

fn show(end: &Named) -> String {
    match &end.name {
        Some(name) => format!("{} ({name})", end.address),
        None => end.address.to_string(),
    }
}

fn text(explanation: &Explanation) -> String {
    let service = explanation.service.as_deref();
    let mut out = format!(
        "{} to {}/{}{}\n\n",
        show(&explanation.client),
        explanation.to,
        explanation.protocol,
        service.map_or(String::new(), |name| format!(", Service {name}"))
    );
    for (number, step) in (1..).zip(&explanation.steps) {
        out += &format!(
            "{number}. {}\n     by:  {}\n     {}\n     why: {}\n",
            step.at, step.by, step.decision, step.why
        );
    }
    let outcome = match (explanation.outcome, &explanation.backend) {
        (End::Backend, Some(backend)) => format!("reaches {}", show(backend)),
        (End::Backend, None) => "reaches a backend".to_owned(),
        (End::Sent, Some(backend)) => match &explanation.node {
            Some(node) => format!(
                "is sent to {} on node {node}; that node's policies decide",
                show(backend)
            ),
            None => format!(
                "is sent to {}, which is not on this node; what is there decides",
                show(backend)
            ),
        },
        (End::Sent, None) => "is sent on to a backend that is not on this node".to_owned(),
        (End::Unchanged, _) => match &explanation.node {
            Some(node) => {
                format!("goes on as it is to node {node}; that node's policies decide")
            }
            None => "goes on as it is".to_owned(),
        },
        (End::Refused, _) => "is refused".to_owned(),
        (End::Dropped, _) => "is dropped".to_owned(),
    };
    out += &format!("\n=> it {outcome}: {}\n", explanation.reason);
    for note in &explanation.notes {
        out += &format!("note: {note}\n");
    }
    out
}
