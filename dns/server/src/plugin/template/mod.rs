//! `template`: answers computed from the question by templates.
//!
//! The language is the part of Go's text/template that records need: `{{ .Name }}`, `{{ .Group.x }}`,
//! `{{ index .Match 1 }}`, pipes, variables, `printf`, comparisons, `if`, `with` and `range`. See [`language`].

mod language;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hickory_proto::op::Edns;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::RecordType;
use hickory_proto::rr::rdata::opt::EdnsOption;
use regex::Regex;

use self::language::Template;
use self::language::Value;
use super::Next;
use super::Plugin;
use super::file;
use super::file::master;
use super::setup::Fallthrough;
use super::setup::Made;
use super::setup::Setup;
use super::setup::matching;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::message::Failure;
use crate::message::Outcome;
use crate::message::Request;
use crate::message::Served;
use crate::metrics::Family;
use crate::metrics::Kind;
use crate::names;

const OPTIONS: &[&str] = &[
    "additional",
    "answer",
    "authority",
    "ederror",
    "fallthrough",
    "match",
    "rcode",
    "upstream",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Answer,
    Authority,
    Additional,
}

impl Section {
    fn text(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Authority => "authority",
            Self::Additional => "additional",
        }
    }
}

struct Rule {
    /// The line that begins it.
    place: String,
    class: Option<DNSClass>,
    kind: Option<RecordType>,
    zones: Vec<Name>,
    patterns: Vec<Regex>,
    records: Vec<(Section, String, Template)>,
    code: ResponseCode,
    /// Extended error and its text (RFC 8914).
    extended: Option<(u16, String)>,
    fallthrough: Fallthrough,
}

struct Templates {
    rules: Vec<Rule>,
    matches: Arc<Family>,
    failures: Arc<Family>,
    record_failures: Arc<Family>,
}

/// Reads `template CLASS TYPE [ZONE...] { OPTIONS }`.
pub(super) fn make(setup: &mut Setup<'_>) -> Made {
    let mut rules = Vec::new();
    for line in setup.lines {
        rules.push(rule(setup, line)?);
    }
    let registry = &setup.environment.metrics;
    let counter = |name, help, labels| registry.family(name, help, Kind::Counter, labels);
    Ok(Some(Arc::new(Templates {
        rules,
        matches: counter(
            "coredns_template_matches_total",
            "Counter of template regex matches.",
            &["server", "zone", "view", "class", "type"],
        ),
        failures: counter(
            "coredns_template_template_failures_total",
            "Counter of go template failures.",
            &[
                "server", "zone", "view", "class", "type", "section", "template",
            ],
        ),
        record_failures: counter(
            "coredns_template_rr_failures_total",
            "Counter of mis-templated RRs.",
            &[
                "server", "zone", "view", "class", "type", "section", "template",
            ],
        ),
    })))
}

fn rule(setup: &Setup<'_>, line: &Directive) -> Result<Rule, ConfigError> {
    let [class, kind, words @ ..] = line.between(2, usize::MAX)? else {
        return Err(line.error(
            "template lacks arguments",
            "write template CLASS TYPE [ZONE...]",
        ));
    };
    let class_of = |word: &Token| match word.text.to_ascii_uppercase().as_str() {
        "ANY" => Ok(None),
        other => other.parse().map(Some).map_err(|_| {
            word.error(
                format!("template: {} is not a class", word.text),
                "write IN, CH, HS or ANY",
            )
        }),
    };
    let kind_of = |word: &Token| match word.text.to_ascii_uppercase().as_str() {
        "ANY" => Ok(None),
        other => file::types::kind(other).map(Some).ok_or_else(|| {
            word.error(
                format!("template: {} is not a type", word.text),
                "write A, AAAA, TXT, ... or ANY",
            )
        }),
    };
    let mut rule = Rule {
        place: line.name.place(),
        class: class_of(class)?,
        kind: kind_of(kind)?,
        zones: setup.zones_of(words)?,
        patterns: Vec::new(),
        records: Vec::new(),
        code: ResponseCode::NoError,
        extended: None,
        fallthrough: Fallthrough::Never,
    };
    for option in &line.block {
        option.no_block()?;
        let section = match option.name.text.as_str() {
            "match" => {
                for word in option.between(1, usize::MAX)? {
                    rule.patterns.push(Regex::new(&word.text).map_err(|error| {
                        word.error(
                            format!("template: the pattern is wrong: {error}"),
                            "write a regular expression, quoted if it holds spaces",
                        )
                    })?);
                }
                continue;
            }
            "answer" => Section::Answer,
            "authority" => Section::Authority,
            "additional" => Section::Additional,
            "rcode" => {
                let [word] = option.exactly()?;
                rule.code = super::code(&word.text).ok_or_else(|| {
                    word.error(
                        format!("template: {} is not a response code", word.text),
                        "write NXDOMAIN, REFUSED and such",
                    )
                })?;
                continue;
            }
            "ederror" => {
                let words = option.between(1, 2)?;
                let text = words
                    .get(1)
                    .map(|word| word.text.clone())
                    .unwrap_or_default();
                if let Some(word) = words.first() {
                    rule.extended = Some((word.number(0, u16::MAX)?, text));
                }
                continue;
            }
            "fallthrough" => {
                rule.fallthrough = Fallthrough::read(option)?;
                continue;
            }
            "upstream" => continue,
            _ => return Err(option.unknown("template", OPTIONS)),
        };
        for word in option.between(1, usize::MAX)? {
            let template = Template::parse(&word.text).map_err(|error| {
                word.error(
                    format!("template: {error}"),
                    "write a record with {{ .Name }} and such in it, in quotes",
                )
            })?;
            rule.records.push((section, word.text.clone(), template));
        }
    }
    Ok(rule)
}

