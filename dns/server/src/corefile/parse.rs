//! Words to server blocks.

use std::path::Path;
use std::sync::Arc;

use super::Corefile;
use super::Directive;
use super::OCTETS_MAX;
use super::Server;
use super::error::ConfigError;
use super::import;
use super::import::Snippets;
use super::lex::Token;
use super::lex::fill_environment;
use super::lex::lex;

/// With imports, at most this many words.
const TOKENS_MAX: usize = 1 << 20;

/// Blocks inside blocks.
const NESTING_MAX: usize = 8;

pub(super) fn parse(
    file: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Corefile, ConfigError> {
    let name: Arc<str> = Arc::from(file.display().to_string());
    if text.len() > OCTETS_MAX {
        return Err(ConfigError {
            file: name,
            line: 1,
            what: format!("the file is longer than {OCTETS_MAX} octets"),
            remedy: "name records in zone files, not in the Corefile".to_owned(),
        });
    }
    let mut tokens = lex(&name, text, 0)?;
    tokens.reverse();
    let mut parser = Parser {
        rest: tokens,
        folder: file.parent().unwrap_or(Path::new("")),
        environment,
        snippets: Snippets::new(),
        seen: 0,
    };
    let servers = parser.file()?;
    Ok(Corefile { servers })
}

struct Parser<'a> {
    /// The words still to be read, last first.
    rest: Vec<Token>,
    folder: &'a Path,
    environment: &'a dyn Fn(&str) -> Option<String>,
    snippets: Snippets,
    /// Words read so far.
    seen: usize,
}

