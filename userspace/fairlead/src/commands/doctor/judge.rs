//! What the doctor makes of the facts.

use std::collections::BTreeSet;

use abi::Counter;
use bpf::{Fill, Place};
use proxy::listing::PolicyRow;

use super::facts::{Facts, Loaded};
use super::{Finding, Level};

/// Everything that was looked at.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut out = host(facts);
    out.extend(features(facts));
    out.extend(forwarding(facts));
    out.extend(kube_proxy(facts));
    out.extend(facts.conntrack.map(conntrack));
    match &facts.loaded {
        Some(loaded) => {
            out.extend(agent(facts, loaded));
            out.extend(attachments(facts, loaded));
            out.extend(tables(&loaded.status.tables));
            out.extend(drops(loaded));
            out.extend(masquerade(loaded));
            out.extend(translated(&loaded.translated));
            out.extend(policies(&loaded.policies));
            out.extend(mtu(facts, loaded));
            out.extend(rp_filter(facts, loaded));
        }
        None => out.push(Finding::new(
            "programs",
            Level::Problem,
            facts.not_loaded.clone().unwrap_or_default(),
            "nothing balances Services on this host, or this process may not look",
            "start `fairlead proxy` or `fairlead up`, name their --bpffs-root, or run this as root",
        )),
    }
    out
}

/// Rights and mounts.
fn host(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    if !facts.missing_capabilities.is_empty() {
        out.push(Finding::new(
            "rights",
            Level::Problem,
            format!("this process has no {}", facts.missing_capabilities.join(", ")),
            "the kernel does not tell it what is loaded, and an agent with as little could program nothing",
            "run as root",
        ));
    }
    let root = facts.bpffs_root.display();
    out.push(if facts.bpffs {
        Finding::ok("bpffs", format!("{root} is on a bpffs"))
    } else {
        Finding::new(
            "bpffs",
            Level::Problem,
            format!("{root} is not on a bpffs"),
            "programs and tables could not outlive the agent",
            "mount -t bpf bpf /sys/fs/bpf",
        )
    });
    out.push(match &facts.cgroup2 {
        Some(mount) => Finding::ok("cgroup2", format!("mounted at {}", mount.display())),
        None => Finding::new(
            "cgroup2",
            Level::Problem,
            "the unified hierarchy of cgroups is not mounted",
            "connections cannot be balanced where they begin, at the socket",
            "mount -t cgroup2 none /sys/fs/cgroup/unified, and name that with --cgroup-root",
        ),
    });
    out
}

/// What the kernel lacks.
fn features(facts: &Facts) -> Vec<Finding> {
    let lacking = facts
        .features
        .iter()
        .filter(|feature| feature.there != Some(true));
    let mut out: Vec<Finding> = lacking
        .map(|feature| {
            let (level, what) = match feature.there {
                None => (
                    Level::Note,
                    format!(
                        "whether this kernel has {} could not be asked",
                        feature.name
                    ),
                ),
                Some(_) if feature.required => (
                    Level::Problem,
                    format!("this kernel lacks {}", feature.name),
                ),
                Some(_) => (Level::Note, format!("this kernel lacks {}", feature.name)),
            };
            let why = match feature.there {
                None => format!("were it lacking: {}", feature.without),
                Some(_) => feature.without.to_owned(),
            };
            Finding::new("kernel", level, what, why, feature.remedy)
        })
        .collect();
    if out.is_empty() {
        let count = facts.features.len();
        out.push(Finding::ok(
            "kernel",
            format!("all of {count} features are there"),
        ));
    }
    out
}

fn forwarding(facts: &Facts) -> Vec<Finding> {
    let families = [
        ("IPv4", "net.ipv4.ip_forward", facts.forwards[0], true),
        (
            "IPv6",
            "net.ipv6.conf.all.forwarding",
            facts.forwards[1],
            facts.ipv6,
        ),
    ];
    let there = families.into_iter().filter(|(_, _, _, there)| *there);
    there
        .map(|(family, sysctl, forwards, _)| {
            if forwards {
                return Finding::ok("forwarding", format!("{family} packets are forwarded"));
            }
            Finding::new(
                "forwarding",
                Level::Problem,
                format!("{sysctl} = 0: this host does not forward {family} packets"),
                "packets for Services that arrive from outside, and from pods for other nodes, end here",
                format!("sysctl -w {sysctl}=1"),
            )
        })
        .collect()
}

