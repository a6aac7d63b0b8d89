//! `fairlead status`: what the kernel holds of programs, hooks and tables.

use abi::CounterValue;
use abi::balancing::Mode;
use bpf::{Datapath, Place};
use serde::Serialize;

use crate::cli;
use crate::output::{self, Format};

/// Everything that is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(flatten)]
    kernel: bpf::Status,
    /// What has this node's source all the same where it is to keep the client's, and why.
    translated: Vec<String>,
    counters: Vec<CounterRow>,
    notes: Vec<String>,
}

/// A counter, summed over the CPUs.
#[derive(Serialize)]
struct CounterRow {
    name: &'static str,
    packets: u64,
    bytes: u64,
}

pub(crate) fn run(flags: &cli::Status) -> anyhow::Result<()> {
    let view = Datapath::inspect(&flags.bpffs.bpffs_root)?;
    let kernel = view.status()?;
    let counters = view.counters()?.into_iter().map(|(counter, value)| {
        let CounterValue { packets, bytes } = value;
        CounterRow {
            name: counter.label(),
            packets,
            bytes,
        }
    });
    let translated = if kernel.load_balancing == Mode::Snat.label() {
        Vec::new()
    } else {
        proxy::listing::translated(&view.observe()?, &view.members()?)
    };
    let mut notes = notes(&kernel);
    let rules = super::runtime()?.block_on(async { super::doctor::facts::kube_proxy() });
    if let Some(rule) = rules.iter().flatten().next() {
        notes.push(format!(
            "kube-proxy's rules are here ({rule} and others): `fairlead proxy --take-over-kube-proxy` removes them"
        ));
    }
    let status = Status {
        notes,
        translated,
        counters: counters.collect(),
        kernel,
    };
    match flags.output.output {
        Format::Table => output::emit(&text(&status)),
        format @ (Format::Json | Format::Yaml) => output::document(&status, format),
    }
}

/// What a user should know and may not see in the tables.
fn notes(kernel: &bpf::Status) -> Vec<String> {
    let mut notes = Vec::new();
    if kernel.agent_pid.is_none() {
        notes.push(
            "no process programs these tables now: traffic flows, changes do not reach the kernel"
                .to_owned(),
        );
    }
    if !kernel
        .links
        .iter()
        .any(|link| link.program == "device_ingress")
    {
        notes.push("no device is attached (--devices): NodePorts do not answer clients outside of this node".to_owned());
    }
    for table in &kernel.tables {
        let warn_at = table.capacity - table.capacity / 10;
        if table.used >= warn_at && !table.flag.is_empty() {
            let word = if table.used < table.capacity {
                "nearly full"
            } else {
                "full"
            };
            notes.push(format!(
                "table {} is {word} ({} of {}): raise {}",
                table.table, table.used, table.capacity, table.flag
            ));
        }
    }
    let left_out = kernel.dns.names_left_out;
    if left_out > 0 {
        notes.push(format!(
            "table DNS_NAMES is full: the server answers for {left_out} names of Services"
        ));
    }
    notes
}

fn text(status: &Status) -> String {
    let kernel = &status.kernel;
    let agent = kernel
        .agent_pid
        .map_or("none".to_owned(), |pid| format!("process {pid}"));
    let mut out = format!(
        "pins     {} (layout v{})\nkernel   {}\nagent    {agent}\n",
        kernel.bpffs_root.display(),
        kernel.layout,
        kernel.kernel.release,
    );
    out += &format!(
        "outside  backends of other nodes by {}\n",
        kernel.load_balancing
    );
    for what in &status.translated {
        out += &format!("outside  {what}\n");
    }
    let routing = &kernel.host_routing;
    for (family, way) in [("IPv4", &routing.ipv4), ("IPv6", &routing.ipv6)] {
        out += &format!("to pods  {family} {}: {}\n", way.mode, way.reason);
    }
    let out_of = &kernel.masquerade;
    for (family, source) in [("IPv4", &out_of.ipv4), ("IPv6", &out_of.ipv6)] {
        out += &format!(
            "outside  {family} source {}: {}\n",
            source.mode, source.reason
        );
    }
    let dns = &kernel.dns;
    for (what, way) in [("answers", &dns.answers), ("queries", &dns.queries)] {
        out += &format!("dns      {what} {}: {}\n", way.mode, way.reason);
    }
    out.push('\n');
    let links: Vec<Vec<String>> = kernel
        .links
        .iter()
        .map(|link| {
            vec![
                link.hook.to_owned(),
                link.program.clone(),
                link.program_id.to_string(),
                place(&link.on),
            ]
        })
        .collect();
    out += &output::columns(&["HOOK", "PROGRAM", "ID", "ON"], &links);
    out.push('\n');
    let programs: Vec<Vec<String>> = kernel
        .programs
        .iter()
        .map(|program| {
            vec![
                program.name.clone(),
                program.id.to_string(),
                program.verified_instructions.to_string(),
                program.jited_bytes.to_string(),
            ]
        })
        .collect();
    out += &output::columns(&["PROGRAM", "ID", "VERIFIED", "JITED BYTES"], &programs);
    out.push('\n');
    let tables: Vec<Vec<String>> = kernel
        .tables
        .iter()
        .map(|table| {
            vec![
                table.table.to_owned(),
                table.used.to_string(),
                table.capacity.to_string(),
            ]
        })
        .collect();
    out += &output::columns(&["TABLE", "USED", "CAPACITY"], &tables);
    out.push('\n');
    let counters: Vec<Vec<String>> = status
        .counters
        .iter()
        .map(|row| {
            vec![
                row.name.to_owned(),
                row.packets.to_string(),
                row.bytes.to_string(),
            ]
        })
        .collect();
    out += &output::columns(&["COUNTER", "PACKETS", "BYTES"], &counters);
    for note in &status.notes {
        out += &format!("\nnote: {note}");
    }
    if !status.notes.is_empty() {
        out.push('\n');
    }
    out
}

fn place(place: &Place) -> String {
    match place {
        Place::Cgroup { id, path } => path
            .as_ref()
            .map_or_else(|| format!("cgroup {id}"), |path| path.display().to_string()),
        Place::Device { name, ifindex, .. } => format!("{name} ({ifindex})"),
        Place::Gone { was } => format!("gone: {was}"),
    }
}
