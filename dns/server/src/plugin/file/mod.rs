//! `file`, and what it shares with `auto` and `secondary`: zones in memory, answered with authority.

mod fields;
pub mod master;
mod nsec3;
pub mod present;
mod rdata;
mod special;
pub(crate) mod types;
pub mod zone;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use hickory_proto::op::OpCode;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;

use self::zone::Zone;
use super::Next;
use super::Plugin;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::transfer::Notify;
use super::transfer::Source;
use crate::corefile::ConfigError;
use crate::message::Failure;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::message::append;
use crate::names;
use crate::watch::Watched;

/// A zone's place: empty until it was read or transferred, and again when it expired.
pub(super) type Slot = Arc<ArcSwapOption<Zone>>;

/// Zones by apex. Replaced whole when zones come and go.
#[derive(Default)]
pub(super) struct Zones {
    list: ArcSwap<Vec<(Name, Slot)>>,
}

impl Zones {
    pub(super) fn set(&self, list: Vec<(Name, Slot)>) {
        self.list.store(Arc::new(list));
    }

    pub(super) fn list(&self) -> Arc<Vec<(Name, Slot)>> {
        self.list.load_full()
    }

    fn of(&self, name: &Name) -> Option<(Name, Slot)> {
        let list = self.list.load();
        let found = list.iter().filter(|(zone, _)| zone.zone_of(name));
        found.max_by_key(|(zone, _)| names::labels(zone)).cloned()
    }
}

impl Source for Zones {
    fn records(&self, zone: &Name) -> Option<Vec<Record>> {
        let list = self.list.load();
        let (_, slot) = list.iter().find(|(name, _)| name == zone)?;
        Some(slot.load().as_ref()?.records())
    }

    fn serial(&self, zone: &Name) -> Option<u32> {
        let list = self.list.load();
        let (_, slot) = list.iter().find(|(name, _)| name == zone)?;
        Some(slot.load().as_ref()?.serial)
    }
}

/// Answers from zones for the plugin that fills them.
pub(super) async fn serve(
    plugin: &'static str,
    zones: &Zones,
    fallthrough: &Fallthrough,
    request: &mut Request,
    next: Next<'_>,
) -> Served {
    let in_class = request.class() == DNSClass::IN;
    let query = request.message.metadata.op_code == OpCode::Query;
    let Some((origin, slot)) = zones.of(request.name()).filter(|_| in_class && query) else {
        return next.serve(request).await;
    };
    let Some(zone) = slot.load_full() else {
        return Err(Failure::new(
            plugin,
            format!("the zone {origin} is not there, or has expired"),
        ));
    };
    if matches!(request.kind(), RecordType::AXFR | RecordType::IXFR) {
        return Ok(Outcome::answer(
            plugin,
            request.reply(ResponseCode::Refused),
        ));
    }
    let found = zone.find(request.name(), request.kind(), request.dnssec_ok());
    let code = found.code.unwrap_or(ResponseCode::NoError);
    if code == ResponseCode::NXDomain
        && found.answers.is_empty()
        && fallthrough.covers(request.name())
    {
        return next.serve(request).await;
    }
    let mut message = request.reply(code);
    message.metadata.authoritative = found.authoritative;
    message.answers = found.answers;
    message.authorities = found.authorities;
    message.additionals = found.additionals;
    if let Some(target) = found.outside {
        follow(request, target, &mut message).await;
    }
    let shown = || format!("zone {origin} with serial {}", zone.serial);
    Ok(Outcome::answer(plugin, message).of(request, shown))
}

/// Resolves an alias that leads out of what a plugin knows, by asking this server. What cannot be had is left to
/// the client.
pub(super) async fn follow(
    request: &Request,
    target: Name,
    message: &mut hickory_proto::op::Message,
) {
    let Some(instance) = request.instance.clone() else {
        return;
    };
    let Ok(mut asked) = request.ask(target, request.kind()) else {
        return;
    };
    if let Outcome::Answer(response) = instance.ask(&mut asked).await {
        let code = response.message.metadata.response_code;
        if matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            append(message, response.message);
        }
        if code == ResponseCode::NXDomain {
            message.metadata.response_code = code;
        }
    }
}

