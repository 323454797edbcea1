//! What can be wrong with a word that is to be expanded.

use formwork_diagnostics::{Diagnostic, SourceFile, Span};

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A quote without its counterpart.
    #[error("the quote {quote} is not closed")]
    UnclosedQuote {
        /// From the quote on.
        span: Span,
        /// Which one.
        quote: char,
    },
    /// `${` without `}`.
    #[error("`${{` has no `}}`")]
    UnclosedBrace {
        /// From the `$` on.
        span: Span,
    },
    /// `${x/pattern}` without a replacement.
    #[error("`${{…/…` has no second `/`")]
    MissingReplacement {
        /// From the `$` on.
        span: Span,
    },
    /// `${}`, `${:-x}` or the like.
    #[error("`${{` is followed by no name")]
    MissingName {
        /// The `${`.
        span: Span,
    },
    /// Something behind the name that Dockerfiles do not know.
    #[error("`{modifier}` is no operation on a variable")]
    UnknownOperation {
        /// The characters behind the name.
        span: Span,
        /// The same as text.
        modifier: String,
    },
    /// A variable that must have a value has none: `${x:?message}`.
    #[error("{name}: {message}")]
    Required {
        /// The whole `${…}`.
        span: Span,
        /// The variable.
        name: String,
        /// The author's message, or that the variable must be set.
        message: String,
    },
    /// A pattern with a backslash before something that needs none.
    #[error("`{pattern}` is no pattern: a backslash goes before `*`, `?`, `\\`, `/` or `}}` only")]
    BadPattern {
        /// The whole `${…}`.
        span: Span,
        /// The pattern with its variables expanded.
        pattern: String,
    },
    /// Too many `${…}` inside one another.
    #[error("variables are nested more than {limit} deep")]
    TooDeep {
        /// The innermost that was looked at.
        span: Span,
        /// How many levels there may be.
        limit: usize,
    },
    /// The result, or the work to get it, is beyond all reason.
    #[error("the expanded text is larger, or more work, than formwork accepts")]
    TooLarge {
        /// What makes it so large.
        span: Span,
    },
}

impl ExpandError {
    /// Where in the source the mistake is.
    pub fn span(&self) -> Span {
        match self {
            Self::UnclosedQuote { span, .. }
            | Self::UnclosedBrace { span }
            | Self::MissingReplacement { span }
            | Self::MissingName { span }
            | Self::UnknownOperation { span, .. }
            | Self::Required { span, .. }
            | Self::BadPattern { span, .. }
            | Self::TooDeep { span, .. }
            | Self::TooLarge { span } => *span,
        }
    }

    /// The same for the user.
    pub fn to_diagnostic(&self, source: &SourceFile) -> Diagnostic {
        let diagnostic =
            Diagnostic::error(self.code(), self.to_string()).at(source, self.span(), "");
        match self.help() {
            Some(help) => diagnostic.with_help(help),
            None => diagnostic,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Required { .. } => "required-variable",
            _ => "bad-expansion",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::UnclosedQuote { quote, .. } => {
                Some(format!("close it, or write `\\{quote}` for the character itself"))
            }
            Self::UnclosedBrace { .. } | Self::MissingName { .. } => {
                Some("write `\\$` for a dollar sign that is none of a variable's".to_owned())
            }
            Self::MissingReplacement { .. } => {
                Some("write `${name/pattern/}` to remove what matches".to_owned())
            }
            Self::UnknownOperation { .. } => Some(
                "there are `:-`, `-`, `:+`, `+`, `:?`, `?`, `#`, `##`, `%`, `%%`, `/` and `//`"
                    .to_owned(),
            ),
            Self::Required { name, .. } => Some(format!("give it a value: `--build-arg {name}=…`")),
            Self::BadPattern { .. } | Self::TooDeep { .. } | Self::TooLarge { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use formwork_diagnostics::SourceFile;

    use crate::expand;
    use crate::testing::{annotate, word};

    fn shown(text: &str) -> String {
        let source = SourceFile::new("Dockerfile", format!("FROM scratch\nUSER {text}"));
        let error = expand(&word(text), '\\', &|_| None).unwrap_err();
        annotate(&[error.to_diagnostic(&source)])
    }

    #[test]
    fn mistakes_are_shown_with_their_place_and_a_way_out() {
        assert_eq!(
            shown("a${b:?say $c}"),
            "USER a${b:?say $c}\n      ^^^^^^^^^^^^\nerror[required-variable]: b: say \n  \
             help: give it a value: `--build-arg b=…`\n"
        );
        assert_eq!(
            shown("a'b"),
            "USER a'b\n      ^^\nerror[bad-expansion]: the quote ' is not closed\n  \
             help: close it, or write `\\'` for the character itself\n"
        );
    }
}
