//! `secondary`: zones fetched from their primary servers and kept up to date.

mod catalog;
mod kept;
mod members;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::RecordType;
use tokio::task::JoinHandle;

use self::kept::Had;
pub(crate) use self::kept::Kept;
use self::members::Members;
use super::Next;
use super::Plugin;
use super::file;
use super::file::zone::Zone;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::transfer::Notify;
use super::transfer::Source;
use crate::client;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

/// Until a zone was had once: wait this long between tries, doubling to the longest.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Zones that are fetched at a time: a catalog may name very many.
static FETCHES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(32);

struct Secondary {
    members: Arc<Members>,
    fallthrough: Fallthrough,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A zone's primary servers, and the bell that a NOTIFY rings.
struct Primary {
    servers: Vec<SocketAddr>,
    bell: tokio::sync::Notify,
    had: Arc<Had>,
    /// Where that lasts.
    kept: Arc<Kept>,
    notify: Notify,
    /// The zone names others to be fetched.
    catalog: bool,
}

/// Reads `secondary [ZONE...] { transfer from ADDRESS...; catalog; fallthrough [ZONE...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut primaries = Vec::new();
    let mut fallthrough = Fallthrough::Never;
    for line in setup.lines {
        let mut servers = Vec::new();
        let mut catalog = false;
        for option in &line.block {
            match option.name.text.as_str() {
                "transfer" => match option.between(2, usize::MAX)? {
                    [from, addresses @ ..] if from.text == "from" => {
                        for address in addresses {
                            servers.push(address.listen(53)?);
                        }
                    }
                    _ => {
                        return Err(option.error(
                            "secondary: transfer without from",
                            "write transfer from ADDRESS...",
                        ));
                    }
                },
                "fallthrough" => fallthrough = Fallthrough::read(option)?,
                "catalog" => catalog = option.exactly::<0>().map(|_| true)?,
                _ => {
                    let known = ["catalog", "fallthrough", "transfer from"];
                    return Err(option.unknown("secondary", &known));
                }
            }
        }
        if servers.is_empty() {
            return Err(line.error(
                "secondary: no primary server",
                "add a line `transfer from ADDRESS`",
            ));
        }
        for zone in setup.zones_of(&line.args)? {
            let kept = Arc::clone(&setup.environment.secondaries);
            let primary = Primary {
                had: kept.of(&zone, &servers),
                kept,
                servers: servers.clone(),
                bell: tokio::sync::Notify::new(),
                notify: setup.draft.notify.clone(),
                catalog,
            };
            primaries.push((zone, Arc::new(primary)));
        }
    }
    let members = Arc::new(Members::new(primaries));
    let zones = Arc::clone(&members.zones);
    setup.draft.source(zones as Arc<dyn Source>);
    Ok(Some(Arc::new(Secondary {
        members,
        fallthrough,
        tasks: Mutex::default(),
    })))
}

impl Plugin for Secondary {
    fn name(&self) -> &'static str {
        "secondary"
    }

    fn ready(&self) -> bool {
        self.members
            .fixed
            .iter()
            .all(|(_, primary)| primary.had.slot.load().is_some())
    }

    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
        for (zone, primary) in &self.members.fixed {
            let members = primary.catalog.then(|| Arc::downgrade(&self.members));
            tasks.push(tokio::spawn(keep(
                zone.clone(),
                Arc::clone(primary),
                members,
            )));
        }
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if request.message.metadata.op_code == OpCode::Notify
            && let Some(primary) = self.members.primary(request.name())
        {
            // What changed is said by the SOA record, and by nothing else yet (RFC 1996 section 3.7).
            let code = if request.kind() != RecordType::SOA {
                ResponseCode::FormErr
            } else if primary.is(request.client.ip().to_canonical()) {
                primary.bell.notify_one();
                ResponseCode::NoError
            } else {
                ResponseCode::Refused
            };
            return Box::pin(async move { Ok(Outcome::answer("secondary", request.reply(code))) });
        }
        Box::pin(file::serve(
            "secondary",
            &self.members.zones,
            &self.fallthrough,
            request,
            next,
        ))
    }
}

