//! Values as text for people.

use std::fmt;
use std::io::{IsTerminal, Write};

use formwork_diagnostics::Diagnostic;
use formwork_diagnostics::render::{HumanStyle, human};
use unicode_width::UnicodeWidthStr;

/// Writes a diagnostic to standard error, in colour where that is wanted.
pub(crate) fn diagnostic(diagnostic: &Diagnostic) {
    let is_terminal = std::io::stderr().is_terminal();
    let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
    let width = if is_terminal && width > 20 { usize::from(width) } else { 120 };
    let text = human(diagnostic, HumanStyle { color: true, width });
    // The stream drops the colours where they are not wanted; a closed one is nobody's loss.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Writes a warning about the store, not about an input.
pub(crate) fn warning(text: &str) {
    diagnostic(&Diagnostic::warning("store", text));
}

/// Columns that are as wide as they have to be.
#[derive(Debug)]
pub(crate) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// A table with a line of headings.
    pub(crate) fn new(headings: [&str; COLUMNS]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)] }
    }

    /// Adds a line.
    pub(crate) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells);
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<&[String]> = self.rows.iter().map(<[String; COLUMNS]>::as_slice).collect();
        f.write_str(&columns(&rows))
    }
}

/// Lines whose cells stand below each other.
pub(crate) fn columns(rows: &[&[String]]) -> String {
    let width = |cell: &String| UnicodeWidthStr::width(cell.as_str());
    let count = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column).map(width)).max();
    let widths: Vec<usize> = (0..count).map(|column| widest(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, column) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.push_str(&" ".repeat(column - width(cell) + 3));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How long ago a time was, as docker shows it: `3 weeks ago`.
pub(crate) fn age(rfc3339: &str) -> String {
    let Ok(time) = rfc3339.parse::<jiff::Timestamp>() else { return String::new() };
    let seconds = jiff::Timestamp::now().as_second() - time.as_second();
    since(seconds)
}

/// How long ago something was, in the same way.
pub(crate) fn ago(age: std::time::Duration) -> String {
    since(i64::try_from(age.as_secs()).unwrap_or(i64::MAX))
}

fn since(seconds: i64) -> String {
    const UNITS: [(i64, &str); 6] = [
        (365 * 86400, "year"),
        (30 * 86400, "month"),
        (7 * 86400, "week"),
        (86400, "day"),
        (3600, "hour"),
        (60, "minute"),
    ];
    let unit = UNITS.iter().find(|(length, _)| seconds >= 2 * length);
    match unit {
        Some((length, name)) => format!("{} {name}s ago", seconds / length),
        None if seconds >= 60 => "about a minute ago".to_owned(),
        None => "less than a minute ago".to_owned(),
    }
}

/// A text of a stranger without characters that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A number of bytes, or a dash where it is not known.
pub(crate) fn optional_bytes(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), bytes)
}

/// A text that is no longer than so many characters.
pub(crate) fn shortened(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length - 1).chain(['…']).collect()
}

/// A number of bytes with three significant digits and a decimal unit, as docker shows it.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_rough() {
        for (seconds, text) in [
            (-5, "less than a minute ago"),
            (59, "less than a minute ago"),
            (90, "about a minute ago"),
            (600, "10 minutes ago"),
            (86400, "24 hours ago"),
            (20 * 86400, "2 weeks ago"),
            (800 * 86400, "2 years ago"),
        ] {
            assert_eq!(since(seconds), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["A", "BB"]);
        table.row(["é".to_owned(), String::new()]);
        table.row(["long".to_owned(), "x".to_owned()]);
        assert_eq!(table.to_string(), "A      BB\né\nlong   x\n");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("abcd", 3), "ab…");
    }

    #[test]
    fn terminals_obey_no_names() {
        assert_eq!(printable("/é\u{1b}[2J\n"), "/é\\u{1b}[2J\\n");
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_950, "1.0 MB"),
            (12_300_000, "12.3 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (count, text) in cases {
            assert_eq!(bytes(count), text);
        }
    }
}
