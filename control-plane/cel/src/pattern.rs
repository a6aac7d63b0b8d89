//! Regular expressions in RE2's syntax, carried out by the regex crate: linear in time, bounded in size.
//!
//! The two syntaxes differ in a few places, which [`translate`] evens out: classes of characters are ASCII in RE2, a
//! brace that begins no repetition is a brace, and within brackets only a few characters mean something.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Class, Hir, HirKind};

/// The most bytes that a compiled expression may take.
const SIZE_MAX: usize = 4 << 20;
/// The most bytes of states that a search keeps.
const CACHE_MAX: usize = 256 << 10;
/// The longest expression.
const LENGTH_MAX: usize = 64 << 10;

/// An expression, compiled at its first use. Equal expressions are one value.
#[derive(Debug)]
pub struct Pattern {
    source: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

static KNOWN: LazyLock<Mutex<BTreeMap<Box<str>, Weak<Pattern>>>> = LazyLock::new(Mutex::default);

impl Pattern {
    /// The expression, checked.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(source: &str) -> Result<Arc<Self>, String> {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pattern) = known.get(source).and_then(Weak::upgrade) {
            return Ok(pattern);
        }
        if source.len() > LENGTH_MAX {
            return Err(format!(
                "error parsing regexp: expression of {} bytes is too large",
                source.len()
            ));
        }
        check(source)?;
        let pattern = Arc::new(Pattern {
            source: source.into(),
            compiled: OnceLock::new(),
        });
        known.retain(|_, pattern| pattern.strong_count() > 0);
        known.insert(source.into(), Arc::downgrade(&pattern));
        Ok(pattern)
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches somewhere in the text. One that is too large to compile matches nothing.
    pub fn matches(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// The compiled form; `None` where it is too large.
    pub fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| compile(&self.source).ok())
            .as_ref()
    }
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translate(source))
        .size_limit(SIZE_MAX)
        .dfa_size_limit(CACHE_MAX)
        .nest_limit(200)
        .build()
}

/// The most states that an expression may stand for.
const STATES_MAX: u64 = 60_000;

/// Whether it can be compiled, told from its syntax: compiling costs more.
fn check(source: &str) -> Result<(), String> {
    let parsed = regex_syntax::ParserBuilder::new()
        .nest_limit(200)
        .build()
        .parse(&translate(source));
    match parsed {
        Ok(hir) if states(&hir) <= STATES_MAX => Ok(()),
        Ok(_) => Err(format!(
            "error parsing regexp: expression is too large: `{source}`"
        )),
        Err(regex_syntax::Error::Parse(error)) => Err(words(
            &error.kind().to_string(),
            source,
            error.span().start.offset,
        )),
        Err(error) => Err(format!(
            "error parsing regexp: {}: `{source}`",
            first_line(&error.to_string())
        )),
    }
}

/// About how many states an expression stands for; a repetition is as many copies.
fn states(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(Class::Unicode(class)) => class.ranges().len() as u64 + 1,
        HirKind::Class(Class::Bytes(class)) => class.ranges().len() as u64 + 1,
        HirKind::Repetition(repetition) => {
            let times = repetition
                .max
                .unwrap_or_else(|| repetition.min.saturating_add(1))
                .max(1);
            states(&repetition.sub).saturating_mul(times.into())
        }
        HirKind::Capture(capture) => states(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(states).fold(1, u64::saturating_add)
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .last()
        .unwrap_or_default()
        .trim_start_matches("error: ")
        .to_owned()
}

/// In the words of Go's parser where they are known.
fn words(kind: &str, source: &str, at: usize) -> String {
    let rest = source.get(at..).unwrap_or(source);
    let (what, shown) = match kind {
        "unclosed group" => ("missing closing )", source),
        "unopened group" => ("unexpected )", source),
        "unclosed character class" => ("missing closing ]", rest),
        "repetition operator missing expression" => (
            "missing argument to repetition operator",
            &rest[..rest.chars().next().map_or(0, char::len_utf8)],
        ),
        "unrecognized escape sequence" => (
            "invalid escape sequence",
            &rest[..rest.char_indices().nth(2).map_or(rest.len(), |(i, _)| i)],
        ),
        other if other.starts_with("look-around") => (
            "invalid or unsupported Perl syntax",
            &rest[..rest.len().min(3)],
        ),
        other if other.starts_with("invalid character class range") => {
            ("invalid character class range", rest)
        }
        other => return format!("error parsing regexp: {other}: `{source}`"),
    };
    format!("error parsing regexp: {what}: `{shown}`")
}

/// From RE2's syntax to the regex crate's.
fn translate(source: &str) -> String {
    let mut out = String::with_capacity(source.len() + 16);
    let chars: Vec<char> = source.chars().collect();
    let mut at = 0;
    let mut class = false;
    let mut class_start = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        match (c, next) {
            ('\\', Some('Q')) if !class => {
                at += 2;
                while at < chars.len() && !(chars[at] == '\\' && chars.get(at + 1) == Some(&'E')) {
                    out.push_str(&regex::escape(&chars[at].to_string()));
                    at += 1;
                }
                at += 2;
                continue;
            }
            // A name or a number in braces, such as \p{L} or \x{e9}, stays as it is.
            ('\\', Some('p' | 'P' | 'x')) if chars.get(at + 2) == Some(&'{') => {
                let end = chars[at..].iter().position(|c| *c == '}');
                let end = end.map_or(chars.len(), |len| at + len + 1);
                out.extend(&chars[at..end]);
                at = end;
                continue;
            }
            ('\\', Some(escaped)) => {
                escape(escaped, class, &mut out);
                at += 2;
                continue;
            }
            ('[', Some(':')) if class => {
                // A named class such as [:alpha:].
                out.push_str("[:");
                at += 2;
                continue;
            }
            ('[', _) if class => out.push_str("\\["),
            ('[', _) => {
                class = true;
                out.push('[');
                if next == Some('^') {
                    out.push('^');
                    at += 1;
                }
                class_start = at + 1;
                if chars.get(class_start) == Some(&']') {
                    out.push_str("\\]");
                    at += 1;
                }
            }
            (']', _) if class && at >= class_start => {
                // The end of a named class, or of the brackets.
                class = named_class_ends(&chars[class_start..at]);
                out.push(']');
            }
            ('&' | '~', _) if class => {
                out.push('\\');
                out.push(c);
            }
            ('-', Some('-')) if class => out.push_str("\\-"),
            ('{', _) if !class => match repetition(&chars[at..]) {
                Some(len) => {
                    out.extend(&chars[at..at + len]);
                    at += len;
                    continue;
                }
                None => out.push_str("\\{"),
            },
            ('}', _) if !class => out.push_str("\\}"),
            _ => out.push(c),
        }
        at += 1;
    }
    out
}

