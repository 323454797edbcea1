//! Layers as directories, and what is known about them.
//!
//! A snapshot is one layer of a root file system under a [`SnapshotKey`]. It begins as an
//! [`Active`] snapshot, a private directory that somebody fills, and becomes a [`Committed`] one
//! by a rename, from when on nobody changes it. Beside the directory a snapshot holds *facts*:
//! small files whose meaning is the caller's affair. A snapshot may consist of facts alone, as
//! long as nobody has needed its directory.
//!
//! ```text
//! <directory>/<key>/fs/      the layer, as overlayfs takes it for a lower directory
//! <directory>/<key>/boot     under which boot of the machine it was written or last examined;
//!                            its time says when the snapshot was last used
//! <directory>/<key>/<fact>
//! ```
//!
//! Nothing is synced when a snapshot is committed, for that would cost more than most steps. After
//! a power loss the bytes of an earlier boot may be missing, so a snapshot of another boot is
//! examined, in a way that its owner knows ([`Survived`]), before it is used again.
//!
//! This crate mounts nothing and knows nothing of digests, tar archives or images.

mod directory;
mod error;
mod key;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

pub use directory::{DirectorySnapshots, Survived};
pub use error::SnapshotError;
pub use key::SnapshotKey;

/// Keeps layers as directories.
pub trait Snapshotter: Send + Sync {
    /// Begins a snapshot: an empty directory to be filled, and one for overlayfs to work in.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    fn prepare(&self) -> Result<Active, SnapshotError>;

    /// Makes a filled directory the snapshot of a key, together with some facts.
    ///
    /// If the key already has a snapshot with a directory, that one stays and the new one is
    /// dropped: the same key always means the same content.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written; then nothing is committed.
    fn commit(
        &self,
        key: &SnapshotKey,
        active: Option<Active>,
        facts: &[(&str, &[u8])],
    ) -> Result<Committed, SnapshotError>;

    /// The snapshot of a key.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    fn get(&self, key: &SnapshotKey) -> Result<Option<Committed>, SnapshotError>;

    /// Removes the snapshot of a key, if there is one.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError>;

    /// The keys of all snapshots, in no order.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be read.
    fn list(&self) -> Result<Vec<SnapshotKey>, SnapshotError>;
}

/// A snapshot that is being filled. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct Active {
    directory: PathBuf,
}

/// A finished snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    key: SnapshotKey,
    directory: PathBuf,
}

impl Active {
    /// The directory to fill: the upper directory of an overlay.
    pub fn upper(&self) -> PathBuf {
        self.directory.join("fs")
    }

    /// An empty directory on the same file system, for overlayfs to work in.
    pub fn work(&self) -> PathBuf {
        self.directory.join("work")
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        // What cannot be removed here lies among the process's temporary files, which the next
        // process removes.
        let _ = directory::remove_path(&self.directory);
    }
}

impl Committed {
    /// The key.
    pub fn key(&self) -> &SnapshotKey {
        &self.key
    }

    /// The layer's directory, if it has been made.
    pub fn layer(&self) -> Option<PathBuf> {
        let path = self.directory.join("fs");
        path.is_dir().then_some(path)
    }

    /// A fact, if it is known.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be read.
    pub fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, SnapshotError> {
        directory::read_if_there(&self.directory.join(name))
    }

    /// Adds a fact, or replaces it.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn set_fact(&self, name: &str, content: &[u8]) -> Result<(), SnapshotError> {
        Ok(formwork_fs::AtomicFile::write(self.directory.join(name), content)?)
    }

    /// When it was made or last used, to the day.
    pub fn last_used(&self) -> SystemTime {
        directory::last_used(self)
    }

    /// The snapshot's own directory, for error messages.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}
