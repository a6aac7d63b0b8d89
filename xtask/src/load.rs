//! `cargo xtask load --device IF`: the programs on a device of your choice, for a look at them.

use std::collections::BTreeSet;
use std::process::Command;
use std::process::ExitCode;

use anyhow::Result;

use crate::build;
use crate::cmd;

/// Options of `load`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Device to attach the XDP and TC programs to
    #[arg(long, value_name = "IF")]
    device: Option<String>,
    /// How the XDP program is attached
    #[arg(long, default_value = "auto", value_parser = ["auto", "native", "generic", "off"])]
    xdp: String,
    /// Folder on a BPF file system that keeps programs and maps once this command has ended
    #[arg(long, default_value = "/sys/fs/bpf/fairlead")]
    bpffs_root: String,
    /// Take the device although the machine's default route leads through it
    #[arg(long)]
    default_route_device: bool,
}

/// Checks the device before anything is built.
///
/// # Errors
///
/// When building fails. A missing, unknown or dangerous device is a usage error (exit status 2).
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Some(device) = options.device.as_deref() else {
        eprintln!(
            "load attaches Fairlead's XDP and TC programs to a network device and prints what the kernel then holds.\n\
             Name the device: cargo xtask load --device IF\n\
             For a device that nothing depends on: ip link add fl0 type veth peer name fl1; ip link set fl0 up; ip link set fl1 up\n\
             Devices here: {}",
            devices().join(", ")
        );
        return Ok(ExitCode::from(2));
    };
    if !devices().iter().any(|name| name == device) {
        eprintln!(
            "there is no device {device} here; there are: {}",
            devices().join(", ")
        );
        return Ok(ExitCode::from(2));
    }
    if default_route_devices().contains(device) && !options.default_route_device {
        eprintln!(
            "the machine's default route leads through {device}: a mistake there cuts it off. \
             Give --default-route-device as well if that is what you want."
        );
        return Ok(ExitCode::from(2));
    }
    let executables = build::quickly(&["--bin", "load"])?;
    let mut load = Command::new(cmd::named(&executables, "load")?);
    load.args([
        "--device",
        device,
        "--xdp",
        &options.xdp,
        "--bpffs-root",
        &options.bpffs_root,
    ]);
    cmd::turn_into(&mut load)
}

/// The devices of the network namespace that this process is in. `/sys/class/net` would show those of the namespace
/// where /sys was mounted.
fn devices() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names = parse_devices(&text);
    names.sort();
    names
}

/// `/proc/net/dev`: two lines of headings, then a name, a colon and counters. A name holds no colon.
fn parse_devices(text: &str) -> Vec<String> {
    text.lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect()
}

/// Devices that carry a default route of either family.
fn default_route_devices() -> BTreeSet<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    parse_routes4(&read("/proc/net/route"))
        .chain(parse_routes6(&read("/proc/net/ipv6_route")))
        .collect()
}

/// `/proc/net/route`: name, destination, gateway, flags, refs, use, metric, mask; addresses in hex.
fn parse_routes4(text: &str) -> impl Iterator<Item = String> + use<> {
    let rows = text.lines().map(|line| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    rows.into_iter()
        .filter(|row| {
            row.get(1).is_some_and(|to| to == "00000000")
                && row.get(7).is_some_and(|mask| mask == "00000000")
        })
        .filter_map(|row| row.into_iter().next())
}

/// `/proc/net/ipv6_route`: destination, its length, source, its length, next hop, …, name last. The
/// kernel's own unreachable default sits on lo.
fn parse_routes6(text: &str) -> impl Iterator<Item = String> + use<> {
    let rows = text.lines().map(|line| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let rows: Vec<_> = rows.collect();
    rows.into_iter()
        .filter(|row| {
            row.first()
                .is_some_and(|to| to.bytes().all(|digit| digit == b'0'))
                && row.get(1).is_some_and(|len| len == "00")
        })
        .filter_map(|mut row| row.pop())
        .filter(|name| name != "lo")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_those_of_the_network_namespace() {
        let text = "Inter-|   Receive                |  Transmit\n \
                    face |bytes    packets errs drop|bytes    packets\n    \
                    lo:  137580     1052    0    0  137580     1052\n\
                    veth0: 0 0 0 0 0 0\n";
        assert_eq!(parse_devices(text), ["lo", "veth0"]);
        // Whatever /sys shows.
        assert!(devices().contains(&"lo".to_owned()), "{:?}", devices());
    }

    #[test]
    fn the_default_routes_devices_are_found() {
        let routes4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                       eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                       eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert_eq!(parse_routes4(routes4).collect::<Vec<_>>(), ["eth0"]);
        let zero = "0".repeat(32);
        let routes6 = format!(
            "fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 00000001 eth1\n\
             {zero} 00 {zero} 00 fd000000000000000000000000000001 00000400 1 0 00000003 eth2\n\
             {zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200 lo\n"
        );
        assert_eq!(parse_routes6(&routes6).collect::<Vec<_>>(), ["eth2"]);
    }
}
