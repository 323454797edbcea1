//! `RUN --mount`, as written and as meant.
//!
//! All values may hold variables, so what a mount is can only be told when they have values:
//! [`Mount::resolve`] turns a [`Mount`] into a [`MountSpec`]. The parser does so too where nothing
//! is left to expand, in order to find mistakes early.

mod resolve;

use formwork_diagnostics::{Diagnostic, SourceFile, Span};

use crate::instruction::Spanned;
use crate::{ExpandError, Word};
use resolve::Resolver;

pub(crate) use resolve::parse_bool;

/// A `--mount` flag as written. Of a key that is given twice the last value counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value.
    pub span: Span,
    /// `type`; a bind mount where there is none.
    pub kind: Option<Word>,
    /// `from`: a stage, a named context or an image; nothing is expanded.
    pub from: Option<Word>,
    /// `source` or `src`
    pub source: Option<Word>,
    /// `target`, `dst` or `destination`
    pub target: Option<Word>,
    /// `readonly` or `ro`, and as its opposite `readwrite` or `rw`
    pub access: Option<Access>,
    /// `required`
    pub required: Option<Spanned<Option<Word>>>,
    /// `id`
    pub id: Option<Word>,
    /// `sharing`
    pub sharing: Option<Word>,
    /// `size`
    pub size: Option<Word>,
    /// `mode`
    pub mode: Option<Word>,
    /// `uid`
    pub uid: Option<Word>,
    /// `gid`
    pub gid: Option<Word>,
    /// `env`
    pub env: Option<Word>,
}

/// Whether a mount may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether the key speaks of writing rather than of reading only.
    pub writable: bool,
    /// A truth value; true where there is none.
    pub value: Option<Word>,
}

/// What to mount, all values known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSpec {
    /// Files of the context, a stage or an image; what is written to them is dropped.
    Bind {
        /// What they come from; the context where there is nothing.
        from: Option<String>,
        /// The path there; empty for all of it.
        source: String,
        /// Where to; empty for the working directory.
        target: String,
        /// Whether writing fails.
        read_only: bool,
    },
    /// A directory that builds keep for one another.
    Cache {
        /// Its name; by default the cleaned target.
        id: Option<String>,
        /// What fills it at first.
        from: Option<String>,
        /// The path there, or within the cache.
        source: String,
        /// Where to; empty for the working directory.
        target: String,
        /// Whether writing fails.
        read_only: bool,
        /// What several builds do that want it at once; `None` where it is not said.
        sharing: Option<Sharing>,
        /// Who owns a new cache; by default root, mode 0755.
        owner: FileOwner,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Where to; empty for the working directory.
        target: String,
        /// How many bytes it may hold; 0 for no limit of its own.
        size: u64,
        /// Whether writing fails.
        read_only: bool,
    },
    /// A secret, as a file, a variable or both.
    Secret {
        /// Its name, never empty.
        id: String,
        /// The file; where there is neither this nor a variable, it is `/run/secrets/` and the last
        /// component of the name.
        target: Option<String>,
        /// The environment variable.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Who owns the file; by default root, mode 0400.
        owner: FileOwner,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Its name; `default` where none is given.
        id: String,
        /// The socket; by default one below `/run/buildkit`.
        target: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Who owns the socket; by default root, mode 0600.
        owner: FileOwner,
    },
}

/// What several builds do that want one cache at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// They use it together.
    #[default]
    Shared,
    /// Each uses one of its own.
    Private,
    /// One waits for the other.
    Locked,
}

/// Owner and mode, as far as they are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOwner {
    /// The mode's permission bits.
    pub mode: Option<u32>,
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

impl Mount {
    /// The mount with all its values, each of which `expand` expands.
    ///
    /// # Errors
    ///
    /// A diagnostic about the first value that cannot be expanded, that is no such value, or that
    /// does not belong to this type of mount.
    pub fn resolve(
        &self,
        source: &SourceFile,
        expand: &dyn Fn(&Word) -> Result<String, ExpandError>,
    ) -> Result<MountSpec, Box<Diagnostic>> {
        Resolver { mount: self, source, expand }.resolve()
    }

    /// The values in which variables are expanded.
    pub(crate) fn expanded_words(&self) -> impl Iterator<Item = &Word> {
        let access = self.access.as_ref().and_then(|access| access.value.as_ref());
        let required = self.required.as_ref().and_then(|required| required.value.as_ref());
        let values = [
            self.kind.as_ref(),
            self.source.as_ref(),
            self.target.as_ref(),
            access,
            required,
            self.id.as_ref(),
            self.sharing.as_ref(),
            self.size.as_ref(),
            self.mode.as_ref(),
            self.uid.as_ref(),
            self.gid.as_ref(),
            self.env.as_ref(),
        ];
        values.into_iter().flatten()
    }

    /// Whether no value has anything to expand.
    pub(crate) fn is_literal(&self) -> bool {
        let special = ['$', '\'', '"', '\\', '`'];
        self.expanded_words().all(|word| !word.text().contains(special))
    }
}
