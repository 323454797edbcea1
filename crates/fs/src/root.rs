//! Directories that nothing opened through them can leave.
//!
//! Every lookup goes through `openat2(2)` with `RESOLVE_BENEATH` or `RESOLVE_IN_ROOT`, so the
//! kernel holds the border, also while somebody else moves directories about.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};

use crate::{FileStat, FsError, RelPath};

/// A directory whose descriptor confines every path given to it.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
    /// For messages only: never used to open anything.
    path: PathBuf,
}

/// What to do about symbolic links on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// Refuse them (`ELOOP`): for paths that came from a walk of the same tree.
    Never,
    /// Follow them as a process in a chroot at this directory would: `/` and `..` stop here.
    InRoot,
    /// Like [`Follow::InRoot`], but do not follow the last component.
    InRootExceptLast,
}

impl RootDir {
    /// Opens a directory; symbolic links on the way to it are followed as usual.
    ///
    /// # Errors
    ///
    /// Fails where the path is no directory or may not be entered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, FsError> {
        let path = path.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|errno| FsError::new("open the directory", path, errno))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a directory of this tree as a border of its own.
    ///
    /// # Errors
    ///
    /// Fails where the path is missing or no directory.
    pub fn open_dir(&self, path: &RelPath, follow: Follow) -> Result<Self, FsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.open_raw(path, flags, Mode::empty(), follow)?;
        Ok(Self { fd, path: self.path_of(path) })
    }

    /// Opens a regular file for reading.
    ///
    /// Never blocks: a named pipe in the place of the file is opened and then refused.
    ///
    /// # Errors
    ///
    /// Fails where the path is missing or anything but a regular file.
    pub fn open_file(&self, path: &RelPath, follow: Follow) -> Result<File, FsError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.open_raw(path, flags, Mode::empty(), follow)?);
        let is_file = file.metadata().map(|metadata| metadata.is_file());
        match is_file {
            Ok(true) => Ok(file),
            Ok(false) => {
                let wrong = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
                Err(FsError::new("read", self.path_of(path), wrong))
            }
            Err(error) => Err(FsError::new("examine", self.path_of(path), error)),
        }
    }

    /// Opens whatever is there with the caller's flags; `O_CLOEXEC` is added.
    ///
    /// # Errors
    ///
    /// Fails as `openat2(2)` does; `EXDEV` and `ELOOP` mean that the path would have left the
    /// tree or went through a symbolic link against [`Follow::Never`].
    pub fn open_raw(
        &self,
        path: &RelPath,
        flags: OFlags,
        mode: Mode,
        follow: Follow,
    ) -> Result<OwnedFd, FsError> {
        // With `O_NOFOLLOW`, `O_PATH` opens a link in the last place itself: not followed, so not
        // refused by `RESOLVE_NO_SYMLINKS` either.
        let (resolve, flags) = match follow {
            Follow::Never => {
                (ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS, flags | OFlags::NOFOLLOW)
            }
            Follow::InRoot => (ResolveFlags::IN_ROOT, flags),
            Follow::InRootExceptLast => (ResolveFlags::IN_ROOT, flags | OFlags::NOFOLLOW),
        };
        let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
        loop {
            let flags = flags | OFlags::CLOEXEC;
            match rustix::fs::openat2(&self.fd, path.as_path(), flags, mode, resolve) {
                Ok(fd) => return Ok(fd),
                // The kernel asks to try again when a rename raced with the look-up.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(FsError::new("open", self.path_of(path), errno)),
            }
        }
    }

    /// The metadata of an entry, or `None` where there is none.
    ///
    /// # Errors
    ///
    /// Fails where the entry may not be looked at.
    pub fn stat(&self, path: &RelPath, follow: Follow) -> Result<Option<FileStat>, FsError> {
        let fd = match self.open_raw(path, OFlags::PATH, Mode::empty(), follow) {
            Ok(fd) => fd,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&fd, "", AtFlags::EMPTY_PATH) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(errno) => Err(FsError::new("examine", self.path_of(path), errno)),
        }
    }

    /// The text of a symbolic link, which is reached through no other.
    ///
    /// # Errors
    ///
    /// Fails where the path is missing or anything but a symbolic link.
    pub fn read_link(&self, path: &RelPath) -> Result<Vec<u8>, FsError> {
        let fd = self.open_raw(path, OFlags::PATH, Mode::empty(), Follow::Never)?;
        rustix::fs::readlinkat(&fd, "", Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|errno| FsError::new("read the link", self.path_of(path), errno))
    }

    /// Where a path of this tree lies, for messages; never to be opened.
    pub fn path_of(&self, path: &RelPath) -> PathBuf {
        if path.is_root() { self.path.clone() } else { self.path.join(path.as_path()) }
    }

    /// Where this directory was found, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::FileKind;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    /// A tree with links that try to leave it, beside a file that must stay unread.
    fn tree() -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs_err::create_dir_all(root.join("etc")).unwrap();
        fs_err::write(dir.path().join("secret"), "outside").unwrap();
        fs_err::write(root.join("etc/passwd"), "inside").unwrap();
        fs_err::write(root.join("secret"), "inside").unwrap();
        symlink("/etc/passwd", root.join("absolute")).unwrap();
        symlink("../../../secret", root.join("etc/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/etc", root.join("dir")).unwrap();
        let root = RootDir::open(root).unwrap();
        (dir, root)
    }

    fn read(root: &RootDir, name: &str, follow: Follow) -> Result<String, FsError> {
        let mut text = String::new();
        root.open_file(&path(name), follow)?.read_to_string(&mut text).unwrap();
        Ok(text)
    }

    #[test]
    fn links_end_inside_the_tree() {
        let (_dir, root) = tree();
        for name in ["absolute", "etc/up", "dir/passwd"] {
            assert_eq!(read(&root, name, Follow::InRoot).unwrap(), "inside", "{name}");
        }
        assert!(read(&root, "loop", Follow::InRoot).is_err());
    }

    #[test]
    fn links_are_refused_on_request() {
        let (_dir, root) = tree();
        for name in ["absolute", "etc/up", "dir/passwd", "loop"] {
            let error = read(&root, name, Follow::Never).unwrap_err();
            assert!(error.source.raw_os_error().is_some(), "{name}: {error}");
        }
        assert_eq!(read(&root, "etc/passwd", Follow::Never).unwrap(), "inside");
    }

    #[test]
    fn the_text_of_a_link_is_read_as_it_is() {
        let (_dir, root) = tree();
        assert_eq!(root.read_link(&path("etc/up")).unwrap(), b"../../../secret");
        assert!(root.read_link(&path("dir/up")).is_err());
        assert!(root.read_link(&path("secret")).is_err());
    }

    #[test]
    fn a_pipe_does_not_hang_the_reader() {
        let (dir, root) = tree();
        let name = dir.path().join("root/pipe");
        rustix::fs::mknodat(CWD, &name, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let error = read(&root, "pipe", Follow::InRoot).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn stat_tells_a_link_from_its_target() {
        let (_dir, root) = tree();
        let kind = |name: &str, follow| root.stat(&path(name), follow).unwrap().map(|s| s.kind);
        assert_eq!(kind("absolute", Follow::Never), Some(FileKind::Symlink));
        assert_eq!(kind("absolute", Follow::InRootExceptLast), Some(FileKind::Symlink));
        assert_eq!(kind("absolute", Follow::InRoot), Some(FileKind::Regular));
        assert!(root.stat(&path("dir/passwd"), Follow::Never).is_err());
        assert_eq!(kind("missing", Follow::InRoot), None);
        assert_eq!(kind("etc/passwd/x", Follow::InRoot), None);
    }
}
