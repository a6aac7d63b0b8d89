//! `ready`: `/ready` says OK once every plugin can answer, and names those that cannot.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use hyper::StatusCode;

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
    let chain = Arc::clone(&setup.draft.chain);
    let environment = Arc::downgrade(setup.environment);
    let was_ready = AtomicBool::new(false);
    setup.routes.push(Route {
        address,
        path: "/ready",
        handler: Arc::new(move || {
            let ending = environment
                .upgrade()
                .is_none_or(|environment| environment.ending.load(Ordering::Relaxed));
            if ending {
                return (StatusCode::SERVICE_UNAVAILABLE, "ending".to_owned());
            }
            if was_ready.load(Ordering::Relaxed) && !continuously {
                return (StatusCode::OK, "OK".to_owned());
            }
            let plugins = chain.get().and_then(std::sync::Weak::upgrade);
            let mut unready: Vec<&str> = plugins
                .iter()
                .flat_map(|plugins| plugins.iter())
                .filter(|plugin| !plugin.ready())
                .map(|plugin| plugin.name())
                .collect();
            unready.sort_unstable();
            unready.dedup();
            if unready.is_empty() {
                was_ready.store(true, Ordering::Relaxed);
                return (StatusCode::OK, "OK".to_owned());
            }
            (StatusCode::SERVICE_UNAVAILABLE, unready.join(","))
        }),
        tls: None,
    });
    Ok(None)
}
