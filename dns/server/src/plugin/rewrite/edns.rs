//! Options of EDNS that rules set, replace, append to or take away.

use std::net::IpAddr;

use hickory_proto::op::Edns as Record;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::opt::EdnsOption;

use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::message::Request;
use crate::names;

/// Client subnet (RFC 7871).
const SUBNET: u16 = 8;
/// Name server identifier (RFC 5001).
const NSID: u16 = 3;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Set,
    Replace,
    Append,
    Unset,
}

enum Data {
    Octets(Vec<u8>),
    /// Text with placeholders such as `{client_ip}`.
    Variable(String),
    Subnet {
        v4: u8,
        v6: u8,
    },
}

pub(super) struct Edns {
    action: Action,
    code: u16,
    data: Data,
    revert: bool,
}

const REMEDY: &str = "write edns0 local|nsid|subnet set|replace|append|unset ... [revert]";

/// Reads what follows `edns0`.
pub(super) fn read(line: &Directive, words: &[Token]) -> Result<Edns, ConfigError> {
    let (revert, words) = match words {
        [before @ .., last] if last.text == "revert" => (true, before),
        words => (false, words),
    };
    let [kind, action, rest @ ..] = words else {
        return Err(line.error("rewrite: edns0 lacks arguments", REMEDY));
    };
    let action = match action.text.as_str() {
        "set" => Action::Set,
        "replace" => Action::Replace,
        "append" => Action::Append,
        "unset" => Action::Unset,
        other => return Err(action.error(format!("rewrite: unknown edns0 action {other}"), REMEDY)),
    };
    let none = Data::Octets(Vec::new());
    let (code, data) = match (kind.text.as_str(), rest, action) {
        ("nsid", [], _) => (NSID, none),
        ("subnet", [v4, v6], _) => {
            let data = Data::Subnet {
                v4: v4.number(0, 32)?,
                v6: v6.number(0, 128)?,
            };
            (SUBNET, data)
        }
        ("subnet", [], Action::Unset) => (SUBNET, none),
        ("local", [code], Action::Unset) => (number(code)?, none),
        ("local", [code, data], _) => (number(code)?, local(data)?),
        _ => return Err(line.error("rewrite: edns0 has the wrong arguments", REMEDY)),
    };
    Ok(Edns {
        action,
        code,
        data,
        revert,
    })
}

fn number(word: &Token) -> Result<u16, ConfigError> {
    let found = match word.text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => word.text.parse().ok(),
    };
    found.ok_or_else(|| {
        word.error(
            format!("rewrite: {} is not the number of an option", word.text),
            "write as 0xffee",
        )
    })
}

fn local(word: &Token) -> Result<Data, ConfigError> {
    if word.text.starts_with('{') && word.text.ends_with('}') {
        return Ok(Data::Variable(word.text.clone()));
    }
    let Some(hex) = word.text.strip_prefix("0x") else {
        return Ok(Data::Octets(word.text.clone().into_bytes()));
    };
    let digits: Option<Vec<u8>> = hex
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0);
    let digits = digits.ok_or_else(|| {
        word.error(
            format!("rewrite: {} is not hexadecimal", word.text),
            "write pairs of digits",
        )
    })?;
    let pairs = digits.chunks_exact(2);
    Ok(Data::Octets(
        pairs
            .map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | digit))
            .collect(),
    ))
}

impl Edns {
    /// Changes the request; gives the option's number if it is to be taken out of the answer.
    pub(super) fn apply(&self, request: &mut Request) -> Option<u16> {
        let data = self.data(request);
        if self.action == Action::Unset {
            if let Some(edns) = &mut request.message.edns {
                edns.options_mut().remove(EdnsCode::from(self.code));
            }
            return None;
        }
        let record = request.message.edns.get_or_insert_with(Record::new);
        let there = record.option(EdnsCode::from(self.code)).is_some();
        let sets = match self.action {
            Action::Set => true,
            Action::Replace => there,
            Action::Append => !there,
            Action::Unset => false,
        };
        if !sets {
            return None;
        }
        record.options_mut().remove(EdnsCode::from(self.code));
        record
            .options_mut()
            .insert(EdnsOption::Unknown(self.code, data));
        request.asks_nsid |= self.code == NSID;
        (self.revert || self.action == Action::Set).then_some(self.code)
    }

    fn data(&self, request: &Request) -> Vec<u8> {
        match &self.data {
            Data::Octets(octets) => octets.clone(),
            Data::Subnet { v4, v6 } => subnet(request.client.ip().to_canonical(), *v4, *v6),
            Data::Variable(text) => variable(text, request),
        }
    }
}

/// Octets of the addresses and numbers, text of the rest, as CoreDNS sends them.
fn variable(text: &str, request: &Request) -> Vec<u8> {
    let address = |address: IpAddr| match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    match text {
        "{qname}" => names::text(request.name()).into_bytes(),
        "{qtype}" => u16::from(request.kind()).to_be_bytes().to_vec(),
        "{client_ip}" => address(request.client.ip()),
        "{client_port}" => request.client.port().to_be_bytes().to_vec(),
        "{protocol}" => request.transport.proto().as_bytes().to_vec(),
        "{server_ip}" => address(request.local.ip()),
        "{server_port}" => request.local.port().to_be_bytes().to_vec(),
        other => {
            let key = other.trim_matches(['{', '}', '/']);
            let found = request.metadata.get(key);
            found
                .map(|value| value.clone().into_bytes())
                .unwrap_or_default()
        }
    }
}

/// Family, prefix length, scope, and the prefix's octets with the bits behind it zero (RFC 7871, 6).
fn subnet(client: IpAddr, v4: u8, v6: u8) -> Vec<u8> {
    let (family, length, mut octets) = match client {
        IpAddr::V4(address) => (1u16, v4, address.octets().to_vec()),
        IpAddr::V6(address) => (2, v6, address.octets().to_vec()),
    };
    octets.truncate(usize::from(length).div_ceil(8));
    if let Some(last) = octets.last_mut()
        && length % 8 != 0
    {
        *last &= 0xff << (8 - length % 8);
    }
    let mut data = family.to_be_bytes().to_vec();
    data.extend([length, 0]);
    data.extend(octets);
    data
}
