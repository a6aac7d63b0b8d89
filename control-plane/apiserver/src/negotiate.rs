//! What the client can read, by its Accept header: the encoding, and whether it wants the object, a table of printed
//! columns or metadata alone.

use api::status::Status;
use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use crate::query::Query;

/// What can be sent.
const AVAILABLE: &[&str] = &["application/json", "application/yaml", PROTOBUF];
const PROTOBUF: &str = api::protobuf::CONTENT_TYPE;

/// How the body is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    Json,
    /// Indented, for people.
    PrettyJson,
    Yaml,
    /// Of kinds that have such a form; never of a Table.
    Protobuf,
}

/// What is made of the object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    Object,
    /// `Table` of this version of meta.k8s.io.
    Table(&'static str),
    /// `PartialObjectMetadata` or its list, of this version of meta.k8s.io.
    Metadata(&'static str),
}

/// The outcome of the negotiation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Accepted {
    pub(crate) encoding: Encoding,
    pub(crate) form: Form,
}

/// The best of what the client accepts; `protobuf` says whether there is such a form. 406 where there is nothing.
pub(crate) fn negotiate(
    headers: &HeaderMap,
    query: &Query,
    protobuf: bool,
) -> Result<Accepted, Status> {
    let ranges = ranges(headers);
    let found = if ranges.is_empty() {
        Some((Encoding::Json, Form::Object))
    } else {
        ranges.iter().find_map(|range| {
            let encoding = encoding(range, protobuf)?;
            let form = form(range)?;
            let table = matches!(form, Form::Table(_));
            (encoding != Encoding::Protobuf || !table).then_some((encoding, form))
        })
    };
    let (mut encoding, form) = found.ok_or_else(|| {
        let available = if protobuf { AVAILABLE } else { &AVAILABLE[..2] };
        Status::not_acceptable(available)
    })?;
    encoding = for_whom(encoding, headers, query);
    Ok(Accepted { encoding, form })
}

/// How a refusal is written: the best of what the client accepts without any form of it, and JSON where there is none.
pub(crate) fn of_refusal(headers: &HeaderMap, query: &Query, protobuf: bool) -> Encoding {
    let ranges = ranges(headers);
    let mut plain = ranges
        .iter()
        .filter(|range| range.parameter("as").is_empty());
    let found = plain.find_map(|range| encoding(range, protobuf));
    match found {
        Some(found) => for_whom(found, headers, query),
        None if ranges.is_empty() => for_whom(Encoding::Json, headers, query),
        None => Encoding::Json,
    }
}

fn encoding(range: &Range, protobuf: bool) -> Option<Encoding> {
    Some(match range.media.as_str() {
        "application/json" | "application/*" | "*/*" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        PROTOBUF if protobuf => Encoding::Protobuf,
        _ => return None,
    })
}

fn for_whom(encoding: Encoding, headers: &HeaderMap, query: &Query) -> Encoding {
    let pretty = || query.flag("pretty").unwrap_or_else(|| for_people(headers));
    match encoding {
        Encoding::Json if pretty() => Encoding::PrettyJson,
        other => other,
    }
}

/// Parts of an Accept header, the most wanted first.
pub(crate) fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let mut ranges: Vec<Range> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(Range::parse)
        .filter(|range| !range.media.is_empty() && range.quality > 0)
        .collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.quality));
    ranges
}

/// One part of an Accept header.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) media: String,
    parameters: Vec<(String, String)>,
    /// Thousandths.
    quality: u16,
}

impl Range {
    fn parse(text: &str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let mut range = Range {
            media,
            parameters: Vec::new(),
            quality: 1000,
        };
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim_matches('"');
            if name == "q" {
                let quality = value.parse::<f32>().unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 0 and 1000"
                )]
                {
                    range.quality = quality as u16;
                }
            } else {
                range
                    .parameters
                    .push((name.to_ascii_lowercase(), value.to_owned()));
            }
        }
        range
    }

    /// The value of a parameter; empty where there is none.
    pub(crate) fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value)
    }
}

/// `None`: a form that is not served, so that the next part of the header is tried.
fn form(range: &Range) -> Option<Form> {
    let version = match range.parameter("v") {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => "",
    };
    match range.parameter("as") {
        "" => Some(Form::Object),
        _ if range.parameter("g") != "meta.k8s.io" || version.is_empty() => None,
        "Table" => Some(Form::Table(version)),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Form::Metadata(version)),
        _ => None,
    }
}

/// People look through these.
fn for_people(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|prefix| agent.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_be_served_wins() {
        use Encoding::{Json, Protobuf, Yaml};
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                       application/json";
        let cases = [
            ("", Some((Json, Form::Object))),
            ("*/*", Some((Json, Form::Object))),
            ("application/json, */*", Some((Json, Form::Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Some((Protobuf, Form::Object)),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Some((Protobuf, Form::Metadata("v1"))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
                None,
            ),
            (kubectl, Some((Json, Form::Table("v1")))),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                Some((Json, Form::Table("v1beta1"))),
            ),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io,application/yaml",
                Some((Yaml, Form::Object)),
            ),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Some((Json, Form::Metadata("v1"))),
            ),
            (
                "application/yaml;q=0.9,application/json;q=0.1",
                Some((Yaml, Form::Object)),
            ),
            (
                "application/yaml;q=0.1,application/json;q=0.9",
                Some((Json, Form::Object)),
            ),
            ("application/json;stream=watch", Some((Json, Form::Object))),
            ("text/html", None),
            ("application/json;as=Nonsense;g=meta.k8s.io;v=v1", None),
            ("application/json;q=0", Some((Json, Form::Object))),
        ];
        for (accept, expected) in cases {
            let mut headers = HeaderMap::new();
            if !accept.is_empty() {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            let found = negotiate(&headers, &Query::default(), true)
                .ok()
                .map(|a| (a.encoding, a.form));
            assert_eq!(found, expected, "{accept}");
        }
    }
}
