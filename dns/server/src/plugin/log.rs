//! `log`: a line for each query, in the common log format or in one of the user's.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;

use super::Next;
use super::Plugin;
use super::prometheus::code_label;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use super::setup::zones;
use crate::message::Metadata;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::names;
use crate::plugin::file::types;

/// The common format.
const COMMON: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration}";
/// The common format with the opcode in front of the sizes.
const COMBINED: &str = "{remote}:{port} - {>id} \"{type} {class} {name} {proto} {size} {>do} {>bufsize}\" {rcode} {>rflags} {rsize} {duration} \"{>opcode}\"";

struct Log {
    rules: Vec<Rule>,
}

struct Rule {
    zones: Vec<Name>,
    format: String,
    classes: Vec<Class>,
    /// What took at least this long is told whatever its class.
    slow: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    All,
    Success,
    Denial,
    Error,
}

/// Reads `log [NAME...] [FORMAT] { class CLASS...; minDuration DURATION }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut rules = Vec::new();
    for line in setup.lines {
        let mut words = line.args.as_slice();
        let mut format = COMMON.to_owned();
        if let Some((last, before)) = words.split_last()
            && last.text.contains('{')
        {
            format = last
                .text
                .replace("{common}", COMMON)
                .replace("{combined}", COMBINED);
            words = before;
        }
        let named = if words.is_empty() {
            vec![Name::root()]
        } else {
            zones(words)?
        };
        let mut classes = Vec::new();
        let mut slow = None;
        for option in &line.block {
            match option.name.text.as_str() {
                "class" => {}
                "minDuration" => {
                    slow = Some(option.exactly::<1>()?[0].duration()?);
                    continue;
                }
                _ => return Err(option.unknown("log", &["class", "minDuration"])),
            }
            for word in option.between(1, usize::MAX)? {
                classes.push(match word.text.as_str() {
                    "all" => Class::All,
                    "success" => Class::Success,
                    "denial" => Class::Denial,
                    "error" => Class::Error,
                    other => {
                        return Err(word.error(
                            format!("log: {other} is not a class of answers"),
                            "write success, denial, error or all",
                        ));
                    }
                });
            }
        }
        if classes.is_empty() {
            classes.push(Class::All);
        }
        rules.push(Rule {
            zones: named,
            format,
            classes,
            slow,
        });
    }
    Ok(match setup.environment.logs_queries {
        true => Some(Arc::new(Log { rules })),
        false => None,
    })
}

impl Plugin for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let served = next.serve(request).await;
            let (code, class, flags, octets) = match &served {
                Ok(Outcome::Answer(response)) => (
                    response.message.metadata.response_code,
                    Class::of(&response.message),
                    flags(&response.message.metadata),
                    response.message.to_vec().map_or(0, |octets| octets.len()),
                ),
                Ok(Outcome::Stream(messages)) => {
                    let octets =
                        |message: &Message| message.to_vec().map_or(0, |octets| octets.len());
                    (
                        ResponseCode::NoError,
                        Class::Success,
                        "qr,aa".to_owned(),
                        messages.iter().map(octets).sum(),
                    )
                }
                Ok(Outcome::Silence(_)) => return served,
                Err(failure) => (failure.code, Class::Error, "-".to_owned(), 0),
            };
            let rule = self
                .rules
                .iter()
                .find(|rule| matching(&rule.zones, request.name()).is_some());
            if let Some(rule) = rule
                && rule.wants(class, request.arrived.elapsed())
            {
                let line = fill(&rule.format, request, code, &flags, octets);
                tracing::info!(target: "dns_server::log", "{line}");
            }
            served
        })
    }
}

impl Rule {
    fn wants(&self, class: Class, took: Duration) -> bool {
        self.classes.contains(&Class::All)
            || self.classes.contains(&class)
            || self.slow.is_some_and(|least| took >= least)
    }
}

impl Class {
    /// A name that exists without records of the type is denied as well; a referral denies nothing.
    fn of(message: &Message) -> Self {
        match message.metadata.response_code {
            ResponseCode::NoError if message.answers.is_empty() => {
                let refers = |record: &Record| record.record_type() == RecordType::NS;
                match message.authorities.iter().any(refers) {
                    true => Self::Success,
                    false => Self::Denial,
                }
            }
            ResponseCode::NoError => Self::Success,
            ResponseCode::NXDomain => Self::Denial,
            _ => Self::Error,
        }
    }
}

fn flags(metadata: &hickory_proto::op::Metadata) -> String {
    let flags = [
        (true, "qr"),
        (metadata.authoritative, "aa"),
        (metadata.truncation, "tc"),
        (metadata.recursion_desired, "rd"),
        (metadata.recursion_available, "ra"),
        (metadata.authentic_data, "ad"),
        (metadata.checking_disabled, "cd"),
    ];
    let set: Vec<&str> = flags
        .iter()
        .filter(|(set, _)| *set)
        .map(|(_, text)| *text)
        .collect();
    set.join(",")
}

