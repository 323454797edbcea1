//! Directories that outlive a build: `RUN --mount=type=cache`.
//!
//! ```text
//! <directory>/<hash of the id>/id         the id, for people and tools; its time says when the
//!                                         directory was last used
//! <directory>/<hash of the id>/0/         the directory that everybody shares
//! <directory>/<hash of the id>/1/, 2/ …   further ones, where each process wants its own
//! <directory>/<hash of the id>/0.lock …   who uses it
//! ```
//!
//! Locks hold between processes, and between the steps of one build. The id is hashed, never made
//! part of a path, so no id can lead anywhere else.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formwork_fs::{AtomicFile, FileLock, FsError};
use formwork_graph::CacheSharing;
use formwork_oci::Digest;
use formwork_solver::Cancel;

/// How often a step that waits for another looks whether it is done.
const POLL: Duration = Duration::from_millis(20);

/// A directory that a step may use as long as it holds this.
#[derive(Debug)]
pub(crate) struct CacheMount {
    pub(crate) directory: PathBuf,
    /// Whether the directory has just been made, and is empty.
    pub(crate) is_new: bool,
    _lock: FileLock,
}

/// The mode and owner of a directory that does not exist yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDirectory {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl CacheMount {
    /// Takes the directory of an id, waiting for it where it has to; `None` if the work is no
    /// longer wanted meanwhile.
    pub(crate) fn take(
        root: &Path,
        id: &str,
        sharing: CacheSharing,
        new: NewDirectory,
        cancel: &Cancel,
    ) -> Result<Option<Self>, FsError> {
        let own = root.join(Digest::of(id.as_bytes()).hex());
        create_directory(&own)?;
        let label = own.join("id");
        if !is_marked_used(&label) {
            AtomicFile::write(&label, id.as_bytes())?;
        }
        let lock = match sharing {
            CacheSharing::Shared => {
                FileLock::shared(own.join("0.lock")).map(|lock| Some((0, lock)))
            }
            CacheSharing::Locked => wait(&own.join("0.lock"), cancel),
            CacheSharing::Private => first_free(&own),
        };
        let Some((number, lock)) = lock? else { return Ok(None) };
        let directory = own.join(number.to_string());
        let is_new = !directory.exists();
        if is_new {
            create_owned(&directory, new)?;
        }
        Ok(Some(Self { directory, is_new, _lock: lock }))
    }
}

/// A directory of `RUN --mount=type=cache` in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCacheMount {
    /// The id: what the mount says, else its target.
    pub id: String,
    /// Where everything about it is.
    pub path: PathBuf,
    /// When it was last used; the beginning of time where that is lost.
    pub last_used: SystemTime,
}

/// All directories of cache mounts below `root`, sorted by id.
///
/// # Errors
///
/// Fails where `root` cannot be read.
pub fn stored_cache_mounts(root: &Path) -> Result<Vec<StoredCacheMount>, FsError> {
    let failed = |error| FsError::new("list the directory", root, error);
    let mut mounts = Vec::new();
    for entry in fs_err::read_dir(root).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            let label = path.join("id");
            let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let last_used = fs_err::metadata(&label).and_then(|metadata| metadata.modified());
            mounts.push(StoredCacheMount {
                // What a killed process has left may lack its id.
                id: fs_err::read_to_string(&label).unwrap_or_else(|_| name()),
                last_used: last_used.unwrap_or(SystemTime::UNIX_EPOCH),
                path,
            });
        }
    }
    mounts.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(mounts)
}

/// Sets the time of a file that is there; `false` where it is not.
fn is_marked_used(path: &Path) -> bool {
    let file = fs_err::OpenOptions::new().write(true).open(path);
    file.and_then(|file| file.file().set_modified(SystemTime::now())).is_ok()
}