impl Plugin for Templates {
    fn name(&self) -> &'static str {
        "template"
    }

    fn serve<'a>(&'a self, request: &'a mut Request, next: Next<'a>) -> BoxFuture<'a, Served> {
        Box::pin(async move {
            for rule in &self.rules {
                let class = rule.class.is_none_or(|class| class == request.class());
                let kind = rule.kind.is_none_or(|kind| kind == request.kind());
                let Some(zone) = matching(&rule.zones, request.name()).filter(|_| class && kind)
                else {
                    continue;
                };
                let Some(data) = rule.data(zone, request) else {
                    if rule.fallthrough.covers(request.name()) {
                        continue;
                    }
                    // As CoreDNS: whether the name exists is not known.
                    let cause = format!("no pattern fits {}", request.name());
                    return Err(Failure::new("template", cause));
                };
                return self.answer(rule, zone, &data, request).await;
            }
            next.serve(request).await
        })
    }
}

impl Templates {
    async fn answer(&self, rule: &Rule, zone: &Name, data: &Value, request: &Request) -> Served {
        let (class, kind) = (
            file::types::class_text(request.class()),
            file::types::kind_text(request.kind()),
        );
        let zone_text = zone.to_string();
        let labels = [
            &*request.server,
            &*zone_text,
            &*request.view,
            &*class,
            &*kind,
        ];
        self.matches.with(&labels).increment();
        let mut message = request.reply(rule.code);
        message.metadata.authoritative = true;
        let mut targets = Vec::new();
        for (section, text, template) in &rule.records {
            let failed = |family: &Family, error: String| {
                let [server, zone, view, class, kind] = labels;
                family
                    .with(&[server, zone, view, class, kind, section.text(), text])
                    .increment();
                Failure::new("template", format!("{}: {error}", section.text()))
            };
            let line = template
                .render(data)
                .map_err(|error| failed(&self.failures, error))?;
            let record: Record = master::record(&line, &Name::root())
                .map_err(|error| failed(&self.record_failures, format!("{line:?}: {error}")))?;
            if let RData::CNAME(target) = &record.data
                && *section == Section::Answer
                && matches!(request.kind(), RecordType::A | RecordType::AAAA)
            {
                targets.push(target.0.clone());
            }
            match section {
                Section::Answer => message.add_answer(record),
                Section::Authority => message.add_authority(record),
                Section::Additional => message.add_additional(record),
            };
        }
        for target in targets {
            file::follow(request, target, &mut message).await;
        }
        if let (Some((code, text)), true) = (&rule.extended, request.message.edns.is_some()) {
            let mut octets = code.to_be_bytes().to_vec();
            octets.extend_from_slice(text.as_bytes());
            let edns = message.edns.get_or_insert_with(Edns::new);
            edns.options_mut().insert(EdnsOption::Unknown(15, octets));
        }
        Ok(Outcome::answer("template", message).of(request, || rule.place.clone()))
    }
}

