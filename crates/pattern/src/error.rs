//! What can be wrong with a pattern.

use std::fmt;

/// Why some text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// A `[` begins a class that is not closed, is empty, or has a range without an end.
    BadClass {
        /// The pattern, with bytes that are no UTF-8 replaced.
        pattern: String,
    },
    /// A backslash at the end escapes nothing.
    TrailingBackslash {
        /// The pattern, with bytes that are no UTF-8 replaced.
        pattern: String,
    },
    /// A `!` excepts nothing.
    EmptyException,
}

impl PatternError {
    pub(crate) fn bad_class(pattern: &[u8]) -> Self {
        Self::BadClass { pattern: String::from_utf8_lossy(pattern).into_owned() }
    }

    pub(crate) fn trailing_backslash(pattern: &[u8]) -> Self {
        Self::TrailingBackslash { pattern: String::from_utf8_lossy(pattern).into_owned() }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadClass { pattern } => write!(
                f,
                "the pattern `{pattern}` has a malformed `[…]`: write `[abc]`, `[a-z]` or \
                 `[^abc]`, and `\\[` for a bracket itself"
            ),
            Self::TrailingBackslash { pattern } => write!(
                f,
                "the pattern `{pattern}` ends in a backslash that escapes nothing: write `\\\\` \
                 for a backslash itself"
            ),
            Self::EmptyException => {
                f.write_str("`!` needs a pattern behind it that names what not to exclude")
            }
        }
    }
}

impl std::error::Error for PatternError {}
