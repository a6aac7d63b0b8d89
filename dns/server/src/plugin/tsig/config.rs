//! What the lines of a Corefile, and files of keys, say of `tsig`.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::op::OpCode;
use hickory_proto::rr::RecordType;

use super::Tsig;
use crate::corefile::ConfigError;
use crate::corefile::Directive;
use crate::corefile::Token;
use crate::names;
use crate::plugin::asked_kind;
use crate::plugin::setup::Made;
use crate::plugin::setup::Setup;

/// What must be signed of a kind of things.
pub(super) enum Required<T> {
    All,
    These(Vec<T>),
}

impl<T: PartialEq> Required<T> {
    /// The words of an option: `all`, `none`, or names that `named` knows.
    fn read(
        option: &Directive,
        named: impl Fn(&Token) -> Result<T, ConfigError>,
    ) -> Result<Self, ConfigError> {
        Ok(match option.between(1, usize::MAX)? {
            [all] if all.text == "all" => Self::All,
            [none] if none.text == "none" => Self::These(Vec::new()),
            words => Self::These(words.iter().map(named).collect::<Result<_, _>>()?),
        })
    }

    pub(super) fn has(&self, asked: &T) -> bool {
        match self {
            Self::All => true,
            Self::These(these) => these.contains(asked),
        }
    }
}

/// Reads `tsig [ZONE...] { secret NAME KEY; secrets FILE; require all|none|TYPE...; require_opcode all|none|OPCODE...
/// }`.
pub(in crate::plugin) fn make(setup: &mut Setup<'_>) -> Made {
    let line = setup.once()?;
    let mut keys = BTreeMap::new();
    let mut required = Required::These(Vec::new());
    let mut required_opcodes = Required::These(Vec::new());
    for option in &line.block {
        match option.name.text.as_str() {
            "secret" => {
                let [name, secret] = option.exactly()?;
                keys.insert(owner(name)?, decode(secret, &secret.text)?);
            }
            "secrets" => {
                let [file] = option.exactly()?;
                let text = std::fs::read_to_string(setup.path(&file.text)).map_err(|error| {
                    file.error(
                        format!("tsig: {}: {error}", file.text),
                        "name a file of keys as BIND writes them",
                    )
                })?;
                for (name, secret) in bind_keys(&text) {
                    let name = names::parse(&name)
                        .map_err(|error| file.error(error, "mend the key's name"))?;
                    keys.insert(names::wire(&name), decode(file, &secret)?);
                }
            }
            "require" => required = Required::read(option, kind)?,
            "require_opcode" => required_opcodes = Required::read(option, opcode)?,
            _ => {
                let known = ["require", "require_opcode", "secret", "secrets"];
                return Err(option.unknown("tsig", &known));
            }
        }
    }
    Ok(Some(Arc::new(Tsig {
        zones: setup.zones_of(&line.args)?,
        keys,
        required,
        required_opcodes,
    })))
}

fn kind(word: &Token) -> Result<RecordType, ConfigError> {
    asked_kind(&word.text).ok_or_else(|| {
        word.error(
            format!("tsig: {} is not a type", word.text),
            "write all, none, or types such as AXFR",
        )
    })
}

fn opcode(word: &Token) -> Result<OpCode, ConfigError> {
    let number = match word.text.to_ascii_uppercase().as_str() {
        "QUERY" => 0,
        "IQUERY" => 1,
        "STATUS" => 2,
        "NOTIFY" => 4,
        "UPDATE" => 5,
        _ => {
            return Err(word.error(
                format!("tsig: {} is not an opcode", word.text),
                "write all, none, or some of QUERY, IQUERY, STATUS, NOTIFY and UPDATE",
            ));
        }
    };
    Ok(OpCode::from_u8(number))
}

fn owner(word: &Token) -> Result<Vec<u8>, ConfigError> {
    let name =
        names::parse(&word.text).map_err(|error| word.error(error, "write secret NAME KEY"))?;
    Ok(names::wire(&name))
}

fn decode(word: &Token, secret: &str) -> Result<Arc<Vec<u8>>, ConfigError> {
    let octets = STANDARD.decode(secret).map_err(|error| {
        word.error(
            format!("tsig: the key is not base 64: {error}"),
            "write the key as tsig-keygen prints it",
        )
    })?;
    Ok(Arc::new(octets))
}

/// `key "NAME" { algorithm ...; secret "KEY"; };` as BIND writes it.
fn bind_keys(text: &str) -> Vec<(String, String)> {
    let spaced = text.replace(['{', '}', ';', '"'], " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (mut keys, mut name) = (Vec::new(), None);
    for pair in words.windows(2) {
        match pair {
            ["key", found] => name = Some((*found).to_owned()),
            ["secret", secret] => keys.extend(name.take().map(|name| (name, (*secret).to_owned()))),
            _ => {}
        }
    }
    keys
}
