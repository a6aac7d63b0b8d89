//! The network's configuration, from stdin.

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use abi::{Bucket, Limit};
use ipam::{Attachment, Range};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::environment::is_name;
use crate::failure::{Code, Failure};
use crate::version::Version;

/// The plugin's name: `type` in a configuration, and its file in `CNI_PATH`.
pub const NAME: &str = "fairlead-cni";

/// More than this on stdin is no configuration.
const STDIN_MAX: u64 = 1 << 20;
/// RFC 791 and RFC 8200: what every link must carry, and the most that a veth pair does.
const MTU: std::ops::RangeInclusive<u32> = 68..=65_535;
const MTU_IPV6_MIN: u32 = 1_280;

/// A network's configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Config {
    cni_version: String,
    /// The network's name.
    pub(crate) name: String,
    ipam: Option<Ipam>,
    /// Largest packet of pods in octets; that of the node's file, or else 1500, unless given.
    pub(crate) mtu: Option<u32>,
    /// Where the addresses that are given are remembered, in a folder for each network.
    #[serde(default = "state_dir")]
    pub(crate) state_dir: PathBuf,
    /// What the running agent says of this node: its podCIDRs and its MTU.
    #[serde(default = "node_file")]
    pub(crate) node_file: PathBuf,
    /// Where the agent pins its programs; empty for pods whose links have none.
    #[serde(default = "bpffs_root")]
    pub(crate) bpffs_root: PathBuf,
    /// What the plugin before in the chain made, as it said.
    pub(crate) prev_result: Option<Value>,
    runtime_config: RuntimeConfig,
    /// Passed on into the result.
    pub(crate) dns: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    #[serde(skip)]
    version: Option<Version>,
}

fn state_dir() -> PathBuf {
    "/var/lib/cni/fairlead".into()
}

fn node_file() -> PathBuf {
    "/run/fairlead/cni-node.json".into()
}

