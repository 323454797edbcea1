//! Source text and places in it.
//!
//! Never reads files: the text comes in as a value, so a Dockerfile from standard input, from a
//! URL or from a git tree is treated alike.

use std::ops::Range;
use std::sync::Arc;

/// A text that diagnostics point into, with the name to show for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    text: Arc<str>,
    line_starts: Arc<[u32]>,
}

/// A half-open range of byte offsets into a [`SourceFile`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The offset of the first byte.
    pub start: u32,
    /// The offset behind the last byte.
    pub end: u32,
}

/// A line and a column, both counted from 1; the column counts characters, as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

impl SourceFile {
    /// Wraps a text under the name that messages show for it.
    ///
    /// Offsets are 32 bits wide; a text beyond 4 GiB has to be refused before it gets here, and
    /// what lies behind that limit has no line numbers.
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Self {
        let text = text.into();
        let starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(i, _)| i + 1))
            .map_while(|offset| u32::try_from(offset).ok())
            .collect();
        Self { name: name.into(), text, line_starts: starts }
    }

    /// The name that messages show.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text of a span; empty where the span lies outside the text or cuts a character.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// The line and column of a byte offset; offsets behind the end count as the end.
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1) - 1;
        let start = self.line_starts[line] as usize;
        let before = self.text.get(start..offset as usize).unwrap_or_default();
        Position { line: line + 1, column: before.chars().count() + 1 }
    }

    /// The span of a line, counted from 1, without its line break; `None` behind the last line.
    pub fn line_span(&self, line: usize) -> Option<Span> {
        let start = *self.line_starts.get(line.checked_sub(1)?)?;
        let rest = self.text.get(start as usize..)?;
        let length = rest.find('\n').unwrap_or(rest.len());
        let text = rest[..length].trim_end_matches('\r');
        Some(Span::at(start as usize, text.len()))
    }
}

impl Span {
    /// The span from one byte offset up to another.
    ///
    /// Offsets behind 4 GiB are cut to that limit.
    pub fn new(start: usize, end: usize) -> Self {
        let start = u32::try_from(start).unwrap_or(u32::MAX);
        let end = u32::try_from(end).unwrap_or(u32::MAX).max(start);
        Self { start, end }
    }

    /// The span of `length` bytes that begins at `start`.
    pub fn at(start: usize, length: usize) -> Self {
        Self::new(start, start.saturating_add(length))
    }

    /// The smallest span that holds both.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The number of bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the span holds no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The span as a range of indices.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let source = SourceFile::new("Dockerfile", "FROM é\nRUN x\n");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.position(7), Position { line: 1, column: 7 });
        assert_eq!(source.position(8), Position { line: 2, column: 1 });
        assert_eq!(source.position(14), Position { line: 3, column: 1 });
        assert_eq!(source.position(9999), Position { line: 3, column: 1 });
    }

    #[test]
    fn line_spans_leave_out_the_line_break() {
        let source = SourceFile::new("Dockerfile", "one\r\ntwo");
        assert_eq!(source.line_span(1).map(|span| source.slice(span)), Some("one"));
        assert_eq!(source.line_span(2).map(|span| source.slice(span)), Some("two"));
        assert_eq!(source.line_span(3), None);
        assert_eq!(source.line_span(0), None);
    }

    #[test]
    fn an_empty_text_has_one_line() {
        let source = SourceFile::new("Dockerfile", "");
        assert_eq!(source.position(0), Position { line: 1, column: 1 });
        assert_eq!(source.line_span(1), Some(Span::default()));
    }
}
