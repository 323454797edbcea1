//! Wildcards as Go's `filepath.Match` has them, component by component.

use crate::PatternError;
use crate::syntax::{Atom, Atoms};
use crate::token::{Token, ends, push_byte};

/// A pattern for whole paths in which every component may hold `*`, `?`, `[a-z]`, `[^a-z]` and
/// `\x`; there is no `**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    components: Vec<Component>,
}

/// The part of a [`Glob`] between two slashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Component {
    tokens: Vec<Token>,
}

impl Glob {
    /// Reads a pattern. It is not cleaned: `a//b` has an empty component in the middle.
    ///
    /// # Errors
    ///
    /// Refuses a malformed class and a backslash at the end.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, PatternError> {
        let mut components = Vec::new();
        let mut current = Component::default();
        let mut atoms = Atoms::new(pattern.as_ref());
        while let Some(atom) = atoms.next()? {
            match atom {
                Atom::Byte(b'/') => components.push(std::mem::take(&mut current)),
                atom => current.push(atom),
            }
        }
        components.push(current);
        Ok(Self { components })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut names = path.split(|byte| *byte == b'/');
        let all_match = self
            .components
            .iter()
            .all(|component| names.next().is_some_and(|name| component.matches(name)));
        all_match && names.next().is_none()
    }

    /// Whether more than one path can match.
    pub fn has_wildcards(&self) -> bool {
        self.components.iter().any(|component| component.as_literal().is_none())
    }

    /// The components before the first one with a wildcard, escapes resolved: where a walk can
    /// begin. The whole path if there is no wildcard.
    pub fn literal_prefix(&self) -> Vec<u8> {
        let names: Vec<_> = self.components.iter().map_while(Component::as_literal).collect();
        names.join(&b'/')
    }

    /// The components from the root down, for a walk that matches one at a time.
    pub fn components(&self) -> &[Component] {
        &self.components
    }
}

impl Component {
    /// Whether a name, which holds no slash, matches.
    pub fn matches(&self, name: &[u8]) -> bool {
        match self.as_literal() {
            Some(literal) => literal == name,
            None => ends(&self.tokens, name).last() == Some(&name.len()),
        }
    }

    /// The only name that matches, escapes resolved; `None` if there is a wildcard.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match self.tokens.as_slice() {
            [] => Some(b""),
            [Token::Literal(bytes)] => Some(bytes),
            _ => None,
        }
    }

    fn push(&mut self, atom: Atom) {
        match atom {
            Atom::Byte(byte) => push_byte(&mut self.tokens, byte),
            Atom::AnyChar => self.tokens.push(Token::AnyChar),
            Atom::Class(class) => self.tokens.push(Token::Class(class)),
            Atom::Star if self.tokens.last() == Some(&Token::Star) => {}
            Atom::Star => self.tokens.push(Token::Star),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glob(pattern: &str) -> Glob {
        Glob::new(pattern).unwrap()
    }

    #[test]
    fn paths_match_as_in_go() {
        for (pattern, matching, others) in [
            ("", &[""][..], &["a", "/"][..]),
            ("abc", &["abc"], &["ab", "abcd", "Abc", ""]),
            ("*", &["", "abc", ".hidden", "é"], &["a/b", "/"]),
            ("*c", &["abc", "c"], &["cd", "a/c"]),
            ("a*", &["a", "abc"], &["ba", "ab/c"]),
            ("a*/b", &["a/b", "abc/b"], &["a/c/b", "a/bb"]),
            ("*/*", &["a/b", "/", "/a"], &["a", "a/b/c"]),
            ("a*b*c*d*e*/f", &["axbxcxdxe/f", "axbxcxdxexxx/f"], &["axbxcxdxe/xxx/f", "abcde/ff"]),
            ("a*b?c*x", &["abxbbxdbxebxczzx"], &["abxbbxdbxebxczzy"]),
            ("a?b", &["a☺b", "axb", "a\u{0}b"], &["ab", "a/b", "axxb"]),
            ("a??b", &["axyb"], &["a☺b"]),
            ("ab[c]", &["abc"], &["ab[c]"]),
            ("ab[b-d]", &["abc"], &["abe", "ab"]),
            ("ab[^c]", &["abd", "ab☺"], &["abc"]),
            ("ab[^b-d]", &["aba"], &["abc"]),
            ("a[^a][^a]b", &["axyb"], &["a☺b"]),
            ("[a-ζ]*", &["α", "zz"], &["Z"]),
            (r"a\*b", &["a*b"], &["ab", "axb"]),
            (r"\a\?\[", &["a?["], &["ab["]),
            (r"[\]a]", &["]", "a"], &["b"]),
            ("a]b", &["a]b"], &["ab"]),
            ("[[]x]", &["[x]"], &["x"]),
            ("**", &["", "abc"], &["a/b"]),
            ("a**b", &["ab", "axxb"], &["a/b"]),
            ("a//b", &["a//b"], &["a/b"]),
            ("/a", &["/a"], &["a"]),
            (r"a\/b", &["a/b"], &[r"a\/b"]),
        ] {
            let glob = glob(pattern);
            assert!(matching.iter().all(|path| glob.matches(path.as_bytes())), "{pattern}");
            assert!(!others.iter().any(|path| glob.matches(path.as_bytes())), "{pattern}");
        }
    }

    #[test]
    fn a_class_never_matches_a_slash() {
        assert!(!glob("a[^b]c").matches(b"a/c"));
        assert!(!glob("a[/]c").matches(b"a/c"));
        assert!(!glob("a[.-0]c").matches(b"a/c"));
    }

    #[test]
    fn bytes_that_are_no_text_count_as_one_character_each() {
        assert!(glob("a?b").matches(b"a\xffb"));
        assert!(!glob("a?b").matches(b"a\xff\xfeb"));
        assert!(glob("*b").matches(b"\xf0\x9f\xff b"));
        assert!(glob("a[^x]b").matches(b"a\xffb"));
        assert!(Glob::new(b"a\xff*").unwrap().matches(b"a\xff\xfe"));
    }

    #[test]
    fn malformed_patterns_are_refused_wherever_the_fault_is() {
        for pattern in ["[", "a/[", "*[a", "a[]", "x/[^]b", r"\", r"a/*\"] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn walks_begin_behind_the_literal_components() {
        for (pattern, prefix, wild) in [
            ("a/b/c", "a/b/c", false),
            (r"a/\*/c", "a/*/c", false),
            ("a/b*/c", "a", true),
            ("*/b", "", true),
            ("", "", false),
        ] {
            assert_eq!(glob(pattern).literal_prefix(), prefix.as_bytes(), "{pattern}");
            assert_eq!(glob(pattern).has_wildcards(), wild, "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_longer_than_few() {
        let pattern = "*a".repeat(300) + "b";
        assert!(!glob(&pattern).matches("a".repeat(3_000).as_bytes()));
    }
}
