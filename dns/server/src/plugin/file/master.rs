//! Master files (RFC 1035, 5): text to records.

use std::path::Path;
use std::path::PathBuf;

use hickory_proto::rr::DNSClass;
use hickory_proto::rr::Name;
use hickory_proto::rr::RData;
use hickory_proto::rr::Record;

use super::rdata;
use super::types;

/// Files inside files.
const INCLUDES_MAX: usize = 8;

/// Records of a zone at most.
const RECORDS_MAX: usize = 10_000_000;

/// A word of a master file: escapes are kept, quotes are not.
#[derive(Clone, Debug)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) quoted: bool,
}

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}: {what}", .file.display())]
pub struct MasterError {
    /// The file.
    pub file: PathBuf,
    /// The line, from one.
    pub line: u32,
    /// What is wrong there.
    pub what: String,
}

/// Reads the records of a file's text.
///
/// # Errors
///
/// When a line is no record and no directive.
pub fn parse(file: &Path, text: &str, origin: &Name) -> Result<Vec<Record>, MasterError> {
    let mut reader = Reader {
        origin: origin.clone(),
        owner: None,
        ttl: None,
        soa_minimum: None,
        records: Vec::new(),
    };
    reader.file(file, text, 0)?;
    Ok(reader.records)
}

/// Reads a single record, as templates write them.
///
/// # Errors
///
/// When the text is not one record.
pub fn record(text: &str, origin: &Name) -> Result<Record, String> {
    let records = parse(Path::new("record"), text, origin).map_err(|error| error.what)?;
    match <[Record; 1]>::try_from(records) {
        Ok([record]) => Ok(record),
        Err(records) => Err(format!("{} records where one is needed", records.len())),
    }
}

struct Reader {
    origin: Name,
    owner: Option<Name>,
    /// `$TTL`, or the TTL of the record before (RFC 2308, 4).
    ttl: Option<u32>,
    soa_minimum: Option<u32>,
    records: Vec<Record>,
}

impl Reader {
    fn file(&mut self, file: &Path, text: &str, depth: usize) -> Result<(), MasterError> {
        for entry in entries(text) {
            let (line, entry) = entry.map_err(|(line, what)| error(file, line, what))?;
            self.entry(file, &entry, depth).map_err(|what| match what {
                Wrong::Here(what) => error(file, line, what),
                Wrong::There(error) => error,
            })?;
        }
        Ok(())
    }

    fn entry(&mut self, file: &Path, entry: &Entry, depth: usize) -> Result<(), Wrong> {
        let words = entry.words.as_slice();
        match words
            .first()
            .map(|word| word.text.to_ascii_uppercase())
            .as_deref()
        {
            None => Ok(()),
            Some("$ORIGIN") => {
                self.origin = rdata::name(argument(words)?, &self.origin)?;
                Ok(())
            }
            Some("$TTL") => {
                self.ttl = Some(
                    ttl(&argument(words)?.text).ok_or_else(|| "$TTL is not a time".to_owned())?,
                );
                Ok(())
            }
            Some("$INCLUDE") => self.include(file, words, depth),
            Some("$GENERATE") => self.generate(words),
            Some(directive) if directive.starts_with('$') => {
                Err(Wrong::Here(format!("unknown directive {directive}")))
            }
            Some(_) => self.record(entry.blank, words).map_err(Wrong::Here),
        }
    }

