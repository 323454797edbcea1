//! What can go wrong with a layer.

use std::io;

use formwork_fs::{FsError, RelPath};
use formwork_tar::TarError;

/// Why a layer could not be read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A file of a layer, a context or the store.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The stream that a layer is read from failed.
    #[error("cannot read the layer: {0}")]
    Read(#[source] io::Error),
    /// The stream that a layer is written to failed.
    #[error("cannot write the layer: {0}")]
    Write(#[source] io::Error),
    /// Compressed data that does not decompress.
    #[error("the layer's {format} data is damaged: {source}; fetch or build it again")]
    Compression {
        /// The name of the format, such as `gzip`.
        format: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// Bytes that are no tar archive.
    #[error(
        "not a valid tar archive: {problem} (byte {offset} of the uncompressed data); fetch or make \
         it again"
    )]
    Archive {
        /// Where in the uncompressed archive.
        offset: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// An entry of a layer that must not or cannot be unpacked.
    #[error("the layer's entry `{name}` {problem}")]
    Entry {
        /// The name, where bytes that are no UTF-8 are replaced.
        name: String,
        /// What is wrong, to be read after the name.
        problem: &'static str,
    },
    /// A file whose content is no longer what was read at the start of the build.
    #[error("`{path}` changed during the build; run the build again when nothing writes to it")]
    Changed {
        /// The file.
        path: String,
    },
    /// A name that means a deletion in a layer's archive.
    #[error(
        "{path} cannot be stored in an image: names that begin with `.wh.` mean deletions there; \
         rename it, or delete it before the end of the build"
    )]
    ReservedName {
        /// The entry.
        path: RelPath,
    },
    /// Entries that make no tree.
    #[error("{path} cannot be part of a layer: {problem}")]
    Tree {
        /// The entry.
        path: RelPath,
        /// What is wrong.
        problem: &'static str,
    },
    /// A stored tree that is damaged or was written by another version.
    #[error("the stored list of a layer's files is damaged ({problem}); remove it")]
    Encoding {
        /// What is wrong.
        problem: &'static str,
    },
    /// A path that leads nowhere.
    #[error("{path} cannot be looked up: {problem}")]
    Lookup {
        /// The path as far as it is known.
        path: RelPath,
        /// What is wrong.
        problem: &'static str,
    },
    /// A copy that cannot be made.
    #[error("cannot {action}: {problem}")]
    Copy {
        /// What cannot be done, and where: about the source or about the destination.
        action: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl From<TarError> for LayerError {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => Self::from_read(error),
            TarError::Invalid { offset, problem } => Self::Archive { offset, problem },
        }
    }
}

impl LayerError {
    /// The error of a stream, which may be one of this crate that came through `std::io`.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::Read(error),
        }
    }
}
