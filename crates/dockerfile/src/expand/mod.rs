//! Variables get their values, and quotes go.
//!
//! The language is BuildKit's, which is a small part of the shell's: `$x`, `${x}` and the forms
//! with an operation behind the name. As in a shell, and other than in BuildKit, the word of an
//! operation is only looked at when it is needed: `${x:-${y:?}}` asks for `y` only without an `x`.
//!
//! Values come from a function, so this module knows nothing of arguments, environments or scopes.

mod substitute;
mod template;

use formwork_diagnostics::Span;

use crate::instruction::Heredoc;
use crate::{ExpandError, Word};
use substitute::Pattern;
use template::{Operation, Part, PartKind, Quotes, Variable};

pub(crate) use template::{delimiter, shell_words};

/// By how much a text may grow. No process takes a variable of even an eighth of that.
const MAX_GROWTH: usize = 1 << 20;

/// What gives variables their values.
pub type Variables<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// A text without variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were taken as empty because they have no value, with their places. Those
    /// whose absence is provided for, as in `${x:-default}`, are not among them.
    pub unknown: Vec<(String, Span)>,
}

/// Texts without variables that came from one word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpandedWords {
    /// The texts; there may be none.
    pub words: Vec<String>,
    /// As in [`Expanded`].
    pub unknown: Vec<(String, Span)>,
}

/// Expands the variables of a word and removes its quotes and escapes.
///
/// # Errors
///
/// Fails for what is malformed, for a variable that must be set and is not, and for a result
/// that is too large.
pub fn expand(
    word: &Word,
    escape: char,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    expand_with(word, escape, Quotes::Removed, variables)
}

/// Expands a word to any number of words: blanks that are neither quoted nor escaped separate
/// them, also those in a variable's value. `EXPOSE` alone does so.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_words(
    word: &Word,
    escape: char,
    variables: &Variables<'_>,
) -> Result<ExpandedWords, ExpandError> {
    let parts = template::parse(word, escape, Quotes::Removed)?;
    let mut evaluation = Evaluation::new(word, variables);
    let mut splitter = Splitter::default();
    for part in &parts {
        let text = evaluation.part(part)?;
        match part.kind {
            PartKind::Text | PartKind::Variable(_) => splitter.push_split(&text),
            PartKind::Escaped | PartKind::Quoted(_) => splitter.current.push_str(&text),
        }
    }
    Ok(ExpandedWords { words: splitter.finish(), unknown: evaluation.unknown })
}

/// Expands the variables of a heredoc's content, in which quotes mean nothing and a backslash
/// escapes, whatever the file's escape character is. Tabs that are to be dropped are gone.
///
/// # Errors
///
/// As [`expand`].
pub fn expand_heredoc(
    heredoc: &Heredoc,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    expand_with(&heredoc.word(), '\\', Quotes::Kept, variables)
}

/// The names of the variables that a word speaks of, in their order and as often as it does.
///
/// None where the word is malformed.
pub fn variables_in(word: &Word, escape: char) -> Vec<&str> {
    let parts = template::parse(word, escape, Quotes::Removed).unwrap_or_default();
    template::names(&parts).into_iter().map(|name| &word.text()[name]).collect()
}

/// The names of the variables that a heredoc speaks of, if its content is expanded at all.
pub fn variables_in_heredoc(heredoc: &Heredoc) -> Vec<String> {
    if !heredoc.expand {
        return Vec::new();
    }
    let word = heredoc.word();
    let parts = template::parse(&word, '\\', Quotes::Kept).unwrap_or_default();
    template::names(&parts).into_iter().map(|name| word.text()[name].to_owned()).collect()
}

fn expand_with(
    word: &Word,
    escape: char,
    quotes: Quotes,
    variables: &Variables<'_>,
) -> Result<Expanded, ExpandError> {
    if !word.text().contains([escape, '$', '\'', '"']) {
        return Ok(Expanded { text: word.text().to_owned(), unknown: Vec::new() });
    }
    let parts = template::parse(word, escape, quotes)?;
    let mut evaluation = Evaluation::new(word, variables);
    let text = evaluation.text(&parts)?;
    Ok(Expanded { text, unknown: evaluation.unknown })
}

