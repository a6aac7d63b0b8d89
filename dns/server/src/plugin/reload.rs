//! `reload`: how often the Corefile is looked at. What happens then is in [`crate::reload`].

use std::time::Duration;

use super::setup::Made;
use super::setup::Setup;
use crate::reload::Interval;

/// Reads `reload [INTERVAL] [JITTER]`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    line.no_block()?;
    let words = line.between(0, 2)?;
    let every = match words.first() {
        None => Duration::from_secs(30),
        Some(word) => {
            let time = word.duration()?;
            if !time.is_zero() && time < Duration::from_secs(2) {
                return Err(word.error(
                    "reload: the interval is shorter than 2s",
                    "write 2s or more, or 0 for never",
                ));
            }
            time
        }
    };
    let jitter = match words.get(1) {
        None => every / 2,
        Some(word) => word.duration()?.max(Duration::from_secs(1)).min(every / 2),
    };
    if every.is_zero() {
        return Ok(None);
    }
    let wanted = &mut setup.whole.reload;
    // Several blocks may say it: the shortest holds.
    if wanted.is_none_or(|other| every < other.every) {
        *wanted = Some(Interval { every, jitter });
    }
    Ok(None)
}
