//! Words of a Corefile. A word is quoted or ends at white space; `#` outside quotes begins a comment.

use std::sync::Arc;

use super::error::ConfigError;

/// A word and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, without quotes, environment variables filled in.
    pub text: String,
    /// The file that it came from.
    pub file: Arc<str>,
    /// The line, from one.
    pub line: u32,
    /// True if it stood in quotes: a quoted brace opens no block.
    pub quoted: bool,
    /// True if it is the first of its line.
    pub first: bool,
    /// How many imports it came through.
    pub depth: u8,
}

impl Token {
    /// Where it stands, as errors name it.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }

    /// An error at this word.
    #[must_use]
    pub fn error(&self, what: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
        ConfigError {
            file: Arc::clone(&self.file),
            line: self.line,
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// True for an unquoted word of exactly this text.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        !self.quoted && self.text == text
    }
}

/// Splits a text into words.
///
/// # Errors
///
/// When a quote is never closed.
pub fn lex(file: &Arc<str>, text: &str, depth: u8) -> Result<Vec<Token>, ConfigError> {
    let mut lexer = Lexer {
        file,
        depth,
        line: 1,
        first: true,
        tokens: Vec::new(),
    };
    lexer.run(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    file: &'a Arc<str>,
    depth: u8,
    line: u32,
    /// No word has been seen on this line yet.
    first: bool,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn run(&mut self, text: &str) -> Result<(), ConfigError> {
        let mut chars = text.chars().peekable();
        let mut word = String::new();
        while let Some(character) = chars.next() {
            match character {
                '\n' => {
                    self.word(&mut word);
                    self.line += 1;
                    self.first = true;
                }
                '\\' if matches!(chars.peek(), Some('\n' | '\r')) => {
                    self.word(&mut word);
                    if chars.next() == Some('\r') && chars.peek() == Some(&'\n') {
                        chars.next();
                    }
                    self.line += 1;
                }
                '\r' => {}
                '#' => {
                    self.word(&mut word);
                    while chars.peek().is_some_and(|next| *next != '\n') {
                        chars.next();
                    }
                }
                '"' if word.is_empty() => self.quoted(&mut chars)?,
                character if character.is_whitespace() => self.word(&mut word),
                character => word.push(character),
            }
        }
        self.word(&mut word);
        Ok(())
    }

    /// The rest of a quoted word. `\"` is a quote; any other backslash stands for itself, so that regular
    /// expressions need no doubling.
    fn quoted(
        &mut self,
        chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    ) -> Result<(), ConfigError> {
        let opened = self.line;
        let mut word = String::new();
        while let Some(character) = chars.next() {
            match character {
                '"' => {
                    self.push(word, true, opened);
                    return Ok(());
                }
                '\\' if chars.peek() == Some(&'"') => {
                    chars.next();
                    word.push('"');
                }
                '\n' => {
                    self.line += 1;
                    word.push('\n');
                }
                character => word.push(character),
            }
        }
        Err(ConfigError {
            file: Arc::clone(self.file),
            line: opened,
            what: "a quote is opened and never closed".to_owned(),
            remedy: "close it with \", and write a quote inside quotes as \\\"".to_owned(),
        })
    }

    fn word(&mut self, word: &mut String) {
        if !word.is_empty() {
            let line = self.line;
            self.push(std::mem::take(word), false, line);
        }
    }

    fn push(&mut self, text: String, quoted: bool, line: u32) {
        self.tokens.push(Token {
            text,
            file: Arc::clone(self.file),
            line,
            quoted,
            first: self.first,
            depth: self.depth,
        });
        self.first = false;
    }
}

/// Fills `{$NAME}` and `{%NAME%}` in from the environment; a variable that is not set is empty.
#[must_use]
pub fn fill_environment(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        filled.push_str(before);
        let found = [("{$", "}"), ("{%", "%}")]
            .iter()
            .find_map(|(open, close)| {
                let inner = from.strip_prefix(open)?;
                let end = inner.find(close)?;
                let (name, after) = inner.split_at(end);
                let named = !name.is_empty() && !name.contains(char::is_whitespace);
                named.then(|| (name, after.get(close.len()..).unwrap_or_default()))
            });
        if let Some((name, after)) = found {
            filled.push_str(&environment(name).unwrap_or_default());
            rest = after;
        } else {
            filled.push('{');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    filled.push_str(rest);
    filled
}
