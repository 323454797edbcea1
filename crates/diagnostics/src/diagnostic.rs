//! One thing to say about an input.
//!
//! A diagnostic is plain data: it never decides whether it stops a build, which is for the code
//! that made it, and never how it looks, which is for [`crate::render`].

use std::borrow::Cow;

use crate::{SourceFile, Span};

/// One error, warning or note, with all that helps to act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The stable name of the error, such as `unknown-instruction`, or of the rule in BuildKit's
    /// spelling, such as `UndefinedVar`.
    pub code: Cow<'static, str>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// The text that the spans point into; `None` where nothing in a text is to blame.
    pub source: Option<SourceFile>,
    /// The places, the first of which is the one to look at.
    pub labels: Vec<Label>,
    /// Causes and context, a sentence each.
    pub notes: Vec<String>,
    /// Ways out, a sentence each.
    pub help: Vec<String>,
    /// Edits that would mend it.
    pub fixes: Vec<Fix>,
}

/// How bad a diagnostic is; the order is from worst to mildest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The input cannot be used as it stands.
    Error,
    /// The input works, though probably not as meant.
    Warning,
    /// Something worth knowing.
    Note,
}

/// A place in the source and what to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What to write beneath the place; may be empty.
    pub text: String,
}

/// A set of edits that belongs together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What the edits do, as an imperative.
    pub title: String,
    /// The edits, which do not overlap.
    pub edits: Vec<Edit>,
    /// How far the edits may be trusted.
    pub applicability: Applicability,
}

/// The replacement of one span of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The text to replace; empty for an insertion.
    pub span: Span,
    /// What comes in its place.
    pub replacement: String,
}

/// How far a fix may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Applicability {
    /// Keeps the meaning; may be applied unseen.
    Safe,
    /// May change what is built; to be applied on request.
    Unsafe,
    /// Shows the idea only.
    DisplayOnly,
}

impl Diagnostic {
    /// An error under a stable code.
    pub fn error(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning under a stable code.
    pub fn warning(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A note under a stable code.
    pub fn note(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, message)
    }

    fn new(
        severity: Severity,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code: code.into(),
            message: message.into(),
            source: None,
            labels: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// Points at a place in a source, with a text beneath it that may be empty.
    ///
    /// The first call names the place to look at; later calls add places in the same source.
    #[must_use]
    pub fn at(mut self, source: &SourceFile, span: Span, text: impl Into<String>) -> Self {
        self.source.get_or_insert_with(|| source.clone());
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Adds a cause or some context.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Adds edits that would mend it.
    #[must_use]
    pub fn with_fix(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The place to look at.
    pub fn primary_span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}

impl Severity {
    /// The word that reports use: `error`, `warning` or `note`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl std::fmt::Display for Diagnostic {
    /// Shows `name:line:column: severity: message`, for logs and single-line reports.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(source), Some(span)) = (&self.source, self.primary_span()) {
            let position = source.position(span.start);
            write!(f, "{}:{}:{}: ", source.name(), position.line, position.column)?;
        }
        write!(f, "{}: {}", self.severity.as_str(), self.message)
    }
}
