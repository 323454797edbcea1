//! The parts that patterns are written with, as Go's `filepath.Match` reads them.
//!
//! Knows nothing of `**`: whoever reads the atoms sees two stars in a row.

use crate::PatternError;

/// One part of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Atom {
    /// This byte, escaped or not.
    Byte(u8),
    /// `?`
    AnyChar,
    /// `*`
    Star,
    /// `[…]`
    Class(Class),
}

/// A set of characters: `[a-z_]`, or all others: `[^a-z_]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    negated: bool,
    /// Inclusive; a range whose end lies before its start holds nothing.
    ranges: Box<[(char, char)]>,
}

impl Class {
    pub(crate) fn contains(&self, character: char) -> bool {
        let listed = self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
        listed != self.negated
    }
}

/// Reads a pattern from its start to its end.
pub(crate) struct Atoms<'a> {
    pattern: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Atoms<'a> {
    pub(crate) fn new(pattern: &'a [u8]) -> Self {
        Self { pattern, rest: pattern }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Reads over `prefix` if it comes next.
    pub(crate) fn eat(&mut self, prefix: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(crate) fn next(&mut self) -> Result<Option<Atom>, PatternError> {
        let Some((first, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        match first {
            b'*' => Ok(Some(Atom::Star)),
            b'?' => Ok(Some(Atom::AnyChar)),
            b'[' => self.class().map(|class| Some(Atom::Class(class))),
            b'\\' => self.escaped().map(|byte| Some(Atom::Byte(byte))),
            byte => Ok(Some(Atom::Byte(*byte))),
        }
    }

    fn escaped(&mut self) -> Result<u8, PatternError> {
        let (byte, rest) = self
            .rest
            .split_first()
            .ok_or_else(|| PatternError::trailing_backslash(self.pattern))?;
        self.rest = rest;
        Ok(*byte)
    }

    fn class(&mut self) -> Result<Class, PatternError> {
        let negated = self.eat(b"^");
        let mut ranges = Vec::new();
        while ranges.is_empty() || !self.eat(b"]") {
            let low = self.member()?;
            let high = if self.eat(b"-") { self.member()? } else { low };
            ranges.push((low, high));
        }
        Ok(Class { negated, ranges: ranges.into() })
    }

    /// A character in a class; never the last of the pattern, since the class must be closed.
    fn member(&mut self) -> Result<char, PatternError> {
        let bad = || PatternError::bad_class(self.pattern);
        if matches!(self.rest.first(), None | Some(b'-' | b']')) {
            return Err(bad());
        }
        let text = self.rest.strip_prefix(b"\\").unwrap_or(self.rest);
        let character = first_char(text).ok_or_else(bad)?;
        self.rest = &text[character.len_utf8()..];
        if self.rest.is_empty() { Err(bad()) } else { Ok(character) }
    }
}

/// The character that the bytes begin with; `None` where they are empty or no UTF-8.
pub(crate) fn first_char(bytes: &[u8]) -> Option<char> {
    let first = *bytes.first()?;
    let length = match first {
        0..0x80 => return Some(char::from(first)),
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    std::str::from_utf8(bytes.get(..length)?).ok()?.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(pattern: &str) -> Result<Class, PatternError> {
        match Atoms::new(pattern.as_bytes()).next()? {
            Some(Atom::Class(class)) => Ok(class),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn classes_hold_what_they_list() {
        for (pattern, inside, outside) in [
            ("[abc]", "abc", "d-^"),
            ("[a-c]", "abc", "d-"),
            ("[^a-c]", "d-", "abc"),
            ("[a-c^]", "abc^", "d"),
            (r"[\]\-\\]", r"]-\", "a"),
            (r"[\^a]", "^a", "b"),
            ("[à-ü☺]", "äé☺", "z☹"),
            ("[z-a]", "", "amz"),
            ("[*?[]", "*?[", "a"),
        ] {
            let class = class(pattern).unwrap();
            assert!(inside.chars().all(|c| class.contains(c)), "{pattern}");
            assert!(!outside.chars().any(|c| class.contains(c)), "{pattern}");
        }
    }

    #[test]
    fn malformed_classes_are_refused() {
        for pattern in
            ["[", "[a", "[]", "[]a]", "[^]", "[^]a]", "[-]", "[-a]", "[a-]", "[a-", r"[\"]
        {
            let bad = PatternError::BadClass { pattern: pattern.to_owned() };
            assert_eq!(class(pattern), Err(bad), "{pattern}");
        }
        assert!(Atoms::new(b"[\xff]").next().is_err());
    }

    #[test]
    fn characters_are_decoded_and_other_bytes_are_not() {
        for text in ["a", "é", "☺", "😀"] {
            assert_eq!(first_char(text.as_bytes()), text.chars().next());
        }
        let surrogate = b"\xed\xa0\x80";
        for bytes in [&b""[..], b"\xff", b"\x80", b"\xc3", b"\xc0\x80", surrogate, b"\xf0\x9f\x98"]
        {
            assert_eq!(first_char(bytes), None, "{bytes:x?}");
        }
    }
}
