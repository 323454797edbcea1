//! Patterns with `**`, as moby's `patternmatcher` reads them.

use crate::PatternError;
use crate::clean::clean;
use crate::syntax::{Atom, Atoms};
use crate::token::{Token, ends, may_match_beyond, push_byte};

/// A pattern for paths in which `**` stands for any number of components.
///
/// Besides `**/` at the start of a component and `/**` at the end of the pattern, there are the
/// forms that moby's matcher lets through, and their meaning is kept: in the middle of a component
/// (`a**b`, `a**/b`) two stars stand for nothing or for everything up to some slash, and `**name`
/// matches whatever ends in `name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<[u8]>,
    tokens: Vec<Token>,
}

impl PathPattern {
    /// Reads a pattern after cleaning it: blanks at either end go, as do doubled slashes, `.`, `..`
    /// behind a component, and slashes at either end. (`/` alone stays, and matches nothing.)
    ///
    /// # Errors
    ///
    /// Refuses a malformed class and a backslash at the end.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, PatternError> {
        let mut text = clean(trim(pattern.as_ref()));
        if text.len() > 1 && text.starts_with(b"/") {
            text.remove(0);
        }
        let tokens = tokens(&text)?;
        Ok(Self { text: text.into(), tokens })
    }

    /// The cleaned pattern.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether this very path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        self.matches_to_an_end(path, &[path.len()])
    }

    /// Whether the path or a directory above it matches.
    pub fn matches_or_parent(&self, path: &[u8]) -> bool {
        self.matches_to_an_end(path, &component_ends(path))
    }

    /// Whether a path inside `directory` can match by itself, so that a walk has to look there.
    ///
    /// May be wrongly true for a class that holds no character, but never wrongly false.
    pub fn may_match_below(&self, directory: &[u8]) -> bool {
        if directory.is_empty() {
            return true;
        }
        let mut prefix = Vec::with_capacity(directory.len() + 1);
        prefix.extend_from_slice(directory);
        prefix.push(b'/');
        may_match_beyond(&self.tokens, &prefix)
    }

    /// Whether the path matches from its start up to one of the given offsets.
    pub(crate) fn matches_to_an_end(&self, path: &[u8], path_ends: &[usize]) -> bool {
        // Most paths are told apart by how the pattern begins or ends, which costs least.
        match self.tokens.as_slice() {
            [Token::Literal(bytes)] => path.starts_with(bytes) && path_ends.contains(&bytes.len()),
            [Token::Literal(bytes), ..] if !path.starts_with(bytes) => false,
            [.., Token::Literal(bytes)]
                if !path_ends.iter().any(|end| path[..*end].ends_with(bytes)) =>
            {
                false
            }
            tokens => ends(tokens, path).iter().any(|end| path_ends.binary_search(end).is_ok()),
        }
    }
}

/// The offsets behind the components of a path, the last of which is its length.
pub(crate) fn component_ends(path: &[u8]) -> Vec<usize> {
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    slashes.chain([path.len()]).collect()
}

/// Takes white space away at both ends.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    std::str::from_utf8(text).map_or(text.trim_ascii(), |text| text.trim().as_bytes())
}

fn tokens(pattern: &[u8]) -> Result<Vec<Token>, PatternError> {
    let mut tokens = Vec::new();
    let mut atoms = Atoms::new(pattern);
    while let Some(atom) = atoms.next()? {
        match atom {
            Atom::Byte(byte) => push_byte(&mut tokens, byte),
            Atom::AnyChar => tokens.push(Token::AnyChar),
            Atom::Class(class) => tokens.push(Token::Class(class)),
            Atom::Star if atoms.eat(b"*") => {
                let before_slash = atoms.eat(b"/");
                tokens.push(match atoms.rest() {
                    b"" => Token::Anything,
                    rest if tokens.is_empty() && !before_slash && is_literal(rest) => {
                        Token::Anything
                    }
                    _ => Token::Directories,
                });
            }
            Atom::Star => tokens.push(Token::Star),
        }
    }
    Ok(tokens)
}

