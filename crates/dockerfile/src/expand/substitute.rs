//! The patterns of `${x#…}`, `${x%…}` and `${x/…}`.
//!
//! `*` stands for any characters and `?` for one; there are no classes. For all places of a text at
//! once, and from the end of the pattern to its start, it is worked out how far the rest of the
//! pattern can reach from there. That takes the product of both lengths, whatever they hold.

/// A pattern without variables.
#[derive(Debug)]
pub(super) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    AnyChar,
    Star,
}

/// Which of several possible matches to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Shortest,
    Longest,
}

impl Pattern {
    /// The work that the matches of one word may take; some milliseconds.
    pub(super) const MAX_COST: usize = 1 << 20;

    /// Reads a pattern; `None` where a backslash escapes nothing that needs it.
    pub(super) fn new(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' if tokens.last() == Some(&Token::Star) => {}
                '*' => tokens.push(Token::Star),
                '?' => tokens.push(Token::AnyChar),
                '\\' => {
                    let escaped = characters.next()?;
                    matches!(escaped, '*' | '?' | '\\' | '/' | '}').then_some(())?;
                    tokens.push(Token::Literal(escaped));
                }
                other => tokens.push(Token::Literal(other)),
            }
        }
        Some(Self { tokens })
    }

    /// How much work a match is.
    pub(super) fn cost(&self, text: &str) -> usize {
        self.tokens.len().saturating_mul(text.len())
    }

    /// The text without what matches at its start.
    pub(super) fn without_prefix<'t>(&self, text: &'t str, which: Which) -> &'t str {
        let ends = self.ends(text, Some, which);
        ends[0].map_or(text, |end| &text[end..])
    }

    /// The text without what matches at its end.
    pub(super) fn without_suffix<'t>(&self, text: &'t str, which: Which) -> &'t str {
        let ends = self.ends(text, |at| (at == text.len()).then_some(at), which);
        let start = match which {
            Which::Shortest => ends.iter().rposition(Option::is_some),
            Which::Longest => ends.iter().position(Option::is_some),
        };
        start.map_or(text, |start| &text[..start])
    }

    /// The text with the first match or all of them replaced, each as long as it can be; `None` if
    /// the result is longer than `limit`.
    pub(super) fn replace(
        &self,
        text: &str,
        replacement: &str,
        all: bool,
        limit: usize,
    ) -> Option<String> {
        let ends = self.ends(text, Some, Which::Longest);
        let mut result = String::new();
        let mut copied = 0;
        for (start, end) in ends.into_iter().enumerate() {
            let Some(end) = end else { continue };
            // A match within another one is none, nor is an empty one right behind it.
            if start < copied || (start == copied && start > 0 && end == start) {
                continue;
            }
            result.push_str(&text[copied..start]);
            result.push_str(replacement);
            copied = end;
            if !all || result.len() > limit {
                break;
            }
        }
        result.push_str(&text[copied..]);
        (result.len() <= limit).then_some(result)
    }

    /// For every offset the end of the match that begins there, if one does and ends where `last`
    /// says that it may.
    fn ends(
        &self,
        text: &str,
        last: impl Fn(usize) -> Option<usize>,
        which: Which,
    ) -> Vec<Option<usize>> {
        let starts = |at: &usize| text.is_char_boundary(*at);
        let mut ends: Vec<Option<usize>> =
            (0..=text.len()).map(|at| Some(at).filter(starts).and_then(&last)).collect();
        for token in self.tokens.iter().rev() {
            // Each offset needs but itself and those behind it, so this can be done in place.
            if *token == Token::Star {
                let mut best = ends[text.len()];
                for (at, _) in text.char_indices().rev() {
                    best = which.better(best, ends[at]);
                    ends[at] = best;
                }
            } else {
                for (at, character) in text.char_indices() {
                    let matches = *token == Token::AnyChar || *token == Token::Literal(character);
                    let end = ends[at + character.len_utf8()];
                    ends[at] = end.filter(|_| matches);
                }
                ends[text.len()] = None;
            }
        }
        ends
    }
}

impl Which {
    pub(super) fn longest_if(longest: bool) -> Self {
        if longest { Self::Longest } else { Self::Shortest }
    }