impl Parser<'_> {
    fn file(&mut self) -> Result<Vec<Server>, ConfigError> {
        let mut servers = Vec::new();
        while let Some(token) = self.rest.last() {
            if token.is("import") {
                self.splice()?;
            } else if is_snippet(token) {
                self.snippet()?;
            } else if let Some(server) = self.server()? {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    /// `(name) {` words `}`: kept as words, since their arguments are filled in where they are imported.
    fn snippet(&mut self) -> Result<(), ConfigError> {
        let Some(head) = self.rest.pop() else {
            return Ok(());
        };
        let name = head.text.trim_matches(['(', ')']).to_owned();
        if name.is_empty() {
            return Err(head.error("a snippet without a name", "write (name) {"));
        }
        if self.snippets.contains_key(&name) {
            return Err(head.error(
                format!("the snippet {name} is defined twice"),
                "take one away or rename it",
            ));
        }
        match self.rest.pop() {
            Some(open) if open.is("{") => {}
            _ => {
                return Err(head.error(
                    format!("the snippet ({name}) has no block"),
                    "open it with { on the same line",
                ));
            }
        }
        let mut words = Vec::new();
        let mut open = 1usize;
        loop {
            let Some(token) = self.rest.pop() else {
                return Err(unclosed(&head, &format!("the snippet ({name})")));
            };
            if token.is("{") {
                open += 1;
            } else if token.is("}") {
                open -= 1;
            }
            if open == 0 {
                break;
            }
            words.push(Token {
                first: token.first || words.is_empty(),
                ..token
            });
        }
        self.snippets.insert(name, words);
        Ok(())
    }

    fn server(&mut self) -> Result<Option<Server>, ConfigError> {
        let mut keys: Vec<Token> = Vec::new();
        let mut braces = false;
        // A comma at the end of a line, or a key ending in one, carries the list on to the next line.
        let mut carried = true;
        while let Some(token) = self.rest.last() {
            if token.first && !keys.is_empty() && !carried && !token.is("{") {
                break;
            }
            let Some(mut token) = self.rest.pop() else {
                break;
            };
            if token.is("{") {
                if keys.is_empty() {
                    return Err(token.error(
                        "a block without a zone",
                        "write the zones that it serves before the brace, as in `. {`",
                    ));
                }
                braces = true;
                break;
            }
            if token.is("}") {
                return Err(token.error(
                    "a closing brace that closes nothing",
                    "take it away, or look for a { that is missing above",
                ));
            }
            self.fill(&mut token);
            carried = token.text.ends_with(',');
            for part in token.text.split(',').filter(|part| !part.is_empty()) {
                keys.push(Token {
                    text: part.to_owned(),
                    ..token.clone()
                });
            }
        }
        let Some(head) = keys.first().cloned() else {
            return Ok(None);
        };
        let directives = if braces {
            self.lines(Some(&head), 1)?
        } else {
            self.lines(None, 1)?
        };
        Ok(Some(Server { keys, directives }))
    }

    /// Lines up to the closing brace, or to the end of the file if the block has no braces.
    fn lines(
        &mut self,
        head: Option<&Token>,
        nesting: usize,
    ) -> Result<Vec<Directive>, ConfigError> {
        let mut lines = Vec::new();
        loop {
            let Some(token) = self.rest.last() else {
                return match head {
                    Some(head) => Err(unclosed(head, &format!("the block of {}", head.text))),
                    None => Ok(lines),
                };
            };
            if token.is("}") {
                let Some(close) = self.rest.pop() else {
                    return Ok(lines);
                };
                if head.is_none() {
                    return Err(close.error(
                        "a closing brace that closes nothing",
                        "open the block with { after its zones",
                    ));
                }
                // The next block may begin behind it, but nothing else does.
                let mut behind = self.rest.iter().rev().take_while(|next| !next.first);
                let follows = self.rest.last().is_some_and(|next| !next.first);
                if follows && (nesting > 1 || !behind.any(|next| next.is("{"))) {
                    return Err(close.error(
                        "words follow the closing brace",
                        "put them on a line of their own",
                    ));
                }
                return Ok(lines);
            }
            if token.is("import") {
                self.splice()?;
                continue;
            }
            lines.push(self.line(nesting)?);
        }
    }

    fn line(&mut self, nesting: usize) -> Result<Directive, ConfigError> {
        let mut words = self.words()?;
        let mut opened = None;
        if let Some(open) = words.iter().position(|word| word.is("{")) {
            let mut behind = words.drain(open..);
            opened = behind.next();
            // The block's first line may begin behind its brace.
            self.rest.extend(behind.rev());
        }
        if let (Some(brace), true) = (&opened, words.is_empty()) {
            return Err(brace.error(
                "an opening brace on a line of its own",
                "put it at the end of the line above",
            ));
        }
        for word in words.iter().skip(1) {
            if word.is("{") || word.is("}") {
                return Err(word.error(
                    format!("a brace in the middle of a line: {}", word.text),
                    "end the line after {, give } a line of its own, and put quotes round a brace that is meant as text",
                ));
            }
        }
        let written = words.first().map(|name| name.text.clone());
        for word in &mut words {
            self.fill(word);
        }
        let name = words.remove(0);
        if let Some(written) = written.filter(|_| name.text.is_empty() && !name.quoted) {
            return Err(name.error(
                format!("{written} is empty where a name should stand"),
                "set the environment variable, or write the name",
            ));
        }
        let block = match opened.is_some() {
            true if nesting >= NESTING_MAX => {
                return Err(name.error(
                    format!("blocks are nested more than {NESTING_MAX} deep"),
                    "close some of them",
                ));
            }
            true => self.lines(Some(&name), nesting + 1)?,
            false => Vec::new(),
        };
        Ok(Directive {
            name,
            args: words,
            block,
        })
    }

    /// The words of the next line.
    fn words(&mut self) -> Result<Vec<Token>, ConfigError> {
        let mut words: Vec<Token> = Vec::new();
        while let Some(token) = self.rest.last() {
            if token.first && !words.is_empty() {
                break;
            }
            self.seen += 1;
            if self.seen > TOKENS_MAX {
                return Err(token.error(
                    format!("more than {TOKENS_MAX} words with all imports"),
                    "look for a snippet that imports others many times",
                ));
            }
            words.extend(self.rest.pop());
        }
        Ok(words)
    }

    /// Puts what an import names in place of its line.
    fn splice(&mut self) -> Result<(), ConfigError> {
        let mut words = self.words()?;
        if words.is_empty() {
            return Ok(());
        }
        for word in &mut words {
            self.fill(word);
        }
        let line = words.remove(0);
        // From the folder of the file that the line stands in.
        let folder = Path::new(&*line.file).parent().unwrap_or(self.folder);
        let tokens = import::import(&line, &words, &self.snippets, folder)?;
        if self.rest.len() + tokens.len() > TOKENS_MAX {
            return Err(line.error(
                format!("more than {TOKENS_MAX} words with all imports"),
                "look for a snippet that imports others many times",
            ));
        }
        self.rest.extend(tokens.into_iter().rev());
        Ok(())
    }

    fn fill(&self, token: &mut Token) {
        if token.text.contains('{') {
            token.text = fill_environment(&token.text, self.environment);
        }
    }
}

fn is_snippet(token: &Token) -> bool {
    !token.quoted && token.text.starts_with('(') && token.text.ends_with(')')
}

fn unclosed(head: &Token, what: &str) -> ConfigError {
    head.error(
        format!("{what} is never closed"),
        "close it with } on a line of its own",
    )
}
