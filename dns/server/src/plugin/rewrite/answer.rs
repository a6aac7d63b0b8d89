//! Answers changed so that they fit what the client asked.

use hickory_proto::op::Message;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::opt::EdnsCode;

use super::AnswerRule;
use super::name::Pattern;

/// What is to be done to the answer.
pub(super) enum Revert {
    /// Owners of this name get that name.
    Owner(Name, Name),
    OwnerPattern(Pattern),
    ValuePattern(Pattern),
    Ttl(u32, u32),
    Code {
        from: Option<ResponseCode>,
        to: ResponseCode,
    },
    /// The option is taken out of the answer.
    Option(u16),
    /// Done before the others, since it asks.
    Cname(Pattern),
}

impl Revert {
    /// Adds what a rule has done to answers to a question that it changed from the first name to the second.
    pub(super) fn add(
        rule: &AnswerRule,
        pattern: &Pattern,
        [before, after]: [&Name; 2],
        reverts: &mut Vec<Self>,
    ) {
        match (rule, pattern) {
            (AnswerRule::Own, _) => reverts.push(Self::Owner(after.clone(), before.clone())),
            (AnswerRule::Auto, Pattern::Suffix(from, to)) => {
                let back = Pattern::Suffix(to.clone(), from.clone());
                reverts.extend([Self::OwnerPattern(back.clone()), Self::ValuePattern(back)]);
            }
            (AnswerRule::Auto, _) => {
                let back = Pattern::Domain(after.clone(), before.clone());
                reverts.extend([Self::OwnerPattern(back.clone()), Self::ValuePattern(back)]);
            }
            (AnswerRule::Name(pattern), _) => reverts.push(Self::OwnerPattern(pattern.clone())),
            (AnswerRule::Value(pattern), _) => reverts.push(Self::ValuePattern(pattern.clone())),
        }
    }

    pub(super) fn apply(&self, message: &mut Message) {
        match self {
            Self::Owner(after, before) => each(message, |record| {
                if record.name == *after {
                    record.name = before.clone();
                }
            }),
            Self::OwnerPattern(pattern) => each(message, |record| {
                if let Some(Ok(name)) = pattern.rewrite(&record.name) {
                    record.name = name;
                }
            }),
            Self::ValuePattern(pattern) => each(message, |record| {
                if let Some(name) = value(record)
                    && let Some(Ok(after)) = pattern.rewrite(name)
                {
                    *name = after;
                }
            }),
            Self::Ttl(least, most) => each(message, |record| {
                record.ttl = record.ttl.clamp(*least, *most);
            }),
            Self::Code { from, to } => {
                if from.is_none_or(|from| from == message.metadata.response_code) {
                    message.metadata.response_code = *to;
                }
            }
            Self::Option(code) => {
                if let Some(edns) = &mut message.edns {
                    edns.options_mut().remove(EdnsCode::from(*code));
                }
            }
            Self::Cname(_) => {}
        }
    }
}

fn each(message: &mut Message, change: impl Fn(&mut Record)) {
    message.answers.iter_mut().for_each(&change);
    message.authorities.iter_mut().for_each(&change);
    message.additionals.iter_mut().for_each(&change);
}

/// The name in a record's data.
fn value(record: &mut Record) -> Option<&mut Name> {
    match &mut record.data {
        RData::CNAME(name) => Some(&mut name.0),
        RData::NS(name) => Some(&mut name.0),
        RData::PTR(name) => Some(&mut name.0),
        RData::MX(mx) => Some(&mut mx.exchange),
        RData::SRV(srv) => Some(&mut srv.target),
        RData::NAPTR(naptr) => Some(&mut naptr.replacement),
        RData::SOA(soa) => Some(&mut soa.mname),
        _ => None,
    }
}