impl Rule {
    /// What templates can name, if one of the patterns fits.
    fn data(&self, zone: &Name, request: &Request) -> Option<Value> {
        let name = names::text(&request.name().to_lowercase());
        let (mut matched, mut groups) = (vec![name.clone()], Vec::new());
        if !self.patterns.is_empty() {
            let (pattern, found) = self
                .patterns
                .iter()
                .find_map(|pattern| pattern.captures(&name).map(|found| (pattern, found)))?;
            let text = |index| {
                found
                    .get(index)
                    .map_or("", |group| group.as_str())
                    .to_owned()
            };
            matched = (0..found.len()).map(text).collect();
            groups = pattern
                .capture_names()
                .enumerate()
                .filter_map(|(index, name)| Some((name?.to_owned(), Value::Text(text(index)))))
                .collect();
        }
        for (index, group) in matched.iter().enumerate() {
            groups.push((index.to_string(), Value::Text(group.clone())));
        }
        let text = |text: String| Value::Text(text);
        let metadata = request.metadata.iter();
        Some(Value::Struct(
            [
                ("Zone", text(names::text(zone))),
                ("Name", text(name)),
                ("Class", text(file::types::class_text(request.class()))),
                ("Type", text(file::types::kind_text(request.kind()))),
                (
                    "Match",
                    Value::List(matched.into_iter().map(Value::Text).collect()),
                ),
                ("Group", Value::Map(groups.into_iter().collect())),
                (
                    "Remote",
                    text(request.client.ip().to_canonical().to_string()),
                ),
                ("Message", message(request)),
                ("Question", question(request)),
                (
                    "Meta",
                    Value::Map(
                        metadata
                            .map(|(key, value)| ((*key).to_owned(), text(value.clone())))
                            .collect(),
                    ),
                ),
                (
                    "Reverse",
                    names::address_of_reverse(request.name())
                        .map_or(Value::Text(String::new()), |address| {
                            text(address.to_string())
                        }),
                ),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        ))
    }
}

/// The query's header and question, by the names that Go's library for DNS has for them: fields of the header are the
/// message's, too.
fn message(request: &Request) -> Value {
    let metadata = &request.message.metadata;
    let header = [
        ("Id", Value::Number(i64::from(metadata.id))),
        (
            "Opcode",
            Value::Number(i64::from(u8::from(metadata.op_code))),
        ),
        ("RecursionDesired", Value::Bool(metadata.recursion_desired)),
        ("CheckingDisabled", Value::Bool(metadata.checking_disabled)),
        ("AuthenticatedData", Value::Bool(metadata.authentic_data)),
        ("Authoritative", Value::Bool(metadata.authoritative)),
        (
            "RecursionAvailable",
            Value::Bool(metadata.recursion_available),
        ),
        ("Response", Value::Bool(false)),
        ("Truncated", Value::Bool(metadata.truncation)),
        (
            "Rcode",
            Value::Number(i64::from(u16::from(metadata.response_code))),
        ),
    ];
    let header = BTreeMap::from(header.map(|(key, value)| (key.to_owned(), value)));
    let mut message = header.clone();
    message.insert("MsgHdr".to_owned(), Value::Struct(header));
    let question = Value::List(vec![question(request)]);
    message.insert("Question".to_owned(), question);
    Value::Struct(message)
}

fn question(request: &Request) -> Value {
    let number = |number: u16| Value::Number(i64::from(number));
    let fields = [
        ("Name", Value::Text(names::text(request.name()))),
        ("Qtype", number(request.kind().into())),
        ("Qclass", number(request.class().into())),
    ];
    Value::Struct(fields.map(|(key, value)| (key.to_owned(), value)).into())
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use hickory_proto::op::Query;

    use super::*;
    use crate::message::Transport;

    #[test]
    fn fields_of_the_message() {
        let mut query = Message::query();
        query.metadata.id = 7;
        query.metadata.recursion_desired = true;
        let name = Name::from_ascii("W.example.").unwrap();
        query.add_query(Query::query(name, RecordType::TXT));
        let here = "127.0.0.1:53".parse().unwrap();
        let request = Request::new(query, bytes::Bytes::new(), here, here, Transport::Udp);
        let data = Value::Struct([("Message".to_owned(), message(&request))].into());
        for (template, expected) in [
            (
                "{{ (index .Message.Question 0).Name }}",
                Ok("W.example.".to_owned()),
            ),
            (
                "{{ .Message.MsgHdr.Id }}{{ .Message.Id }}",
                Ok("77".to_owned()),
            ),
            ("{{ .Message.RecursionDesired }}", Ok("true".to_owned())),
            ("{{ .Message.Nope }}", Err("there is no .Nope".to_owned())),
        ] {
            let template = Template::parse(template).unwrap();
            assert_eq!(template.render(&data), expected);
        }
    }
}
