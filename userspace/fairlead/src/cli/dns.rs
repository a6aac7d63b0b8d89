//! The flags of `fairlead dns`: CoreDNS's, and those of this node's part.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::BpffsFlags;

/// `fairlead dns`
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Dns {
    #[command(subcommand)]
    pub(crate) command: Option<DnsCommand>,
    /// Kubeconfig file of the API server that `kubernetes` asks; a pod's own unless given
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The Corefile; `Corefile` in the working directory unless given, and without that every query is told who asks
    #[arg(long, value_name = "COREFILE")]
    pub(crate) conf: Option<PathBuf>,
    /// Port where a block of the Corefile names none
    #[arg(
        short,
        long = "dns.port",
        alias = "p",
        value_name = "N",
        default_value_t = 53
    )]
    pub(crate) port: u16,
    /// Write the process's number to this file, which is removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Do not say where is listened
    #[arg(long)]
    pub(crate) quiet: bool,
    /// List the plugins that a Corefile may name, and exit
    #[arg(long)]
    pub(crate) plugins: bool,
    #[command(flatten)]
    pub(crate) bpffs: BpffsFlags,
    #[command(flatten)]
    pub(crate) node: NodeDnsFlags,
}

/// How a DNS server and this node's BPF programs, which `fairlead proxy` or `fairlead up` loads, work together.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeDnsFlags {
    /// Have the BPF programs answer queries for A and AAAA records of Services to the DNS Service's address
    #[arg(long)]
    pub(crate) kernel_answers: bool,
    /// Have the BPF programs send queries of this node's pods to this process while it answers
    #[arg(long)]
    pub(crate) node_local_dns: bool,
    /// The DNS Service
    #[arg(long, value_name = "NAMESPACE/NAME", default_value = "kube-system/kube-dns", value_parser = service_name)]
    pub(crate) dns_service: (String, String),
    /// Addresses of this node that pods reach this process at, one of each family; its interfaces' unless given
    #[arg(long, value_name = "IP,..", value_delimiter = ',')]
    pub(crate) dns_node_addresses: Vec<std::net::IpAddr>,
}

fn service_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

/// What else can be done with DNS.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DnsCommand {
    /// Ask a server, or with --explain a Corefile, and show what made the answer
    Query(DnsQuery),
}

/// `fairlead dns query`
#[derive(Args, Clone, Debug)]
pub(crate) struct DnsQuery {
    /// The name; always taken as a whole, as if it ended in a dot
    pub(crate) name: String,
    /// The type of records
    #[arg(default_value = "A", value_name = "TYPE")]
    pub(crate) kind: String,
    /// Which server to ask
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:53")]
    pub(crate) server: SocketAddr,
    /// Answer in this process, and say which plugin and object made the answer
    #[arg(long)]
    pub(crate) explain: bool,
    /// Kubeconfig file of the API server that `kubernetes` asks, for --explain
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The Corefile, for --explain
    #[arg(long, value_name = "COREFILE")]
    pub(crate) conf: Option<PathBuf>,
}

/// CoreDNS's flags but `-p`, which is like our own.
const COREDNS_FLAGS: [&str; 6] = [
    "-conf",
    "-dns.port",
    "-pidfile",
    "-plugins",
    "-quiet",
    "-version",
];

/// Flags of `fairlead dns` that are written with one dash, as CoreDNS's manifests do: `-conf FILE`.
pub(super) fn coredns_flags(
    args: impl Iterator<Item = OsString>,
) -> impl Iterator<Item = OsString> {
    let mut of_dns = false;
    args.enumerate().map(move |(at, arg)| {
        of_dns |= at == 1 && arg == "dns";
        let text = arg.to_str().unwrap_or_default();
        let flag = text.split('=').next().unwrap_or_default();
        match of_dns && COREDNS_FLAGS.contains(&flag) {
            true => format!("-{text}").into(),
            false => arg,
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::{Cli, Command};

    #[test]
    fn flags_as_corednss_manifests_have_them() {
        let flags = |words: &[&str]| {
            let words = words.iter().map(std::ffi::OsString::from);
            Cli::try_parse_from(super::coredns_flags(words))
        };
        let cli = flags(&[
            "fairlead",
            "dns",
            "-conf",
            "/etc/coredns/Corefile",
            "-dns.port=1053",
        ]);
        let Ok(Cli {
            command: Command::Dns(dns),
            ..
        }) = cli
        else {
            panic!("{cli:?}");
        };
        assert_eq!(
            dns.conf.as_deref(),
            Some(std::path::Path::new("/etc/coredns/Corefile"))
        );
        assert_eq!(dns.port, 1053);
        let cli = flags(&[
            "fairlead", "dns", "-p", "1054", "-pidfile", "/run/x", "-quiet", "-plugins",
        ]);
        let Ok(Cli {
            command: Command::Dns(dns),
            ..
        }) = cli
        else {
            panic!("{cli:?}");
        };
        assert_eq!(
            (dns.port, dns.quiet, dns.plugins),
            (1054, true, true),
            "{dns:?}"
        );
        assert_eq!(dns.pidfile, Some("/run/x".into()));
        let version = flags(&["fairlead", "dns", "-version"]).map(|_| ());
        let version = version.map_err(|told| told.kind());
        assert_eq!(version, Err(clap::error::ErrorKind::DisplayVersion));
        assert!(flags(&["fairlead", "proxy", "-conf", "x"]).is_err());
    }
}
