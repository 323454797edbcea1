//! Lists of patterns and exceptions, as a `.dockerignore` file holds them.

use crate::PatternError;
use crate::path_pattern::{PathPattern, component_ends, trim};

/// An ordered list of rules, of which the last that matches decides.
///
/// A rule matches a path if its pattern matches the path or a directory above it. (BuildKit's walk
/// deviates where an exception names a directory above a path that an earlier rule excludes by
/// itself, as in `**/*.md` and then `!docs`: it forgets that `docs` matched. Here, as in the
/// reference and in moby's `MatchesOrParentMatches`, the last line decides.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnorePatterns {
    rules: Vec<Rule>,
}

/// A pattern that excludes or, with a `!`, excepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    index: usize,
    is_exception: bool,
    pattern: PathPattern,
}

/// What a walk has to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignore {
    /// It is not excluded.
    Keep,
    /// It is excluded, with all that may be in it.
    Exclude,
    /// The directory is excluded, but an exception may match something in it.
    ExcludeButDescend,
}

impl IgnorePatterns {
    /// Reads one rule from each text; blank texts are skipped.
    ///
    /// # Errors
    ///
    /// Refuses the whole list for the first malformed pattern.
    pub fn new<I>(texts: I) -> Result<Self, PatternError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let rules = texts.into_iter().enumerate();
        rules.filter_map(|(index, text)| Rule::new(index, text).transpose()).collect()
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule that decides about a path; `None` if no rule matches, so that it is kept.
    ///
    /// The path is relative, without `.` and `..`; the root, which is empty, is never excluded.
    pub fn decide(&self, path: &[u8]) -> Option<&Rule> {
        self.position_of_decision(path).map(|position| &self.rules[position])
    }

    /// What a walk has to do with an entry.
    ///
    /// An excluded directory is entered only if something in it can be kept: one of the exceptions
    /// behind the rule that excludes it can match there.
    pub fn judge(&self, path: &[u8], is_dir: bool) -> Ignore {
        let Some(position) = self.position_of_decision(path) else { return Ignore::Keep };
        if self.rules[position].is_exception {
            return Ignore::Keep;
        }
        let mut exceptions = self.rules[position..].iter().filter(|rule| rule.is_exception);
        if is_dir && exceptions.any(|rule| rule.pattern.may_match_below(path)) {
            Ignore::ExcludeButDescend
        } else {
            Ignore::Exclude
        }
    }

    fn position_of_decision(&self, path: &[u8]) -> Option<usize> {
        if path.is_empty() {
            return None;
        }
        let ends = component_ends(path);
        self.rules.iter().rposition(|rule| rule.pattern.matches_to_an_end(path, &ends))
    }
}

impl FromIterator<Rule> for IgnorePatterns {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self { rules: rules.into_iter().collect() }
    }
}

impl Rule {
    /// Reads a rule; `None` from a blank text. The index is the caller's: a place in a list, or the
    /// number of a line.
    ///
    /// # Errors
    ///
    /// Refuses a malformed pattern, and a `!` that excepts nothing.
    pub fn new(index: usize, text: impl AsRef<[u8]>) -> Result<Option<Self>, PatternError> {
        let text = trim(text.as_ref());
        if text.is_empty() {
            return Ok(None);
        }
        let excepted = text.strip_prefix(b"!").map(trim);
        let pattern = PathPattern::new(excepted.unwrap_or(text))?;
        if excepted.is_some_and(|rest| rest.is_empty() || pattern.as_bytes() == b"/") {
            return Err(PatternError::EmptyException);
        }
        Ok(Some(Self { index, is_exception: excepted.is_some(), pattern }))
    }

    /// The index that the rule was read with.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Whether the rule excepts what it matches, by a `!`, instead of excluding it.
    pub fn is_exception(&self) -> bool {
        self.is_exception
    }

