//! Bounds on flows, of Services and of namespaces: who is bound by what, kept in the kernel's table and counted anew every
//! few seconds, for as long as anybody is bound.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::ServiceId;
use abi::quotas::GROUP;
use bpf::Quotas;
use model::ServiceKey;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

/// Between two counts: what ended since the last one still counts.
const PAUSE: Duration = Duration::from_secs(2);
/// The same while flows are refused, perhaps for what has ended, ...
const PAUSE_REFUSED: Duration = Duration::from_millis(250);
/// ... and this many times as long as a count takes at least.
const SHARE: u32 = 20;
/// Until bounds follow a change, where every Service has one.
pub(crate) const WAIT: Duration = Duration::from_millis(500);

/// The bounds that hold where a Service does not say its own; zero for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLimits {
    /// Of each Service.
    pub service: u32,
    /// Of all Services of a namespace together.
    pub namespace: u32,
}

impl FlowLimits {
    /// Whether every Service is bound.
    pub(crate) fn any(self) -> bool {
        self != FlowLimits::default()
    }
}

/// What a group is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Whose {
    Service(ServiceKey),
    Namespace(Arc<str>),
}

/// Bounds, and whose each is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    quotas: Quotas,
    services: BTreeMap<u32, ServiceKey>,
    namespaces: BTreeMap<u32, Arc<str>>,
}

/// Gives groups their numbers, which last.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    numbers: BTreeMap<Whose, u32>,
    last: u32,
}

impl Groups {
    fn number(&mut self, whose: Whose) -> u32 {
        *self.numbers.entry(whose).or_insert_with(|| {
            // The first comes again after two thousand million of them.
            self.last = (self.last + 1) & !GROUP;
            GROUP | self.last
        })
    }

    /// The bounds of services, given with their identifiers and what they say themselves.
    pub(crate) fn bounds<'a>(
        &mut self,
        services: impl Iterator<Item = (&'a ServiceKey, &'a [ServiceId], u32)>,
        limits: FlowLimits,
    ) -> Bounds {
        let mut bounds = Bounds::default();
        for (key, ids, own) in services {
            let flows_max = if own == 0 { limits.service } else { own };
            let mut groups = [0; 2];
            if flows_max != 0 {
                groups[0] = self.number(Whose::Service(key.clone()));
                bounds.quotas.groups.insert(groups[0], flows_max);
                bounds.services.insert(groups[0], key.clone());
            }
            if limits.namespace != 0 {
                groups[1] = self.number(Whose::Namespace(key.namespace.clone()));
                bounds.quotas.groups.insert(groups[1], limits.namespace);
                bounds.namespaces.insert(groups[1], key.namespace.clone());
            }
            if groups != [0; 2] {
                let ids = ids.iter().filter(|id| **id != 0);
                bounds.quotas.services.extend(ids.map(|id| (*id, groups)));
            }
        }
        self.numbers
            .retain(|_, number| bounds.quotas.groups.contains_key(number));
        bounds
    }
}

impl Bounds {
    /// What to say of groups that refused flows, to the Services that it concerns, with how many packets that were.
    fn words(&self, refused: &BTreeMap<u32, u32>) -> Vec<(ServiceKey, u32, String)> {
        let mut all = Vec::new();
        for (group, count) in refused {
            let flows_max = self.quotas.groups.get(group).copied().unwrap_or(0);
            if let Some(key) = self.services.get(group) {
                let words = format!(
                    "packets that would have begun flows found no room: the Service has the {flows_max} that it may have on this node"
                );
                all.push((key.clone(), *count, words));
            } else if let Some(namespace) = self.namespaces.get(group) {
                let of_namespace = self
                    .services
                    .values()
                    .filter(|key| key.namespace == *namespace);
                let words = format!(
                    "packets that would have begun flows of the namespace found no room: it has the {flows_max} that it may have on this node"
                );
                all.extend(of_namespace.map(|key| (key.clone(), *count, words.clone())));
            }
        }
        all
    }
}

