//! `hosts`: names and addresses out of a hosts(5) file or of the Corefile itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::PTR;

use super::Next;
use super::Plugin;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Kind;
use crate::metrics::Series;
use crate::names;
use crate::watch::Watched;

const OPTIONS: &[&str] = &[
    "fallthrough",
    "fallthrough_unsupported",
    "no_reverse",
    "reload",
    "ttl",
];

/// Names and addresses. Built whole, then only read.
#[derive(Default)]
struct Table {
    /// By wire name; `*` as the first label stands for any one label.
    addresses: HashMap<Vec<u8>, Vec<IpAddr>>,
    names: HashMap<IpAddr, Vec<Name>>,
}

struct Hosts {
    zones: Vec<Name>,
    table: Arc<ArcSwap<Table>>,
    file: Watched,
    path: PathBuf,
    ttl: u32,
    fallthrough: Fallthrough,
    /// Types that no hosts file holds fall through as well, for names that it does hold.
    fallthrough_unsupported: bool,
    read: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Reads `hosts [FILE [ZONE...]] { [ADDRESS NAME...]; ttl N; no_reverse; reload D; fallthrough [ZONE...];
/// fallthrough_unsupported }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let (path, words) = match line.args.split_first() {
        Some((file, words)) => (setup.path(&file.text), words),
        None => (PathBuf::from("/etc/hosts"), [].as_slice()),
    };
    let mut ttl = 3600;
    let mut reverse = true;
    let mut reload = Duration::from_secs(5);
    let mut fallthrough = Fallthrough::Never;
    let mut unsupported = None;
    let mut inline = String::new();
    for option in &line.block {
        match option.name.text.as_str() {
            "ttl" => ttl = option.exactly::<1>()?[0].number(1, 65_535)?,
            "no_reverse" => reverse = option.exactly::<0>().map(|_| false)?,
            "reload" => reload = option.exactly::<1>()?[0].duration()?,
            "fallthrough" => fallthrough = Fallthrough::read(option)?,
            "fallthrough_unsupported" => {
                option.exactly::<0>()?;
                unsupported = Some(option);
            }
            address if address.parse::<IpAddr>().is_ok() => {
                inline.push_str(address);
                for word in option.between(1, usize::MAX)? {
                    names::parse(&word.text).map_err(|error| {
                        word.error(format!("hosts: {error}"), "write ADDRESS NAME...")
                    })?;
                    inline.push(' ');
                    inline.push_str(&word.text);
                }
                inline.push('\n');
            }
            _ => return Err(option.unknown("hosts", OPTIONS)),
        }
    }
    if let (Some(option), Fallthrough::Never) = (unsupported, &fallthrough) {
        return Err(option.error(
            "hosts: fallthrough_unsupported without fallthrough",
            "add a line `fallthrough`, whose zones hold for both",
        ));
    }
    let registry = &setup.environment.metrics;
    let gauge = |name, help| registry.family(name, help, Kind::Gauge, &[]).with(&[]);
    let entries = gauge(
        "coredns_hosts_entries",
        "The combined number of entries in hosts and Corefile.",
    );
    let reloaded = gauge(
        "coredns_hosts_reload_timestamp_seconds",
        "The timestamp of the last reload of hosts file.",
    );
    let table: Arc<ArcSwap<Table>> = Arc::default();
    let swapped = Arc::clone(&table);
    let read: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |text: &str| {
        let table = parse(&[&inline, text], reverse);
        count(&table, &entries, &reloaded);
        swapped.store(Arc::new(table));
    });
    let changed = Arc::clone(&read);
    let file = Watched::new(path.clone(), reload, move |_: &Path, text: &str| {
        changed(text);
    });
    // A file that appears later is found by the watch.
    read(&std::fs::read_to_string(&path).unwrap_or_default());
    Ok(Some(Arc::new(Hosts {
        zones: setup.zones_of(words)?,
        table,
        file,
        path,
        ttl,
        fallthrough,
        fallthrough_unsupported: unsupported.is_some(),
        read,
    })))
}

fn count(table: &Table, entries: &Series, reloaded: &Series) {
    let number: usize = table.addresses.values().map(Vec::len).sum::<usize>() + table.names.len();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    entries.set(number as f64);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    reloaded.set(now.unwrap_or_default().as_secs_f64());
}

/// hosts(5): an address, then names; `#` begins a comment. Lines that are neither are passed over, as resolvers do.
fn parse(texts: &[&str], reverse: bool) -> Table {
    let mut table = Table::default();
    for line in texts.iter().flat_map(|text| text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|word| word.split('%').next());
        let Some(address) = address.and_then(|word| word.parse::<IpAddr>().ok()) else {
            continue;
        };
        // Go's way: an IPv4 address in an IPv6 one is the former.
        let address = address.to_canonical();
        for name in words.filter_map(|word| names::parse(word).ok()) {
            let known = table.addresses.entry(names::wire(&name)).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
            let wildcard = name.iter().next() == Some(b"*".as_slice());
            if reverse && !wildcard {
                table.names.entry(address).or_default().push(name);
            }
        }
    }
    table
}

