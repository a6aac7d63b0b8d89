//! `dns64`: makes IPv6 addresses out of IPv4 ones for clients behind a NAT64 (RFC 6147).

use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use ipnet::Ipv6Net;

use super::Next;
use super::Plugin;
use super::setup::Made;
use super::setup::Setup;
use crate::corefile::ConfigError;
use crate::corefile::Token;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;

/// The well-known prefix (RFC 6052, 2.1).
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

struct Dns64 {
    prefix: Ipv6Net,
    /// Made also where the name has IPv6 addresses of its own.
    translate_all: bool,
    /// For clients that ask over IPv4 too.
    allow_ipv4: bool,
    translated: Arc<Family>,
}

/// Reads `dns64 [PREFIX] { prefix PREFIX; translate_all; allow_ipv4 }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut prefix =
        Ipv6Net::new(PREFIX, 96).map_err(|error| line.error(error.to_string(), "report this"))?;
    if let Some(word) = line.between(0, 1)?.first() {
        prefix = read(word)?;
    }
    let (mut translate_all, mut allow_ipv4) = (false, false);
    for option in &line.block {
        match option.name.text.as_str() {
            "prefix" => prefix = read(option.exactly::<1>()?[0])?,
            "translate_all" => translate_all = option.exactly::<0>().map(|_| true)?,
            "allow_ipv4" => allow_ipv4 = option.exactly::<0>().map(|_| true)?,
            _ => return Err(option.unknown("dns64", &["allow_ipv4", "prefix", "translate_all"])),
        }
    }
    let translated = setup.environment.metrics.family(
        "coredns_dns64_requests_translated_total",
        "Counter of DNS requests translated by dns64.",
        Kind::Counter,
        &["server"],
    );
    Ok(Some(Arc::new(Dns64 {
        prefix,
        translate_all,
        allow_ipv4,
        translated,
    })))
}

fn read(word: &Token) -> Result<Ipv6Net, ConfigError> {
    match word.prefix()? {
        IpNet::V6(prefix) if matches!(prefix.prefix_len(), 32 | 40 | 48 | 56 | 64 | 96) => {
            Ok(prefix.trunc())
        }
        _ => Err(word.error(
            format!("dns64: {} is not a prefix to translate with", word.text),
            "write an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits, as in 64:ff9b::/96",
        )),
    }
}

impl Plugin for Dns64 {
    fn name(&self) -> &'static str {
        "dns64"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        let v6 = request.client.ip().to_canonical().is_ipv6() || self.allow_ipv4;
        let wanted = request.kind() == RecordType::AAAA && request.class() == DNSClass::IN;
        // A client that checks signatures itself must see what was signed (RFC 6147, 5.5).
        let checks = request.dnssec_ok() && request.message.metadata.checking_disabled;
        if !v6 || !wanted || checks {
            return next.serve(request);
        }
        Box::pin(async move {
            let served = next.serve(request).await;
            let Ok(Outcome::Answer(response)) = &served else {
                return served;
            };
            let has = response
                .message
                .answers
                .iter()
                .any(|record| matches!(record.data, RData::AAAA(_)));
            let denied = response.message.metadata.response_code == ResponseCode::NXDomain;
            if denied || (has && !self.translate_all) {
                return served;
            }
            let Ok(mut asked) = request.ask(request.name().clone(), RecordType::A) else {
                return served;
            };
            let Ok(Outcome::Answer(mut found)) = next.serve(&mut asked).await else {
                return served;
            };
            if found.message.metadata.response_code != ResponseCode::NoError
                || !found
                    .message
                    .answers
                    .iter()
                    .any(|record| matches!(record.data, RData::A(_)))
            {
                return served;
            }
            self.translated.with(&[&request.server]).increment();
            // Not longer than the absence of IPv6 addresses may be believed (RFC 6147, 5.1.7).
            let absence =
                response
                    .message
                    .authorities
                    .iter()
                    .find_map(|record| match &record.data {
                        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                        _ => None,
                    });
            let most = absence.unwrap_or(600);
            for record in &mut found.message.answers {
                self.translate(record, most);
            }
            found
                .message
                .answers
                .retain(|record| matches!(record.data, RData::AAAA(_) | RData::CNAME(_)));
            found.message.queries.clone_from(&request.message.queries);
            found.message.authorities.clear();
            found.message.additionals.clear();
            found.message.metadata.authentic_data = false;
            found.plugin = "dns64";
            Ok(Outcome::Answer(found))
        })
    }
}

impl Dns64 {
    fn translate(&self, record: &mut Record, most: u32) {
        if let RData::A(address) = &record.data {
            record.data = RData::AAAA(embed(self.prefix, address.0).into());
            record.ttl = record.ttl.min(most);
        }
    }
}

/// The IPv4 address within the prefix, around bits 64 to 71, which stay zero (RFC 6052, 2.2).
fn embed(prefix: Ipv6Net, address: Ipv4Addr) -> Ipv6Addr {
    let mut octets = prefix.network().octets();
    let start = usize::from(prefix.prefix_len() / 8);
    let places = (start..16).filter(|place| *place != 8);
    for (place, octet) in places.zip(address.octets()) {
        if let Some(there) = octets.get_mut(place) {
            *there = octet;
        }
    }
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of RFC 6052, 2.4.
    #[test]
    fn embedded() {
        let table = [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ];
        for (prefix, expected) in table {
            let embedded = embed(prefix.parse().unwrap(), Ipv4Addr::new(192, 0, 2, 33));
            assert_eq!(embedded, expected.parse::<Ipv6Addr>().unwrap(), "{prefix}");
        }
    }
}
