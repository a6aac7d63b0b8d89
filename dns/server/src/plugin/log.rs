//! `log`: a line for each query, in the common log format or in one of the user's.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;

use super::Next;
use super::Plugin;
use super::prometheus::code_label;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use super::setup::zones;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;

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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    All,
    Success,
    Denial,
    Error,
}

/// Reads `log [NAME...] [FORMAT] { class CLASS... }`.
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
        for option in &line.block {
            if option.name.text != "class" {
                return Err(option.unknown("log", &["class"]));
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
        });
    }
    Ok(Some(Arc::new(Log { rules })))
}

impl Plugin for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            let served = next.serve(request).await;
            let (code, flags, octets) = match &served {
                Ok(Outcome::Answer(response)) => (
                    response.message.metadata.response_code,
                    flags(&response.message.metadata),
                    response.message.to_vec().map_or(0, |octets| octets.len()),
                ),
                Ok(Outcome::Stream(messages)) => {
                    (ResponseCode::NoError, "qr,aa".to_owned(), messages.len())
                }
                Ok(Outcome::Silence(_)) => return served,
                Err(failure) => (failure.code, "-".to_owned(), 0),
            };
            let rule = self
                .rules
                .iter()
                .find(|rule| matching(&rule.zones, request.name()).is_some());
            if let Some(rule) = rule
                && rule.classes.iter().any(|class| class.holds(code))
            {
                let line = fill(&rule.format, request, code, &flags, octets);
                tracing::info!(target: "dns_server::log", "{line}");
            }
            served
        })
    }
}

impl Class {
    fn holds(self, code: ResponseCode) -> bool {
        match self {
            Self::All => true,
            Self::Success => code == ResponseCode::NoError,
            Self::Denial => code == ResponseCode::NXDomain,
            Self::Error => !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain),
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
        "type" => request.kind().to_string(),
        "name" => request.name().to_ascii(),
        "class" => request.class().to_string(),
        "proto" => request.transport.proto().to_owned(),
        "remote" => match request.client.ip().to_canonical() {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        },
        "local" => request.local.ip().to_canonical().to_string(),
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
