//! Words taken apart: text, quotes, escapes and variables, with their places.
//!
//! Nothing is evaluated here, and no variable has a value.

use std::ops::Range;

use formwork_diagnostics::Span;

use super::substitute::Which;
use crate::{ExpandError, Word};

/// How deep `${…}` may be nested, which bounds the stack.
const MAX_DEPTH: usize = 64;

/// What becomes of quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They protect what is between them, and go.
    Removed,
    /// They are characters like any other.
    Kept,
}

/// A part of a word; the parts of a word lie side by side, without gaps.
#[derive(Debug)]
pub(super) struct Part {
    /// In the word's text, with quotes and escapes.
    pub(super) range: Range<usize>,
    pub(super) kind: PartKind,
}

#[derive(Debug)]
pub(super) enum PartKind {
    /// Text as it stands.
    Text,
    /// An escape character and what it escapes, which is nothing at the end of a word.
    Escaped,
    /// Quotes and the parts between them.
    Quoted(Vec<Part>),
    /// A variable.
    Variable(Box<Variable>),
}

#[derive(Debug)]
pub(super) struct Variable {
    pub(super) name: Range<usize>,
    pub(super) operation: Operation,
}

/// What is to be done with a variable's value.
#[derive(Debug)]
pub(super) enum Operation {
    /// `$x`, `${x}`
    Plain,
    /// `${x-word}`, and with a colon for an empty value too
    Default { or_empty: bool, word: Vec<Part> },
    /// `${x+word}`
    Alternative { or_empty: bool, word: Vec<Part> },
    /// `${x?message}`
    Required { or_empty: bool, message: Vec<Part> },
    /// `${x#pattern}`, `${x%pattern}`
    Remove { at_end: bool, which: Which, pattern: Vec<Part> },
    /// `${x/pattern/replacement}`
    Replace { all: bool, pattern: Vec<Part>, replacement: Vec<Part> },
    /// `${x:…}` with something else behind the colon; a mistake only if it is evaluated, because
    /// a shell knows more of these.
    Unknown { modifier: Range<usize> },
}

/// Takes a word apart.
pub(super) fn parse(word: &Word, escape: char, quotes: Quotes) -> Result<Vec<Part>, ExpandError> {
    let mut parser = Parser { word, at: 0, escape, quotes, depth: 0 };
    let mut parts = Vec::new();
    parser.parts(None, Escapes::Processed, &mut parts)?;
    Ok(parts)
}

/// The names of all variables, in their order.
pub(super) fn names(parts: &[Part]) -> Vec<Range<usize>> {
    let mut names = Vec::new();
    collect_names(parts, &mut names);
    names
}

fn collect_names(parts: &[Part], names: &mut Vec<Range<usize>>) {
    for part in parts {
        match &part.kind {
            PartKind::Text | PartKind::Escaped => {}
            PartKind::Quoted(parts) => collect_names(parts, names),
            PartKind::Variable(variable) => {
                names.push(variable.name.clone());
                match &variable.operation {
                    Operation::Plain | Operation::Unknown { .. } => {}
                    Operation::Default { word, .. } | Operation::Alternative { word, .. } => {
                        collect_names(word, names);
                    }
                    Operation::Required { message, .. } => collect_names(message, names),
                    Operation::Remove { pattern, .. } => collect_names(pattern, names),
                    Operation::Replace { pattern, replacement, .. } => {
                        collect_names(pattern, names);
                        collect_names(replacement, names);
                    }
                }
            }
        }
    }
}

/// What becomes of an escape character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escapes {
    /// It protects the next character, and goes.
    Processed,
    /// It protects the next character, and both stay, for a pattern to read them.
    Kept,
}

struct Parser<'a> {
    word: &'a Word,
    at: usize,
    escape: char,
    quotes: Quotes,
    depth: usize,
}

