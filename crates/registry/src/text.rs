//! Words of strangers, made fit for a message.

/// The most characters of foreign text that a message repeats.
const LIMIT: usize = 300;

/// A foreign text as one line of bounded length without control characters, which could otherwise
/// steer the user's terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::new();
    for (count, word) in text.split(|c: char| c.is_whitespace() || is_control(c)).enumerate() {
        if word.is_empty() {
            continue;
        }
        if count > 0 && !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > LIMIT {
            let end = line.char_indices().map(|(at, _)| at).take_while(|at| *at <= LIMIT).last();
            line.truncate(end.unwrap_or_default());
            line.push('…');
            break;
        }
    }
    line
}

/// Control characters, and those that change the direction of text.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn foreign_text_becomes_one_harmless_line() {
        for (text, expected) in [
            ("plain", "plain"),
            ("  two\r\n\tlines ", "two lines"),
            ("\u{1b}[31mred\u{7}", "[31mred"),
            ("a\u{202e}b", "a b"),
            ("", ""),
        ] {
            assert_eq!(printable(text), expected);
        }
        let long = printable(&"ä".repeat(10_000));
        assert!(long.len() <= LIMIT + '…'.len_utf8(), "{}", long.len());
    }

    proptest! {
        #[test]
        fn nothing_is_left_that_could_do_harm(text in ".{0,600}") {
            let line = printable(&text);
            prop_assert!(!line.contains(is_control));
            prop_assert!(line.len() <= LIMIT + '…'.len_utf8());
        }
    }
}
