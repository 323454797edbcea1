//! JSON arrays of strings, with the place of each string.
//!
//! An instruction's arguments are JSON only if all of them are: one wrong character makes them
//! text for a shell, as in BuildKit. So this reads strictly (RFC 8259), and says nothing about what
//! is wrong. What is JSON, but holds something else than strings, is a mistake.

use std::ops::Range;

use crate::Word;
use crate::word::{Line, WordBuilder};

/// How deep arrays and objects may be nested, which bounds the stack.
const MAX_DEPTH: usize = 100;

/// What some arguments are, seen as JSON.
#[derive(Debug)]
pub(super) enum Json {
    /// No JSON array.
    No,
    /// An array of strings.
    Strings(Vec<Word>),
    /// An array in which something is no string.
    Other,
}

/// Reads a part of a line.
pub(super) fn parse(line: &Line<'_>, range: Range<usize>) -> Json {
    let mut scanner = Scanner { text: &line.text().as_bytes()[..range.end], at: range.start };
    let mut elements = Vec::new();
    let is_array = scanner.array(0, &mut |element| elements.push(element)).is_some();
    scanner.blanks();
    if !is_array || scanner.at != range.end {
        return Json::No;
    }
    let strings = elements.into_iter().map(|element| {
        let is_string = line.text()[element.clone()].starts_with('"');
        is_string.then(|| decode(line, element))
    });
    strings.collect::<Option<_>>().map_or(Json::Other, Json::Strings)
}