impl Parser<'_> {
    /// Reads parts up to and with the stop character; `false` if the text ends before it.
    fn parts(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        parts: &mut Vec<Part>,
    ) -> Result<bool, ExpandError> {
        while let Some(character) = self.peek() {
            let start = self.at;
            self.advance();
            let kind = match character {
                _ if stop == Some(character) => return Ok(true),
                '$' => self.variable(start)?,
                '\'' if self.quotes == Quotes::Removed => self.single_quoted(start)?,
                '"' if self.quotes == Quotes::Removed => self.double_quoted(start, escapes)?,
                _ if character == self.escape => {
                    self.advance();
                    escaped(escapes)
                }
                _ => {
                    self.plain(stop);
                    PartKind::Text
                }
            };
            self.push(parts, start, kind);
        }
        Ok(stop.is_none())
    }

    /// Goes on to the next character that may mean something.
    fn plain(&mut self, stop: Option<char>) {
        let rest = &self.word.text()[self.at..];
        let special = ['$', '\'', '"', self.escape, stop.unwrap_or('$')];
        self.at += rest.find(special).unwrap_or(rest.len());
    }

    fn single_quoted(&mut self, start: usize) -> Result<PartKind, ExpandError> {
        let mut parts = Vec::new();
        while let Some(character) = self.peek() {
            let at = self.at;
            self.advance();
            if character == '\'' {
                return Ok(PartKind::Quoted(parts));
            }
            self.push(&mut parts, at, PartKind::Text);
        }
        Err(self.unclosed_quote(start, '\''))
    }

    fn double_quoted(&mut self, start: usize, escapes: Escapes) -> Result<PartKind, ExpandError> {
        let mut parts = Vec::new();
        while let Some(character) = self.peek() {
            let at = self.at;
            self.advance();
            let kind = match character {
                '"' => return Ok(PartKind::Quoted(parts)),
                '$' => self.variable(at)?,
                _ if character == self.escape && self.escapes_in_quotes() => {
                    self.advance();
                    escaped(escapes)
                }
                _ => PartKind::Text,
            };
            self.push(&mut parts, at, kind);
        }
        Err(self.unclosed_quote(start, '"'))
    }

    /// Whether an escape character between double quotes has something to escape here.
    fn escapes_in_quotes(&self) -> bool {
        self.peek().is_some_and(|next| matches!(next, '"' | '$') || next == self.escape)
    }

    /// Reads what follows a `$` at `start`.
    fn variable(&mut self, start: usize) -> Result<PartKind, ExpandError> {
        if !self.eat('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok(PartKind::Text);
            }
            return Ok(PartKind::Variable(Box::new(Variable {
                name,
                operation: Operation::Plain,
            })));
        }
        let name = self.name();
        if name.is_empty() {
            return Err(match self.peek() {
                None => self.unclosed_brace(start),
                Some(_) => ExpandError::MissingName { span: self.word.span_of(start..self.at) },
            });
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let span = self.word.span_of(start..self.at);
            return Err(ExpandError::TooDeep { span, limit: MAX_DEPTH });
        }
        let operation = self.operation(start)?;
        self.depth -= 1;
        Ok(PartKind::Variable(Box::new(Variable { name, operation })))
    }

    /// Reads what follows the name in the `${` at `start`, up to and with the `}`.
    fn operation(&mut self, start: usize) -> Result<Operation, ExpandError> {
        let modifier = self.at;
        let or_empty = self.eat(':');
        let Some(character) = self.peek() else { return Err(self.unclosed_brace(start)) };
        self.advance();
        let modifier = modifier..self.at;
        match character {
            '}' if !or_empty => Ok(Operation::Plain),
            '-' => Ok(Operation::Default { or_empty, word: self.operand(start)? }),
            '+' => Ok(Operation::Alternative { or_empty, word: self.operand(start)? }),
            '?' => Ok(Operation::Required { or_empty, message: self.operand(start)? }),
            '#' | '%' if !or_empty => {
                let which = Which::longest_if(self.eat(character));
                let pattern = self.closed('}', Escapes::Kept, start)?;
                Ok(Operation::Remove { at_end: character == '%', which, pattern })
            }
            '/' if !or_empty => self.replacement(start),
            _ if or_empty && !matches!(character, '#' | '%') => {
                self.operand(start)?;
                Ok(Operation::Unknown { modifier })
            }
            _ => Err(ExpandError::UnknownOperation {
                span: self.word.span_of(modifier.clone()),
                modifier: self.word.text()[modifier].to_owned(),
            }),
        }
    }

    fn replacement(&mut self, start: usize) -> Result<Operation, ExpandError> {
        let all = self.eat('/');
        let mut pattern = Vec::new();
        if !self.parts(Some('/'), Escapes::Kept, &mut pattern)? {
            return Err(ExpandError::MissingReplacement { span: self.rest(start) });
        }
        let replacement = self.closed('}', Escapes::Kept, start)?;
        Ok(Operation::Replace { all, pattern, replacement })
    }

    fn operand(&mut self, start: usize) -> Result<Vec<Part>, ExpandError> {
        self.closed('}', Escapes::Processed, start)
    }

    fn closed(
        &mut self,
        stop: char,
        escapes: Escapes,
        start: usize,
    ) -> Result<Vec<Part>, ExpandError> {
        let mut parts = Vec::new();
        if self.parts(Some(stop), escapes, &mut parts)? {
            Ok(parts)
        } else {
            Err(self.unclosed_brace(start))
        }
    }

    /// Reads a name: letters, digits and `_`; or digits alone; or one special character. Empty
    /// where there is none.
    fn name(&mut self) -> Range<usize> {
        let rest = &self.word.text()[self.at..];
        let is_part: fn(char) -> bool = match rest.chars().next() {
            Some('0'..='9') => |c| c.is_ascii_digit(),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => {
                self.at += 1;
                return self.at - 1..self.at;
            }
            _ => |c| c.is_alphanumeric() || c == '_',
        };
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += length;
        self.at - length..self.at
    }

    /// Appends a part that ends here; text goes to the text before it.
    fn push(&self, parts: &mut Vec<Part>, start: usize, kind: PartKind) {
        match (parts.last_mut(), &kind) {
            (Some(Part { range, kind: PartKind::Text }), PartKind::Text) => range.end = self.at,
            _ => parts.push(Part { range: start..self.at, kind }),
        }
    }

    fn peek(&self) -> Option<char> {
        self.word.text()[self.at..].chars().next()
    }

    fn advance(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn eat(&mut self, character: char) -> bool {
        let found = self.peek() == Some(character);
        if found {
            self.advance();
        }
        found
    }

    fn unclosed_brace(&self, start: usize) -> ExpandError {
        ExpandError::UnclosedBrace { span: self.rest(start) }
    }

    fn unclosed_quote(&self, start: usize, quote: char) -> ExpandError {
        ExpandError::UnclosedQuote { span: self.rest(start), quote }
    }

    fn rest(&self, start: usize) -> Span {
        self.word.span_of(start..self.word.text().len())
    }
}

