//! Directories that outlive a build: `RUN --mount=type=cache`.
//!
//! ```text
//! <directory>/<hash of the id>/id         the id, for people and tools; its time says when the
//!                                         directory was last used
//! <directory>/<hash of the id>/0/         the directory that everybody shares
//! <directory>/<hash of the id>/1/, 2/ …   further ones, where each process wants its own
//! <directory>/<hash of the id>/0.lock …   who uses it
//! <directory>/<hash of the id>/0.lent …   where it is now, if it is not here
//! ```
//!
//! Locks hold between processes, and between the steps of one build. The id is hashed, never made
//! part of a path, so no id can lead anywhere else.

use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formwork_fs::{AtomicFile, FileLock, FsError, Lease, RootDir, remove_tree};
use formwork_graph::CacheSharing;
use formwork_oci::Digest;
use formwork_solver::Cancel;
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::WorkerError;
use crate::lent::bring_home;

/// How often a step that waits for another looks whether it is done.
const POLL: Duration = Duration::from_millis(20);

/// A directory that a step may use as long as it holds this.
#[derive(Debug)]
pub(crate) struct CacheMount {
    pub(crate) directory: PathBuf,
    _lock: FileLock,
}

/// The mode and owner of a directory that does not exist yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDirectory {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What somebody wants of a cache mount.
pub(crate) struct Wish<'a> {
    pub(crate) id: &'a str,
    pub(crate) sharing: CacheSharing,
    pub(crate) new: NewDirectory,
    /// Puts the first content into a directory that does not exist yet.
    pub(crate) fill: &'a dyn Fn(&Path) -> Result<(), WorkerError>,
    /// Called once before waiting for somebody else.
    pub(crate) waits: &'a dyn Fn(),
}

impl CacheMount {
    /// Takes the directory of an id, waiting for it where it has to; `None` if the work is no
    /// longer wanted meanwhile. As long as `lease` lives nobody removes it. `tmp` is where a killed
    /// process may have left it.
    pub(crate) fn take(
        (root, tmp): (&Path, &Path),
        lease: &Lease,
        wish: &Wish<'_>,
        cancel: &Cancel,
    ) -> Result<Option<Self>, WorkerError> {
        let own = hold(root, lease, wish.id)?;
        create_directory(&own)?;
        let label = own.join("id");
        if !is_marked_used(&label) {
            AtomicFile::write(&label, wish.id.as_bytes())?;
        }
        let first = own.join("0.lock");
        let lock = match wish.sharing {
            CacheSharing::Shared => wait(|| FileLock::try_shared(&first), wish, cancel)?,
            CacheSharing::Locked => wait(|| FileLock::try_exclusive(&first), wish, cancel)?,
            CacheSharing::Private => None,
        };
        let taken = match (lock, wish.sharing) {
            (Some(lock), _) => Some((0, lock)),
            (None, CacheSharing::Private) => first_free(&own)?,
            (None, _) => None,
        };
        let Some((number, lock)) = taken else { return Ok(None) };
        let directory = own.join(number.to_string());
        bring_home(&directory, tmp)?;
        if !directory.exists() {
            create_filled(&directory, wish)?;
        }
        Ok(Some(Self { directory, _lock: lock }))
    }
}

