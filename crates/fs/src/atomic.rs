//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::FsError;

/// A file that is written without a name, or beside its destination, and then moved there.
///
/// Nothing is synced: after a power loss the file may be missing or empty, after a crash of the
/// program it is either the old one or the new one. Dropped without [`AtomicFile::commit`], it
/// leaves nothing; nor does a killed process, where the file system knows files without a name.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// `None` as long as the file has no name at all.
    temporary: Option<PathBuf>,
    destination: PathBuf,
}

impl AtomicFile {
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
        if self.temporary.is_none() {
            // Without an old file, there is nothing more to do.
            match self.link(&self.destination) {
                Err(Errno::EXIST) => self.link_beside()?,
                result => return result,
            }
        }
        self.temporary.as_deref().map_or(Ok(()), |temporary| self.replace(temporary))
    }

    /// Gives a file without a name a temporary one.
    fn link_beside(&mut self) -> Result<(), Errno> {
        loop {
            let temporary = directory_of(&self.destination).join(temporary_name());
            match self.link(&temporary) {
                Err(Errno::EXIST) => {}
                result => {
                    result?;
                    self.temporary = Some(temporary);
                    return Ok(());
                }
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
    fn a_failed_commit_names_the_destination_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(dir.path().join("file")).unwrap();
        file.set_destination(dir.path().join("missing/file"));
        let error = file.commit().unwrap_err();
        assert!(error.to_string().contains("missing/file"), "{error}");
        assert!(names(dir.path()).is_empty());
    }
}