fn bpffs_root() -> PathBuf {
    "/sys/fs/bpf/fairlead".into()
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ipam {
    #[serde(rename = "type")]
    kind: String,
    ranges: Vec<Vec<RangeConfig>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeConfig {
    subnet: IpNet,
    range_start: Option<IpAddr>,
    range_end: Option<IpAddr>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuntimeConfig {
    ips: Vec<String>,
    mac: Option<String>,
    port_mappings: Vec<Value>,
    bandwidth: Option<Bandwidth>,
}

/// Bits a second, and bits.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

/// What runtimes say where nobody names a burst.
const BURST_UNNAMED: u64 = i32::MAX as u64;
/// How long such a burst lasts at the rate: TCP needs some round trips' worth.
const BURST_UNNAMED_NS: u64 = 200_000_000;

impl Bandwidth {
    /// A bucket of a rate and a burst.
    fn bucket(what: &str, rate: u64, burst: u64) -> Result<Bucket, Failure> {
        if (rate == 0) != (burst == 0) {
            return Err(invalid(format!(
                "bandwidth: {what}Rate is {rate} and {what}Burst {burst}: neither means anything without the other"
            )));
        }
        let burst_ns = match (rate, burst) {
            (0, _) => 0,
            (_, BURST_UNNAMED) => BURST_UNNAMED_NS,
            (rate, burst) => (u128::from(burst) * 1_000_000_000 / u128::from(rate))
                .clamp(1, u128::from(u64::MAX / 4)) as u64,
        };
        Ok(Bucket {
            bytes_per_sec: rate.div_ceil(8),
            burst_ns,
            empty_at_ns: 0,
        })
    }
}

impl Config {
    /// Reads it; what it says is checked as far as that needs nothing else.
    ///
    /// # Errors
    ///
    /// [`Code::Io`], [`Code::Decode`], [`Code::InvalidConfig`], [`Code::IncompatibleVersion`].
    pub(crate) fn read(input: impl Read) -> Result<Config, Failure> {
        let mut bytes = Vec::new();
        let read = input.take(STDIN_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| Failure::new(Code::Io, format!("cannot read stdin: {error}")))?;
        if bytes.len() as u64 > STDIN_MAX {
            let msg = format!("the configuration on stdin is longer than {STDIN_MAX} octets");
            return Err(Failure::new(Code::Decode, msg));
        }
        Config::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Config, Failure> {
        let mut config: Config = serde_json::from_slice(bytes).map_err(|error| {
            let msg = format!("the configuration on stdin cannot be read: {error}");
            Failure::new(Code::Decode, msg)
        })?;
        config.version = Version::named(&config.cni_version);
        if config.version.is_none() {
            let msg = format!("cniVersion {:?} is not spoken here", config.cni_version);
            let names = Version::ALL.map(|(_, name)| name).join(", ");
            return Err(Failure {
                details: format!("supported: {names}"),
                ..Failure::new(Code::IncompatibleVersion, msg)
            });
        }
        if !is_name(&config.name) || config.name.len() > 200 {
            return Err(invalid(format!(
                "{:?} cannot be a network's name",
                config.name
            )));
        }
        Ok(config)
    }

    /// What only ADD and STATUS need: a DEL goes through whatever else the configuration says.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`], [`Code::UnsupportedField`].
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if let Some(mtu) = self.mtu.filter(|mtu| !MTU.contains(mtu)) {
            return Err(invalid(format!("mtu is {mtu}, which no link can have")));
        }
        if let Some(Ipam { kind, .. }) = &self.ipam
            && !matches!(kind.as_str(), "" | NAME)
        {
            return Err(Failure::new(
                Code::UnsupportedField,
                format!(
                    "ipam.type is {kind:?}: this plugin gives addresses itself; leave ipam.type out"
                ),
            ));
        }
        self.limit()?;
        self.ranges().map(drop)
    }

    /// How much the pod may send and get; `None` where nobody says.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`]; [`Code::UnsupportedField`] without programs, which alone could hold it.
    pub(crate) fn limit(&self) -> Result<Option<Limit>, Failure> {
        let Some(bandwidth) = &self.runtime_config.bandwidth else {
            return Ok(None);
        };
        let limit = Limit {
            sent: Bandwidth::bucket("egress", bandwidth.egress_rate, bandwidth.egress_burst)?,
            got: Bandwidth::bucket("ingress", bandwidth.ingress_rate, bandwidth.ingress_burst)?,
        };
        if limit == Limit::default() {
            return Ok(None);
        }
        if self.bpffs_root.as_os_str().is_empty() {
            let msg = "bandwidth: with an empty bpffsRoot there are no programs to hold it";
            return Err(Failure::new(Code::UnsupportedField, msg));
        }
        Ok(Some(limit))
    }

    /// What only ADD needs of `portMappings`: whether somebody serves them. The agent does, where it serves the host ports
    /// of Pods, and knows from the Pod itself which; of a container that is no Pod's it knows nothing.
    ///
    /// # Errors
    ///
    /// [`Code::UnsupportedField`].
    pub(crate) fn check_port_mappings(&self, served: bool, pod: &str) -> Result<(), Failure> {
        let refused = |msg: &str| Err(Failure::new(Code::UnsupportedField, msg));
        if self.runtime_config.port_mappings.is_empty() {
            Ok(())
        } else if !served {
            refused(
                "portMappings: nobody serves host ports here; start `fairlead proxy --cni` with --host-ports, or take the capability portMappings out of the plugin's list",
            )
        } else if pod.is_empty() {
            refused(
                "portMappings: only host ports of Pods are served, and CNI_ARGS names none (K8S_POD_NAMESPACE, K8S_POD_NAME)",
            )
        } else {
            Ok(())
        }
    }

    /// The version of what is read and written.
    #[must_use]
    pub(crate) fn version(&self) -> Version {
        self.version.unwrap_or(Version::V1_1_0)
    }

    /// Its name.
    #[must_use]
    pub(crate) fn version_name(&self) -> &str {
        &self.cni_version
    }

    /// Ranges of addresses that the configuration names: from each set a pod has one.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`].
    pub(crate) fn ranges(&self) -> Result<Vec<Vec<Range>>, Failure> {
        let sets = self.ipam.iter().flat_map(|ipam| &ipam.ranges);
        let range = |range: &RangeConfig| {
            Range::part(range.subnet, range.range_start, range.range_end)
                .map_err(|error| invalid(format!("ipam.ranges: {error}")))
        };
        let sets: Result<Vec<Vec<Range>>, Failure> =
            sets.map(|set| set.iter().map(range).collect()).collect();
        sets.and_then(one_of_each_family)
    }

    /// Addresses that the runtime asks for.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`].
    pub(crate) fn wanted(&self, arg: Option<&str>) -> Result<Vec<IpAddr>, Failure> {
        let asked = self
            .runtime_config
            .ips
            .iter()
            .map(String::as_str)
            .chain(arg);
        asked
            .map(|text| {
                let addr = text.split_once('/').map_or(text, |(addr, _)| addr);
                addr.parse()
                    .map_err(|_| invalid(format!("{text:?} is asked for, which is no address")))
            })
            .collect()
    }

    /// The Ethernet address that the runtime asks for.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`] if no interface can have it.
    pub(crate) fn hardware_address(&self, arg: Option<&str>) -> Result<Option<[u8; 6]>, Failure> {
        let asked = self
            .runtime_config
            .mac
            .as_deref()
            .filter(|mac| !mac.is_empty());
        let Some(text) = asked.or(arg) else {
            return Ok(None);
        };
        let octet = |text: &str| {
            (text.len() == 2 && text.bytes().all(|c| c.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(text, 16).ok())?
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let address = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        // A set lowest bit of the first octet is a group's.
        let address = address.filter(|octets| octets[0] & 1 == 0 && *octets != [0; 6]);
        address.map(Some).ok_or_else(|| {
            invalid(format!(
                "{text:?} is asked for, which is no interface's Ethernet address"
            ))
        })
    }

    /// GC: who is still there.
    ///
    /// # Errors
    ///
    /// [`Code::InvalidConfig`] where nobody says: everything would go.
    pub(crate) fn valid_attachments(&self) -> Result<&[Attachment], Failure> {
        self.valid_attachments
            .as_deref()
            .ok_or_else(|| invalid("cni.dev/valid-attachments is missing".to_owned()))
    }
}

/// A pod has one address of each family at most.
pub(crate) fn one_of_each_family(sets: Vec<Vec<Range>>) -> Result<Vec<Vec<Range>>, Failure> {
    let mut families = [false; 2];
    for set in &sets {
        let Some(first) = set.first() else {
            return Err(invalid(
                "ipam.ranges holds a set without a range".to_owned(),
            ));
        };
        if set.iter().any(|range| range.is_ipv6() != first.is_ipv6()) {
            return Err(invalid(format!(
                "one set of ranges mixes IPv4 and IPv6: {first} and others"
            )));
        }
        if std::mem::replace(&mut families[usize::from(first.is_ipv6())], true) {
            return Err(invalid(format!(
                "a pod has one address of each family: {first} is in a second set of its family"
            )));
        }
    }
    Ok(sets)
}

/// Whether pods of these ranges can have an MTU.
pub(crate) fn check_mtu(mtu: u32, sets: &[Vec<Range>]) -> Result<(), Failure> {
    let v6 = sets.iter().flatten().any(Range::is_ipv6);
    if v6 && mtu < MTU_IPV6_MIN {
        return Err(invalid(format!(
            "an MTU of {mtu} is too small for IPv6, which needs {MTU_IPV6_MIN}"
        )));
    }
    Ok(())
}

fn invalid(msg: String) -> Failure {
    Failure::new(Code::InvalidConfig, msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(more: &str) -> String {
        let text = format!(r#"{{"cniVersion":"1.1.0","name":"pods","type":"fairlead-cni"{more}}}"#);
        let checked = Config::parse(text.as_bytes()).and_then(|config| {
            config.check()?;
            config.wanted(None)?;
            config.hardware_address(None)?;
            let ranges = config.ranges()?;
            let words = ranges.iter().flatten().map(ToString::to_string);
            Ok(words.collect::<Vec<_>>().join(" "))
        });
        checked.unwrap_or_else(|failure| format!("{} {}", failure.code as u32, failure.msg))
    }

    #[test]
    fn a_bandwidth_is_bits_and_a_burst_a_time() {
        let bucket = |rate, burst| {
            let bucket = Bandwidth::bucket("egress", rate, burst).unwrap();
            (bucket.bytes_per_sec, bucket.burst_ns)
        };
        assert_eq!(bucket(0, 0), (0, 0));
        assert_eq!(bucket(8_000, 4_000), (1_000, 500_000_000));
        assert_eq!(bucket(1, 1), (1, 1_000_000_000));
        assert_eq!(bucket(8_000, BURST_UNNAMED), (1_000, BURST_UNNAMED_NS));
        assert_eq!(bucket(u64::MAX, 1).1, 1);
        assert_eq!(bucket(1, u64::MAX).1, u64::MAX / 4);
    }

    #[test]
    fn host_ports_are_somebody_s_or_refused() {
        let with = |mappings: &str| {
            let text = format!(
                r#"{{"cniVersion":"1.1.0","name":"pods","runtimeConfig":{{"portMappings":{mappings}}}}}"#
            );
            Config::parse(text.as_bytes()).unwrap()
        };
        let asks = r#"[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]"#;
        for (mappings, served, pod, accepted) in [
            ("[]", false, "", true),
            (asks, true, "default/web", true),
            (asks, false, "default/web", false),
            (asks, true, "", false),
        ] {
            let checked = with(mappings).check_port_mappings(served, pod);
            let code = checked.map_err(|failure| failure.code);
            let expected = if accepted {
                Ok(())
            } else {
                Err(Code::UnsupportedField)
            };
            assert_eq!(code, expected, "{mappings} {served} {pod:?}");
        }
    }

    #[test]
    fn what_a_configuration_may_say() {
        let cases = [
            ("", ""),
            (r#","ipam":{}"#, ""),
            (
                r#","ipam":{"type":"fairlead-cni","ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64","rangeStart":"fd00::5"}]]}"#,
                "10.0.0.0/24 fd00::5 to fd00::ffff:ffff:ffff:ffff",
            ),
            (
                r#","ipam":{"type":"host-local"}"#,
                "2 ipam.type is \"host-local\"",
            ),
            (
                r#","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/24"}]]}"#,
                "7 a pod has one address of each family",
            ),
            (
                r#","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]}"#,
                "7 one set of ranges mixes",
            ),
            (
                r#","ipam":{"ranges":[[]]}"#,
                "7 ipam.ranges holds a set without",
            ),
            (
                r#","ipam":{"ranges":[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.1.1"}]]}"#,
                "7 ipam.ranges: 10.0.1.1 is not in",
            ),
            (
                r#","ipam":{"ranges":[[{"subnet":"10.0.0.0/33"}]]}"#,
                "6 the configuration on stdin cannot be read",
            ),
            (r#","mtu":67"#, "7 mtu is 67"),
            (r#","mtu":-1"#, "6 "),
            (r#","name":"a/b""#, "6 "),
            (
                r#","runtimeConfig":{"ips":["10.0.0.5/24","fd00::5"],"mac":"02:00:00:00:00:01"}"#,
                "",
            ),
            (r#","runtimeConfig":{"ips":["x"]}"#, "7 \"x\" is asked for"),
            (
                r#","runtimeConfig":{"mac":"01:00:00:00:00:01"}"#,
                "7 \"01:00",
            ),
            (r#","runtimeConfig":{"mac":"02:00:00:00:00"}"#, "7 \"02:00"),
            (
                r#","runtimeConfig":{"mac":"02:00:00:00:00:+1"}"#,
                "7 \"02:00",
            ),
            (r#","runtimeConfig":{"portMappings":[]}"#, ""),
            (r#","runtimeConfig":{"bandwidth":{}}"#, ""),
            (
                r#","runtimeConfig":{"bandwidth":{"egressRate":1000000,"egressBurst":2147483647}}"#,
                "",
            ),
            (
                r#","runtimeConfig":{"bandwidth":{"ingressRate":1000000}}"#,
                "7 bandwidth: ingressRate is 1000000",
            ),
            (
                r#","runtimeConfig":{"bandwidth":{"ingressBurst":5}}"#,
                "7 bandwidth: ingressRate is 0",
            ),
            (
                r#","runtimeConfig":{"bandwidth":{"egressRate":-1}}"#,
                "6 the configuration",
            ),
            (
                r#","bpffsRoot":"","runtimeConfig":{"bandwidth":{"egressRate":8,"egressBurst":8}}"#,
                "2 bandwidth: with an empty bpffsRoot",
            ),
        ];
        for (more, expected) in cases {
            let found = verdict(more);
            assert!(
                found.starts_with(expected) && expected.is_empty() == found.is_empty(),
                "{more}: {found}"
            );
        }
        for (text, code) in [
            ("", Code::Decode),
            ("5", Code::Decode),
            (
                r#"{"cniVersion":"1.1.0","name":"../x"}"#,
                Code::InvalidConfig,
            ),
            (r#"{"cniVersion":"1.1.0"}"#, Code::InvalidConfig),
            (
                r#"{"cniVersion":"9.0.0","name":"pods"}"#,
                Code::IncompatibleVersion,
            ),
            (r#"{"name":"pods"}"#, Code::IncompatibleVersion),
        ] {
            assert_eq!(
                Config::parse(text.as_bytes()).unwrap_err().code,
                code,
                "{text}"
            );
        }
        let endless = std::io::repeat(b' ');
        assert_eq!(Config::read(endless).unwrap_err().code, Code::Decode);
        let deep = format!("{}{}", r#"{"x":"#, "[".repeat(100_000));
        assert_eq!(
            Config::parse(deep.as_bytes()).unwrap_err().code,
            Code::Decode
        );
    }
}
