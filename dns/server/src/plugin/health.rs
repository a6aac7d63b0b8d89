//! `health`: `/health` says OK while the process lives. With `lameduck` it goes on answering for a while after the
//! end was asked for, so that clients find another server in peace.

use std::sync::Arc;
use std::sync::PoisonError;
use std::time::Duration;

use hyper::StatusCode;

use super::setup::Made;
use super::setup::Setup;
use crate::http::Route;

/// Reads `health [ADDRESS] { lameduck DURATION }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let address = match line.between(0, 1)? {
        [address] => address.listen(8080)?,
        _ => (std::net::Ipv6Addr::UNSPECIFIED, 8080).into(),
    };
    for option in &line.block {
        match option.name.text.as_str() {
            "lameduck" => {
                let [time] = option.exactly()?;
                let time = time.duration()?;
                let mut lameduck = setup
                    .environment
                    .lameduck
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *lameduck = (*lameduck).max(time).min(Duration::from_secs(3600));
            }
            _ => return Err(option.unknown("health", &["lameduck"])),
        }
    }
    setup.routes.push(Route {
        address,
        path: "/health",
        handler: Arc::new(|| (StatusCode::OK, "OK".to_owned())),
    });
    Ok(None)
}