/// Keeps everybody from removing a cache mount; returns where everything about it is.
pub(crate) fn hold(root: &Path, lease: &Lease, id: &str) -> Result<PathBuf, FsError> {
    let name = Digest::of(id.as_bytes()).hex().to_owned();
    lease.hold(&name)?;
    Ok(root.join(name))
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

fn wait(
    mut attempt: impl FnMut() -> Result<Option<FileLock>, FsError>,
    wish: &Wish<'_>,
    cancel: &Cancel,
) -> Result<Option<FileLock>, FsError> {
    let mut is_told = false;
    while !cancel.is_canceled() {
        if let Some(lock) = attempt()? {
            return Ok(Some(lock));
        }
        if !std::mem::replace(&mut is_told, true) {
            (wish.waits)();
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

/// Makes a directory under a temporary name first, so that nobody sees it without its owner and its
/// first content.
fn create_filled(path: &Path, wish: &Wish<'_>) -> Result<(), WorkerError> {
    // Random, since what a killed process has left must not be in anybody's way.
    let random = RandomState::new().hash_one(std::process::id());
    let temporary = path.with_extension(format!("new-{random:016x}"));
    let failed = |error| FsError::new("create the directory", path, error);
    std::fs::DirBuilder::new().mode(0o700).create(&temporary).map_err(failed)?;
    let given = give(&temporary, wish.new).map_err(failed).map_err(WorkerError::from);
    let filled = given.and_then(|()| (wish.fill)(&temporary));
    let moved = filled.and_then(|()| {
        // A directory that another process has made is in use by now, also an empty one.
        match rename(&temporary, path, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            // The file system has no such flag.
            Err(Errno::INVAL) => match rename(&temporary, path, RenameFlags::empty()) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
                Err(errno) => Err(failed(errno.into()).into()),
            },
            Err(errno) => Err(failed(errno.into()).into()),
        }
    });
    if !matches!(moved, Ok(true))
        && let (Some(parent), Some(name)) = (temporary.parent(), temporary.file_name())
    {
        remove_tree(&RootDir::open(parent)?, name.as_encoded_bytes())?;
    }
    moved.map(drop)
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags)
}

fn give(path: &Path, new: NewDirectory) -> std::io::Result<()> {
    let name = path.as_os_str().as_encoded_bytes();
    formwork_fs::give(rustix::fs::CWD, name, new.uid, new.gid)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(new.mode))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    const NEW: NewDirectory = NewDirectory { mode: 0o750, uid: 0, gid: 0 };

    fn own() -> NewDirectory {
        let metadata = fs_err::metadata(".").unwrap();
        use std::os::unix::fs::MetadataExt;
        // Only root may give files away.
        NewDirectory { uid: metadata.uid(), gid: metadata.gid(), ..NEW }
    }

    fn wish(id: &str, sharing: CacheSharing) -> Wish<'_> {
        Wish { id, sharing, new: own(), fill: &|_| Ok(()), waits: &|| {} }
    }

    fn take(root: &Path, id: &str, sharing: CacheSharing) -> CacheMount {
        let lease = Lease::new(root);
        let wish = wish(id, sharing);
        CacheMount::take((root, root), &lease, &wish, &Cancel::default()).unwrap().unwrap()
    }

    #[test]
    fn what_is_kept_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "/root/.cache", CacheSharing::Shared);
        let mode = fs_err::metadata(&first.directory).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o750);
        fs_err::write(first.directory.join("x"), "").unwrap();
        drop(first);
        let again = take(dir.path(), "/root/.cache", CacheSharing::Locked);
        assert!(again.directory.join("x").exists());
        assert!(take(dir.path(), "../../etc", CacheSharing::Shared).directory.starts_with(&dir));
    }

    #[test]
    fn several_who_make_a_directory_at_once_share_it() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let id = format!("id-{round}");
            let (begin, all) = (std::sync::Barrier::new(4), std::sync::Barrier::new(4));
            std::thread::scope(|scope| {
                for number in 0..4 {
                    let (id, begin, all) = (&id, &begin, &all);
                    let root = dir.path();
                    scope.spawn(move || {
                        begin.wait();
                        let taken = take(root, id, CacheSharing::Shared);
                        // As a step has it mounted: whatever becomes of the name.
                        let directory = RootDir::open(&taken.directory).unwrap();
                        all.wait();
                        let inside = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
                        // Who panics here lets the others wait.
                        let written = fs_err::write(format!("{inside}/{number}"), "");
                        all.wait();
                        written.unwrap();
                        assert_eq!(fs_err::read_dir(&taken.directory).unwrap().count(), 4);
                    });
                }
            });
        }
    }

    #[test]
    fn nobody_sees_a_directory_before_its_first_content_is_there() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let fill = |path: &Path| {
                        for name in ["a", "b", "c"] {
                            fs_err::write(path.join(name), "").unwrap();
                            std::thread::sleep(Duration::from_millis(2));
                        }
                        Ok(())
                    };
                    let wish = Wish { fill: &fill, ..wish("id", CacheSharing::Shared) };
                    let lease = Lease::new(dir.path());
                    let taken = CacheMount::take(
                        (dir.path(), dir.path()),
                        &lease,
                        &wish,
                        &Cancel::default(),
                    );
                    let directory = taken.unwrap().unwrap().directory;
                    assert_eq!(fs_err::read_dir(directory).unwrap().count(), 3);
                });
            }
        });
        // What fails leaves no half a directory.
        let fill = |path: &Path| {
            fs_err::write(path.join("a"), "").unwrap();
            Err(WorkerError::Internal(String::new()))
        };
        let wish = Wish { fill: &fill, ..wish("other", CacheSharing::Shared) };
        let lease = Lease::new(dir.path());
        CacheMount::take((dir.path(), dir.path()), &lease, &wish, &Cancel::default()).unwrap_err();
        let own = hold(dir.path(), &lease, "other").unwrap();
        let mut left: Vec<_> =
            fs_err::read_dir(own).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.lock", "id"]);
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
            let is_told = Cell::new(0);
            let told = || is_told.set(is_told.get() + 1);
            let wish = Wish { waits: &told, ..wish("a", CacheSharing::Locked) };
            let waiting =
                CacheMount::take((dir.path(), dir.path()), &Lease::new(dir.path()), &wish, &cancel);
            assert!(waiting.unwrap().is_none());
            assert_eq!(is_told.get(), 1);
        });
        drop(locked);
        take(dir.path(), "a", CacheSharing::Locked);
    }
}