impl Drop for Secondary {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }
}

/// Fetches a zone and looks for changes as its SOA says (RFC 1035, 3.3.13), or when told. What a catalog says is done
/// to the members.
async fn keep(zone: Name, primary: Arc<Primary>, members: Option<Weak<Members>>) {
    let mut retry = FIRST_RETRY;
    // What the configuration before had is news to this one's catalogs.
    let mut before = None;
    loop {
        let updated = update(&zone, &primary).await;
        let loaded = primary.had.slot.load_full();
        let changed = before.as_ref().map(Arc::as_ptr) != loaded.as_ref().map(Arc::as_ptr);
        before.clone_from(&loaded);
        if let (true, Some(loaded), Some(members)) = (changed, &loaded, &members)
            && let Some(members) = members.upgrade()
        {
            members.follow(&zone, loaded, &primary);
        }
        let times = loaded.as_ref().and_then(|zone| match &zone.soa().data {
            RData::SOA(soa) => Some((soa.refresh, soa.retry, soa.expire)),
            _ => None,
        });
        let seconds = |time: i32| {
            Duration::from_secs(u64::try_from(time).unwrap_or_default().clamp(1, 7 * 86_400))
        };
        let wait = match (updated, times) {
            (Ok(()), Some((refresh, _, _))) => {
                primary.had.confirm();
                retry = FIRST_RETRY;
                seconds(refresh)
            }
            (Err(error), Some((_, again, expire))) => {
                tracing::warn!(%zone, %error, "secondary: no primary server answers for the zone");
                if primary.had.unconfirmed_for() > good_for(expire) {
                    tracing::error!(%zone, "secondary: the zone has expired");
                    primary.had.slot.store(None);
                }
                seconds(again)
            }
            (result, None) => {
                let error = result.err().unwrap_or_default();
                tracing::warn!(%zone, %error, "secondary: the zone could not be fetched");
                retry = (retry * 2).min(LONGEST_RETRY);
                retry
            }
        };
        // A little off the beat, so that servers that began together do not go on together.
        let wait = wait.mul_f64(0.9 + fastrand::f64() * 0.1);
        let _ = tokio::time::timeout(wait, primary.bell.notified()).await;
    }
}

/// How long a zone is good for without its primary: as its SOA says. The field has no sign on the wire.
fn good_for(expire: i32) -> Duration {
    Duration::from_secs(expire.cast_unsigned().into())
}

async fn update(zone: &Name, primary: &Primary) -> Result<(), String> {
    let Ok(_permit) = FETCHES.acquire().await else {
        return Err("no zone is fetched any more".to_owned());
    };
    let mut last = String::from("no server is named");
    for &server in &primary.servers {
        match update_from(server, zone, primary).await {
            Ok(()) => return Ok(()),
            Err(error) => last = format!("{server}: {error}"),
        }
    }
    Err(last)
}

async fn update_from(server: SocketAddr, zone: &Name, primary: &Primary) -> Result<(), String> {
    let theirs = client::serial(server, zone).await?;
    let ours = primary.had.slot.load().as_ref().map(|zone| zone.serial);
    if ours.is_some_and(|ours| theirs.wrapping_sub(ours).cast_signed() <= 0) {
        return Ok(());
    }
    let records = client::transfer(server, zone).await?;
    let fetched = Zone::new(zone, records)?;
    tracing::info!(%zone, %server, serial = fetched.serial, "secondary: the zone was transferred");
    primary.had.slot.store(Some(Arc::new(fetched)));
    primary.notify.changed(zone);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_good_for_as_long_as_they_say() {
        for (expire, seconds) in [
            (0, 0),
            (604_800, 604_800),
            (3_600_000, 3_600_000),
            (-1, u32::MAX),
        ] {
            assert_eq!(
                good_for(expire),
                Duration::from_secs(seconds.into()),
                "{expire}"
            );
        }
    }
}
