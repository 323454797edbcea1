//! Text that remembers where it stood.
//!
//! What an instruction says need not stand in the source in one piece: lines are joined, comments
//! between them dropped, quotes around flags removed, JSON escapes decoded. A [`Word`] knows for
//! each of its bytes where it came from, so that a diagnostic points there.

use std::borrow::Cow;
use std::ops::Range;

use formwork_diagnostics::Span;

/// A piece of an instruction with its place in the source.
///
/// The text is as written, with quotes, escapes and variables, unless the form that it stands in
/// has its own: in JSON the string is decoded, and a flag loses its quotes and escapes. What is
/// left is for [`crate::expand()`], where the instruction expands anything at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    // There are many words, most of them short and in one piece: so they are kept small.
    text: Box<str>,
    span: Span,
    /// Where the first byte of the text stood.
    origin: u32,
    /// The breaks of its places, if it has any.
    #[expect(clippy::box_collection, reason = "eight bytes in each word instead of 24")]
    breaks: Option<Box<Vec<Break>>>,
}

/// A line as instructions see it: continuations joined, comments gone.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    text: Cow<'a, str>,
    places: Places<'static>,
}

/// Puts a word together from parts that stand in different places.
#[derive(Debug, Default)]
pub(crate) struct WordBuilder {
    text: String,
    places: Places<'static>,
}

/// Where each byte of a text stood.
#[derive(Debug, Default)]
struct Places<'a> {
    /// Where the first byte stood.
    origin: u32,
    /// Where bytes stood that do not follow the byte before them, by ascending offsets.
    breaks: Cow<'a, [Break]>,
}

/// From an offset in the text on, the bytes stood elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Break {
    at: u32,
    source: u32,
}

impl Word {
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn new(text: Box<str>, span: Span, places: Places<'static>) -> Self {
        let breaks = (!places.breaks.is_empty()).then(|| Box::new(places.breaks.into_owned()));
        Self { text, span, origin: places.origin, breaks }
    }

    /// Where it stood, from its first byte to its last.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Whether the text is empty, as in `--chown=`.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where a part of the text stood; what lies behind the end of the text is cut off.
    pub fn span_of(&self, range: Range<usize>) -> Span {
        let start = range.start.min(self.text.len());
        self.places().span_of(start..range.end.clamp(start, self.text.len()))
    }

    fn places(&self) -> Places<'_> {
        let breaks = self.breaks.as_deref().map_or(&[][..], Vec::as_slice);
        Places { origin: self.origin, breaks: breaks.into() }
    }

    /// A part of the text as a word of its own.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        word(&self.text, &self.places(), range)
    }

    /// The text before and behind the first `separator`.
    pub(crate) fn split_once(&self, separator: char) -> Option<(Self, Self)> {
        let at = self.text.find(separator)?;
        let behind = at + separator.len_utf8();
        Some((self.slice(0..at), self.slice(behind..self.text.len())))
    }

    /// The part of the text behind the first `separator`.
    pub(crate) fn behind(&self, separator: char) -> Option<Self> {
        let at = self.text.find(separator)?;
        Some(self.slice(at + separator.len_utf8()..self.text.len()))
    }

    /// The same text as a part of something larger, such as the quotes around it.
    pub(crate) fn within(self, span: Span) -> Self {
        Self { span, ..self }
    }
}

impl<'a> Line<'a> {
    /// A line that stands in the source in one piece.
    pub(crate) fn new(text: &'a str, source: usize) -> Self {
        Self { text: Cow::Borrowed(text), places: Places::new(source) }
    }

