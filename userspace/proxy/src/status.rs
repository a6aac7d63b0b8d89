//! What the proxy says of itself.

use std::collections::BTreeMap;

use model::ServiceKey;
use serde::Serialize;

use crate::Trouble;
use crate::kube_proxy::KubeProxy;
use crate::policy::PolicyStatus;

/// The proxy's own state. What the kernel holds is `bpf::Status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the programs and tables are in the kernel.
    #[serde(skip)]
    pub loaded: bool,
    /// Whether everything was listed once and is programmed.
    pub ready: bool,
    /// Turns programmed since the start.
    pub turns: u64,
    /// Steps carried out since the start.
    pub steps: u64,
    /// Services that changed, summed over the turns.
    pub changes: u64,
    /// Turns that the kernel refused a step of; each was planned again from what the kernel held.
    pub failures: u64,
    /// Seconds from the first event of a turn to its last step, of the last turn.
    pub last_turn_secs: f64,
    /// The same as a histogram.
    pub latency: Latency,
    /// Devices and pod links attached to, with what was attached.
    pub devices: BTreeMap<u32, bpf::DeviceReport>,
    /// Policies.
    pub policies: PolicyStatus,
    /// What kube-proxy itself has in netfilter, in words: it translates what is left to it. As of the start, or of the
    /// takeover.
    pub kube_proxy_rules: std::collections::BTreeSet<String>,
    /// What kube-proxy's metrics and health are made of.
    #[serde(skip)]
    pub kube_proxy: KubeProxy,
    /// The node is about to go.
    #[serde(skip)]
    pub node_leaving: bool,
    /// Services with troubles, `namespace/name`, each in words. What is not named there works.
    pub troubles: BTreeMap<String, Vec<String>>,
}

impl Status {
    /// Notes all that is wrong with a service now.
    pub(crate) fn set_troubles(&mut self, key: &ServiceKey, troubles: &[Trouble]) {
        let words: Vec<String> = troubles.iter().map(ToString::to_string).collect();
        if words.is_empty() {
            self.troubles.remove(&key.to_string());
        } else {
            self.troubles.insert(key.to_string(), words);
        }
    }
}

/// A histogram of turns by duration.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// How many took at most the bound of the same place in [`Latency::BOUNDS_SECS`] and more than the one
    /// before.
    pub counts: [u64; Latency::BOUNDS_SECS.len()],
    /// How many took longer than every bound.
    pub longer: u64,
    /// Seconds altogether.
    pub sum_secs: f64,
}

impl Latency {
    /// Upper bounds in seconds.
    pub const BOUNDS_SECS: [f64; 10] = [
        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5,
    ];

    /// Counts a turn.
    pub fn observe(&mut self, secs: f64) {
        self.sum_secs += secs;
        match Self::BOUNDS_SECS.iter().position(|bound| secs <= *bound) {
            Some(at) => self.counts[at] += 1,
            None => self.longer += 1,
        }
    }
}