    fn include(&mut self, file: &Path, words: &[Word], depth: usize) -> Result<(), Wrong> {
        if depth >= INCLUDES_MAX {
            return Err(Wrong::Here(format!(
                "$INCLUDE more than {INCLUDES_MAX} deep"
            )));
        }
        let path = file
            .parent()
            .unwrap_or(Path::new(""))
            .join(&argument(words)?.text);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Wrong::Here(format!("$INCLUDE {}: {error}", path.display())))?;
        let (origin, owner) = (self.origin.clone(), self.owner.clone());
        if let Some(word) = words.get(2) {
            self.origin = rdata::name(word, &self.origin)?;
        }
        self.file(&path, &text, depth + 1).map_err(Wrong::There)?;
        // The file's own origin and owner do not leak out of it.
        self.origin = origin;
        self.owner = owner;
        Ok(())
    }

    /// `$GENERATE FIRST-LAST[/STEP] OWNER [TTL] [CLASS] TYPE DATA` as BIND has it.
    fn generate(&mut self, words: &[Word]) -> Result<(), Wrong> {
        let range = &argument(words)?.text;
        let (range, step) = range.split_once('/').unwrap_or((range, "1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| format!("$GENERATE: {text} is not a number"))
        };
        let (first, last, step) = (number(first)?, number(last)?, number(step)?.max(1));
        if last.saturating_sub(first) / step > 65_536 {
            return Err(Wrong::Here("$GENERATE: more than 65536 records".to_owned()));
        }
        let mut current = first;
        while current <= last {
            let filled = words.iter().skip(2).map(|word| {
                Ok(Word {
                    text: numbered(&word.text, current)?,
                    quoted: word.quoted,
                })
            });
            let filled = filled.collect::<Result<Vec<Word>, String>>()?;
            self.record(false, &filled)?;
            current = current.saturating_add(step);
            if current == u32::MAX {
                break;
            }
        }
        Ok(())
    }

    fn record(&mut self, blank: bool, words: &[Word]) -> Result<(), String> {
        let mut words = words;
        if !blank {
            let (owner, rest) = words.split_first().ok_or("an empty record")?;
            self.owner = Some(rdata::name(owner, &self.origin)?);
            words = rest;
        }
        let owner = self
            .owner
            .clone()
            .ok_or("the first record names no owner")?;
        let (mut own_ttl, mut class) = (None, DNSClass::IN);
        // TTL and class come in either order.
        while let Some((word, rest)) = words.split_first() {
            if let Some(found) = ttl(&word.text).filter(|_| own_ttl.is_none()) {
                own_ttl = Some(found);
            } else if let Some(found) = class_of(&word.text) {
                class = found;
            } else {
                break;
            }
            words = rest;
        }
        let (kind, rest) = words.split_first().ok_or("the record has no type")?;
        let kind = types::kind(&kind.text).ok_or_else(|| format!("unknown type {}", kind.text))?;
        let data = rdata::parse(kind, rest, &self.origin)
            .map_err(|what| format!("{owner} {}: {what}", types::kind_text(kind)))?;
        if let RData::SOA(soa) = &data {
            self.soa_minimum = Some(soa.minimum);
        }
        let ttl = own_ttl.or(self.ttl).or(self.soa_minimum).unwrap_or(3600);
        self.ttl = self.ttl.or(own_ttl);
        if self.records.len() >= RECORDS_MAX {
            return Err(format!("more than {RECORDS_MAX} records"));
        }
        let mut record = Record::from_rdata(owner, ttl, data);
        record.dns_class = class;
        self.records.push(record);
        Ok(())
    }
}

/// A word of `$GENERATE`: `$` is the number, `${OFFSET[,WIDTH[,BASE]]}` the number and an offset with so many digits at
/// least in base d, o, x or X; `$$` is a dollar, as is `\$`.
fn numbered(text: &str, number: u32) -> Result<String, String> {
    let mut filled = String::new();
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        match character {
            '\\' if chars.next_if_eq(&'$').is_some() => filled.push('$'),
            '\\' => {
                filled.push('\\');
                filled.extend(chars.next());
            }
            '$' if chars.next_if_eq(&'$').is_some() => filled.push('$'),
            '$' if chars.next_if_eq(&'{').is_some() => {
                let mut inside = String::new();
                loop {
                    match chars.next().ok_or("$GENERATE: ${ is never closed")? {
                        '}' => break,
                        character => inside.push(character),
                    }
                }
                filled.push_str(&modified(&inside, number)?);
            }
            '$' => filled.push_str(&number.to_string()),
            character => filled.push(character),
        }
    }
    Ok(filled)
}

fn modified(modifiers: &str, number: u32) -> Result<String, String> {
    let wrong = || format!("$GENERATE: ${{{modifiers}}} is not ${{OFFSET[,WIDTH[,d|o|x|X]]}}");
    let mut parts = modifiers.split(',');
    let offset: i64 = parts.next().unwrap_or("").parse().map_err(|_| wrong())?;
    let width: usize = parts.next().unwrap_or("0").parse().map_err(|_| wrong())?;
    let base = parts.next().unwrap_or("d");
    let number = i64::from(number).saturating_add(offset);
    if number < 0 || width > 255 || parts.next().is_some() {
        return Err(wrong());
    }
    Ok(match base {
        "d" => format!("{number:0width$}"),
        "o" => format!("{number:0width$o}"),
        "x" => format!("{number:0width$x}"),
        "X" => format!("{number:0width$X}"),
        _ => return Err(wrong()),
    })
}

