//! An instruction's line, split into keyword, flags and arguments.
//!
//! The split is the same for all instructions, and for those that do not exist too.

use std::ops::Range;

use formwork_diagnostics::Span;

use super::json::{self, Json};
use crate::Word;
use crate::instruction::Heredoc;
use crate::word::{Line, WordBuilder};

/// One instruction's line, or the part of an `ONBUILD` that is an instruction.
#[derive(Debug)]
pub(super) struct Statement<'l> {
    pub(super) line: &'l Line<'l>,
    /// The escape character.
    pub(super) escape: char,
    /// All of it, in the line's text.
    pub(super) range: Range<usize>,
    pub(super) keyword: Range<usize>,
    /// The words before the arguments that begin with `--`, without quotes and escapes.
    pub(super) flags: Vec<Word>,
    /// Whether a `--` says that no more flags follow.
    pub(super) ends_flags: bool,
    pub(super) arguments: Range<usize>,
    /// The heredocs, with the range of the line's text in which each is announced.
    pub(super) heredocs: Vec<(Range<usize>, Heredoc)>,
}

impl<'l> Statement<'l> {
    /// Splits a part of a line.
    pub(super) fn new(line: &'l Line<'l>, range: Range<usize>, escape: char) -> Self {
        let range = trim(line.text(), range);
        let text = &line.text()[range.clone()];
        let keyword = range.start..range.start + text.find(is_blank).unwrap_or(text.len());
        let mut lexer = FlagLexer { line, escape, at: keyword.end, end: range.end };
        let (flags, ends_flags) = lexer.flags();
        let arguments = trim(line.text(), lexer.at..range.end);
        Self { line, escape, range, keyword, flags, ends_flags, arguments, heredocs: Vec::new() }
    }

    /// The keyword as written.
    pub(super) fn name(&self) -> &'l str {
        &self.line.text()[self.keyword.clone()]
    }

    pub(super) fn is(&self, keyword: &str) -> bool {
        self.name().eq_ignore_ascii_case(keyword)
    }

    /// Whether this is `ADD`, `COPY` or `RUN`, and not in JSON form.
    pub(super) fn takes_heredocs(&self) -> bool {
        let has_form = ["ADD", "COPY", "RUN"].iter().any(|keyword| self.is(keyword));
        has_form && !matches!(self.json(), Json::Strings(_))
    }

    pub(super) fn text(&self) -> &'l str {
        &self.line.text()[self.range.clone()]
    }

    pub(super) fn span(&self) -> Span {
        self.line.span_of(self.range.clone())
    }

    pub(super) fn keyword_span(&self) -> Span {
        self.line.span_of(self.keyword.clone())
    }

    /// The arguments as they stand.
    pub(super) fn argument_text(&self) -> &'l str {
        &self.line.text()[self.arguments.clone()]
    }

    /// The arguments as one word; `None` if there are none.
    pub(super) fn whole(&self) -> Option<Word> {
        (!self.arguments.is_empty()).then(|| self.line.word(self.arguments.clone()))
    }

    /// The arguments as JSON.
    pub(super) fn json(&self) -> Json {
        json::parse(self.line, self.arguments.clone())
    }

    /// The places of the arguments that blanks separate, whatever quotes stand there.
    pub(super) fn blank_separated(&self) -> impl Iterator<Item = Range<usize>> + use<'l> {
        let mut next = self.arguments.start;
        let words = self.argument_text().split(is_blank).map(move |word| {
            let start = next;
            next += word.len() + 1;
            start..start + word.len()
        });
        words.filter(|word| !word.is_empty())
    }

    /// The arguments that blanks separate unless they are quoted or escaped; quotes and escapes
    /// stay, but for an escape at the very end.
    pub(super) fn quoted_words(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut start = None;
        let mut quote = None;
        let mut end = self.arguments.len();
        let mut characters = self.argument_text().char_indices();
        while let Some((at, character)) = characters.next() {
            // Nothing is escaped between single quotes.
            let is_escape = character == self.escape && quote != Some('\'');
            match quote {
                None if character.is_whitespace() => {
                    words.extend(start.take().map(|start| start..at));
                    continue;
                }
                None if matches!(character, '\'' | '"') => quote = Some(character),
                Some(open) if open == character => quote = None,
                _ if is_escape && characters.next().is_none() => {
                    end = at;
                    break;
                }
                _ => {}
            }
            start.get_or_insert(at);
        }
        words.extend(start.map(|start| start..end));
        let offset = self.arguments.start;
        let word = |word: Range<usize>| self.line.word(offset + word.start..offset + word.end);
        words.into_iter().map(word).collect()
    }
}

/// What separates words where BuildKit splits by its regular expression for white space.
pub(crate) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r')
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let behind = part.trim_start();
    let start = range.end - behind.len();
    start..start + behind.trim_end().len()
}

/// Reads the flags between keyword and arguments.
struct FlagLexer<'l> {
    line: &'l Line<'l>,
    escape: char,
    at: usize,
    end: usize,
}