impl Plugin for Hosts {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn start(&self) {
        (self.read)(&std::fs::read_to_string(&self.path).unwrap_or_default());
        self.file.start();
    }

    fn holds(&self, request: &Request) -> bool {
        matching(&self.zones, request.name()).is_some()
            && (!self.records(request).is_empty() || self.exists(request.name()))
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let records = self.records(request);
        let reverse = request.kind() == RecordType::PTR;
        // Addresses are of no zone: what is not here may be elsewhere, whatever `fallthrough` says.
        let elsewhere = match reverse {
            true => records.is_empty(),
            false => matching(&self.zones, request.name()).is_none(),
        };
        if elsewhere {
            return next.serve(request);
        }
        if records.is_empty() && !self.exists(request.name()) {
            if self.fallthrough.covers(request.name()) {
                return next.serve(request);
            }
            // A hosts file has no SOA, so a denial could not be kept by anybody: CoreDNS says SERVFAIL too.
            // It is no failure to be told.
            let message = request.reply(ResponseCode::ServFail);
            return Box::pin(async { Ok(Outcome::answer("hosts", message)) });
        }
        let supported = matches!(
            request.kind(),
            RecordType::A | RecordType::AAAA | RecordType::PTR
        );
        if !supported && self.fallthrough_unsupported && self.fallthrough.covers(request.name()) {
            return next.serve(request);
        }
        Box::pin(async move {
            let mut message = request.reply(ResponseCode::NoError);
            message.metadata.authoritative = true;
            message.answers = records;
            let shown = || format!("{} or lines of the Corefile", self.path.display());
            Ok(Outcome::answer("hosts", message).of(request, shown))
        })
    }
}

impl Table {
    /// The addresses of a name: its own, else those of the wildcard beside it.
    fn of(&self, name: &Name) -> Option<&Vec<IpAddr>> {
        let wire = names::wire(name);
        self.addresses.get(&wire).or_else(|| {
            let label = usize::from(*wire.first()?);
            let parent = wire.get(1 + label..).filter(|_| label > 0)?;
            self.addresses.get(&[b"\x01*".as_slice(), parent].concat())
        })
    }
}

impl Hosts {
    fn exists(&self, name: &Name) -> bool {
        self.table.load().of(name).is_some()
    }

    fn records(&self, request: &Request) -> Vec<Record> {
        let table = self.table.load();
        let name = request.name();
        let addresses = || table.of(name).into_iter().flatten();
        let data: Vec<RData> = match request.kind() {
            RecordType::A => addresses()
                .filter_map(|address| match address {
                    IpAddr::V4(address) => Some(RData::A((*address).into())),
                    IpAddr::V6(_) => None,
                })
                .collect(),
            RecordType::AAAA => addresses()
                .filter_map(|address| match address {
                    IpAddr::V6(address) => Some(RData::AAAA((*address).into())),
                    IpAddr::V4(_) => None,
                })
                .collect(),
            RecordType::PTR => names::address_of_reverse(name)
                .and_then(|address| table.names.get(&address))
                .into_iter()
                .flatten()
                .map(|name| RData::PTR(PTR(name.clone())))
                .collect(),
            _ => Vec::new(),
        };
        data.into_iter()
            .map(|data| Record::from_rdata(name.clone(), self.ttl, data))
            .collect()
    }
}
