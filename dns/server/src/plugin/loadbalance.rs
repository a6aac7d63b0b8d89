//! `loadbalance`: changes the order of addresses and mail exchangers, since clients take the first.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use super::weights::Weights;
use crate::message::Request;
use crate::message::Served;

struct Loadbalance {
    weights: Option<Weights>,
    /// Addresses in these go first, in the order of the prefixes.
    prefer: Vec<IpNet>,
    /// Records in an answer at most: the first of the order.
    most: Option<usize>,
}

/// Reads `loadbalance [round_robin | weighted FILE] { reload D; prefer PREFIX...; limit_answers N }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut plugin = Loadbalance {
        weights: None,
        prefer: Vec::new(),
        most: None,
    };
    let mut reload = std::time::Duration::from_secs(30);
    for option in &line.block {
        match option.name.text.as_str() {
            "reload" => {
                let [time] = option.exactly()?;
                reload = time.duration()?;
            }
            "prefer" => {
                for word in option.between(1, usize::MAX)? {
                    plugin.prefer.push(word.prefix()?);
                }
            }
            "limit_answers" => {
                plugin.most = Some(option.exactly::<1>()?[0].number(1, usize::MAX)?);
            }
            _ => {
                return Err(option.unknown("loadbalance", &["limit_answers", "prefer", "reload"]));
            }
        }
    }
    match line.args.as_slice() {
        [] => {}
        [policy] if policy.text == "round_robin" => {}
        [policy, file] if policy.text == "weighted" => {
            plugin.weights = Some(Weights::read(file, setup.path(&file.text), reload)?);
        }
        [policy, ..] => {
            return Err(policy.error(
                format!("loadbalance: {} is not a policy", policy.text),
                "write round_robin, or weighted FILE",
            ));
        }
    }
    Ok(Some(Arc::new(plugin)))
}

impl Plugin for Loadbalance {
    fn name(&self) -> &'static str {
        "loadbalance"
    }

    fn fast(&self) -> crate::fast::Fast {
        match &self.weights {
            None if self.prefer.is_empty() && self.most.is_none() => crate::fast::Fast::Shuffles,
            _ => crate::fast::Fast::Blocks,
        }
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let mut served = next.serve(request).await;
            if matches!(request.kind(), RecordType::AXFR | RecordType::IXFR) {
                return served;
            }
            if let Ok(outcome) = &mut served
                && let Some(message) = outcome.message_mut()
            {
                self.order(message);
            }
            served
        })
    }

    fn start(&self) {
        if let Some(weights) = &self.weights {
            weights.watch();
        }
    }
}

impl Loadbalance {
    fn order(&self, message: &mut Message) {
        match &self.weights {
            // Weights choose who is first; the others keep their places.
            Some(weights) => weights.first(&mut message.answers),
            None => {
                shuffle(&mut message.answers);
                shuffle(&mut message.authorities);
                shuffle(&mut message.additionals);
            }
        }
        if !self.prefer.is_empty() {
            message.answers.sort_by_key(|record| self.rank(record));
        }
        if let Some(most) = self.most {
            message.answers.truncate(most);
        }
    }

    /// Aliases stay in front; then addresses by the prefix that holds them; then all others.
    fn rank(&self, record: &Record) -> usize {
        let address = match &record.data {
            RData::CNAME(_) => return 0,
            RData::A(address) => std::net::IpAddr::V4(address.0),
            RData::AAAA(address) => std::net::IpAddr::V6(address.0),
            _ => return self.prefer.len() + 2,
        };
        let place = self.prefer.iter().position(|net| net.contains(&address));
        place.unwrap_or(self.prefer.len()) + 1
    }
}

/// Shuffles addresses and exchangers among their own places, so that aliases keep theirs. DNSSEC signatures too:
/// their order within a section means nothing.
fn shuffle(records: &mut [Record]) {
    let movable: Vec<usize> = records
        .iter()
        .enumerate()
        .filter(|(_, record)| matches!(record.data, RData::A(_) | RData::AAAA(_) | RData::MX(_)))
        .map(|(index, _)| index)
        .collect();
    for last in (1..movable.len()).rev() {
        let other = fastrand::usize(..=last);
        if let (Some(&a), Some(&b)) = (movable.get(last), movable.get(other)) {
            records.swap(a, b);
        }
    }
}
