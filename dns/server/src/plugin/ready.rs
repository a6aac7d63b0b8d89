//! `ready`: `/ready` says OK once every plugin can answer, and names those that cannot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use hyper::StatusCode;

use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::http::Route;

/// Reads `ready [ADDRESS] { monitor until-ready|continuously }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let address = match line.between(0, 1)? {
        [address] => address.listen(8181)?,
        _ => (std::net::Ipv6Addr::UNSPECIFIED, 8181).into(),
    };
    let mut continuously = false;
    for option in &line.block {
        match option.name.text.as_str() {
            "monitor" => {
                let [mode] = option.exactly()?;
                continuously = match mode.text.as_str() {
                    "until-ready" => false,
                    "continuously" => true,
                    other => {
                        return Err(mode.error(
                            format!("ready: monitor {other} is not a mode"),
                            "write until-ready or continuously",
                        ));
                    }
                };
            }
            _ => return Err(option.unknown("ready", &["monitor"])),
        }
    }
    let watched = Arc::clone(&setup.whole.watched);
    watched.add(Arc::clone(&setup.draft.chain));
    if continuously {
        watched.continuously.store(true, Ordering::Relaxed);
    }
    let environment = Arc::downgrade(setup.environment);
    setup.whole.routes.push(Route {
        address,
        path: "/ready",
        handler: Arc::new(move || {
            let ending = environment
                .upgrade()
                .is_none_or(|environment| environment.ending.load(Ordering::Relaxed));
            if ending {
                return (StatusCode::SERVICE_UNAVAILABLE, "ending".to_owned());
            }
            let unready = watched.unready();
            if unready.is_empty() {
                return (StatusCode::OK, "OK".to_owned());
            }
            let unready: Vec<&str> = unready.into_iter().collect();
            (StatusCode::SERVICE_UNAVAILABLE, unready.join(","))
        }),
        tls: None,
    });
    Ok(None)
}

type Place = Arc<OnceLock<Weak<[Arc<dyn Plugin>]>>>;

/// The plugins of all blocks with `ready`: whichever address is asked tells of all of them, as CoreDNS does.
#[derive(Default)]
pub struct Watched {
    /// With each chain the plugins of it that were ready once, by their place in it.
    chains: Mutex<Vec<(Place, BTreeSet<usize>)>>,
    /// Ask also those that were ready once.
    continuously: AtomicBool,
}

impl Watched {
    fn chains(&self) -> MutexGuard<'_, Vec<(Place, BTreeSet<usize>)>> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, chain: Place) {
        self.chains().push((chain, BTreeSet::new()));
    }

    /// Names of plugins that cannot answer yet.
    fn unready(&self) -> BTreeSet<&'static str> {
        let continuously = self.continuously.load(Ordering::Relaxed);
        let mut unready = BTreeSet::new();
        for (chain, done) in self.chains().iter_mut() {
            let Some(plugins) = chain.get().and_then(Weak::upgrade) else {
                continue;
            };
            for (at, plugin) in plugins.iter().enumerate() {
                if !continuously && done.contains(&at) {
                    continue;
                }
                if plugin.ready() {
                    done.insert(at);
                } else {
                    unready.insert(plugin.name());
                }
            }
        }
        unready
    }
}
