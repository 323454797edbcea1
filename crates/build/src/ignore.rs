//! What a `.dockerignore` file says about a path.

use formwork_diagnostics::{Diagnostic, SourceFile};
use formwork_dockerfile::IgnoreFile;

use crate::BuildError;

/// What a `.dockerignore` file says about a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoreDecision {
    /// Whether the path is left out of the build context.
    pub is_left_out: bool,
    /// The line that decides: its number, counted from 1, and its text; `None` if none speaks of
    /// the path, so that it is kept.
    pub line: Option<(usize, String)>,
}

/// What a `.dockerignore` file says about a path of the build context.
///
/// # Errors
///
/// Lines of the file that are no patterns.
pub fn ignore_decision(file: &SourceFile, path: &str) -> Result<IgnoreDecision, BuildError> {
    let (ignore, diagnostics) = IgnoreFile::parse(file.clone());
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(BuildError::input(diagnostics));
    }
    let decides = ignore.line_about(path.as_bytes());
    Ok(IgnoreDecision {
        is_left_out: decides.is_some_and(|(rule, _)| !rule.is_exception()),
        line: decides.map(|(rule, span)| (rule.index() + 1, file.slice(span).to_owned())),
    })
}
