//! A stream of chunks as lines.

use std::io::BufRead as _;

use bytes::{Bytes, BytesMut};

/// Cuts chunks at line breaks. A line within one chunk is not copied.
#[derive(Default)]
pub(crate) struct Lines {
    chunk: Bytes,
    /// The beginning of a line whose end has not arrived.
    partial: BytesMut,
}

impl Lines {
    /// Adds a chunk. Everything that was there must have been taken by [`Lines::next`].
    pub(crate) fn push(&mut self, chunk: Bytes) {
        self.chunk = chunk;
    }

    /// The next whole line, without its line break.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let Some(end) = line_end(&self.chunk) else {
            self.partial.extend_from_slice(&self.chunk);
            self.chunk.clear();
            return None;
        };
        let mut line = self.chunk.split_to(end + 1);
        line.truncate(end);
        if self.partial.is_empty() {
            return Some(line);
        }
        self.partial.extend_from_slice(&line);
        Some(self.partial.split().freeze())
    }
}

/// Where the first line ends. The standard library looks at many bytes at once; a loop over the bytes took as long as
/// all of the parsing of an object of which only the metadata matters.
fn line_end(mut bytes: &[u8]) -> Option<usize> {
    let whole = bytes;
    // Reading from a slice can't fail.
    let end = bytes.skip_until(b'\n').ok()?.checked_sub(1)?;
    (whole[end] == b'\n').then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_do_not_depend_on_how_they_were_cut() {
        let text = "one\n\ntwo two\nthree\nrest";
        for size in 1..=text.len() {
            let mut lines = Lines::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(Bytes::copy_from_slice(chunk));
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert_eq!(found, ["one", "", "two two", "three"], "chunks of {size}");
        }
    }
}