impl FlagLexer<'_> {
    /// Reads all flags, and tells whether a `--` ends them.
    fn flags(&mut self) -> (Vec<Word>, bool) {
        let mut flags = Vec::new();
        loop {
            self.at = self.end - self.rest().trim_start_matches(is_blank).len();
            if !self.rest().starts_with("--") {
                return (flags, false);
            }
            let flag = self.flag();
            if flag.text() == "--" {
                return (flags, true);
            }
            flags.push(flag);
        }
    }

    /// Reads a flag up to a blank that is neither quoted nor escaped. Quotes and escapes go.
    fn flag(&mut self) -> Word {
        let start = self.at;
        let is_special = |c: char| is_blank(c) || matches!(c, '\'' | '"') || c == self.escape;
        let plain = self.rest().find(is_special).unwrap_or(self.rest().len());
        if self.rest()[plain..].chars().next().is_none_or(is_blank) {
            self.at += plain;
            return self.line.word(start..self.at);
        }
        let mut flag = WordBuilder::default();
        let mut quote = None;
        while let Some(character) = self.rest().chars().next() {
            if quote.is_none() && is_blank(character) {
                break;
            }
            self.at += character.len_utf8();
            match quote {
                None if matches!(character, '\'' | '"') => quote = Some(character),
                Some(open) if open == character => quote = None,
                _ if character == self.escape => {
                    let escaped = self.rest().chars().next();
                    self.at += escaped.map_or(0, char::len_utf8);
                    escaped.into_iter().for_each(|escaped| self.push(&mut flag, escaped));
                }
                _ => self.push(&mut flag, character),
            }
        }
        flag.finish(self.line.span_of(start..self.at))
    }

    /// Appends the character that was read last.
    fn push(&self, flag: &mut WordBuilder, character: char) {
        let source = self.line.source_of(self.at - character.len_utf8());
        flag.push(character.encode_utf8(&mut [0; 4]), source);
    }

    fn rest(&self) -> &str {
        &self.line.text()[self.at..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (String, Vec<String>, String) {
        let line = Line::new(text, 0);
        let statement = Statement::new(&line, 0..text.len(), '\\');
        let flags = statement.flags.iter().map(|flag| flag.text().to_owned()).collect();
        (statement.name().to_owned(), flags, statement.argument_text().to_owned())
    }

    #[test]
    fn lines_have_a_keyword_flags_and_arguments() {
        for (text, keyword, flags, arguments) in [
            ("RUN make", "RUN", &[][..], "make"),
            (" run\t make  all ", "run", &[], "make  all"),
            ("RUN", "RUN", &[], ""),
            ("RUN --a", "RUN", &["--a"], ""),
            ("RUN --a --b=c -d --e", "RUN", &["--a", "--b=c"], "-d --e"),
            ("RUN --a -- --b", "RUN", &["--a"], "--b"),
            ("RUN --", "RUN", &[], ""),
            ("RUN --a=' b' c", "RUN", &["--a= b"], "c"),
            (r#"RUN --a="b\"c d"e f"#, "RUN", &[r#"--a=b"c de"#], "f"),
            (r"RUN --a=b\ c\\ d", "RUN", &[r"--a=b c\"], "d"),
            (r"RUN --a=b\", "RUN", &["--a=b"], ""),
            ("RUN --a='b c", "RUN", &["--a=b c"], ""),
            ("RUN --ünïcode=à b", "RUN", &["--ünïcode=à"], "b"),
            ("RUN -a", "RUN", &[], "-a"),
            ("RUN \u{a0}a", "RUN", &[], "a"),
        ] {
            let flags = flags.iter().map(ToString::to_string).collect();
            assert_eq!(split(text), (keyword.into(), flags, arguments.into()), "{text}");
        }
    }

    #[test]
    fn quoted_words_keep_their_quotes() {
        for (text, words) in [
            ("ARG a b=c", &["a", "b=c"][..]),
            (r#"ARG a="b c" d='e f'"#, &[r#"a="b c""#, "d='e f'"]),
            (r"ARG a=b\ c d", &[r"a=b\ c", "d"]),
            (r#"ARG a="b\" c" d"#, &[r#"a="b\" c""#, "d"]),
            (r"ARG a='b\' c", &[r"a='b\'", "c"]),
            (r#"ARG a="b c"#, &[r#"a="b c"#]),
            ("ARG a\u{a0}b", &["a", "b"]),
            (r"ARG a b\\", &["a", r"b\\"]),
            (r"ARG a b\", &["a", "b"]),
            (r"ARG a \", &["a"]),
            ("ARG", &[]),
        ] {
            let line = Line::new(text, 0);
            let statement = Statement::new(&line, 0..text.len(), '\\');
            let quoted = statement.quoted_words();
            assert_eq!(quoted.iter().map(Word::text).collect::<Vec<_>>(), words, "{text}");
        }
    }

    #[test]
    fn a_flag_without_its_quotes_still_knows_its_place() {
        let line = Line::new(r#"RUN --a="b c"d\ e f"#, 50);
        let statement = Statement::new(&line, 0..line.text().len(), '\\');
        let flag = &statement.flags[0];
        assert_eq!((flag.text(), flag.span().range()), ("--a=b cd e", 54..67));
        assert_eq!(flag.span_of(4..7).range(), 59..62);
        assert_eq!(flag.span_of(8..10).range(), 65..67);
    }
}