/// Looks whether text is JSON, and remembers nothing of it.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Reads over an array and tells the places of its elements; `None` if it is none.
    fn array(&mut self, depth: usize, element: &mut dyn FnMut(Range<usize>)) -> Option<()> {
        self.list(b'[', b']', depth, &mut |scanner| {
            let start = scanner.at;
            scanner.value(depth + 1)?;
            element(start..scanner.at);
            Some(())
        })
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.list(b'{', b'}', depth, &mut |scanner| {
            scanner.string()?;
            scanner.blanks();
            scanner.expect(b':')?;
            scanner.blanks();
            scanner.value(depth + 1)
        })
    }

    fn list(
        &mut self,
        open: u8,
        close: u8,
        depth: usize,
        element: &mut dyn FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.expect(open)?;
        (depth < MAX_DEPTH).then_some(())?;
        self.blanks();
        if self.expect(close).is_some() {
            return Some(());
        }
        loop {
            self.blanks();
            element(self)?;
            self.blanks();
            if self.expect(b',').is_none() {
                return self.expect(close);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.text.get(self.at)? {
            b'"' => self.string(),
            b'[' => self.array(depth, &mut |_| {}),
            b'{' => self.object(depth),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let byte = *self.text.get(self.at)?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.expect(b'-');
        if self.expect(b'0').is_none() {
            self.digits()?;
        }
        if self.expect(b'.').is_some() {
            self.digits()?;
        }
        if self.expect(b'e').or_else(|| self.expect(b'E')).is_some() {
            let _ = self.expect(b'+').or_else(|| self.expect(b'-'));
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.at += self.text[self.at..].iter().take_while(blank).count();
    }
}

/// The string that stands in a range, quotes included, and is known to be well-formed.
fn decode(line: &Line<'_>, range: Range<usize>) -> Word {
    let span = line.span_of(range.clone());
    let inner = range.start + 1..range.end - 1;
    if !line.text()[inner.clone()].contains('\\') {
        return line.word(inner).within(span);
    }
    let mut builder = WordBuilder::default();
    let mut at = inner.start;
    while at < inner.end {
        let (character, length) = first_char(&line.text()[at..inner.end]);
        builder.push(character.encode_utf8(&mut [0; 4]), line.source_of(at));
        at += length;
    }
    builder.finish(span)
}

/// The first character of a well-formed and not empty string, and how many bytes it is written in.
fn first_char(text: &str) -> (char, usize) {
    let mut characters = text.chars();
    match (characters.next().unwrap_or_default(), characters.next()) {
        ('\\', Some('b')) => ('\u{8}', 2),
        ('\\', Some('f')) => ('\u{c}', 2),
        ('\\', Some('n')) => ('\n', 2),
        ('\\', Some('r')) => ('\r', 2),
        ('\\', Some('t')) => ('\t', 2),
        ('\\', Some('u')) => code_point(text),
        ('\\', Some(escaped)) => (escaped, 2),
        (character, _) => (character, character.len_utf8()),
    }
}

/// The character of a `\uXXXX` or a pair of them; half a pair counts as the replacement character.
fn code_point(text: &str) -> (char, usize) {
    let unit = |text: Option<&str>| u16::from_str_radix(text?.strip_prefix("\\u")?, 16).ok();
    let units = [unit(text.get(..6)), unit(text.get(6..12))].into_iter().map_while(|unit| unit);
    match char::decode_utf16(units).next() {
        Some(Ok(character)) => (character, 6 * character.len_utf16()),
        _ => (char::REPLACEMENT_CHARACTER, 6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let line = Line::new(text, 0);
        match (parse(&line, 0..text.len()), expected) {
            (Json::Strings(words), Some(expected)) => {
                let texts: Vec<_> = words.iter().map(Word::text).collect();
                assert_eq!(texts, expected, "{text}");
            }
            (Json::No, None) => {}
            (json, _) => panic!("{text}: {json:?}"),
        }
    }

    #[test]
    fn strings_are_decoded() {
        check("[]", Some(&[]));
        check("[ ]", Some(&[]));
        check(r#"["a"]"#, Some(&["a"]));
        check(r#"[ "a" , "b c", "" ]"#, Some(&["a", "b c", ""]));
        check(r#"["\" \\ \/ \b \f \n \r \t"]"#, Some(&["\" \\ / \u{8} \u{c} \n \r \t"]));
        check(r#"["\u00e9\u263a☺", "\ud83d\ude00"]"#, Some(&["é☺☺", "😀"]));
        check(
            r#"["\ud83d", "\ude00x", "\ud83d\u0041"]"#,
            Some(&["\u{fffd}", "\u{fffd}x", "\u{fffd}A"]),
        );
    }

    #[test]
    fn anything_malformed_is_no_json() {
        for text in [
            "",
            "a",
            "[",
            "]",
            "[]]",
            "[] # comment",
            "[]random",
            "['a']",
            "[a]",
            r#"["a",]"#,
            r#"["a" "b"]"#,
            r#"["a"#,
            r#"["a\"]"#,
            r#"["\x"]"#,
            r#"["\u12g4"]"#,
            r#"["\u12"]"#,
            "[\"a\tb\"]",
            "[,]",
            "[01]",
            "[-]",
            "[1.]",
            "[1e]",
            "[tru]",
            r#"[{"a"}]"#,
            r#""a""#,
            "[[[[",
            r#"{"a": "b"}"#,
        ] {
            check(text, None);
        }
        check(&"[".repeat(1_000_000), None);
    }

    #[test]
    fn other_elements_are_told_from_malformed_text() {
        for text in ["[1]", "[-0.5e+3, \"a\"]", "[[]]", "[null, true, false]", r#"[{"a": [{}]}]"#] {
            let line = Line::new(text, 0);
            assert!(matches!(parse(&line, 0..text.len()), Json::Other), "{text}");
        }
    }

    #[test]
    fn each_string_knows_its_place() {
        let text = r#"CMD ["ab", "c\nd"]"#;
        let line = Line::new(text, 100);
        let Json::Strings(words) = parse(&line, 4..text.len()) else { panic!() };
        let places: Vec<_> = words.iter().map(|word| word.span().range()).collect();
        assert_eq!(places, [105..109, 111..117]);
        assert_eq!(words[0].span_of(0..1).range(), 106..107);
        assert_eq!(words[1].span_of(2..3).range(), 115..116);
    }
}