fn escaped(escapes: Escapes) -> PartKind {
    match escapes {
        Escapes::Processed => PartKind::Escaped,
        Escapes::Kept => PartKind::Text,
    }
}

/// The words of a shell command, as ranges of its text: blanks separate them that are neither
/// quoted nor escaped; blanks behind `<<` do not. `None` where quotes or braces do not close.
///
/// This decides what counts as a heredoc, so it splits exactly where BuildKit does.
pub(crate) fn shell_words(command: &Word) -> Option<Vec<Range<usize>>> {
    let mut words = WordRanges { text: command.text(), words: Vec::new(), current: None };
    for Part { range, kind } in parse(command, '\\', Quotes::Removed).ok()? {
        match kind {
            PartKind::Escaped | PartKind::Quoted(_) => words.extend(range),
            PartKind::Variable(_) => words.split(range),
            PartKind::Text => words.text(range),
        }
    }
    words.end();
    Some(words.words)
}

/// Collects the ranges of words.
struct WordRanges<'a> {
    text: &'a str,
    words: Vec<Range<usize>>,
    current: Option<Range<usize>>,
}

impl WordRanges<'_> {
    fn text(&mut self, range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            let rest = &self.text[at..range.end];
            match rest.strip_prefix("<<").map(|rest| rest.trim_start_matches(BLANKS)) {
                Some(behind) => {
                    self.extend(at..range.end - behind.len());
                    at = range.end - behind.len();
                }
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    self.split(at..at + length);
                    at += length;
                }
            }
        }
    }

    /// Takes in text in which every blank separates.
    fn split(&mut self, range: Range<usize>) {
        for (at, character) in self.text[range.clone()].char_indices() {
            let start = range.start + at;
            if character.is_whitespace() {
                self.end();
            } else {
                self.extend(start..start + character.len_utf8());
            }
        }
    }

    fn extend(&mut self, range: Range<usize>) {
        let start = self.current.as_ref().map_or(range.start, |word| word.start);
        self.current = Some(start..range.end);
    }

    fn end(&mut self) {
        self.words.extend(self.current.take());
    }
}

/// What may stand between `<<` and a delimiter.
const BLANKS: [char; 3] = ['\t', '\r', ' '];

/// The name that a heredoc's delimiter, a part of a line, stands for, and whether any of it is
/// quoted; variables in it are none. `None` if nothing is left.
pub(crate) fn delimiter(line: &Word, range: Range<usize>) -> Option<(String, bool)> {
    let text = &line.text()[range.clone()];
    if !text.contains(['$', '\'', '"', '\\']) {
        return (!text.is_empty()).then(|| (text.to_owned(), false));
    }
    let word = &line.slice(range);
    let parts = parse(word, '\\', Quotes::Removed).ok()?;
    let mut name = String::new();
    let mut is_quoted = false;
    for part in &parts {
        if let PartKind::Quoted(parts) = &part.kind {
            is_quoted = true;
            parts.iter().for_each(|part| name.push_str(part.literal(word)));
        } else {
            name.push_str(part.literal(word));
        }
    }
    (!name.is_empty()).then_some((name, is_quoted))
}

impl Part {
    /// The text as it stands, without an escape character before it.
    fn literal<'a>(&self, word: &'a Word) -> &'a str {
        let text = &word.text()[self.range.clone()];
        match self.kind {
            PartKind::Escaped => text.get(1..).unwrap_or_default(),
            _ => text,
        }
    }
}