fn wait(path: &Path, cancel: &Cancel) -> Result<Option<(usize, FileLock)>, FsError> {
    while !cancel.is_canceled() {
        if let Some(lock) = FileLock::try_exclusive(path)? {
            return Ok(Some((0, lock)));
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

fn first_free(own: &Path) -> Result<Option<(usize, FileLock)>, FsError> {
    for number in 0.. {
        if let Some(lock) = FileLock::try_exclusive(own.join(format!("{number}.lock")))? {
            return Ok(Some((number, lock)));
        }
    }
    Ok(None)
}

pub(crate) fn create_directory(path: &Path) -> Result<(), FsError> {
    match fs_err::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(FsError::new("create the directory", path, error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory under a temporary name first, so that nobody sees it without its owner.
fn create_owned(path: &Path, new: NewDirectory) -> Result<(), FsError> {
    // Random, since what a killed process has left must not be in anybody's way.
    let random = RandomState::new().hash_one(std::process::id());
    let temporary = path.with_extension(format!("new-{random:016x}"));
    let failed = |error| FsError::new("create the directory", path, error);
    std::fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(new.mode);
    std::os::unix::fs::lchown(&temporary, Some(new.uid), Some(new.gid)).map_err(failed)?;
    fs_err::set_permissions(&temporary, mode).map_err(failed)?;
    match fs_err::rename(&temporary, path) {
        // Another process was faster, and its directory is no longer empty.
        Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            fs_err::remove_dir(&temporary).map_err(failed)
        }
        result => result.map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: NewDirectory = NewDirectory { mode: 0o750, uid: 0, gid: 0 };

    fn own() -> NewDirectory {
        let metadata = fs_err::metadata(".").unwrap();
        use std::os::unix::fs::MetadataExt;
        // Only root may give files away.
        NewDirectory { uid: metadata.uid(), gid: metadata.gid(), ..NEW }
    }

    fn take(root: &Path, id: &str, sharing: CacheSharing) -> CacheMount {
        CacheMount::take(root, id, sharing, own(), &Cancel::default()).unwrap().unwrap()
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "/root/.cache", CacheSharing::Shared);
        assert!(first.is_new);
        let mode = fs_err::metadata(&first.directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        fs_err::write(first.directory.join("x"), "").unwrap();
        drop(first);
        let again = take(dir.path(), "/root/.cache", CacheSharing::Locked);
        assert!(!again.is_new && again.directory.join("x").exists());
        assert!(take(dir.path(), "../../etc", CacheSharing::Shared).directory.starts_with(&dir));
    }

    #[test]
    fn the_list_has_ids_and_last_uses() {
        let dir = tempfile::tempdir().unwrap();
        take(dir.path(), "/root/.cache", CacheSharing::Shared);
        let mount = take(dir.path(), "b", CacheSharing::Shared);
        let label = mount.directory.with_file_name("id");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let file = fs_err::OpenOptions::new().write(true).open(label).unwrap();
        file.file().set_modified(old).unwrap();
        let listed = |position: usize| stored_cache_mounts(dir.path()).unwrap().remove(position);
        assert_eq!((listed(0).id.as_str(), listed(1).id.as_str()), ("/root/.cache", "b"));
        assert_eq!(listed(1).last_used, old);
        take(dir.path(), "b", CacheSharing::Private);
        assert!(listed(1).last_used > old);
    }

    #[test]
    fn sharing_is_kept_to() {
        let dir = tempfile::tempdir().unwrap();
        let one = take(dir.path(), "a", CacheSharing::Shared);
        let two = take(dir.path(), "a", CacheSharing::Shared);
        assert_eq!(one.directory, two.directory);
        drop((one, two));
        let one = take(dir.path(), "a", CacheSharing::Private);
        let two = take(dir.path(), "a", CacheSharing::Private);
        assert_ne!(one.directory, two.directory);
        drop((one, two));
        let locked = take(dir.path(), "a", CacheSharing::Locked);
        let cancel = Cancel::default();
        let canceler = cancel.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                canceler.cancel();
            });
            let waiting = CacheMount::take(dir.path(), "a", CacheSharing::Locked, own(), &cancel);
            assert!(waiting.unwrap().is_none());
        });
        drop(locked);
        take(dir.path(), "a", CacheSharing::Locked);
    }
}
