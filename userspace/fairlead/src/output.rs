//! Rows for people and for programs.

use std::io::Write as _;

use anyhow::Context as _;
use serde::Serialize;

/// How data is written to stdout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people.
    #[default]
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
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write to stdout"),
    }
}

/// Left-aligned columns, three spaces apart, without trailing blanks.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut out = String::new();
        for (cell, width) in cells.zip(&widths) {
            out.push_str(cell);
            out.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
        out
    };
    let mut out = line(&mut header.iter().copied());
    for row in rows {
        out.push_str(&line(&mut row.iter().map(String::as_str)));
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
