//! Secrets in what processes write.
//!
//! A step that prints a secret by mistake must not leave it in a log. This is a guard against
//! accidents: a process that encodes a secret before it prints it gets it out.

use crate::Secrets;

/// What stands in the place of a secret.
const STARS: &[u8] = b"***";
/// Shorter values are left alone: they occur in much that is no secret.
const SHORTEST: usize = 4;
/// Lines of longer values that are looked for on their own, since programs print keys by line.
const SHORTEST_LINE: usize = 8;

/// Takes secrets out of a stream, however it is cut into pieces.
#[derive(Debug)]
pub(crate) struct Mask {
    /// The longest first.
    patterns: Vec<Vec<u8>>,
    /// The bytes that some pattern begins with.
    begins: [bool; 256],
    /// The end of what has come, which may be the beginning of a secret.
    held: Vec<u8>,
}

impl Mask {
    pub(crate) fn new(secrets: &Secrets) -> Self {
        let mut patterns: Vec<Vec<u8>> = secrets.values().flat_map(patterns).collect();
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.len()));
        patterns.dedup();
        let mut begins = [false; 256];
        patterns.iter().for_each(|pattern| begins[usize::from(pattern[0])] = true);
        Self { patterns, begins, held: Vec::new() }
    }

    /// What can be shown after some more has come.
    pub(crate) fn feed(&mut self, data: Vec<u8>) -> Vec<u8> {
        if self.patterns.is_empty() {
            return data;
        }
        let mut text = std::mem::take(&mut self.held);
        text.extend(data);
        self.shown(&text, false)
    }

    /// What is left at the end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let text = std::mem::take(&mut self.held);
        self.shown(&text, true)
    }

    fn shown(&mut self, text: &[u8], is_end: bool) -> Vec<u8> {
        let mut shown = Vec::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.iter().position(|byte| self.begins[usize::from(*byte)]) {
            let (plain, candidate) = rest.split_at(next);
            shown.extend_from_slice(plain);
            let is_begun = |pattern: &Vec<u8>| {
                pattern.len() > candidate.len() && pattern.starts_with(candidate)
            };
            if !is_end && self.patterns.iter().any(is_begun) {
                self.held = candidate.to_vec();
                return shown;
            }
            let found = self.patterns.iter().find(|pattern| candidate.starts_with(pattern));
            let (part, length) = found.map_or((&candidate[..1], 1), |found| (STARS, found.len()));
            shown.extend_from_slice(part);
            rest = &candidate[length..];
        }
        shown.extend_from_slice(rest);
        shown
    }
}

/// A value as programs print it: whole, without the end of its last line, or line by line.
fn patterns(value: &[u8]) -> Vec<Vec<u8>> {
    let whole = value.trim_ascii_end();
    let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let lines = lines.filter(|line| line.len() >= SHORTEST_LINE);
    let whole = Some(whole).filter(|whole| whole.len() >= SHORTEST);
    whole.into_iter().chain(lines).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let mut secrets = Secrets::default();
        for (number, value) in values.iter().enumerate() {
            secrets.insert(number.to_string(), *value);
        }
        Mask::new(&secrets)
    }

    /// What is shown of a text that comes in pieces of some length.
    fn shown(values: &[&str], text: &str, piece: usize) -> String {
        let mut mask = mask(values);
        let mut shown = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            shown.extend(mask.feed(piece.to_vec()));
        }
        shown.extend(mask.finish());
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn secrets_are_masked_however_they_are_cut() {
        let key = "-----BEGIN KEY-----\nabcdefgh\nij\n-----END KEY-----\n";
        for (values, text, expected) in [
            (&["hunter2"][..], "a hunter2\nhunter2hunter2", "a ***\n******"),
            (&["hunter2\n"], "hunter2", "***"),
            (&["hunter2"], "hunterhunter2 hunter", "hunter*** hunter"),
            (&["abcd", "abcdef"], "abcdef abcde abcd", "*** ***e ***"),
            (&["aaab"], "aaaaab", "aa***"),
            (&[key], key, "***\n"),
            (&[key], "> abcdefgh\n> ij", "> ***\n> ij"),
            (&["abc", ""], "abc", "abc"),
            (&[], "hunter2", "hunter2"),
        ] {
            for piece in 1..=text.len() {
                assert_eq!(shown(values, text, piece), expected, "{text} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_secret_is_not_held_back() {
        let mut mask = mask(&["hunter2"]);
        assert_eq!(mask.feed(b"Password: ".to_vec()), b"Password: ");
        assert_eq!(mask.feed(b"hun".to_vec()), b"");
        assert_eq!(mask.feed(b"t".to_vec()), b"");
        assert_eq!(mask.feed(b"!".to_vec()), b"hunt!");
        assert_eq!(mask.finish(), b"");
    }
}