/// The kernel's own table of connections, of which the stack's way still makes use.
fn conntrack((used, capacity): (u64, u64)) -> Finding {
    let what = format!("the kernel tracks {used} of {capacity} connections");
    if (used as f64) < capacity as f64 * NEARLY {
        return Finding::ok("conntrack", what);
    }
    Finding::new(
        "conntrack",
        Level::Problem,
        what,
        "packets of new connections that take the stack's way are dropped when it is full",
        "sysctl -w net.netfilter.nf_conntrack_max=N, or take away the rules that make the kernel track",
    )
}

fn kube_proxy(facts: &Facts) -> Vec<Finding> {
    let mut out = Vec::new();
    for pid in &facts.kube_proxies {
        out.push(Finding::new(
            "kube-proxy",
            Level::Problem,
            format!("kube-proxy runs (process {pid})"),
            "two proxies choose backends for the same packets, and its rules are looked at for every one that Fairlead leaves",
            "remove its DaemonSet (`kubectl -n kube-system delete daemonset kube-proxy`)",
        ));
    }
    let ipvs = facts.links.iter().any(|link| link.name == "kube-ipvs0");
    let Some(left) = &facts.kube_proxy else {
        out.push(Finding::new(
            "kube-proxy",
            Level::Note,
            "netfilter could not be asked for rules of kube-proxy",
            "they would translate what Fairlead leaves alone",
            "run as root",
        ));
        return out;
    };
    if left.is_empty() && !ipvs {
        if out.is_empty() {
            out.push(Finding::ok(
                "kube-proxy",
                "neither a process nor rules of it are here",
            ));
        }
        return out;
    }
    let mut shown: Vec<&str> = left.iter().take(3).map(String::as_str).collect();
    if ipvs {
        shown.push("device kube-ipvs0");
    }
    let more = left.len().saturating_sub(3);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    out.push(Finding::new(
        "kube-proxy",
        Level::Problem,
        format!("kube-proxy's rules are here: {}{more}", shown.join(", ")),
        "rules that nobody updates send packets to endpoints that are gone, and packets to pods take the stack's way past them",
        "stop kube-proxy and start `fairlead proxy --take-over-kube-proxy`, which lets its connections live on; or kube-proxy --cleanup; without its binary: `nft delete table ip kube-proxy`, `nft delete table ip6 kube-proxy`, or a reboot",
    ));
    out
}

fn agent(facts: &Facts, loaded: &Loaded) -> Vec<Finding> {
    let mut out = Vec::new();
    out.push(match loaded.status.agent_pid {
        None => Finding::new(
            "agent",
            Level::Problem,
            "no process programs the tables",
            "connections go on and new ones are balanced, but changes of Services and endpoints do not reach the kernel",
            "start `fairlead proxy` or `fairlead up` with the same --bpffs-root",
        ),
        Some(pid) if loaded.agent_is_replaced => Finding::new(
            "agent",
            Level::Problem,
            format!("process {pid} runs a binary that was replaced since it began"),
            "an upgrade takes effect with its next start",
            "restart it: no connection notices",
        ),
        Some(pid) => Finding::ok("agent", format!("process {pid}")),
    });
    let routing = &loaded.status.host_routing;
    for (family, way) in [("IPv4", &routing.ipv4), ("IPv6", &routing.ipv6)] {
        if way.mode == "kernel" {
            out.push(Finding::new(
                "host routing",
                Level::Note,
                format!(
                    "{family} packets for pods take the stack's way: {}",
                    way.reason
                ),
                "they cost more there",
                "nothing where that is wanted; --host-routing bpf goes straight all the same",
            ));
        }
    }
    let others: Vec<String> = facts
        .layouts
        .iter()
        .filter(|layout| **layout != loaded.status.layout)
        .map(|layout| format!("v{layout}"))
        .collect();
    if !others.is_empty() {
        out.push(Finding::new(
            "pins",
            Level::Problem,
            format!(
                "{} holds pins of other layouts: {}",
                facts.bpffs_root.display(),
                others.join(", ")
            ),
            "their programs may still be attached, and balance by tables that nobody updates",
            "start the agent of this version; `fairlead proxy --cleanup` removes all, and stops balancing until the next start",
        ));
    }
    out
}