struct File {
    zones: Arc<Zones>,
    fallthrough: Fallthrough,
    watched: Vec<Watched>,
}

/// Reads `file DBFILE [ZONE...] { reload D; fallthrough [ZONE...] }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut list = Vec::new();
    let mut watched = Vec::new();
    let mut fallthrough = Fallthrough::Never;
    for line in setup.lines {
        let [file, words @ ..] = line.between(1, usize::MAX)? else {
            return Err(line.error("file names no file", "write file DBFILE [ZONE...]"));
        };
        let mut reload = Duration::from_secs(60);
        for option in &line.block {
            match option.name.text.as_str() {
                "reload" => reload = option.exactly::<1>()?[0].duration()?,
                "fallthrough" => fallthrough = Fallthrough::read(option)?,
                // Aliases are always resolved by this server, as CoreDNS does since 1.3.
                "upstream" => {}
                _ => return Err(option.unknown("file", &["fallthrough", "reload", "upstream"])),
            }
        }
        let path = setup.path(&file.text);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => Some(text),
            // It may come, as one that something else writes: until then its zones fail.
            Err(error) if !reload.is_zero() => {
                tracing::warn!(file = %path.display(), %error, ?reload, "file: not read yet; it is looked for again");
                None
            }
            Err(error) => {
                return Err(file.error(
                    format!("file: {}: {error}", path.display()),
                    "name a readable master file",
                ));
            }
        };
        for origin in setup.zones_of(words)? {
            let zone = match &text {
                Some(text) => Some(Arc::new(read(&path, text, &origin)?)),
                None => None,
            };
            let slot: Slot = Arc::new(ArcSwapOption::new(zone));
            let file = watch(
                path.clone(),
                reload,
                origin.clone(),
                Arc::clone(&slot),
                setup.draft.notify.clone(),
            );
            watched.push(match &text {
                Some(_) => file,
                None => file.unread(),
            });
            list.push((origin, slot));
        }
    }
    let zones = Arc::new(Zones::default());
    zones.set(list);
    setup.draft.source(Arc::clone(&zones) as Arc<dyn Source>);
    Ok(Some(Arc::new(File {
        zones,
        fallthrough,
        watched,
    })))
}

/// Reads a zone, with errors that name the place.
pub(super) fn read(path: &Path, text: &str, origin: &Name) -> Result<Zone, ConfigError> {
    let wrong = |file: &Path, line: u32, what: String| ConfigError {
        file: Arc::from(file.display().to_string()),
        line,
        what,
        remedy: "mend the record, as RFC 1035 section 5 writes them".to_owned(),
    };
    let records = master::parse(path, text, origin)
        .map_err(|error| wrong(&error.file, error.line, error.what))?;
    Zone::new(origin, records).map_err(|what| wrong(path, 1, format!("zone {origin}: {what}")))
}

/// Reads a zone's file again when it changes. A wrong file leaves the zone as it was.
pub(super) fn watch(
    path: PathBuf,
    every: Duration,
    origin: Name,
    slot: Slot,
    notify: Notify,
) -> Watched {
    Watched::new(path, every, move |path, text| {
        match read(path, text, &origin) {
            Ok(zone) => {
                tracing::info!(zone = %origin, serial = zone.serial, "the zone was read anew");
                slot.store(Some(Arc::new(zone)));
                notify.changed(&origin);
            }
            Err(error) => {
                tracing::error!(%error, "the zone's file is wrong; the zone stays as it was");
            }
        }
    })
}

impl Plugin for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(serve("file", &self.zones, &self.fallthrough, request, next))
    }

    fn holds(&self, request: &Request) -> bool {
        self.zones.of(request.name()).is_some() && !self.fallthrough.covers(request.name())
    }

    fn start(&self) {
        for file in &self.watched {
            file.start();
        }
    }
}