    /// The pattern, without the `!`.
    pub fn pattern(&self) -> &PathPattern {
        &self.pattern
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(lines: &[&str]) -> IgnorePatterns {
        IgnorePatterns::new(lines).unwrap()
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        for (lines, excluded, kept) in [
            (&[][..], &[][..], &["a", "a/b"][..]),
            (&["*.go"], &["a.go"], &["d/a.go", "go"]),
            (&["!a.go", "*.go"], &["a.go"], &[]),
            (&["*.go", "!a.go"], &["b.go"], &["a.go"]),
            (&["docs", "!docs/README.md"], &["docs", "docs/x"], &["docs/README.md"]),
            (&["docs/", "!docs/README.md"], &["docs", "docs/x"], &["docs/README.md"]),
            (&["docs/*", "!docs/README.md"], &["docs/x"], &["docs", "docs/README.md"]),
            (&["**", "!util/web"], &["util", "x"], &["util/web", "util/web/foo"]),
            (&["**", "!util/web", "util/web/foo"], &["util/web/foo"], &["util/web/bar"]),
            (&["*", "!src", "src/*.o"], &["x", "src/a.o"], &["src", "src/a.c", "src/x/a.o"]),
            (&["*", "!**/.keep"], &["a", "a/b"], &[".keep", "a/.keep", "a/b/.keep"]),
            (&["**/*.md", "!docs"], &["a.md", "x/a.md"], &["docs/a.md"]),
            (&["a", "!a/b", "a/b/c"], &["a/b/c", "a/b/c/d"], &["a/b", "a/b/d"]),
            (&["", "  ", "a"], &["a"], &["b"]),
            (&["/a", "! /a/b"], &["a", "a/c"], &["a/b"]),
            (&["./a/../b/"], &["b"], &["a"]),
            (&["/", ".", "..", "../a"], &[], &["a", "b/a"]),
            (&["a", "!."], &["a"], &["b"]),
            (&["a", "!!b"], &["a"], &["b", "!b"]),
        ] {
            let patterns = patterns(lines);
            let keeps =
                |path: &str| patterns.decide(path.as_bytes()).is_none_or(Rule::is_exception);
            assert!(kept.iter().all(|path| keeps(path)), "{lines:?}");
            assert!(!excluded.iter().any(|path| keeps(path)), "{lines:?}");
        }
    }

    #[test]
    fn a_rule_tells_where_it_stood() {
        let patterns = patterns(&["a", "", "!a/b", "*.sh"]);
        let index = |path: &str| patterns.decide(path.as_bytes()).map(Rule::index);
        assert_eq!(index("a/c"), Some(0));
        assert_eq!(index("a/b/c"), Some(2));
        assert_eq!(index("x.sh"), Some(3));
        assert_eq!(index("b"), None);
        assert_eq!(index(""), None);
    }

    #[test]
    fn exceptions_of_nothing_are_refused() {
        for line in ["!", " ! ", "!/", "!//"] {
            assert_eq!(IgnorePatterns::new([line]), Err(PatternError::EmptyException), "{line}");
        }
        assert!(IgnorePatterns::new(["a", "!["]).is_err());
    }

    #[test]
    fn walks_enter_only_where_an_exception_can_match() {
        let patterns = patterns(&["*", "!a/b/c", "!x/*/y", "!**/z.md", "z", "n/**", "n/o", "!q"]);
        for (path, verdict) in [
            ("", Ignore::Keep),
            ("a", Ignore::ExcludeButDescend),
            ("q", Ignore::Keep),
            ("q/r", Ignore::Keep),
            // A later rule excludes it, and no exception comes after that one.
            ("z", Ignore::Exclude),
            ("n/o", Ignore::Exclude),
        ] {
            assert_eq!(patterns.judge(path.as_bytes(), true), verdict, "{path}");
        }
        assert_eq!(patterns.judge(b"a", false), Ignore::Exclude);
    }

    #[test]
    fn an_exception_opens_no_more_than_the_way_to_it() {
        let patterns = patterns(&["*", "!a/b/c", "!x/*/[yz]w", "!dir*/k"]);
        for (path, verdict) in [
            ("a", Ignore::ExcludeButDescend),
            ("a/b", Ignore::ExcludeButDescend),
            ("a/b/c", Ignore::Keep),
            ("a/b/d", Ignore::Exclude),
            ("a/bb", Ignore::Exclude),
            ("ab", Ignore::Exclude),
            ("b", Ignore::Exclude),
            ("x", Ignore::ExcludeButDescend),
            ("x/1", Ignore::ExcludeButDescend),
            ("x/1/yw", Ignore::Keep),
            ("x/1/y", Ignore::Exclude),
            ("dir", Ignore::ExcludeButDescend),
            ("directory", Ignore::ExcludeButDescend),
            ("directory/j", Ignore::Exclude),
            ("di", Ignore::Exclude),
        ] {
            assert_eq!(patterns.judge(path.as_bytes(), true), verdict, "{path}");
        }
    }

    fn rule() -> impl Strategy<Value = String> {
        "!?/?[ab*?/]{1,6}"
    }

    proptest! {
        #[test]
        fn nothing_that_is_kept_lies_where_no_walk_goes(
            lines in proptest::collection::vec(rule(), 1..5),
            path in "[ab]{1,2}(/[ab]{1,2}){1,3}",
        ) {
            let Ok(patterns) = IgnorePatterns::new(&lines) else { return Ok(()) };
            if patterns.judge(path.as_bytes(), false) == Ignore::Keep {
                for (end, _) in path.match_indices('/') {
                    let directory = &path.as_bytes()[..end];
                    prop_assert_ne!(patterns.judge(directory, true), Ignore::Exclude);
                }
            }
        }
    }
}