fn attachments(facts: &Facts, loaded: &Loaded) -> Vec<Finding> {
    let mut out = Vec::new();
    let links = &loaded.status.links;
    let gone: BTreeSet<&str> = links
        .iter()
        .filter_map(|link| match &link.on {
            Place::Gone { was } => Some(was.as_str()),
            Place::Cgroup { .. } | Place::Device { .. } => None,
        })
        .collect();
    if gone.contains("cgroup") {
        out.push(Finding::new(
            "hooks",
            Level::Problem,
            "the cgroup that the socket programs hung on is gone",
            "no connection is balanced at the socket",
            "restart the agent with a --cgroup-root that is there",
        ));
    } else if !links.iter().any(|link| link.hook == "cgroup") {
        out.push(Finding::new(
            "hooks",
            Level::Problem,
            "the socket programs hang on no cgroup",
            "no connection is balanced at the socket: processes of the host reach no Service",
            "restart the agent with a --cgroup-root that is there",
        ));
    }
    let at_device = |name: &&str| **name != *"cgroup";
    for name in gone.into_iter().filter(at_device) {
        out.push(Finding::new(
            "hooks",
            Level::Note,
            format!("{name} is gone, and what hung on it"),
            "nothing arrives there any more",
            "name the devices that are there with --devices, and restart the agent",
        ));
    }
    if !links.iter().any(|link| link.program == "device_ingress") {
        out.push(Finding::new(
            "devices",
            Level::Note,
            "no device is attached",
            "NodePorts and load balancers' addresses do not answer clients outside of this node",
            "name the devices where they arrive with --devices",
        ));
    }
    let unattached: Vec<&str> = facts
        .links
        .iter()
        .filter(|link| link.up && link.leads_to_pod())
        .filter(|link| {
            !links.iter().any(|it| {
                matches!(&it.on, Place::Device { ifindex, netns, .. }
                    if (*ifindex, *netns) == (link.ifindex, loaded.netns))
            })
        })
        .map(|link| link.name.as_str())
        .collect();
    if !unattached.is_empty() {
        out.push(Finding::new(
            "hooks",
            Level::Problem,
            format!(
                "nothing hangs on these pods' links: {}",
                unattached.join(", ")
            ),
            "packets of these pods that no socket hook saw reach no Service",
            "see why in the agent's log; without an agent, start it",
        ));
    }
    for foreign in &loaded.foreign {
        let order = if foreign.before { "before" } else { "behind" };
        out.push(Finding::new(
            "foreign programs",
            Level::Note,
            format!(
                "program {} (id {}) of somebody else runs {order} {} on {}",
                if foreign.name.is_empty() {
                    "without a name"
                } else {
                    &foreign.name
                },
                foreign.id,
                foreign.hook,
                foreign.on
            ),
            if foreign.before {
                "what it drops or redirects, Fairlead never sees"
            } else {
                "what Fairlead redirects, it never sees"
            },
            "`bpftool prog show id ID` tells whose it is; Fairlead never detaches it",
        ));
    }
    if out.is_empty() {
        out.push(Finding::ok(
            "hooks",
            format!("{} attachments, all in place", links.len()),
        ));
    }
    out
}

/// From this part of its capacity on a table is nearly full.
const NEARLY: f64 = 0.9;

fn tables(tables: &[Fill]) -> Vec<Finding> {
    // What may fill up: the least recently used gives way there.
    const LRU: [&str; 5] = [
        "AFFINITY",
        "FLOWS4",
        "FLOWS6",
        "FRAGMENTS",
        "REVERSE_SOCKETS",
    ];
    let full = tables
        .iter()
        .filter(|table| f64::from(table.used) >= f64::from(table.capacity) * NEARLY);
    let mut out: Vec<Finding> = full
        .map(|table| {
            let what = format!(
                "table {} holds {} of {} entries",
                table.table, table.used, table.capacity
            );
            let remedy = if table.flag.is_empty() {
                "the size is part of the layout: see what fills it".to_owned()
            } else {
                format!("raise {}; a pinned table keeps its size until `fairlead proxy --cleanup`", table.flag)
            };
            if LRU.contains(&table.table) {
                let why = "the least recently used entries give way, and their connections are taken for new ones";
                Finding::new("tables", Level::Problem, what, why, remedy)
            } else {
                let why = "what finds no room is not served";
                Finding::new("tables", Level::Problem, what, why, remedy)
            }
        })
        .collect();
    if out.is_empty() {
        out.push(Finding::ok(
            "tables",
            format!("all {} have room", tables.len()),
        ));
    }
    out
}

