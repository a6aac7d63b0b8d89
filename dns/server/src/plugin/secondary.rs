//! `secondary`: zones fetched from their primary servers and kept up to date.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use tokio::task::JoinHandle;

use super::Next;
use super::Plugin;
use super::file;
use super::file::Slot;
use super::file::Zones;
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
const LONGEST_RETRY: Duration = Duration::from_secs(600);

struct Secondary {
    zones: Arc<Zones>,
    fallthrough: Fallthrough,
    primaries: Vec<(Name, Arc<Primary>)>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// A zone's primary servers, and the bell that a NOTIFY rings.
struct Primary {
    servers: Vec<SocketAddr>,
    bell: tokio::sync::Notify,
    slot: Slot,
    notify: Notify,
}

/// Reads `secondary [ZONE...] { transfer from ADDRESS...; fallthrough [ZONE...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut primaries = Vec::new();
    let mut fallthrough = Fallthrough::Never;
    for line in setup.lines {
        let mut servers = Vec::new();
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
                _ => return Err(option.unknown("secondary", &["fallthrough", "transfer from"])),
            }
        }
        if servers.is_empty() {
            return Err(line.error(
                "secondary: no primary server",
                "add a line `transfer from ADDRESS`",
            ));
        }
        for zone in setup.zones_of(&line.args)? {
            let primary = Primary {
                servers: servers.clone(),
                bell: tokio::sync::Notify::new(),
                slot: Arc::new(ArcSwapOption::empty()),
                notify: setup.draft.notify.clone(),
            };
            primaries.push((zone, Arc::new(primary)));
        }
    }
    let zones = Arc::new(Zones::default());
    let list = primaries
        .iter()
        .map(|(zone, primary)| (zone.clone(), Arc::clone(&primary.slot)));
    zones.set(list.collect());
    setup.draft.source(Arc::clone(&zones) as Arc<dyn Source>);
    Ok(Some(Arc::new(Secondary {
        zones,
        fallthrough,
        primaries,
        tasks: Mutex::default(),
    })))
}

impl Plugin for Secondary {
    fn name(&self) -> &'static str {
        "secondary"
    }

    fn ready(&self) -> bool {
        self.primaries
            .iter()
            .all(|(_, primary)| primary.slot.load().is_some())
    }

    fn start(&self) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
        for (zone, primary) in &self.primaries {
            tasks.push(tokio::spawn(keep(zone.clone(), Arc::clone(primary))));
        }
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        if request.message.metadata.op_code == OpCode::Notify {
            let zone = self
                .primaries
                .iter()
                .find(|(zone, _)| zone == request.name());
            if let Some((_, primary)) = zone {
                let client = request.client.ip().to_canonical();
                let known = primary.servers.iter().any(|server| server.ip() == client);
                let code = if known {
                    ResponseCode::NoError
                } else {
                    ResponseCode::Refused
                };
                if known {
                    primary.bell.notify_one();
                }
                return Box::pin(
                    async move { Ok(Outcome::answer("secondary", request.reply(code))) },
                );
            }
        }
        Box::pin(file::serve(
            "secondary",
            &self.zones,
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

/// Fetches a zone and looks for changes as its SOA says (RFC 1035, 3.3.13), or when told.
async fn keep(zone: Name, primary: Arc<Primary>) {
    let mut retry = FIRST_RETRY;
    let mut confirmed = Instant::now();
    loop {
        let updated = update(&zone, &primary).await;
        let loaded = primary.slot.load_full();
        let times = loaded.as_ref().and_then(|zone| match &zone.soa().data {
            RData::SOA(soa) => Some((soa.refresh, soa.retry, soa.expire)),
            _ => None,
        });
        let seconds = |time: i32| {
            Duration::from_secs(u64::try_from(time).unwrap_or_default().clamp(1, 7 * 86_400))
        };
        let wait = match (updated, times) {
            (Ok(()), Some((refresh, _, _))) => {
                confirmed = Instant::now();
                retry = FIRST_RETRY;
                seconds(refresh)
            }
            (Err(error), Some((_, again, expire))) => {
                tracing::warn!(%zone, %error, "secondary: no primary server answers for the zone");
                if confirmed.elapsed() > seconds(expire) {
                    tracing::error!(%zone, "secondary: the zone has expired");
                    primary.slot.store(None);
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

async fn update(zone: &Name, primary: &Primary) -> Result<(), String> {
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
    let ours = primary.slot.load().as_ref().map(|zone| zone.serial);
    if ours.is_some_and(|ours| theirs.wrapping_sub(ours).cast_signed() <= 0) {
        return Ok(());
    }
    let records = client::transfer(server, zone).await?;
    let fetched = Zone::new(zone, records)?;
    tracing::info!(%zone, %server, serial = fetched.serial, "secondary: the zone was transferred");
    primary.slot.store(Some(Arc::new(fetched)));
    primary.notify.changed(zone);
    Ok(())
}