fn escape(escaped: char, class: bool, out: &mut String) {
    let ascii = match (escaped, class) {
        ('d', true) => "0-9",
        ('w', true) => "0-9A-Za-z_",
        ('s', true) => "\\t\\n\\f\\r ",
        ('d', false) => "[0-9]",
        ('w', false) => "[0-9A-Za-z_]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('D', _) => "[^0-9]",
        ('W', _) => "[^0-9A-Za-z_]",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('<', _) => "<",
        ('>', _) => ">",
        _ => {
            out.push('\\');
            out.push(escaped);
            return;
        }
    };
    out.push_str(ascii);
}

/// Whether the characters end in a named class that lacks its bracket: `[:alpha:` or `[:^alpha:`.
fn named_class_ends(chars: &[char]) -> bool {
    let Some((':', before)) = chars.split_last() else {
        return false;
    };
    let name = before
        .iter()
        .rev()
        .take_while(|c| c.is_ascii_alphabetic() || **c == '^')
        .count();
    name > 0 && before[..before.len() - name].ends_with(&['[', ':'])
}

/// How long `{n}`, `{n,}` or `{n,m}` is where one begins here.
fn repetition(chars: &[char]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = chars.iter().skip(from);
        rest.take_while(|c| c.is_ascii_digit()).count()
    };
    let low = digits(1);
    let mut end = 1 + low;
    if chars.get(end) == Some(&',') {
        end += 1;
        end += digits(end);
    }
    (low > 0 && chars.get(end) == Some(&'}')).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_means_the_same_here() {
        let cases = [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^[a-z&&b]+$", "a&b", true),
            (r"^[[a]+$", "[a", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^{x}$", "{x}", true),
            (r"^{1{2}}$", "{11}", true),
            (r"^a{1,2}{x}}$", "aa{x}}", true),
            (r"^[[:^alpha:][:digit:]]+$", "1-", true),
            (r"^[[:alpha:]:]$", ":", true),
            (r"^[a:]]$", ":]", true),
            (r"^a{2}$", "aa", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^\p{L}+$", "é", true),
            (r"^[\w-]+$", "a-b", true),
            (r"^[\w-]+$", "é", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*\/$", "a.b./", true),
            (
                r"^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$",
                "/a%2f&",
                true,
            ),
        ];
        for (source, text, expected) in cases {
            let pattern = Pattern::new(source).unwrap_or_else(|why| panic!("{source}: {why}"));
            assert_eq!(pattern.matches(text), expected, "{source} on {text}");
        }
    }

    #[test]
    fn nonsense_and_excess_are_refused() {
        for source in [
            "(",
            "a)",
            "[",
            "*",
            r"\y",
            "(?=a)",
            "((a{1000}){1000}){1000}",
            &"(".repeat(5000),
        ] {
            let why = Pattern::new(source).unwrap_err();
            assert!(
                why.starts_with("error parsing regexp: "),
                "{source:.20}: {why:.80}"
            );
        }
    }

    #[test]
    fn translating_takes_time_in_proportion() {
        // What was quadratic took minutes here.
        for part in ["{", "{1", "}", "[[:a:]", "{1,", "\\p{"] {
            let source: String = part.repeat(LENGTH_MAX / part.len() * 16);
            assert!(translate(&source).len() >= source.len(), "{part}");
        }
        let classes = format!("[{}]", "[:alpha:]".repeat(100_000));
        assert_eq!(translate(&classes), classes);
    }
}
