//! The file of `loadbalance weighted`: for a name, addresses and how often each is to be the first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;

use crate::corefile::ConfigError;
use crate::corefile::Token;
use crate::names;
use crate::watch::Watched;

type Table = HashMap<Vec<u8>, Vec<(IpAddr, u32)>>;

pub(super) struct Weights {
    table: Arc<ArcSwap<Table>>,
    file: Watched,
}

impl Weights {
    pub(super) fn read(word: &Token, path: PathBuf, reload: Duration) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(&path).map_err(|error| {
            word.error(
                format!("loadbalance: {}: {error}", path.display()),
                "name a readable file of weights",
            )
        })?;
        let table = parse(&text).map_err(|(line, what)| ConfigError {
            file: Arc::from(path.display().to_string()),
            line,
            what,
            remedy: "write a name on a line, then lines of an address and a weight from 1 to 255"
                .to_owned(),
        })?;
        let table = Arc::new(ArcSwap::from_pointee(table));
        let swapped = Arc::clone(&table);
        let file = Watched::new(path, reload, move |path, text| match parse(text) {
            Ok(table) => swapped.store(Arc::new(table)),
            Err((line, what)) => {
                tracing::error!("{}:{line}: {what}; the weights before stay", path.display());
            }
        });
        Ok(Self { table, file })
    }

    pub(super) fn watch(&self) {
        self.file.start();
    }

    /// Puts one of the addresses in front, drawn by weight; addresses without a weight count as one.
    pub(super) fn first(&self, answers: &mut [Record]) {
        let table = self.table.load();
        let weigh = |record: &Record| {
            let address = match &record.data {
                RData::A(address) => IpAddr::V4(address.0),
                RData::AAAA(address) => IpAddr::V6(address.0),
                _ => return 0,
            };
            let weights = table.get(&names::wire(&record.name));
            let found =
                weights.and_then(|weights| weights.iter().find(|(other, _)| *other == address));
            found.map_or(1, |(_, weight)| *weight)
        };
        if !answers
            .iter()
            .any(|record| table.contains_key(&names::wire(&record.name)))
        {
            return;
        }
        let total: u32 = answers.iter().map(weigh).sum();
        if total == 0 {
            return;
        }
        let mut drawn = fastrand::u32(..total);
        let mut chosen = None;
        for (index, record) in answers.iter().enumerate() {
            let weight = weigh(record);
            if drawn < weight {
                chosen = Some(index);
                break;
            }
            drawn -= weight;
        }
        let place = answers.iter().position(|record| weigh(record) > 0);
        if let (Some(chosen), Some(place)) = (chosen, place) {
            answers.swap(chosen, place);
        }
    }
}

/// Names stand alone on a line; an address and its weight follow on lines of their own.
fn parse(text: &str) -> Result<Table, (u32, String)> {
    let mut table = Table::new();
    let mut current = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &current) {
            ([], _) => {}
            ([name], _) => {
                let name = names::parse(name).map_err(|error| (number, error))?;
                current = Some(names::wire(&name));
            }
            ([address, weight], Some(name)) => {
                let address = address
                    .parse()
                    .map_err(|_| (number, format!("{address:?} is not an address")))?;
                let weight = weight.parse::<u8>().ok().filter(|weight| *weight > 0);
                let weight = weight.ok_or_else(|| {
                    (
                        number,
                        "the weight is not a number from 1 to 255".to_owned(),
                    )
                })?;
                table
                    .entry(name.clone())
                    .or_default()
                    .push((address, u32::from(weight)));
            }
            ([_, _], None) => return Err((number, "an address before any name".to_owned())),
            _ => return Err((number, "more than two words".to_owned())),
        }
    }
    Ok(table)
}