/// Drops that say that something is wrong here, rather than with what clients sent.
/// Policies that do not do what is written in them.
fn policies(rows: &[PolicyRow]) -> Vec<Finding> {
    let policies = |is: fn(&PolicyRow) -> bool| {
        let marks = rows.iter().filter(|row| is(row)).map(|row| row.mark);
        marks.collect::<BTreeSet<u64>>().len()
    };
    let cases: [(usize, &str, &str, &str); 3] = [
        (
            policies(|row| row.altered),
            "say something that is not known here",
            "what is not known is no permission: such a rule matches nothing, or denies everything",
            "`fairlead policy list --kubeconfig FILE` and the policies' Events name the rules; write them another way",
        ),
        (
            policies(|row| row.closed),
            "find no room in a table",
            "the pods that they select are closed in their direction",
            "select fewer peers, or use fewer different policies on one node",
        ),
        (
            policies(|row| row.open),
            "select pods of this node's network whose cgroups are not found",
            "the policies do not hold for those pods",
            "name the cgroup hierarchy that kubelet uses with --cgroup-root",
        ),
    ];
    let wrong = cases.into_iter().filter(|(count, ..)| *count != 0);
    let mut out: Vec<Finding> = wrong
        .map(|(count, what, why, remedy)| {
            let what = format!("{count} policies {what}");
            Finding::new("policies", Level::Problem, what, why, remedy)
        })
        .collect();
    if out.is_empty() && !rows.is_empty() {
        let count = policies(|_| true);
        out.push(Finding::ok(
            "policies",
            format!("{count} policies hold as they are written"),
        ));
    }
    out
}

fn drops(loaded: &Loaded) -> Vec<Finding> {
    let reasons = [
        (
            Counter::DropFlowsFull,
            "a flow table refused entries",
            "raise --flows-max",
        ),
        (
            Counter::DropSnatExhausted,
            "no port was free for translated sources",
            "spread the clients, or the pods that go outside, over more nodes or backends",
        ),
        (
            Counter::DropNoBackend,
            "tables were not whole",
            "restart the agent, which reads them back and mends them",
        ),
        (
            Counter::DropNoNodeAddress,
            "this node has no address of the family that sources are translated to",
            "give the Node object, or the devices of --devices, an address of that family",
        ),
        (
            Counter::DropNoRoute,
            "this node's routing knew no way on",
            "`ip route get ADDRESS` for the backends that `fairlead backend list` shows",
        ),
    ];
    let mut out = Vec::new();
    for (counter, why, remedy) in reasons {
        let counted = loaded.counters.iter().find(|(known, _)| *known == counter);
        let packets = counted.map_or(0, |(_, value)| value.packets);
        if packets > 0 {
            out.push(Finding::new(
                "drops",
                Level::Note,
                format!(
                    "{packets} packets were dropped since the tables were made: {}",
                    counter.label()
                ),
                why,
                remedy,
            ));
        }
    }
    if out.is_empty() {
        out.push(Finding::ok(
            "drops",
            "none for want of anything on this host",
        ));
    }
    out
}

/// Whether what pods send out of the cluster can come back.
/// What `dsr` is not possible for.
fn translated(words: &[String]) -> Option<Finding> {
    let (first, rest) = words.split_first()?;
    let others = match rest.len() {
        0 => String::new(),
        count => format!(" (and {count} more, see `fairlead status`)"),
    };
    Some(Finding::new(
        "dsr",
        Level::Note,
        format!("{first}{others}"),
        "clients' addresses are not kept there, and answers come back through this node",
        "lead to the other nodes' pods by routes without a tunnel, and name the address in the Node object",
    ))
}

