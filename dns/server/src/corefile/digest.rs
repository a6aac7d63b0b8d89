//! What tells a changed Corefile from an unchanged one: its words, imports and variables filled in.

use aws_lc_rs::digest::Context;
use aws_lc_rs::digest::SHA512;

use super::Corefile;
use super::Directive;
use super::Token;

impl Corefile {
    /// A digest of everything that the file says, in hexadecimal. Files that a pattern of `import` matches count as
    /// soon as they are there; comments, and where a line stands, do not.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut context = Context::new(&SHA512);
        for server in &self.servers {
            words(&mut context, &server.keys);
            lines(&mut context, &server.directives);
        }
        hexadecimal(context)
    }
}

/// The digest of a text, in hexadecimal.
#[must_use]
pub fn of_text(text: &str) -> String {
    let mut context = Context::new(&SHA512);
    context.update(text.as_bytes());
    hexadecimal(context)
}

fn lines(context: &mut Context, lines: &[Directive]) {
    count(context, lines.len());
    for line in lines {
        words(context, std::slice::from_ref(&line.name));
        words(context, &line.args);
        self::lines(context, &line.block);
    }
}

/// With their numbers and lengths, so that no two files are taken for one.
fn words(context: &mut Context, words: &[Token]) {
    count(context, words.len());
    for word in words {
        count(context, word.text.len());
        context.update(word.text.as_bytes());
    }
}

fn count(context: &mut Context, count: usize) {
    context.update(&count.to_be_bytes());
}

fn hexadecimal(context: Context) -> String {
    let octets = context.finish();
    let digits = octets.as_ref().iter().map(|octet| format!("{octet:02x}"));
    digits.collect()
}
