//! Matching, without ever going back.
//!
//! A pattern is a list of tokens. Instead of trying one way after another, a match keeps the set
//! of all offsets in the text up to which the tokens so far can reach; every token maps that set
//! to the next. So `*a*a*a*b` costs no more than its length times that of the text.

use crate::syntax::{Class, first_char};

/// A step of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character that is no slash.
    AnyChar,
    /// One character out of a set, and no slash.
    Class(Class),
    /// Any run of characters without a slash.
    Star,
    /// `**/`: nothing, or everything up to and with some slash.
    Directories,
    /// `**` at an end of the pattern: anything.
    Anything,
}

/// Ascending offsets into a text.
type Offsets = Vec<usize>;

/// The offsets up to which the whole list of tokens can match the text from its start.
pub(crate) fn ends(tokens: &[Token], text: &[u8]) -> Offsets {
    let (mut offsets, mut next) = (vec![0], Vec::new());
    for token in tokens {
        token.advance(text, &offsets, &mut next);
        std::mem::swap(&mut offsets, &mut next);
        if offsets.is_empty() {
            break;
        }
    }
    offsets
}

/// Whether the tokens match some text that begins with `prefix` and is longer than it.
pub(crate) fn may_match_beyond(tokens: &[Token], prefix: &[u8]) -> bool {
    let (mut offsets, mut next) = (vec![0], Vec::new());
    for token in tokens {
        let Some(furthest) = offsets.last() else { return false };
        let reaches_over = match token {
            Token::Directories | Token::Anything => true,
            Token::Literal(bytes) => offsets
                .iter()
                .any(|at| bytes.len() > prefix.len() - at && bytes.starts_with(&prefix[*at..])),
            Token::AnyChar | Token::Class(_) | Token::Star => *furthest == prefix.len(),
        };
        if reaches_over {
            return true;
        }
        token.advance(prefix, &offsets, &mut next);
        std::mem::swap(&mut offsets, &mut next);
    }
    false
}

/// Adds a byte to match literally.
pub(crate) fn push_byte(tokens: &mut Vec<Token>, byte: u8) {
    match tokens.last_mut() {
        Some(Token::Literal(bytes)) => bytes.push(byte),
        _ => tokens.push(Token::Literal(vec![byte])),
    }
}

impl Token {
    /// Fills `to` with where this token leads to from the offsets in `from`.
    fn advance(&self, text: &[u8], from: &[usize], to: &mut Offsets) {
        to.clear();
        match self {
            Self::Literal(bytes) => {
                let matching = from.iter().filter(|at| text[**at..].starts_with(bytes));
                to.extend(matching.map(|at| at + bytes.len()));
            }
            Self::AnyChar => to.extend(from.iter().filter_map(|at| step(text, *at, |_| true))),
            Self::Class(class) => {
                to.extend(from.iter().filter_map(|at| step(text, *at, |c| class.contains(c))));
            }
            Self::Star => star(text, from, to),
            Self::Directories => directories(text, from, to),
            Self::Anything => {
                to.extend(from.iter().take(1).flat_map(|first| *first..=text.len()));
            }
        }
    }
}

/// The offset behind the character at `at`, if there is one that is no slash and is wanted.
///
/// A byte that is no UTF-8 counts as the replacement character, as it does in Go.
fn step(text: &[u8], at: usize, wanted: impl Fn(char) -> bool) -> Option<usize> {
    let rest = text.get(at..).filter(|rest| !matches!(rest.first(), None | Some(b'/')))?;
    let (character, length) = match first_char(rest) {
        Some(character) => (character, character.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    };
    wanted(character).then_some(at + length)
}

fn star(text: &[u8], from: &[usize], to: &mut Offsets) {
    for start in from {
        if to.last().is_some_and(|reached| reached >= start) {
            continue;
        }
        to.push(*start);
        let mut at = *start;
        while let Some(next) = step(text, at, |_| true) {
            to.push(next);
            at = next;
        }
    }
}

fn directories(text: &[u8], from: &[usize], to: &mut Offsets) {
    let Some(first) = from.first() else { return };
    let slashes = text[*first..].iter().enumerate().filter(|(_, byte)| **byte == b'/');
    let mut from = from.iter().copied().peekable();
    for start in slashes.map(|(i, _)| first + i + 1) {
        while let Some(at) = from.next_if(|at| *at <= start) {
            to.push(at);
        }
        if to.last() != Some(&start) {
            to.push(start);
        }
    }
    to.extend(from);
}
