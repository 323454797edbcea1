//! `.dockerignore` files.

use formwork_diagnostics::{Diagnostic, SourceFile, Span};
use formwork_pattern::{Ignore, IgnorePatterns, Rule};

/// What a `.dockerignore` file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreFile {
    source: SourceFile,
    patterns: IgnorePatterns,
}

impl IgnoreFile {
    /// Reads a file. Lines that begin with `#` are comments; a byte-order mark is ignored. A line
    /// that is no pattern is reported and left out.
    pub fn parse(source: SourceFile) -> (Self, Vec<Diagnostic>) {
        let mut diagnostics = Vec::new();
        let mut rules = Vec::new();
        for (index, line) in source.text().trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            match Rule::new(index, line) {
                Ok(rule) => rules.extend(rule),
                Err(error) => {
                    let span = line_span(&source, index);
                    let diagnostic = Diagnostic::error("bad-pattern", error.to_string());
                    diagnostics.push(diagnostic.at(&source, span, ""));
                }
            }
        }
        (Self { patterns: rules.into_iter().collect(), source }, diagnostics)
    }

    /// The file's text.
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// The rules, whose indices are the numbers of their lines, from 0.
    pub fn patterns(&self) -> &IgnorePatterns {
        &self.patterns
    }

    /// What a walk has to do with an entry of the context.
    pub fn judge(&self, path: &[u8], is_dir: bool) -> Ignore {
        self.patterns.judge(path, is_dir)
    }

    /// Whether a path is left out, with all that may be in it.
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.judge(path, true) == Ignore::Exclude
    }

    /// The line that excludes a path or excepts it, without white space around it; `None` if none
    /// speaks of it.
    pub fn line_about(&self, path: &[u8]) -> Option<(&Rule, Span)> {
        let rule = self.patterns.decide(path)?;
        Some((rule, line_span(&self.source, rule.index())))
    }
}

impl Default for IgnoreFile {
    /// A file that is not there, which leaves nothing out.
    fn default() -> Self {
        let source = SourceFile::new(".dockerignore", "");
        Self { source, patterns: IgnorePatterns::default() }
    }
}

/// The span of a line counted from 0, without white space around its text.
fn line_span(source: &SourceFile, index: usize) -> Span {
    let line = source.line_span(index + 1).unwrap_or_default();
    let text = source.slice(line).trim_start_matches('\u{feff}');
    let start = line.end as usize - text.trim_start().len();
    Span::at(start, text.trim().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::annotate;

    fn parse(text: &str) -> (IgnoreFile, String) {
        let (file, diagnostics) = IgnoreFile::parse(SourceFile::new(".dockerignore", text));
        (file, annotate(&diagnostics))
    }

    #[test]
    fn lines_are_patterns_and_exceptions() {
        let (file, said) = parse("\u{feff}# comment\n\n  *.sh \r\n/docs/\n ! docs/a.md\n #b\n");
        assert_eq!(said, "");
        let about = |path: &str| {
            let (rule, span) = file.line_about(path.as_bytes())?;
            Some((rule.index() + 1, file.source().slice(span)))
        };
        assert_eq!(about("x.sh"), Some((3, "*.sh")));
        assert_eq!(about("docs/x"), Some((4, "/docs/")));
        assert_eq!(about("docs/a.md"), Some((5, "! docs/a.md")));
        assert_eq!(about("#b"), Some((6, "#b")));
        assert_eq!(about("# comment"), None);
        assert_eq!(file.judge(b"docs", true), Ignore::ExcludeButDescend);
        assert_eq!(file.judge(b"x.sh", false), Ignore::Exclude);
    }

    #[test]
    fn the_first_line_may_be_a_pattern() {
        let (file, _) = parse("\u{feff}a");
        let (rule, span) = file.line_about(b"a").unwrap();
        assert_eq!((rule.index(), file.source().slice(span)), (0, "a"));
    }

    #[test]
    fn what_is_no_pattern_is_told_and_left_out() {
        let (file, said) = parse("a\n!\n b[ \nc");
        assert_eq!(file.patterns().rules().len(), 2);
        let expected = "!\n^\nerror[bad-pattern]: `!` needs a pattern behind it that names what not \
                        to exclude\n b[ \n ^^\nerror[bad-pattern]: the pattern `b[` has a malformed \
                        `[…]`: write `[abc]`, `[a-z]` or `[^abc]`, and `\\[` for a bracket itself\n";
        assert_eq!(said, expected);
    }
}
