//! What can go wrong with a snapshot.

use formwork_fs::FsError;

/// Why a snapshot cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Not a name for a snapshot.
    #[error("`{0}` is not a snapshot's key: it consists of letters, digits, `-`, `_` and `.`")]
    Key(String),
    /// A file of the store.
    #[error(transparent)]
    File(#[from] FsError),
}