/// One word on the way to its text.
struct Evaluation<'a> {
    word: &'a Word,
    variables: &'a Variables<'a>,
    unknown: Vec<(String, Span)>,
}

impl<'a> Evaluation<'a> {
    fn new(word: &'a Word, variables: &'a Variables<'a>) -> Self {
        Self { word, variables, unknown: Vec::new() }
    }

    fn text(&mut self, parts: &[Part]) -> Result<String, ExpandError> {
        let mut text = String::new();
        for part in parts {
            text.push_str(&self.part(part)?);
            if text.len() > self.limit() {
                return Err(ExpandError::TooLarge { span: self.span(part) });
            }
        }
        Ok(text)
    }

    fn part(&mut self, part: &Part) -> Result<String, ExpandError> {
        let raw = &self.word.text()[part.range.clone()];
        match &part.kind {
            PartKind::Text => Ok(raw.to_owned()),
            PartKind::Escaped => Ok(raw.chars().skip(1).collect()),
            PartKind::Quoted(parts) => self.text(parts),
            PartKind::Variable(variable) => self.variable(variable, self.span(part)),
        }
    }

    fn variable(&mut self, variable: &Variable, span: Span) -> Result<String, ExpandError> {
        let name = &self.word.text()[variable.name.clone()];
        let value = (self.variables)(name);
        let absent = |or_empty: bool| value.as_ref().is_none_or(|v| or_empty && v.is_empty());
        match &variable.operation {
            Operation::Default { or_empty, word } if absent(*or_empty) => self.text(word),
            Operation::Alternative { or_empty, .. } if absent(*or_empty) => Ok(String::new()),
            Operation::Alternative { word, .. } => self.text(word),
            Operation::Required { or_empty, message } if absent(*or_empty) => {
                let message = match self.text(message)? {
                    message if !message.is_empty() => message,
                    _ if value.is_none() => "the variable must be set".to_owned(),
                    _ => "the variable must not be empty".to_owned(),
                };
                Err(ExpandError::Required { span, name: name.to_owned(), message })
            }
            Operation::Default { .. } | Operation::Required { .. } => Ok(value.unwrap_or_default()),
            Operation::Plain => Ok(self.known(name, value, span)),
            Operation::Remove { at_end, which, pattern } => {
                let value = self.known(name, value, span);
                let pattern = self.pattern(pattern, &value, span)?;
                let rest = if *at_end {
                    pattern.without_suffix(&value, *which)
                } else {
                    pattern.without_prefix(&value, *which)
                };
                Ok(rest.to_owned())
            }
            Operation::Replace { all, pattern, replacement } => {
                let value = self.known(name, value, span);
                let pattern = self.pattern(pattern, &value, span)?;
                let replacement = self.text(replacement)?;
                let limit = self.limit();
                pattern
                    .replace(&value, &replacement, *all, limit)
                    .ok_or(ExpandError::TooLarge { span })
            }
            Operation::Unknown { modifier } => Err(ExpandError::UnknownOperation {
                span: self.word.span_of(modifier.clone()),
                modifier: self.word.text()[modifier.clone()].to_owned(),
            }),
        }
    }

    fn known(&mut self, name: &str, value: Option<String>, span: Span) -> String {
        value.unwrap_or_else(|| {
            self.unknown.push((name.to_owned(), span));
            String::new()
        })
    }

    fn pattern(&mut self, parts: &[Part], value: &str, span: Span) -> Result<Pattern, ExpandError> {
        let text = self.text(parts)?;
        match Pattern::new(&text) {
            None => Err(ExpandError::BadPattern { span, pattern: text }),
            Some(pattern) if pattern.cost(value) > Pattern::MAX_COST => {
                Err(ExpandError::TooLarge { span })
            }
            Some(pattern) => Ok(pattern),
        }
    }

    fn span(&self, part: &Part) -> Span {
        self.word.span_of(part.range.clone())
    }

    fn limit(&self) -> usize {
        self.word.text().len() + MAX_GROWTH
    }
}

/// Collects words that blanks separate.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    current: String,
}

impl Splitter {
    fn push_split(&mut self, text: &str) {
        for character in text.chars() {
            if character.is_whitespace() {
                self.end_word();
            } else {
                self.current.push(character);
            }
        }
    }

    fn end_word(&mut self) {
        if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.end_word();
        self.words
    }
}
