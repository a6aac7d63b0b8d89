//! Rows for people and for programs.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

/// How data is written to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
    #[value(alias = "wide")]
    Table,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// What can be shown as a line of a table.
pub(crate) trait Row: Serialize {
    /// Titles of the columns.
    const HEADER: &'static [&'static str];

    /// One cell for each title.
    fn cells(&self) -> Vec<String>;
}

/// Writes rows in the format asked for.
pub(crate) fn rows<R: Row>(rows: &[R], format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
            emit(&columns(R::HEADER, &cells))
        }
        Format::Json | Format::Yaml => document(&rows, format),
    }
}

/// Rows that are written while they come, a page at a time: however many there are, no more than a page is in memory.
pub(crate) struct Pages<R> {
    format: Format,
    page: Vec<R>,
    widths: Vec<usize>,
    written: usize,
    /// Whether anybody reads on.
    open: bool,
}

/// Rows of a page. Columns are as wide as the widest cell so far.
const PAGE: usize = 4096;

impl<R: Row + Ord> Pages<R> {
    pub(crate) fn new(format: Format) -> Self {
        Pages {
            format,
            page: Vec::new(),
            widths: R::HEADER
                .iter()
                .map(|title| title.chars().count())
                .collect(),
            written: 0,
            open: true,
        }
    }

    /// Takes a row; false where nobody reads on.
    pub(crate) fn push(&mut self, row: R) -> anyhow::Result<bool> {
        self.page.push(row);
        if self.page.len() >= PAGE {
            self.turn()?;
        }
        Ok(self.open)
    }

    /// Writes what is left. Rows are in order within a page.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.turn()?;
        match self.format {
            Format::Table if self.written == 0 => self.write(&columns(R::HEADER, &[])),
            Format::Table => Ok(()),
            Format::Json if self.written == 0 => self.write("[]\n"),
            Format::Json => self.write("\n]\n"),
            Format::Yaml if self.written == 0 => self.write("[]\n"),
            Format::Yaml => Ok(()),
        }
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut page = std::mem::take(&mut self.page);
        if page.is_empty() {
            return Ok(());
        }
        page.sort_unstable();
        let text = match self.format {
            Format::Table => {
                let mut cells: Vec<Vec<String>> = page.iter().map(Row::cells).collect();
                if self.written == 0 {
                    cells.insert(0, R::HEADER.iter().map(|&title| title.to_owned()).collect());
                }
                lines(&mut self.widths, &cells)
            }
            Format::Json => {
                // The elements of a list as they would be in one document, without its ends.
                let list = serde_json::to_string_pretty(&page).context("encode JSON")?;
                let inner = list.trim_start_matches('[').trim_end_matches("\n]");
                let before = if self.written == 0 { "[" } else { "," };
                format!("{before}{inner}")
            }
            Format::Yaml => serde_saphyr::to_string(&page).context("encode YAML")?,
        };
        self.written += page.len();
        self.write(&text)
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if self.open {
            self.open = emit_on(text)?;
        }
        Ok(())
    }
}

/// Writes one value as JSON or YAML; `Table` falls to JSON, for values that have no columns.
pub(crate) fn document<T: Serialize>(value: &T, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table | Format::Json => {
            emit(&(serde_json::to_string_pretty(value).context("encode JSON")? + "\n"))
        }
        Format::Yaml => emit(&serde_saphyr::to_string(value).context("encode YAML")?),
    }
}

/// Writes text to stdout. A reader that went away (`| head`) is no failure.
pub(crate) fn emit(text: &str) -> anyhow::Result<()> {
    emit_on(text).map(drop)
}

/// As [`emit`]; false where the reader went away.
pub(crate) fn emit_on(text: &str) -> anyhow::Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).context("write to stdout"),
    }
}

/// Left-aligned columns, three spaces apart, without trailing blanks.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|&title| title.to_owned()).collect();
    let mut widths = vec![0; header.len()];
    let mut all = vec![header];
    all.extend_from_slice(rows);
    lines(&mut widths, &all)
}

/// Lines of columns as wide as `widths`, which grow with the cells.
fn lines(widths: &mut [usize], rows: &[Vec<String>]) -> String {
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths.iter()) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::columns;

    #[test]
    fn columns_are_aligned_and_have_no_trailing_blanks() {
        let rows = vec![
            vec!["10.96.0.1:443".to_owned(), "TCP".to_owned()],
            vec!["é".to_owned(), String::new()],
        ];
        assert_eq!(
            columns(&["FRONTEND", "PROTO"], &rows),
            "FRONTEND        PROTO\n10.96.0.1:443   TCP\né\n"
        );
    }
}
