//! What can go wrong with the store, and the way out.

use std::path::PathBuf;

use formwork_fs::FsError;
use formwork_oci::{Digest, OciError};

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store's directory can be neither used nor made.
    #[error("cannot use `{}` as the store: {source}; {way_out}", path.display())]
    Store {
        /// The store's directory.
        path: PathBuf,
        /// What was tried and what the kernel said.
        source: FsError,
        /// What the user can do.
        way_out: &'static str,
    },
    /// The store's directory holds something else.
    #[error(
        "`{}` is not empty and is not a formwork store; choose an empty or a new directory with \
         `--root`", .0.display()
    )]
    NotAStore(PathBuf),
    /// There is no space left.
    #[error("{0}; free some space there, or choose a place on another file system")]
    Full(#[source] FsError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(FsError),
    /// A blob is not in the store.
    #[error(
        "the blob {digest} is missing in `{}`; pull or build the image that it belongs to again",
        store.display()
    )]
    Missing {
        /// The blob that was asked for.
        digest: Digest,
        /// The image layout that does not have it.
        store: PathBuf,
    },
    /// A blob is too large to be what it should be.
    #[error("the blob {digest} has {size} bytes, more than the {limit} that are read at once")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its number of bytes.
        size: u64,
        /// The number that the caller is ready to take.
        limit: u64,
    },
    /// A blob in the store is not what its name says.
    #[error(
        "`{}` is damaged: its content has the digest {actual}; remove the file, and it is fetched \
         or made anew", path.display()
    )]
    Damaged {
        /// The blob's file.
        path: PathBuf,
        /// The digest of what it holds now.
        actual: Digest,
    },
    /// What was written is not what was announced.
    #[error("expected the content {expected}, got {actual}")]
    WrongDigest {
        /// The announced digest.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// Fewer or more bytes were written than were announced.
    #[error("expected {expected} bytes of the content {digest}, got {actual}")]
    WrongLength {
        /// The announced digest.
        digest: Digest,
        /// The announced number of bytes.
        expected: u64,
        /// The number of bytes that came.
        actual: u64,
    },
    /// The list of images in an image layout cannot be understood.
    #[error("cannot read `{}`: {source}; restore the file, or choose another directory", path.display())]
    Index {
        /// The layout's `index.json`.
        path: PathBuf,
        /// Where and why it stops making sense.
        source: OciError,
    },
}

impl From<FsError> for ContentError {
    fn from(error: FsError) -> Self {
        if error.is_full() { Self::Full(error) } else { Self::File(error) }
    }
}
