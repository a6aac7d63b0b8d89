//! kube-proxy's chains of iptables, removed with iptables' own programs: rules of the old iptables are nobody else's to
//! write, and those that are made of nftables are read back by them alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use crate::kube_proxy;

/// Each kind of iptables, and what stands for it where there is only one.
const PROGRAMS: [&str; 4] = [
    "iptables-nft",
    "ip6tables-nft",
    "iptables-legacy",
    "ip6tables-legacy",
];
const ANY: [&str; 2] = ["iptables", "ip6tables"];

/// Removes kube-proxy's chains, and the rules that lead there, from the network namespace of the calling thread. Nobody
/// else's rule is touched; tables stay, so that connections that were translated go on. Gives how many chains there were.
///
/// # Errors
///
/// When a program of iptables is there and fails, with what it says.
pub fn remove_kube_proxy_chains() -> io::Result<usize> {
    let mut removed = 0;
    let mut found = false;
    for program in PROGRAMS {
        if let Some(chains) = remove(program)? {
            removed += chains;
            found = true;
        }
    }
    if !found {
        for program in ANY {
            removed += remove(program)?.unwrap_or(0);
        }
    }
    Ok(removed)
}

/// `None` where there is no such program.
fn remove(program: &str) -> io::Result<Option<usize>> {
    let saved = match Command::new(format!("{program}-save")).output() {
        Ok(output) if output.status.success() => output.stdout,
        Ok(output) => return Err(failed(program, &output.stderr)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let (input, chains) = removal(&String::from_utf8_lossy(&saved));
    if chains == 0 {
        return Ok(Some(0));
    }
    // The rules go that the kernel tracks connections for.
    kube_proxy::hold_translations(program.starts_with("ip6"))?;
    let mut restore = Command::new(format!("{program}-restore"))
        .args(["--noflush", "--wait", "5"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = restore.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = restore.wait_with_output()?;
    if output.status.success() {
        Ok(Some(chains))
    } else {
        Err(failed(program, &output.stderr))
    }
}

fn failed(program: &str, said: &[u8]) -> io::Error {
    let said = String::from_utf8_lossy(said);
    io::Error::other(format!("{program}: {}", said.trim_end()))
}

/// Whether kube-proxy made a chain of this name. The kubelet makes some of that prefix too.
pub(crate) fn is_kube_proxys(chain: &str) -> bool {
    const KUBELETS: [&str; 4] = [
        "KUBE-FIREWALL",
        "KUBE-IPTABLES-HINT",
        "KUBE-KUBELET-CANARY",
        "KUBE-MARK-DROP",
    ];
    chain.starts_with("KUBE-") && !KUBELETS.contains(&chain)
}

/// What removes kube-proxy's chains from tables as `iptables-save` writes them, for `iptables-restore --noflush`, and how
/// many these are. A chain is emptied where it is declared anew, and deleted when no rule leads there.
fn removal(saved: &str) -> (String, usize) {
    let mut input = String::new();
    let mut count = 0;
    let all: Vec<&str> = saved.lines().map(str::trim).collect();
    for table in all.split(|line| *line == "COMMIT") {
        let lines = table.iter().copied();
        let Some(name) = lines.clone().find(|line| line.starts_with('*')) else {
            continue;
        };
        let declared = lines.clone().filter_map(|line| line.strip_prefix(':'));
        let chains: BTreeSet<&str> = declared
            .filter_map(|line| line.split_whitespace().next())
            .filter(|chain| is_kube_proxys(chain))
            .collect();
        if chains.is_empty() {
            continue;
        }
        count += chains.len();
        let _ = writeln!(input, "{name}");
        for chain in &chains {
            let _ = writeln!(input, ":{chain} - [0:0]");
        }
        for rule in lines.filter_map(|line| line.strip_prefix("-A ")) {
            let from = rule.split_whitespace().next().unwrap_or_default();
            if !chains.contains(from) && target(rule).is_some_and(|to| chains.contains(to)) {
                let _ = writeln!(input, "-D {rule}");
            }
        }
        for chain in &chains {
            let _ = writeln!(input, "-X {chain}");
        }
        input.push_str("COMMIT\n");
    }
    (input, count)
}

/// The chain that a rule leads to; a comment may hold any words, in quotes where there is more than one.
fn target(rule: &str) -> Option<&str> {
    let mut quoted = false;
    let mut words = rule.split(' ');
    while let Some(word) = words.next() {
        if !quoted && matches!(word, "-j" | "-g") {
            return words.next();
        }
        // A quotation mark within one stands behind a backslash.
        let marks = word.matches('"').count() - word.matches("\\\"").count();
        quoted ^= marks % 2 == 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chains_of_kube_proxy_go_and_nothing_else() {
        let saved = "\
# Generated by iptables-save\n\
*filter\n\
:INPUT ACCEPT [0:0]\n\
:KUBE-FIREWALL - [0:0]\n\
:KUBE-FORWARD - [0:0]\n\
-A INPUT -j KUBE-FIREWALL\n\
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
-A FORWARD -m comment --comment \"leads -j KUBE-FORWARD, it says\" -j ACCEPT\n\
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP\n\
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
COMMIT\n\
*nat\n\
:PREROUTING ACCEPT [0:0]\n\
:KUBE-SEP-AAAA - [0:0]\n\
:KUBE-SERVICES - [0:0]\n\
:MINE - [0:0]\n\
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
-A PREROUTING -j MINE\n\
-A KUBE-SEP-AAAA -p tcp -j DNAT --to-destination 10.244.0.2:80\n\
-A KUBE-SERVICES -d 10.96.0.10/32 -g KUBE-SEP-AAAA\n\
-A MINE -g KUBE-SERVICES\n\
COMMIT\n\
*mangle\n\
:FORWARD ACCEPT [0:0]\n\
-A FORWARD -j ACCEPT\n\
COMMIT\n";
        let expected = "\
*filter\n\
:KUBE-FORWARD - [0:0]\n\
-D FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD\n\
-X KUBE-FORWARD\n\
COMMIT\n\
*nat\n\
:KUBE-SEP-AAAA - [0:0]\n\
:KUBE-SERVICES - [0:0]\n\
-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
-D MINE -g KUBE-SERVICES\n\
-X KUBE-SEP-AAAA\n\
-X KUBE-SERVICES\n\
COMMIT\n";
        assert_eq!(removal(saved), (expected.to_owned(), 3));
        assert_eq!(removal(""), (String::new(), 0));
        assert_eq!(removal("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n").1, 0);
    }
}