    /// Appends what stood on a later line.
    pub(crate) fn append(&mut self, text: &str, source: usize) {
        if !text.is_empty() {
            self.places.append(self.text.len(), source);
            self.text.to_mut().push_str(text);
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn word(&self, range: Range<usize>) -> Word {
        word(&self.text, &self.places, range)
    }

    pub(crate) fn span_of(&self, range: Range<usize>) -> Span {
        self.places.span_of(range)
    }

    pub(crate) fn source_of(&self, at: usize) -> usize {
        self.places.source_of(at)
    }
}

impl WordBuilder {
    /// Appends text whose bytes stood one behind the other.
    pub(crate) fn push(&mut self, text: &str, source: usize) {
        self.places.append(self.text.len(), source);
        self.text.push_str(text);
    }

    /// Appends a part of a word.
    pub(crate) fn push_from(&mut self, word: &Word, range: Range<usize>) {
        let start = self.text.len();
        let places = word.places().restricted_to(&range);
        self.places.append(start, places.origin as usize);
        for place in &*places.breaks {
            self.places.append(start + place.at as usize, place.source as usize);
        }
        self.text.push_str(&word.text[range]);
    }

    pub(crate) fn finish(self, span: Span) -> Word {
        let places = if self.text.is_empty() { Places::at(span.start) } else { self.places };
        Word::new(self.text.into(), span, places)
    }
}

impl Places<'_> {
    fn new(origin: usize) -> Self {
        Self::at(offset(origin))
    }

    fn at(origin: u32) -> Self {
        Self { origin, breaks: Cow::default() }
    }

    /// Says where the bytes from `at` on stood, `at` being no less than in the calls before.
    fn append(&mut self, at: usize, source: usize) {
        if at == 0 {
            self.origin = offset(source);
        } else if self.source_of(at) != source {
            self.breaks.to_mut().push(Break { at: offset(at), source: offset(source) });
        }
    }

    fn source_of(&self, at: usize) -> usize {
        let next = self.breaks.partition_point(|place| place.at as usize <= at);
        match next.checked_sub(1).map(|last| self.breaks[last]) {
            Some(place) => place.source as usize + (at - place.at as usize),
            None => self.origin as usize + at,
        }
    }

    fn span_of(&self, range: Range<usize>) -> Span {
        let start = self.source_of(range.start);
        let end = if range.is_empty() { start } else { self.source_of(range.end - 1) + 1 };
        Span::new(start, end)
    }

    fn restricted_to(&self, range: &Range<usize>) -> Places<'static> {
        let first = self.breaks.partition_point(|place| place.at as usize <= range.start);
        let breaks = &self.breaks[first..];
        let count = breaks.partition_point(|place| (place.at as usize) < range.end);
        let start = offset(range.start);
        let shifted = breaks[..count].iter().map(|place| Break { at: place.at - start, ..*place });
        Places { origin: offset(self.source_of(range.start)), breaks: shifted.collect() }
    }
}

fn word(text: &str, places: &Places<'_>, range: Range<usize>) -> Word {
    Word::new(
        text[range.clone()].into(),
        places.span_of(range.clone()),
        places.restricted_to(&range),
    )
}

/// An offset as spans hold it; what lies behind 4 GiB has no place of its own.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ab` from offset 10 on, `cd` from 20 on, `ef` from 30 on.
    fn scattered() -> Line<'static> {
        let mut line = Line::new("ab", 10);
        line.append("cd", 20);
        line.append("", 25);
        line.append("ef", 30);
        line
    }

    #[test]
    fn every_byte_knows_where_it_stood() {
        let line = scattered();
        let places: Vec<usize> = (0..6).map(|at| line.source_of(at)).collect();
        assert_eq!(places, [10, 11, 20, 21, 30, 31]);
    }

    #[test]
    fn spans_reach_from_the_first_byte_to_the_last() {
        let line = scattered();
        assert_eq!(line.span_of(0..2), Span::new(10, 12));
        assert_eq!(line.span_of(1..3), Span::new(11, 21));
        assert_eq!(line.span_of(2..4), Span::new(20, 22));
        assert_eq!(line.span_of(2..2), Span::new(20, 20));
        assert_eq!(line.span_of(6..6), Span::new(32, 32));
    }

    #[test]
    fn a_part_of_a_word_keeps_its_place() {
        let word = scattered().word(1..5);
        assert_eq!((word.text(), word.span()), ("bcde", Span::new(11, 31)));
        assert_eq!(word.span_of(1..3), Span::new(20, 22));
        let part = word.slice(2..4);
        assert_eq!((part.text(), part.span()), ("de", Span::new(21, 31)));
        assert_eq!(part.span_of(1..9), Span::new(30, 31));
        assert_eq!(part.span_of(7..9), Span::new(31, 31));
    }

    #[test]
    fn a_built_word_may_stand_within_a_larger_span() {
        let mut builder = WordBuilder::default();
        builder.push("a", 5);
        builder.push("b", 6);
        builder.push("c", 9);
        let word = builder.finish(Span::new(4, 11));
        assert_eq!((word.text(), word.span()), ("abc", Span::new(4, 11)));
        assert_eq!(word.span_of(0..2), Span::new(5, 7));
        assert_eq!(word.span_of(2..3), Span::new(9, 10));
        let empty = WordBuilder::default().finish(Span::new(4, 6));
        assert_eq!(empty.span_of(0..0), Span::new(4, 4));
    }
}