/// Keeps bounds in the background, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Keeper {
    bounds: watch::Sender<Arc<Bounds>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts, for the table that is pinned below `bpffs_root`; tells which Services refused flows. Must be called in a
    /// tokio runtime.
    pub(crate) fn start(
        bpffs_root: PathBuf,
    ) -> (Keeper, mpsc::Receiver<Vec<(ServiceKey, u32, String)>>) {
        let (bounds, mut told) = watch::channel(Arc::<Bounds>::default());
        let (tell, refusals) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                let now = told.borrow_and_update().clone();
                let (root, quotas) = (bpffs_root.clone(), now.clone());
                let began = Instant::now();
                let kept = spawn_blocking(move || bpf::keep_quotas(&root, &quotas.quotas));
                let mut pause = PAUSE;
                match kept.await {
                    Ok(Ok(refused)) if refused.is_empty() => {}
                    Ok(Ok(refused)) => {
                        pause = pause_refused(began.elapsed());
                        // Who has not heard of the last ones hears of the next.
                        let _ = tell.try_send(now.words(&refused));
                    }
                    Ok(Err(error)) => warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot keep the bounds on flows"
                    ),
                    Err(_) => return,
                }
                if *now == Bounds::default() {
                    if told.changed().await.is_err() {
                        return;
                    }
                } else {
                    // Whichever is first; that nobody can tell any more ends it by and by.
                    let _ = tokio::time::timeout(pause, told.changed()).await;
                }
            }
        });
        (Keeper { bounds, task }, refusals)
    }

    /// Says what holds now.
    pub(crate) fn set(&self, bounds: Bounds) {
        self.bounds.send_if_modified(|held| {
            let new = **held != bounds;
            if new {
                *held = Arc::new(bounds);
            }
            new
        });
    }
}

/// Until the next count, where one that took so long found that flows are refused.
fn pause_refused(took: Duration) -> Duration {
    (took * SHARE).clamp(PAUSE_REFUSED, PAUSE)
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_follow_each_other_quickly_while_flows_are_refused_unless_they_take_long() {
        for (took_ms, pause_ms) in [(0, 250), (12, 250), (50, 1_000), (700, 2_000)] {
            let pause = pause_refused(Duration::from_millis(took_ms));
            assert_eq!(pause, Duration::from_millis(pause_ms));
        }
    }

    #[test]
    fn each_service_is_in_the_groups_that_bind_it() {
        let (a, b) = (ServiceKey::new("x", "a"), ServiceKey::new("x", "b"));
        let services = || [(&a, &[1, 0, 2][..], 0), (&b, &[3][..], 10)].into_iter();
        let mut groups = Groups::default();
        for (service, namespace, expected) in [
            (0, 0, vec![(3, [10, 0])]),
            (5, 0, vec![(1, [5, 0]), (2, [5, 0]), (3, [10, 0])]),
            (0, 7, vec![(1, [0, 7]), (2, [0, 7]), (3, [10, 7])]),
        ] {
            let limits = FlowLimits { service, namespace };
            let bounds = groups.bounds(services(), limits);
            let of = |group: &u32| bounds.quotas.groups.get(group).copied().unwrap_or(0);
            let found: Vec<(u32, [u32; 2])> = bounds
                .quotas
                .services
                .iter()
                .map(|(id, [one, two])| (*id, [of(one), of(two)]))
                .collect();
            assert_eq!(found, expected, "{limits:?}");
        }
        let bounds = groups.bounds(services(), FlowLimits::default());
        assert_eq!(groups.numbers.len(), 1, "the others' are forgotten");
        let (group, _) = bounds.quotas.groups.first_key_value().expect("b's own");
        let words = bounds.words(&BTreeMap::from([(*group, 4)]));
        assert_eq!(words.len(), 1);
        let (key, count, message) = &words[0];
        assert_eq!((key, *count), (&b, 4));
        assert!(
            message.starts_with("packets that would have begun flows"),
            "{message}"
        );
    }
}