    fn better(self, one: Option<usize>, other: Option<usize>) -> Option<usize> {
        match (one, other) {
            (Some(one), Some(other)) if self == Self::Longest => Some(one.max(other)),
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn the_start_or_the_end_is_removed() {
        for (text, wild, short_start, long_start, short_end, long_end) in [
            ("a/b/c", "*/", "b/c", "c", "a/b/c", "a/b/c"),
            ("a/b/c", "/*", "a/b/c", "a/b/c", "a/b", "a"),
            ("xxyy", "*", "xxyy", "", "xxyy", ""),
            ("xxyy", "", "xxyy", "xxyy", "xxyy", "xxyy"),
            ("xxyy", "?", "xyy", "xyy", "xxy", "xxy"),
            ("xxyy", "*x*y", "y", "", "x", ""),
            ("한글", "?", "글", "글", "한", "한"),
            ("a*b", r"a\*", "b", "b", "a*b", "a*b"),
            ("", "*", "", "", "", ""),
        ] {
            let wild = pattern(wild);
            assert_eq!(wild.without_prefix(text, Which::Shortest), short_start);
            assert_eq!(wild.without_prefix(text, Which::Longest), long_start);
            assert_eq!(wild.without_suffix(text, Which::Shortest), short_end);
            assert_eq!(wild.without_suffix(text, Which::Longest), long_end);
        }
    }

    #[test]
    fn matches_are_replaced() {
        for (text, wild, by, first, all) in [
            ("a.b.c", ".", "-", "a-b.c", "a-b-c"),
            ("a.b.c", ".*", "", "a", "a"),
            ("aaa", "a", "b$1", "b$1aa", "b$1b$1b$1"),
            ("abc", "x", "y", "abc", "abc"),
            ("ab", "", "-", "-ab", "-a-b-"),
            ("baac", "a*", "-", "b-", "b-"),
            ("xax", "*", "-", "-", "-"),
            ("한글", "?", "-", "-글", "--"),
            (r"a/b", r"\/", "-", "a-b", "a-b"),
            ("a}b", r"\}", "-", "a-b", "a-b"),
            ("", "*", "-", "-", "-"),
        ] {
            let wild = pattern(wild);
            assert_eq!(wild.replace(text, by, false, 99).as_deref(), Some(first), "{text}");
            assert_eq!(wild.replace(text, by, true, 99).as_deref(), Some(all), "{text}");
        }
    }

    #[test]
    fn results_may_not_grow_without_end() {
        assert_eq!(pattern("?").replace("aaaa", "bbbb", true, 15), None);
        assert!(pattern("?").replace("aaaa", "bbbb", true, 16).is_some());
    }

    #[test]
    fn backslashes_escape_only_what_needs_it() {
        for text in ["\\", "\\x", "\\\\\\", "a\\["] {
            assert!(Pattern::new(text).is_none(), "{text}");
        }
    }

    /// All ends of matches from the start of the text, by trying everything.
    fn naive(tokens: &[Token], text: &str) -> Vec<usize> {
        let Some((token, rest)) = tokens.split_first() else { return vec![0] };
        let steps: Vec<usize> = match (token, text.chars().next()) {
            (Token::Star, _) => text.char_indices().map(|(at, _)| at).chain([text.len()]).collect(),
            (Token::AnyChar, Some(next)) => vec![next.len_utf8()],
            (Token::Literal(wanted), Some(next)) if *wanted == next => vec![next.len_utf8()],
            _ => Vec::new(),
        };
        let ends = |step: usize| naive(rest, &text[step..]).into_iter().map(move |end| step + end);
        steps.into_iter().flat_map(ends).collect()
    }

    proptest! {
        #[test]
        fn ends_agree_with_trying_everything(wild in "[ab?*é]{0,6}", text in "[abé]{0,8}") {
            let wild = pattern(&wild);
            let longest = wild.ends(&text, Some, Which::Longest);
            let shortest = wild.ends(&text, Some, Which::Shortest);
            for (at, _) in text.char_indices().chain([(text.len(), ' ')]) {
                let all = naive(&wild.tokens, &text[at..]);
                prop_assert_eq!(longest[at], all.iter().max().map(|end| at + end));
                prop_assert_eq!(shortest[at], all.iter().min().map(|end| at + end));
            }
        }
    }
}
