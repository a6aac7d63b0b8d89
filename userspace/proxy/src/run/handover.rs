//! Taking over from kube-proxy: its rules are told of, its connections go on, its rules go.

use std::error::Error as StdError;
use std::time::Duration;

use plan::{Step, Store as _};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::Proxy;
use crate::{Error, takeover};

/// Between two looks at whether kube-proxy's connections have ended.
const HOLD_STEP: Duration = Duration::from_secs(60);

impl Proxy {
    pub(super) fn note_kube_proxy_rules(&self) {
        match takeover::rules() {
            Ok(rules) => {
                for rule in &rules {
                    debug!(rule, "is kube-proxy's");
                }
                if !rules.is_empty() && !self.takes_over {
                    let rules = rules.len();
                    warn!(
                        rules,
                        "kube-proxy's rules are here: --take-over-kube-proxy removes them"
                    );
                }
                self.settings
                    .status
                    .send_modify(|status| status.kube_proxy_rules = rules);
            }
            Err(error) => warn!(
                error = &error as &dyn StdError,
                "cannot look for kube-proxy's rules"
            ),
        }
    }

    /// Adopts the connections that kube-proxy translated for what the tables hold after `steps`; whether that is done.
    pub(super) fn adopt(&mut self, steps: &[Step]) -> bool {
        let own = self.attachments.addresses().iter().copied();
        let own = own.chain(
            self.balancer
                .services()
                .this_node()
                .addresses
                .iter()
                .copied(),
        );
        let adopted = self.datapath.observe().map_err(Error::from);
        let adopted = adopted.and_then(|mut tables| {
            match tables.apply(steps) {
                Ok(()) => {}
                Err(never) => match never {},
            }
            let root = &self.settings.datapath.bpffs_root;
            takeover::adopt(root, &tables, &own.collect())
        });
        match adopted {
            Ok(connections) => {
                info!(connections, "adopted connections of kube-proxy's");
                true
            }
            Err(error) => {
                let error = &error as &dyn StdError;
                error!(
                    error,
                    "kube-proxy's rules stay: its connections are not known"
                );
                false
            }
        }
    }

    pub(super) fn remove_kube_proxy_rules(&mut self) {
        match takeover::remove() {
            Ok(removed) => {
                info!(removed, "removed kube-proxy's tables and chains");
                self.takes_over = false;
                self.held_until = Some(Instant::now() + HOLD_STEP);
            }
            Err(error) => error!(
                error = &error as &dyn StdError,
                "kube-proxy's rules stay, or some of them"
            ),
        }
        self.note_kube_proxy_rules();
    }

    /// Lets go of what keeps kube-proxy's connections alive, once there are none.
    pub(super) fn release_translations(&mut self) {
        self.held_until = match takeover::release() {
            Ok(true) => {
                info!("the last connection of kube-proxy's has ended");
                None
            }
            Ok(false) => Some(Instant::now() + HOLD_STEP),
            Err(error) => {
                let error = &error as &dyn StdError;
                warn!(
                    error,
                    "cannot see whether connections of kube-proxy's are left"
                );
                Some(Instant::now() + HOLD_STEP)
            }
        };
    }
}