fn masquerade(loaded: &Loaded) -> Vec<Finding> {
    let of = &loaded.status.masquerade;
    let mut out = Vec::new();
    for (family, source) in [("IPv4", &of.ipv4), ("IPv6", &of.ipv6)] {
        if source.mode == "none" {
            out.push(Finding::new(
                "masquerade",
                Level::Problem,
                format!("this node has no {family} address that pods' packets to the outside could have"),
                "they are dropped",
                "give the Node object an address of that family, or start the agent with --masquerade=false",
            ));
        }
    }
    let on = of.ipv4.mode != "pod" || of.ipv6.mode != "pod";
    let mut links = loaded.status.links.iter();
    if on && !links.any(|link| link.program == "device_egress") {
        out.push(Finding::new(
            "masquerade",
            Level::Problem,
            "no device is attached (--devices)",
            "pods' packets to the outside of the cluster keep their addresses, and nothing comes back",
            "name the devices that lead outside with --devices",
        ));
    } else if on && out.is_empty() {
        out.push(Finding::ok(
            "masquerade",
            "pods' packets to the outside get this node's address",
        ));
    }
    out
}

/// Devices of this namespace that our programs hang on as a node's.
fn devices<'a>(facts: &'a Facts, loaded: &'a Loaded) -> impl Iterator<Item = &'a net::Link> {
    facts.links.iter().filter(|link| {
        loaded.status.links.iter().any(|it| {
            it.program == "device_ingress"
                && matches!(&it.on, Place::Device { ifindex, netns, .. }
                    if (*ifindex, *netns) == (link.ifindex, loaded.netns))
        })
    })
}

fn mtu(facts: &Facts, loaded: &Loaded) -> Vec<Finding> {
    let Some(device) = devices(facts, loaded).min_by_key(|link| link.mtu) else {
        return Vec::new();
    };
    let larger: Vec<String> = facts
        .links
        .iter()
        .filter(|link| link.up && link.leads_to_pod() && link.mtu > device.mtu)
        .map(|link| format!("{} ({})", link.name, link.mtu))
        .collect();
    if larger.is_empty() {
        let what = format!(
            "no pod's link takes more than {} ({})",
            device.name, device.mtu
        );
        return vec![Finding::ok("MTU", what)];
    }
    vec![Finding::new(
        "MTU",
        Level::Problem,
        format!(
            "pods' links take longer packets than {} ({}): {}",
            device.name,
            device.mtu,
            larger.join(", ")
        ),
        "what pods send to other nodes has to be cut, or waits for an ICMP error that a firewall may keep from them",
        format!("give the pods' links an MTU of {} or less", device.mtu),
    )]
}

/// The kernel takes the larger one of a device's own value and that of all.
fn rp_filter(facts: &Facts, loaded: &Loaded) -> Vec<Finding> {
    let value = |name: &str| facts.rp_filter.get(name).copied().unwrap_or(0);
    let devices: Vec<&net::Link> = devices(facts, loaded).collect();
    let strict: Vec<&str> = devices
        .iter()
        .filter(|link| value("all").max(value(&link.name)) == 1)
        .map(|link| link.name.as_str())
        .collect();
    // With one way out every client's way back is the way it came.
    let ways = facts.links.iter().filter(|link| {
        link.up && !link.loopback && !link.leads_to_pod() && !link.addresses.is_empty()
    });
    let level = if ways.count() > 1 {
        Level::Problem
    } else {
        Level::Note
    };
    if strict.is_empty() {
        let what = "no attached device checks sources strictly";
        return vec![Finding::ok("rp_filter", what)];
    }
    vec![Finding::new(
        "rp_filter",
        level,
        format!(
            "{} drops packets whose way back is not the way they came",
            strict.join(", ")
        ),
        "a client that routing answers over another device reaches no Service, and nothing counts its packets",
        format!(
            "sysctl -w net.ipv4.conf.{}.rp_filter=2, and net.ipv4.conf.all.rp_filter to 0 or 2",
            strict[0]
        ),
    )]
}

#[cfg(test)]
mod tests {
    use bpf::Feature;
    use net::Link;

    use super::*;

    /// A host where all is fine, but nothing is loaded.
    fn facts() -> Facts {
        Facts {
            bpffs: true,
            cgroup2: Some("/sys/fs/cgroup".into()),
            forwards: [true, true],
            kube_proxy: Some(BTreeSet::new()),
            not_loaded: Some("nothing is loaded at /x".to_owned()),
            ..Facts::default()
        }
    }

