//! Collects what the parser has to say.

use formwork_diagnostics::{Diagnostic, SourceFile, Span, nearest};

/// How many diagnostics are kept. A file with more of them is no Dockerfile at all.
const LIMIT: usize = 100;

/// The diagnostics about one source.
#[derive(Debug)]
pub(crate) struct Report<'s> {
    source: &'s SourceFile,
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
    has_error: bool,
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s SourceFile) -> Self {
        Self { source, diagnostics: Vec::new(), left_out: 0, has_error: false }
    }

    pub(crate) fn source(&self) -> &'s SourceFile {
        self.source
    }

    /// An error at a place, to be completed and given to [`Report::add`].
    pub(crate) fn error(
        &self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
    ) -> Diagnostic {
        Diagnostic::error(code, message).at(self.source, span, "")
    }

    /// A warning at a place, to be completed and given to [`Report::add`].
    pub(crate) fn warning(
        &self,
        code: &'static str,
        message: impl Into<String>,
        span: Span,
    ) -> Diagnostic {
        Diagnostic::warning(code, message).at(self.source, span, "")
    }

    /// Adds a diagnostic; the first error is kept whatever came before it, since it says that
    /// instructions are missing.
    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        let is_first_error = diagnostic.is_error() && !self.has_error;
        self.has_error |= is_first_error;
        if !self.is_full() || is_first_error {
            self.diagnostics.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    fn is_full(&self) -> bool {
        self.diagnostics.len() >= LIMIT
    }

    /// Counts one more error instead of adding it, where it would be left out anyway.
    pub(crate) fn leaves_out(&mut self) -> bool {
        let leaves_out = self.is_full() && self.has_error;
        self.left_out += usize::from(leaves_out);
        leaves_out
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// All that was added, or the first [`LIMIT`] of it, in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.primary_span().map(|span| span.start));
        if self.left_out > 0 {
            let message = format!("{} more problems are not shown", self.left_out);
            self.diagnostics.push(Diagnostic::note("more-problems", message));
        }
        self.diagnostics
    }
}

/// Names the known word that is spelled most like the given one, or else all known words.
pub(crate) fn suggest(diagnostic: Diagnostic, given: &str, known: &[&str]) -> Diagnostic {
    match nearest(given, known.iter().copied()) {
        Some(name) => diagnostic.with_help(format!("did you mean `{name}`?")),
        None if known.is_empty() => diagnostic,
        None => diagnostic.with_help(format!("it can be `{}`", known.join("`, `"))),
    }
}

/// A text for a message, cut short where it is long.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_kept_behind_any_number_of_warnings() {
        let source = SourceFile::new("x", "FROM a");
        let mut report = Report::new(&source);
        let span = Span::new(0, 1);
        for _ in 0..2 * LIMIT {
            report.add(report.warning("w", "a warning", span));
        }
        assert!(!report.leaves_out());
        report.add(report.error("e", "an error", span));
        assert!(report.leaves_out());
        report.add(report.error("e", "another", span));
        let found = report.finish();
        assert_eq!(found.iter().filter(|diagnostic| diagnostic.is_error()).count(), 1);
        assert_eq!(found.last().unwrap().message, "102 more problems are not shown");
    }
}
