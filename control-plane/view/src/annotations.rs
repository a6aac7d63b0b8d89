//! What Services and EndpointSlices ask of Fairlead in particular, by annotation.
//!
//! | annotation | of | value |
//! |---|---|---|
//! | `fairlead.io/balancing` | Service | `random` (the default), `maglev` or `least-connection` |
//! | `fairlead.io/weights` | Service | `web-0=3,10.244.0.7=0`: by the name of an endpoint's Pod or by address |
//! | `fairlead.io/flows-max` | Service | how many flows it may have at most, on each node |
//! | `fairlead.io/weight` | EndpointSlice | the weight of each of its endpoints of which the Service says nothing |
//!
//! A weight is a whole number up to [`WEIGHT_MAX`]; who is not named has one. An endpoint of weight zero gets no new
//! connections while another one has more.

use std::collections::BTreeMap;

use model::Choice;

use crate::finding::Finding;
use crate::objects::ObjectMeta;

const BALANCING: &str = "fairlead.io/balancing";
const WEIGHTS: &str = "fairlead.io/weights";
const WEIGHT: &str = "fairlead.io/weight";
const FLOWS_MAX: &str = "fairlead.io/flows-max";

/// The largest weight: a table with a hundred places for each backend tells weights further apart hardly from none.
const WEIGHT_MAX: u16 = 100;

/// By a Pod's name or an address, as written.
pub(crate) type Weights = BTreeMap<String, u16>;

/// Reads how a Service wants to be balanced.
pub(crate) fn choice(meta: &ObjectMeta, findings: &mut Vec<Finding>) -> Choice {
    match meta.annotations.get(BALANCING).map(|value| value.trim()) {
        None | Some("random") => Choice::Random,
        Some("maglev") => Choice::Maglev,
        Some("least-connection") => Choice::LeastConnection,
        Some(other) => {
            findings.push(Finding::Annotation {
                at: BALANCING.to_owned(),
                value: other.to_owned(),
                expected: "not random, maglev or least-connection; random holds",
            });
            Choice::Random
        }
    }
}

/// Reads how many flows a Service may have at most; zero where it does not say.
pub(crate) fn flows_max(meta: &ObjectMeta, findings: &mut Vec<Finding>) -> u32 {
    let Some(text) = meta.annotations.get(FLOWS_MAX) else {
        return 0;
    };
    match text.trim().parse() {
        Ok(number) if number > 0 => number,
        Ok(_) | Err(_) => {
            findings.push(Finding::Annotation {
                at: FLOWS_MAX.to_owned(),
                value: text.clone(),
                expected: "not a whole number of flows above zero; there is no bound of its own",
            });
            0
        }
    }
}

/// Reads the weights that a Service gives to its endpoints.
pub(crate) fn weights(meta: &ObjectMeta, findings: &mut Vec<Finding>) -> Weights {
    let mut weights = Weights::new();
    let text = meta.annotations.get(WEIGHTS).map_or("", String::as_str);
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let read = part
            .split_once('=')
            .and_then(|(name, weight)| Some((name.trim(), weight_of(weight)?)));
        match read {
            Some((name, weight)) if !name.is_empty() => {
                weights.insert(name.to_owned(), weight);
            }
            Some(_) | None => findings.push(Finding::Annotation {
                at: WEIGHTS.to_owned(),
                value: part.to_owned(),
                expected: "not POD=WEIGHT or ADDRESS=WEIGHT with a weight from 0 to 100",
            }),
        }
    }
    weights
}

/// Reads the weight that an EndpointSlice gives to its endpoints.
pub(crate) fn weight(meta: &ObjectMeta, findings: &mut Vec<Finding>) -> Option<u16> {
    let text = meta.annotations.get(WEIGHT)?;
    let weight = weight_of(text);
    if weight.is_none() {
        findings.push(Finding::Annotation {
            at: format!("EndpointSlice {}: {WEIGHT}", meta.name),
            value: text.clone(),
            expected: "not a weight from 0 to 100",
        });
    }
    weight
}

fn weight_of(text: &str) -> Option<u16> {
    let weight: u16 = text.trim().parse().ok()?;
    (weight <= WEIGHT_MAX).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_whole_number_above_zero() {
        for (text, expected) in [
            (None, Some(0)),
            (Some("70"), Some(70)),
            (Some(" 1\n"), Some(1)),
            (Some("0"), None),
            (Some("-1"), None),
            (Some("many"), None),
            (Some("4294967296"), None),
        ] {
            let mut meta = ObjectMeta::default();
            if let Some(text) = text {
                meta.annotations.insert(FLOWS_MAX.into(), text.into());
            }
            let mut findings = Vec::new();
            let bound = flows_max(&meta, &mut findings);
            assert_eq!(bound, expected.unwrap_or(0), "{text:?}");
            assert_eq!(findings.is_empty(), expected.is_some(), "{text:?}");
        }
    }
}
