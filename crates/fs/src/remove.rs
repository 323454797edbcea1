//! Removing a tree by descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{FsError, RootDir};

/// How deep directories are entered one in another, each of which holds a descriptor open.
const DEPTH: usize = 64;

/// Removes an entry of a directory with all that is in it; no error if there is none.
///
/// `name` is a single component. Links are removed, never followed; directories that may not be
/// written are made writable first; trees of any depth are removed with a bounded number of
/// descriptors and a bounded stack. Somebody else may be removing the same tree. What is mounted in the tree is never entered.
///
/// # Errors
///
/// Fails on the first entry that cannot be removed, such as a mount point (`EXDEV`).
pub fn remove_tree(directory: &RootDir, name: &[u8]) -> Result<(), FsError> {
    let mut removal = Removal { top: directory, name, deep: 0 };
    removal.remove(directory.as_fd(), name, directory.path(), 0)?;
    // What was too deep has been moved here; what is too deep in that again comes here, too.
    let mut next = 0;
    while next < removal.deep {
        removal.remove(directory.as_fd(), &deep_name(name, next), directory.path(), 0)?;
        next += 1;
    }
    Ok(())
}

struct Removal<'a> {
    top: &'a RootDir,
    name: &'a [u8],
    /// The number of directories that were too deep and now lie in `top`.
    deep: usize,
}

fn deep_name(name: &[u8], number: usize) -> Vec<u8> {
    [b".", name, format!(".deep-{number}").as_bytes()].concat()
}

impl Removal<'_> {
    fn remove(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &Path,
        depth: usize,
    ) -> Result<(), FsError> {
        let failed = |errno| FsError::new("remove", join(path, name), errno);
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // EPERM is what POSIX has for directories, EISDIR what Linux says.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(failed(errno)),
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if depth >= DEPTH => {
                self.move_up(parent, name, path)
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                self.empty(parent, name, path, depth)?;
                match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => Ok(()),
                    Err(errno) => Err(failed(errno)),
                }
            }
            Err(errno) => Err(failed(errno)),
        }
    }

    fn empty(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &Path,
        depth: usize,
    ) -> Result<(), FsError> {
        let path = join(path, name);
        let failed = |errno| FsError::new("list the directory", &path, errno);
        let fd = match open_writable(parent, name) {
            Err(Errno::NOENT) => return Ok(()),
            result => result.map_err(failed)?,
        };
        for entry in Dir::read_from(&fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let child = entry.file_name().to_bytes();
            if !matches!(child, b"." | b"..") {
                self.remove(fd.as_fd(), child, &path, depth + 1)?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &Path) -> Result<(), FsError> {
        // A directory that gets another parent must be writable, since its `..` changes.
        match open_writable(parent, name) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(FsError::new("make writable", join(path, name), errno)),
        }
        loop {
            let target = deep_name(self.name, self.deep);
            self.deep += 1;
            match rustix::fs::renameat(parent, name, self.top, &*target) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Left over from a removal that was killed; it is removed with the others.
                Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(FsError::new("move", join(path, name), errno)),
            }
        }
    }
}

/// Opens a directory for removing its entries, also one that its owner may not write.
fn open_writable(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let fd = rustix::fs::openat2(parent, name, flags | OFlags::PATH, Mode::empty(), resolve)?;
    if rustix::fs::fstat(&fd)?.st_mode & 0o700 != 0o700 {
        // A descriptor of this kind takes no mode, but /proc leads to the very same directory.
        rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), Mode::RWXU)?;
    }
    rustix::fs::openat(&fd, ".", flags | OFlags::RDONLY, Mode::empty())
}

fn join(path: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    path.join(std::ffi::OsStr::from_bytes(name))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::{Follow, RelPath};

    #[test]
    fn several_may_remove_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            for number in 0..40 {
                let deep = dir.path().join(format!("tree/{}/{number}/d/e", number % 5));
                fs_err::create_dir_all(&deep).unwrap();
                fs_err::write(deep.join("file"), "").unwrap();
            }
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    let root = RootDir::open(dir.path()).unwrap();
                    scope.spawn(move || remove_tree(&root, b"tree").unwrap());
                }
            });
            assert!(!dir.path().join("tree").exists());
        }
    }

    #[test]
    fn everything_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        let tree = dir.path().join("tree");
        fs_err::create_dir_all(tree.join("a/b")).unwrap();
        fs_err::create_dir_all(&outside).unwrap();
        fs_err::write(outside.join("keep"), "").unwrap();
        fs_err::write(tree.join("a/b/file"), "").unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        let locked = std::fs::Permissions::from_mode(0o500);
        fs_err::set_permissions(tree.join("a/b"), locked).unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        remove_tree(&root, b"tree").unwrap();
        remove_tree(&root, b"tree").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("keep").exists());
    }

    #[test]
    fn locked_directories_go_at_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let mut current = root.open_dir(&RelPath::root(), Follow::Never).unwrap();
        let mut all = Vec::new();
        for _ in 0..2 * DEPTH {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = current.open_dir(&RelPath::new("d").unwrap(), Follow::Never).unwrap();
            all.push(rustix::fs::openat(&current, ".", OFlags::RDONLY, Mode::empty()).unwrap());
        }
        for fd in all.iter().rev() {
            rustix::fs::fchmod(fd, Mode::empty()).unwrap();
        }
        remove_tree(&root, b"d").unwrap();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_mounted_in_the_tree_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, mount_point) = (dir.path().join("kept"), dir.path().join("tree/mount"));
        fs_err::create_dir(&kept).unwrap();
        fs_err::create_dir_all(&mount_point).unwrap();
        fs_err::write(kept.join("file"), "").unwrap();
        let run = |command: &mut std::process::Command| {
            command.output().is_ok_and(|output| output.status.success())
        };
        let mut mount = std::process::Command::new("mount");
        if !run(mount.arg("--bind").arg(&kept).arg(&mount_point)) {
            formwork_testing::skipped("this user may not mount");
            return;
        }
        let error = remove_tree(&RootDir::open(dir.path()).unwrap(), b"tree").unwrap_err();
        assert!(run(std::process::Command::new("umount").arg(&mount_point)));
        assert!(error.to_string().contains("tree/mount"), "{error}");
        assert!(kept.join("file").exists());
    }

    #[test]
    fn a_single_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("file"), "").unwrap();
        remove_tree(&RootDir::open(dir.path()).unwrap(), b"file").unwrap();
        assert!(!dir.path().join("file").exists());
    }

    #[test]
    fn very_deep_trees_go() {
        let dir = tempfile::tempdir().unwrap();
        let root = RootDir::open(dir.path()).unwrap();
        let mut current = root.open_dir(&RelPath::root(), Follow::Never).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&current, "d", Mode::RWXU).unwrap();
            current = current.open_dir(&RelPath::new("d").unwrap(), Follow::Never).unwrap();
        }
        remove_tree(&root, b"d").unwrap();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
    }
}
