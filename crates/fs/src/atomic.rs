//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::FsError;

/// How long one that replaces a file waits for another that does so in the same directory, before
/// it takes a name of its own.
const TURNS: u32 = 100;
const TURN: Duration = Duration::from_micros(50);

/// A file that is written without a name, or beside its destination, and then moved there.
///
/// Nothing is synced: after a power loss the file may be missing or empty, after a crash of the
/// program it is either the old one or the new one. Dropped without [`AtomicFile::commit`], it
/// leaves nothing. A process that is killed leaves nothing, either, unless it was about to replace
/// a file: no system call gives a file without a name that of another. What then lies there for
/// some microseconds has a name that whoever replaces a file of that directory next clears away.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// `None` as long as the file has no name at all.
    temporary: Option<PathBuf>,
    destination: PathBuf,
}

impl AtomicFile {
    /// The name that a file has in its directory between none and that of another.
    pub const NAME_OF_TURN: &str = ".tmp-turn";

    /// Begins a file that will appear at `destination`, readable by everybody whom the umask lets.
    ///
    /// # Errors
    ///
    /// Fails where the destination's directory cannot be written.
    pub fn create(destination: impl AsRef<Path>) -> Result<Self, FsError> {
        let destination = destination.as_ref();
        let directory = directory_of(destination);
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, directory, flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => {
                let destination = destination.to_owned();
                Ok(Self { file: File::from(fd), temporary: None, destination })
            }
            // The file system has no files without a name, or the kernel is older than them.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                Self::create_in(directory, destination)
                    // The temporary name would tell the user nothing.
                    .map_err(|error| FsError { path: destination.to_owned(), ..error })
            }
            Err(errno) => Err(FsError::new("create", destination, errno)),
        }
    }

    /// Begins a file in a directory for temporary files, which must be on the destination's file
    /// system.
    ///
    /// # Errors
    ///
    /// Fails where that directory cannot be written.
    pub fn create_in(
        directory: impl AsRef<Path>,
        destination: impl AsRef<Path>,
    ) -> Result<Self, FsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        loop {
            let temporary = directory.as_ref().join(temporary_name());
            match rustix::fs::openat(CWD, &temporary, flags, Mode::from_raw_mode(0o666)) {
                Ok(fd) => {
                    let destination = destination.as_ref().to_owned();
                    let temporary = Some(temporary);
                    return Ok(Self { file: File::from(fd), temporary, destination });
                }
                // A process of the same number, in another container or killed long ago, was here.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(FsError::new("create", &temporary, errno)),
            }
        }
    }

    /// Writes a whole file at once.
    ///
    /// # Errors
    ///
    /// Fails where the directory or the file system does not take it; the old file is then kept.
    pub fn write(destination: impl AsRef<Path>, content: &[u8]) -> Result<(), FsError> {
        let mut file = Self::create(&destination)?;
        file.write_all(content).map_err(|error| FsError::new("write", &destination, error))?;
        file.commit()
    }

    /// Clears away what a killed process was about to put in place in a directory, if there is
    /// such a thing, and nobody is about to do so now.
    ///
    /// # Errors
    ///
    /// Fails where it cannot be removed; not where there is no such directory.
    pub fn clear_left(directory: impl AsRef<Path>) -> Result<(), FsError> {
        let left = directory.as_ref().join(Self::NAME_OF_TURN);
        let is_there = rustix::fs::statat(CWD, &left, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        match is_there.then(|| Turn::wait(directory.as_ref())).flatten() {
            Some(_turn) => remove(&left).map_err(|errno| FsError::new("remove", &left, errno)),
            None => Ok(()),
        }
    }

    /// Sets the permission bits that the file will have, whatever the umask is.
    ///
    /// # Errors
    ///
    /// Fails where the file system does not take them.
    pub fn set_mode(&self, mode: u32) -> Result<(), FsError> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
            .map_err(|errno| FsError::new("change the mode of", &self.destination, errno))
    }

    /// Changes where the file will appear, for names that depend on the content.
    pub fn set_destination(&mut self, destination: impl Into<PathBuf>) {
        self.destination = destination.into();
    }

    /// The open file, for reading back what was written.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the file appear, in place of what was there.
    ///
    /// # Errors
    ///
    /// Fails where the rename does; the temporary file is then removed.
    pub fn commit(mut self) -> Result<(), FsError> {
        self.place().map_err(|errno| FsError::new("move a file to", &self.destination, errno))?;
        self.temporary = None;
        Ok(())
    }

    /// Gives the file its name.
    fn place(&mut self) -> Result<(), Errno> {
        if let Some(temporary) = &self.temporary {
            return self.replace(temporary);
        }
        // Without an old file, there is nothing more to do.
        match self.link(&self.destination) {
            Err(Errno::EXIST) => {}
            result => return result,
        }
        let turn = Turn::wait(directory_of(&self.destination));
        self.temporary = Some(self.link_beside(turn.as_ref())?);
        self.temporary.as_deref().map_or(Ok(()), |temporary| self.replace(temporary))
    }

    /// Gives a file without a name a temporary one: that which whoever has the turn has for
    /// themselves, or one that nobody has.
    fn link_beside(&self, turn: Option<&Turn>) -> Result<PathBuf, Errno> {
        let directory = directory_of(&self.destination);
        loop {
            let name = turn.map_or_else(temporary_name, |_| Self::NAME_OF_TURN.to_owned());
            let temporary = directory.join(name);
            match self.link(&temporary) {
                // Left by somebody who was killed while it was their turn.
                Err(Errno::EXIST) if turn.is_some() => remove(&temporary)?,
                Err(Errno::EXIST) => {}
                result => return result.map(|()| temporary),
            }
        }
    }

    fn link(&self, name: &Path) -> Result<(), Errno> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, open, CWD, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// Renames without waiting for the disk.
    ///
    /// When a file is renamed over another, ext4 and btrfs first write the new one out, which is a
    /// sync by another name: a millisecond for a small file, the disk's speed for a large one. They
    /// do not when the two change places, after which the old one is removed.
    fn replace(&self, temporary: &Path) -> Result<(), Errno> {
        match self.rename(temporary, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            // The file system has no such flags.
            Err(Errno::INVAL | Errno::NOSYS) => {
                return self.rename(temporary, RenameFlags::empty());
            }
            result => return result,
        }
        match self.rename(temporary, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            // What was there is gone by now.
            Err(_) => return self.rename(temporary, RenameFlags::empty()),
        }
        match rustix::fs::unlinkat(CWD, temporary, AtFlags::empty()) {
            // A file never takes the place of a directory.
            Err(Errno::ISDIR) => {
                self.rename(temporary, RenameFlags::EXCHANGE).and(Err(Errno::ISDIR))
            }
            result => result,
        }
    }

    fn rename(&self, temporary: &Path, flags: RenameFlags) -> Result<(), Errno> {
        rustix::fs::renameat_with(CWD, temporary, CWD, &self.destination, flags)
    }
}

