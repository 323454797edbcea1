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
}

impl<'s> Report<'s> {
    pub(crate) fn new(source: &'s SourceFile) -> Self {
        Self { source, diagnostics: Vec::new(), left_out: 0 }
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

    pub(crate) fn add(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < LIMIT {
            self.diagnostics.push(diagnostic);
        } else {
            self.left_out += 1;
        }
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
