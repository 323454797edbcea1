//! Why a source of a copy is not there.

use std::fmt;

use formwork_fs::RelPath;

/// A source of a copy that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingSource {
    /// The source as it was asked for.
    pub source: String,
    /// Where it was looked for: a context's name, or `None` for another root file system.
    pub context: Option<String>,
    /// Why it is not there.
    pub reason: Reason,
}

/// Why a source is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is, and a rule of the context's ignore file leaves it out.
    Ignored {
        /// The path that the rule is about: the source or a directory above it.
        path: RelPath,
        /// The number of the rule's line, from 0.
        line: usize,
    },
    /// There is something of a similar name in the same place.
    Nearest(RelPath),
    /// There is something of the same name in another place.
    Elsewhere(RelPath),
    /// There is nothing like it.
    Unknown,
}

impl fmt::Display for MissingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, context, reason } = self;
        match (reason, context.as_deref()) {
            (Reason::Ignored { .. }, _) => write!(f, "`{source}` is left out of the build context"),
            (_, Some("context")) => write!(f, "`{source}` is not in the build context"),
            (_, Some(name)) => write!(f, "`{source}` is not in the build context `{name}`"),
            (_, None) => write!(f, "`{source}` is not there"),
        }
    }
}