enum Wrong {
    Here(String),
    There(MasterError),
}

impl From<String> for Wrong {
    fn from(what: String) -> Self {
        Self::Here(what)
    }
}

fn error(file: &Path, line: u32, what: String) -> MasterError {
    MasterError {
        file: file.to_path_buf(),
        line,
        what,
    }
}

fn argument(words: &[Word]) -> Result<&Word, String> {
    words
        .get(1)
        .ok_or_else(|| "the directive lacks its argument".to_owned())
}

fn class_of(text: &str) -> Option<DNSClass> {
    match text.to_ascii_uppercase().as_str() {
        "IN" => Some(DNSClass::IN),
        "CH" => Some(DNSClass::CH),
        "HS" => Some(DNSClass::HS),
        _ => None,
    }
}

/// Seconds, or BIND's numbers with units: `1h30m`.
pub(super) fn ttl(text: &str) -> Option<u32> {
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut total, mut number) = (0u32, None::<u32>);
    for octet in text.bytes() {
        if octet.is_ascii_digit() {
            let digit = u32::from(octet - b'0');
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match octet.to_ascii_lowercase() {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    (number.is_none() && !text.is_empty()).then_some(total)
}

/// A line, or several within parentheses.
struct Entry {
    /// It began with white space: the owner is that of the record before.
    blank: bool,
    words: Vec<Word>,
}

/// The entries of a text with the line that each begins on.
fn entries(text: &str) -> impl Iterator<Item = Result<(u32, Entry), (u32, String)>> {
    let mut chars = text.chars().peekable();
    let mut line = 1;
    std::iter::from_fn(move || {
        chars.peek()?;
        let began = line;
        let blank = chars.peek().is_some_and(|first| first.is_whitespace());
        let mut entry = Entry {
            blank,
            words: Vec::new(),
        };
        let (mut open, mut word) = (0usize, String::new());
        let end = |entry: &mut Entry, word: &mut String| {
            if !word.is_empty() {
                let text = std::mem::take(word);
                entry.words.push(Word {
                    text,
                    quoted: false,
                });
            }
        };
        while let Some(character) = chars.next() {
            match character {
                ';' => while chars.next_if(|next| *next != '\n').is_some() {},
                '\n' => {
                    line += 1;
                    end(&mut entry, &mut word);
                    if open == 0 {
                        break;
                    }
                }
                '(' => {
                    end(&mut entry, &mut word);
                    open += 1;
                }
                ')' => {
                    end(&mut entry, &mut word);
                    if open == 0 {
                        return Some(Err((
                            line,
                            "a parenthesis is closed that is not open".to_owned(),
                        )));
                    }
                    open -= 1;
                }
                '"' if word.is_empty() => {
                    let mut text = String::new();
                    loop {
                        match chars.next() {
                            None => {
                                return Some(Err((began, "a quote is never closed".to_owned())));
                            }
                            Some('"') => break,
                            Some('\\') => {
                                text.push('\\');
                                text.extend(chars.next());
                            }
                            Some(character) => {
                                line += u32::from(character == '\n');
                                text.push(character);
                            }
                        }
                    }
                    entry.words.push(Word { text, quoted: true });
                }
                '\\' => {
                    word.push('\\');
                    word.extend(chars.next());
                }
                // A value in quotes after its key (RFC 9460 section 2.1): both stay, for who reads it.
                '"' if word.ends_with('=') => {
                    word.push('"');
                    loop {
                        let Some(next) = chars.next() else {
                            return Some(Err((began, "a quote is never closed".to_owned())));
                        };
                        line += u32::from(next == '\n');
                        word.push(next);
                        match next {
                            '"' => break,
                            '\\' => word.extend(chars.next()),
                            _ => {}
                        }
                    }
                }
                character if character.is_whitespace() => end(&mut entry, &mut word),
                character => word.push(character),
            }
        }
        if open > 0 && chars.peek().is_none() {
            return Some(Err((began, "a parenthesis is never closed".to_owned())));
        }
        end(&mut entry, &mut word);
        Some(Ok((began, entry)))
    })
}
