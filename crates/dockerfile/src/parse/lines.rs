//! From the text to the lines that instructions stand on.
//!
//! A line that ends in the escape character goes on with the next; comments and empty lines between
//! are left out. What stands in a heredoc is read as it is.

use formwork_diagnostics::Span;

use crate::word::Line;

/// The lines of a text, one after the other.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    next: usize,
}

/// A line as it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Physical<'a> {
    /// The offset of its first character.
    pub(super) start: usize,
    /// The line without its line break.
    pub(super) text: &'a str,
    /// The offset behind its line break.
    pub(super) end: usize,
}

/// A line as instructions see it.
#[derive(Debug)]
pub(super) struct Logical<'a> {
    pub(super) line: Line<'a>,
    /// Empty lines that were left out.
    pub(super) blank_lines: Vec<Span>,
}

impl<'a> Lines<'a> {
    /// The lines of a text, without the byte-order mark that it may begin with.
    pub(super) fn new(text: &'a str) -> Self {
        let next = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, next }
    }

    /// The offset of the next line.
    pub(super) fn offset(&self) -> usize {
        self.next
    }

    /// Goes to an offset, at which a line begins.
    pub(super) fn go_to(&mut self, offset: usize) {
        self.next = offset;
    }

    /// Joins a line with those that continue it.
    pub(super) fn join(&mut self, first: Physical<'a>, escape: char) -> Logical<'a> {
        let text = first.text.trim_start();
        let start = first.start + first.text.len() - text.len();
        let mut continued = continued(text, escape);
        let mut line = Line::new(continued.unwrap_or(text), start);
        let mut blank_lines = Vec::new();
        while continued.is_some() {
            let Some(next) = self.next() else { break };
            let visible = next.text.trim_start();
            if visible.is_empty() {
                blank_lines.push(Span::at(next.start, next.text.len()));
            } else if !visible.starts_with('#') {
                continued = self::continued(next.text, escape);
                line.append(continued.unwrap_or(next.text), next.start);
            }
        }
        Logical { line, blank_lines }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Physical<'a>;

    fn next(&mut self) -> Option<Physical<'a>> {
        let start = self.next;
        let rest = self.text.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        self.next += length;
        let text = rest[..length].trim_end_matches(['\r', '\n']);
        Some(Physical { start, text, end: self.next })
    }
}

/// The line without its escape character, if that continues it.
///
/// Two of them do not, and neither do three: so it is in BuildKit, and has to stay.
fn continued(line: &str, escape: char) -> Option<&str> {
    let text = line.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!text.ends_with(escape)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(text: &str) -> String {
        let mut lines = Lines::new(text);
        let first = lines.next().unwrap();
        let logical = lines.join(first, '\\');
        let rest = &text[lines.offset()..];
        format!("{}|{}|{rest}", logical.line.text(), logical.blank_lines.len())
    }

    #[test]
    fn continued_lines_become_one() {
        for (text, expected) in [
            ("RUN a", "RUN a|0|"),
            ("RUN a\nRUN b", "RUN a|0|RUN b"),
            ("  RUN a \\\n  b\nc", "RUN a   b|0|c"),
            ("RUN a\\  \t\nb", "RUN ab|0|"),
            ("RUN a \\\r\n b\r\nc", "RUN a  b|0|c"),
            ("RUN a \\\n# comment \\\n  # another\nb\nc", "RUN a b|0|c"),
            ("RUN a \\\n\n \t\nb", "RUN a b|2|"),
            ("RUN a \\\n\\\nb", "RUN a b|0|"),
            ("RUN a \\", "RUN a |0|"),
            ("RUN a \\\n", "RUN a |0|"),
            ("\\\nRUN a", "RUN a|0|"),
            ("ENV a b\\\\\nENV c d", "ENV a b\\\\|0|ENV c d"),
            ("RUN a\\\\\\\nb", "RUN a\\\\\\|0|b"),
            ("RUN a `\nb", "RUN a `|0|b"),
            ("\u{feff}RUN a", "RUN a|0|"),
        ] {
            assert_eq!(joined(text), expected, "{text:?}");
        }
    }
}
