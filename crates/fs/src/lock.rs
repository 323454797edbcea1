//! Locks between processes.
//!
//! `flock(2)`: a lock belongs to the open file, ends with the process however it ends, and cannot
//! be left behind.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::FsError;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
    /// Whether the lock file goes with the lock.
    transient: bool,
}

impl FileLock {
    /// Waits until nobody else holds the lock in any way.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn exclusive(path: impl AsRef<Path>) -> Result<Self, FsError> {
        let lock = Self::open(path.as_ref())?;
        lock.acquire(FlockOperation::LockExclusive).map(|_| lock)
    }

    /// Waits until nobody else holds the lock exclusively.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn shared(path: impl AsRef<Path>) -> Result<Self, FsError> {
        let lock = Self::open(path.as_ref())?;
        lock.acquire(FlockOperation::LockShared).map(|_| lock)
    }

    /// Takes the lock if nobody else holds it in any way; `None` where somebody does.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn try_exclusive(path: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        let lock = Self::open(path.as_ref())?;
        let taken = lock.acquire(FlockOperation::NonBlockingLockExclusive)?;
        Ok(taken.then_some(lock))
    }

    /// Takes the lock if nobody else holds it exclusively; `None` where somebody does.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn try_shared(path: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        let lock = Self::open(path.as_ref())?;
        let taken = lock.acquire(FlockOperation::NonBlockingLockShared)?;
        Ok(taken.then_some(lock))
    }

    /// Takes a lock whose file is removed with it, if nobody else holds it; `None` where somebody
    /// does. For locks with ever new names.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn try_transient(path: impl AsRef<Path>) -> Result<Option<Self>, FsError> {
        loop {
            let mut lock = Self::open(path.as_ref())?;
            if !lock.acquire(FlockOperation::NonBlockingLockExclusive)? {
                return Ok(None);
            }
            // Between opening and locking, the holder before may have removed the file: a lock on
            // a file without a name excludes nobody.
            if lock.is_at_its_path() {
                lock.transient = true;
                return Ok(Some(lock));
            }
        }
    }

    /// The lock file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open(path: &Path) -> Result<Self, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o666))
            .map_err(|errno| FsError::new("open the lock file", path, errno))?;
        Ok(Self { file: File::from(fd), path: path.to_owned(), transient: false })
    }

    fn is_at_its_path(&self) -> bool {
        let own = rustix::fs::fstat(&self.file);
        let there = rustix::fs::statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        matches!((own, there), (Ok(own), Ok(there))
            if (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    }

    /// Whether the lock was taken; `false` only for the non-blocking operations.
    fn acquire(&self, operation: FlockOperation) -> Result<bool, FsError> {
        loop {
            match rustix::fs::flock(&self.file, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(FsError::new("lock", &self.path, errno)),
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.transient {
            // Still locked: nobody else can hold a lock on this file when its name goes. If it
            // cannot be removed, the next holder tries again.
            let _ = rustix::fs::unlinkat(CWD, &self.path, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_excludes_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::exclusive(&path).unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        assert!(FileLock::try_shared(&path).unwrap().is_none());
        drop(lock);
        assert!(FileLock::try_exclusive(&path).unwrap().is_some());
    }

    #[test]
    fn shared_excludes_only_exclusive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _lock = FileLock::shared(&path).unwrap();
        assert!(FileLock::try_shared(&path).unwrap().is_some());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
    }

    #[test]
    fn transient_locks_exclude_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let order = std::sync::atomic::Ordering::SeqCst;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut taken = 0;
                    while taken < 50 {
                        if let Some(_lock) = FileLock::try_transient(&path).unwrap() {
                            assert_eq!(inside.fetch_add(1, order), 0);
                            inside.fetch_sub(1, order);
                            taken += 1;
                        }
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