fn is_literal(pattern: &[u8]) -> bool {
    !pattern.iter().any(|byte| b"*?[]\\".contains(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::syntax::first_char;

    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        let compiled = PathPattern::new(pattern).unwrap();
        for path in matching {
            assert!(compiled.matches_or_parent(path.as_bytes()), "{pattern} should match {path}");
        }
        for path in others {
            let matches = compiled.matches_or_parent(path.as_bytes());
            assert!(!matches, "{pattern} should not match {path}");
        }
    }

    #[test]
    fn names_match_themselves_and_what_is_below() {
        check("dir", &["dir", "dir/a", "dir/a/b"], &["di", "dirs", "a/dir"]);
        check("dir/", &["dir", "dir/a"], &["dirs"]);
        check("./dir/../x", &["x", "x/y"], &["dir"]);
        check("a/b", &["a/b", "a/b/c"], &["a", "a/bc", "a/c", "b"]);
        check(" a ", &["a"], &[" a "]);
        check("/a//b/", &["a/b"], &["b"]);
        check("/", &[], &["a"]);
        check("..", &[], &["a"]);
    }

    #[test]
    fn single_wildcards_stay_in_their_component() {
        check("*", &["a", "a/b", ".a"], &[]);
        check("*.txt", &["a.txt", ".txt", "a.txt/b"], &["a/b.txt", "a.txtx"]);
        check("*/*", &["a/b", "a/b/c"], &["a"]);
        check("a/*.txt", &["a/b.txt"], &["a/b/c.txt", "a"]);
        check("a?c", &["abc", "a☺c", "abc/d"], &["ac", "abbc", "a/c"]);
        check("a[b-d]e", &["ace", "ace/x"], &["ae", "aae", "aze"]);
        check("a[^b-d]e", &["aze"], &["ace", "a/e"]);
        check(".*", &[".a", ".a/b"], &["a", "a/.b"]);
        check("*b", &["b", "ab", "bb/c"], &["ba", "a/b"]);
    }

    #[test]
    fn two_stars_cross_components() {
        check("**", &["a", "a/b", ".a"], &[]);
        check("**/", &["a", "a/b"], &[]);
        check("**/**", &["a", "a/b"], &[]);
        check("a/**", &["a/b", "a/b/c"], &["a", "ab", "b/a"]);
        check("a/**/", &["a/b"], &["a"]);
        check("**/a", &["a", "a/b", "x/a", "x/y/a", "x/a/y"], &["ab", "x/ab", "xa"]);
        check("**/a/b", &["a/b", "x/a/b", "x/y/a/b/z"], &["a", "a/x/b", "xa/b"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b/z"], &["a", "b", "a/xb", "ab"]);
        check("a/**/b/**/c", &["a/b/c", "a/x/b/y/c", "a/b/b/c/c"], &["a/b", "a/c", "a/b/xc"]);
        check("**/a/*", &["a/b", "x/a/b", "x/a/b/c"], &["a", "x/a"]);
        check("**/a/**", &["x/a/b/c", "a/b"], &["a", "x/a", "x/ab/c"]);
        check("**/*.txt", &["a.txt", "x/a.txt", "x/y/a.txt/z"], &["a.txtx", "x/a.md"]);
        check("**/**/*.txt", &["a.txt", "x/a.txt"], &["x/a.txt2"]);
        check("**/a*txt", &["x/a.txt", "atxt"], &["x/ba.txt"]);
        check("*/**", &["a/b", "a/b/c"], &["a"]);
        check("**/.a", &[".a", "x/.a"], &["x.a", "x/y.a"]);
        check("**/?", &["a", "x/a", "xy/a", "a/xy"], &["xy", "xy/zz"]);
    }

    #[test]
    fn two_stars_within_a_component_mean_what_they_mean_to_moby() {
        check("**a", &["a", "ba", "x/a", "x/ba", "ba/x"], &["ab", "x/ab"]);
        check("**a*", &["a", "ab", "x/ab"], &["ba", "x/ba"]);
        check("a**", &["a", "ab", "ab/c", "a/b"], &["ba", "x/a"]);
        check("a**b", &["ab", "a/b", "ax/b", "ax/y/b"], &["axb", "a/xb"]);
        check("a**/*.txt", &["a/b.txt", "a/x/b.txt", "ax/b.txt", "a.txt"], &["b/a.txt"]);
        check("a/*.txt**", &["a/b.txt", "a/b.txtx", "a/b.txt/c"], &["a/b"]);
        check("***", &["a", "a/b"], &[]);
        check("*a**b", &["xab", "a/b", "xa/y/b"], &["xaxb", "b"]);
    }

    #[test]
    fn nothing_else_is_special() {
        check("a.b", &["a.b"], &["aXb"]);
        check("a(b)c/d", &["a(b)c/d"], &["abc/d"]);
        check("a.|)$(}+{bc", &["a.|)$(}+{bc"], &["abc"]);
        check("x-1.0+g8-py3.whl", &["x-1.0+g8-py3.whl"], &["x-1.00g8-py3.whl"]);
        check("d/*+*.whl", &["d/x+y.whl"], &["d/xy.whl"]);
        check("^a*", &["^ab"], &["ab"]);
        check("{a,b}*", &["{a,b}c"], &["a", "b"]);
        check("a]*", &["a]b"], &["ab"]);
        check("!a", &["!a"], &["a"]);
        check("#a", &["#a"], &[]);
        check("안녕*", &["안녕하세요"], &["안"]);
    }

    #[test]
    fn backslashes_and_brackets_escape() {
        check(r"a\*b", &["a*b"], &["axb"]);
        check(r"a\\", &[r"a\"], &["a"]);
        check(r"\a\b*", &["abc"], &[r"\abc"]);
        check(r"\d*", &["dog"], &["1"]);
        check("a[*]b", &["a*b"], &["axb", "ab"]);
        check("a[?]b", &["a?b"], &["axb"]);
        check("[[]a", &["[a"], &["a"]);
        check("[.]a*", &[".ab"], &["xab"]);
    }

    #[test]
    fn malformed_patterns_are_refused() {
        for pattern in ["[", "a/[b", "**/[]", "a[b-]", r"a\", r"**/\"] {
            assert!(PathPattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_path_itself_is_told_from_its_parents() {
        let pattern = PathPattern::new("**/a").unwrap();
        assert!(pattern.matches(b"x/a") && pattern.matches_or_parent(b"x/a"));
        assert!(!pattern.matches(b"x/a/b") && pattern.matches_or_parent(b"x/a/b"));
    }

    #[test]
    fn bytes_that_are_no_text_match_wildcards() {
        let pattern = PathPattern::new("**/?.c").unwrap();
        assert!(pattern.matches(b"x/\xff.c") && !pattern.matches(b"x/\xff\xff.c"));
        assert!(PathPattern::new(b"\xff*").unwrap().matches(b"\xff\xfe"));
    }

    #[test]
    fn hostile_patterns_take_no_longer_than_others() {
        let path = "a/".repeat(2_000) + "a";
        for pattern in ["**/a*a".repeat(100) + "b", "*a".repeat(300) + "b", "**/".repeat(300) + "b"]
        {
            assert!(!PathPattern::new(&pattern).unwrap().matches_or_parent(path.as_bytes()));
        }
    }

    /// Tries everything, straight from the rules.
    fn naive(pattern: &[u8], path: &[u8], at_start: bool) -> bool {
        match pattern {
            [] => path.is_empty(),
            b"**" | b"**/" => true,
            [b'*', b'*', rest @ ..] => {
                let (after_slash, suffix) = match rest.strip_prefix(b"/") {
                    Some(rest) => (rest, false),
                    None => (rest, at_start && !rest.iter().any(|byte| b"*?[]\\".contains(byte))),
                };
                (0..=path.len())
                    .filter(|at| suffix || *at == 0 || path[at - 1] == b'/')
                    .any(|at| naive(after_slash, &path[at..], false))
            }
            [b'*', rest @ ..] => {
                let end = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
                (0..=end).any(|at| naive(rest, &path[at..], false))
            }
            [b'?', rest @ ..] => match first_char(path) {
                Some('/') | None => false,
                Some(character) => naive(rest, &path[character.len_utf8()..], false),
            },
            [byte, rest @ ..] => path.first() == Some(byte) && naive(rest, &path[1..], false),
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_trying_everything(
            pattern in "[ab?*/]{1,8}",
            path in "[abé]{1,3}(/[ab]{1,3}){0,3}",
        ) {
            let compiled = PathPattern::new(&pattern).unwrap();
            let cleaned = compiled.as_bytes();
            prop_assert_eq!(compiled.matches(path.as_bytes()), naive(cleaned, path.as_bytes(), true));
            let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
            let any_parent = ends.clone().any(|end| naive(cleaned, &path.as_bytes()[..end], true));
            prop_assert_eq!(compiled.matches_or_parent(path.as_bytes()), any_parent);
            for end in ends.filter(|end| *end < path.len()) {
                let below = compiled.matches(path.as_bytes());
                let may = compiled.may_match_below(&path.as_bytes()[..end]);
                prop_assert!(may || !below, "{} below {}", pattern, &path[..end]);
            }
        }

        #[test]
        fn any_bytes_are_read_and_matched(pattern: Vec<u8>, path: Vec<u8>) {
            if let Ok(compiled) = PathPattern::new(&pattern) {
                compiled.matches(&path);
                compiled.matches_or_parent(&path);
                compiled.may_match_below(&path);
            }
        }
    }
}