/// The right to use [`AtomicFile::NAME_OF_TURN`] in a directory: a lock on the directory itself, which ends with
/// its process.
struct Turn {
    _directory: OwnedFd,
}

impl Turn {
    /// Waits for the turn, but not for long: others may lock a directory, too, for reasons of their
    /// own.
    fn wait(directory: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, directory, flags, Mode::empty()).ok()?;
        for _ in 0..TURNS {
            match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Some(Self { _directory: directory }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(TURN),
                // The file system knows no locks.
                Err(_) => return None,
            }
        }
        None
    }
}

/// Removes a file that may be gone already.
fn remove(path: &Path) -> Result<(), Errno> {
    match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

/// The directory that a file is in; that of a plain name is the working directory.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A name that no other thread uses, and no other process that can be seen from here.
fn temporary_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".tmp-{}-{count}", std::process::id())
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing can be done about a failure here; the store removes what is left over.
            let _ = rustix::fs::unlinkat(CWD, temporary, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn readers_see_the_old_file_until_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        AtomicFile::write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"old");
        file.commit().unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn an_unfinished_file_has_no_name_for_which_a_killed_process_would_have_to_answer() {
        let dir = tempfile::tempdir().unwrap();
        let _file = AtomicFile::create(dir.path().join("file")).unwrap();
        assert!(names(dir.path()).is_empty());
        let _file = AtomicFile::create_in(dir.path(), dir.path().join("file")).unwrap();
        assert_eq!(names(dir.path()).len(), 1);
    }

    #[test]
    fn what_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(AtomicFile::create(dir.path().join("file")).unwrap());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_failure_names_what_was_to_be_made() {
        let error = AtomicFile::create("/proc/missing/file").unwrap_err();
        assert_eq!(error.path, Path::new("/proc/missing/file"));
    }

    #[test]
    fn what_a_killed_process_of_the_same_number_left_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for count in 0..2000 {
            let name = format!(".tmp-{}-{count}", std::process::id());
            fs_err::write(dir.path().join(name), "left over").unwrap();
        }
        let path = dir.path().join("file");
        AtomicFile::write(&path, b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()).len(), 2001);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs_err::create_dir(&path).unwrap();
        fs_err::write(path.join("kept"), "").unwrap();
        let error = AtomicFile::write(&path, b"new").unwrap_err();
        assert_eq!(error.source.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
        assert!(path.join("kept").exists());
        assert_eq!(names(dir.path()), ["directory"]);
    }

    #[test]
    fn many_may_replace_one_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        AtomicFile::write(&path, &[0; 1000]).unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..500 {
                        AtomicFile::write(path, &[writer; 1000]).unwrap();
                        let read = fs_err::read(path).unwrap();
                        assert_eq!((read.len(), read[0]), (1000, read[999]));
                    }
                });
            }
        });
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn what_a_killed_process_was_about_to_put_in_place_goes_with_the_next_that_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("file"), dir.path().join("other"));
        for name in [&path, &other] {
            AtomicFile::write(name, b"old").unwrap();
        }
        fs_err::write(dir.path().join(AtomicFile::NAME_OF_TURN), "left over").unwrap();
        AtomicFile::write(&path, b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
        let left = || {
            let mut left = names(dir.path());
            left.sort();
            left
        };
        assert_eq!(left(), ["file", "other"]);
        fs_err::write(dir.path().join(AtomicFile::NAME_OF_TURN), "left over").unwrap();
        let turn = Turn::wait(dir.path());
        AtomicFile::clear_left(dir.path()).unwrap();
        assert_eq!(left().len(), 3);
        drop(turn);
        AtomicFile::clear_left(dir.path()).unwrap();
        AtomicFile::clear_left(dir.path().join("missing")).unwrap();
        assert_eq!(left(), ["file", "other"]);
    }

    #[test]
    fn a_directory_that_somebody_has_locked_is_written_to_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        AtomicFile::write(&path, b"old").unwrap();
        let _lock = Turn::wait(dir.path()).unwrap();
        AtomicFile::write(&path, b"new").unwrap();
        assert_eq!(fs_err::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["file"]);
    }

    #[test]
    fn a_failed_commit_names_the_destination_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(dir.path().join("file")).unwrap();
        file.set_destination(dir.path().join("missing/file"));
        let error = file.commit().unwrap_err();
        assert!(error.to_string().contains("missing/file"), "{error}");
        assert!(names(dir.path()).is_empty());
    }
}
