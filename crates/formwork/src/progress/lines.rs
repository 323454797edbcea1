//! Cuts the output of a process into lines.
//!
//! A carriage return begins a line anew, as it does on a terminal, so progress bars leave their
//! last state only.

use std::mem;

use formwork_diagnostics::LogStream;

/// Lines longer than this are cut into several, so that memory stays bounded.
const LONGEST: usize = 64 * 1024;

/// Collects bytes until they are lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Lines {
    /// Takes bytes and returns the lines that they complete.
    pub(super) fn push(&mut self, stream: LogStream, data: &[u8]) -> Vec<String> {
        let pending = match stream {
            LogStream::Stdout => &mut self.stdout,
            LogStream::Stderr => &mut self.stderr,
        };
        let mut lines = Vec::new();
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            pending.extend_from_slice(part);
            if part.ends_with(b"\n") || pending.len() > LONGEST {
                lines.push(line(&mem::take(pending)));
            }
        }
        lines
    }

    /// Returns what is left without a line break at the end.
    pub(super) fn finish(&mut self) -> Vec<String> {
        let rest = [mem::take(&mut self.stdout), mem::take(&mut self.stderr)];
        rest.iter().filter(|rest| !rest.is_empty()).map(|rest| line(rest)).collect()
    }
}

fn line(bytes: &[u8]) -> String {
    let bytes = bytes.trim_ascii_end();
    let shown = bytes.rsplit(|byte| *byte == b'\r').next().unwrap_or(bytes);
    String::from_utf8_lossy(shown).into_owned()
}

/// A line as it may be shown in a live view: without escape sequences and control characters, and
/// no wider than the given number of columns.
pub(super) fn fit(line: &str, columns: usize) -> String {
    use unicode_width::UnicodeWidthChar;
    let mut width = 0;
    let mut text = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => skip_escape(&mut characters),
            '\t' => {
                text.push_str("  ");
                width += 2;
            }
            _ => {
                // Control characters have no width and are left out.
                let Some(columns) = character.width() else { continue };
                text.push(character);
                width += columns;
            }
        }
        if width > columns {
            while width > columns.saturating_sub(1) {
                width -= text.pop().and_then(UnicodeWidthChar::width).unwrap_or(1).max(1);
            }
            text.push('…');
            break;
        }
    }
    text
}

/// Skips an escape sequence of the usual kind, `ESC [ … letter`, or a single character.
fn skip_escape(characters: &mut std::str::Chars<'_>) {
    if characters.next() == Some('[') {
        for character in characters.by_ref() {
            if character.is_ascii_alphabetic() || character == '~' {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines() {
        let mut lines = Lines::default();
        assert!(lines.push(LogStream::Stdout, b"one").is_empty());
        assert!(lines.push(LogStream::Stderr, b"err").is_empty());
        assert_eq!(lines.push(LogStream::Stdout, b" more\ntwo\nthr"), ["one more", "two"]);
        assert_eq!(lines.finish(), ["thr", "err"]);
        assert!(lines.finish().is_empty());
    }

    #[test]
    fn progress_bars_leave_their_last_state() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(LogStream::Stdout, b"10%\r50%\r100%\r\n"), ["100%"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let mut lines = Lines::default();
        let count: usize =
            (0..100).map(|_| lines.push(LogStream::Stdout, &[b'x'; 10_000]).len()).sum();
        assert!(count >= 14);
    }

    #[test]
    fn shown_lines_fit() {
        assert_eq!(fit("plain", 10), "plain");
        assert_eq!(fit("\u{1b}[1;31mred\u{1b}[0m text", 20), "red text");
        assert_eq!(fit("a\tb\u{7}", 20), "a  b");
        assert_eq!(fit("0123456789", 10), "0123456789");
        assert_eq!(fit("0123456789x", 10), "012345678…");
        assert_eq!(fit("日本語日本語", 7), "日本語…");
        assert_eq!(fit("abc", 0), "…");
    }
}