/// Fills the placeholders of a format in; unknown ones become a dash.
fn fill(format: &str, request: &Request, code: ResponseCode, flags: &str, octets: usize) -> String {
    let mut line = String::with_capacity(format.len() * 2);
    let mut rest = format;
    while let Some((before, from)) = rest.split_once('{') {
        line.push_str(before);
        let Some((placeholder, after)) = from.split_once('}') else {
            line.push('{');
            rest = from;
            continue;
        };
        line.push_str(&value(placeholder, request, code, flags, octets));
        rest = after;
    }
    line.push_str(rest);
    line
}

fn value(
    placeholder: &str,
    request: &Request,
    code: ResponseCode,
    flags: &str,
    octets: usize,
) -> String {
    let edns = request.message.edns.as_ref();
    match placeholder {
        "type" => types::kind_text(request.kind()),
        // As CoreDNS has it, so that a client that mixes cases at random is no crowd of names.
        "name" => names::text(&request.name().to_lowercase()),
        "class" => types::class_text(request.class()),
        "proto" => request.transport.proto().to_owned(),
        "remote" => bracketed(request.client.ip()),
        "local" => bracketed(request.local.ip()),
        "port" => request.client.port().to_string(),
        "size" => request.raw.len().to_string(),
        "rcode" => code_label(code).to_owned(),
        "rsize" => octets.to_string(),
        "duration" => format!("{}s", request.arrived.elapsed().as_secs_f64()),
        ">rflags" => flags.to_owned(),
        ">id" => request.message.metadata.id.to_string(),
        ">opcode" => u8::from(request.message.metadata.op_code).to_string(),
        ">do" => edns.is_some_and(|edns| edns.flags().dnssec_ok).to_string(),
        ">bufsize" => edns
            .map_or(512, hickory_proto::op::Edns::max_payload)
            .to_string(),
        other => other
            .strip_prefix('/')
            .and_then(|key| request.metadata.get(key))
            .map_or_else(|| "-".to_owned(), Clone::clone),
    }
}

/// Fills the placeholders of metadata in, `{/LABEL}`; what is not known becomes a dash.
pub(super) fn metadata(format: &str, known: &Metadata) -> String {
    let mut line = String::with_capacity(format.len());
    let mut rest = format;
    while let Some((before, from)) = rest.split_once("{/") {
        let Some((label, after)) = from.split_once('}') else {
            break;
        };
        line.push_str(before);
        line.push_str(known.get(label).map_or("-", String::as_str));
        rest = after;
    }
    line.push_str(rest);
    line
}

/// IPv6 addresses stand in brackets, so that a port can follow.
fn bracketed(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::NS;
    use hickory_proto::rr::rdata::SOA;

    use super::*;

    #[test]
    fn classes_of_answers() {
        let name = Name::root();
        let soa = RData::SOA(SOA::new(name.clone(), name.clone(), 1, 1, 1, 1, 1));
        let address = RData::A(std::net::Ipv4Addr::LOCALHOST.into());
        let referral = RData::NS(NS(name.clone()));
        let table = [
            (ResponseCode::NoError, Some(address), None, Class::Success),
            (
                ResponseCode::NoError,
                None,
                Some(soa.clone()),
                Class::Denial,
            ),
            (ResponseCode::NoError, None, None, Class::Denial),
            (ResponseCode::NoError, None, Some(referral), Class::Success),
            (ResponseCode::NXDomain, None, Some(soa), Class::Denial),
            (ResponseCode::Refused, None, None, Class::Error),
        ];
        for (code, answer, authority, class) in table {
            let mut message = Message::query();
            message.metadata.response_code = code;
            let record = |data| Record::from_rdata(name.clone(), 1, data);
            message.answers.extend(answer.map(record));
            message.authorities.extend(authority.map(record));
            assert!(Class::of(&message) == class, "{message:?}");
        }
    }

    #[test]
    fn slow_answers_are_wanted_whatever_their_class() {
        let rule = |classes: &[Class], slow| Rule {
            zones: Vec::new(),
            format: String::new(),
            classes: classes.to_vec(),
            slow,
        };
        let second = Duration::from_secs(1);
        let errors = rule(&[Class::Error], Some(second));
        assert!(errors.wants(Class::Error, Duration::ZERO));
        assert!(errors.wants(Class::Success, second));
        assert!(!errors.wants(Class::Success, Duration::ZERO));
        assert!(!rule(&[Class::Denial], None).wants(Class::Success, second));
        assert!(rule(&[Class::All], None).wants(Class::Success, Duration::ZERO));
    }
}