    /// What is wrong beside that nothing is loaded.
    fn problems(facts: &Facts) -> Vec<&'static str> {
        let found = findings(facts);
        for finding in &found {
            let said = !finding.why.is_empty() && !finding.remedy.is_empty();
            assert!(said || finding.level == Level::Ok, "{finding:?}");
        }
        let problems = found.into_iter().filter(|it| it.level == Level::Problem);
        let checks = problems.map(|it| it.check);
        checks.filter(|check| *check != "programs").collect()
    }

    #[test]
    fn what_dsr_is_not_possible_for_is_a_note() {
        assert_eq!(translated(&[]), None);
        let words = ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        for (count, what) in [(1, "one"), (3, "one (and 2 more, see `fairlead status`)")] {
            let found = translated(&words[..count]).expect("it is told");
            assert_eq!((found.level, &*found.what), (Level::Note, what));
        }
    }

    #[test]
    fn policies_that_do_something_else_are_problems() {
        assert_eq!(policies(&[]), []);
        let row = PolicyRow {
            mark: 1,
            ifindex: 7,
            addresses: Vec::new(),
            uid: None,
            since: String::new(),
            closed: false,
            altered: false,
            open: false,
        };
        let found = policies(std::slice::from_ref(&row));
        assert_eq!(found[0].level, Level::Ok, "{found:?}");
        let altered = PolicyRow {
            altered: true,
            ..row.clone()
        };
        let rows = [
            row,
            altered.clone(),
            PolicyRow {
                ifindex: 8,
                ..altered
            },
        ];
        let found = policies(&rows);
        assert_eq!((found.len(), found[0].level), (1, Level::Problem));
        assert!(found[0].what.starts_with("1 policies say"), "{found:?}");
    }

    #[test]
    fn each_fact_has_its_finding() {
        let cases: [(&str, fn(&mut Facts), &[&str]); 10] = [
            ("fine", |_| {}, &[]),
            (
                "rights",
                |facts| facts.missing_capabilities = vec!["CAP_BPF"],
                &["rights"],
            ),
            (
                "mounts",
                |facts| (facts.bpffs, facts.cgroup2) = (false, None),
                &["bpffs", "cgroup2"],
            ),
            (
                "no forwarding",
                |facts| facts.forwards = [false, true],
                &["forwarding"],
            ),
            (
                "no IPv6 to forward",
                |facts| facts.forwards = [true, false],
                &[],
            ),
            (
                "a running kube-proxy",
                |facts| facts.kube_proxies = vec![7],
                &["kube-proxy"],
            ),
            (
                "its rules",
                |facts| {
                    facts.kube_proxy =
                        Some(BTreeSet::from(["nftables table kube-proxy".to_owned()]));
                },
                &["kube-proxy"],
            ),
            (
                "its device",
                |facts| facts.links.push(link("kube-ipvs0")),
                &["kube-proxy"],
            ),
            (
                "conntrack full",
                |facts| facts.conntrack = Some((95, 100)),
                &["conntrack"],
            ),
            (
                "an old kernel",
                |facts| facts.features = vec![feature(true), feature(false)],
                &["kernel"],
            ),
        ];
        for (what, change, expected) in cases {
            let mut facts = facts();
            change(&mut facts);
            assert_eq!(problems(&facts), expected, "{what}");
        }
    }

    #[test]
    fn a_table_is_a_problem_when_it_is_nearly_full() {
        let fill = |used| Fill {
            table: "FLOWS4",
            used,
            capacity: 100,
            flag: "--flows-max",
        };
        assert_eq!(tables(&[fill(89)])[0].level, Level::Ok);
        let found = &tables(&[fill(90)])[0];
        assert_eq!(found.level, Level::Problem);
        assert!(found.remedy.contains("--flows-max"), "{found:?}");
    }

    fn feature(required: bool) -> Feature {
        Feature {
            name: "",
            there: Some(false),
            required,
            without: "less",
            remedy: "more",
        }
    }

    fn link(name: &str) -> Link {
        Link {
            ifindex: 9,
            name: name.to_owned(),
            kind: None,
            up: true,
            loopback: false,
            peer_elsewhere: false,
            default_route: false,
            enslaved: false,
            hardware_address: Vec::new(),
            qdisc: String::new(),
            mtu: 1500,
            addresses: Vec::new(),
        }
    }
}
