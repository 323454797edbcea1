//! Directories for what is not finished.
//!
//! `tmp/<name>` belongs to whoever holds the lock on `tmp/<name>.lock`, which is taken before the
//! directory is made. The kernel gives the lock back when its process ends, however it ends; so a
//! directory whose lock can be had is stale.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use formwork_fs::{AtomicFile, FileLock, FsError, RootDir, remove_tree};
use rustix::fs::{AtFlags, CWD, Dir, Mode, RenameFlags};
use rustix::io::Errno;

use crate::{ContentError, StoreLayout};

const LOCK_SUFFIX: &[u8] = b".lock";
/// Marks a stale directory that somebody is removing.
const REMOVED_SUFFIX: &[u8] = b".removed";

/// A directory in the store that belongs to this process and is removed, with all that is in it,
/// when it is dropped.
#[derive(Debug)]
pub struct Temporary {
    parent: RootDir,
    name: String,
    path: PathBuf,
    /// Held until the directory is gone.
    lock: FileLock,
}

impl Temporary {
    /// Makes a new, empty directory.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn create(layout: &StoreLayout) -> Result<Self, ContentError> {
        let parent = RootDir::open(layout.tmp())?;
        loop {
            let name = random_name();
            let lock = FileLock::try_transient(lock_path(layout, name.as_bytes()))?;
            let Some(lock) = lock else { continue };
            let path = layout.tmp().join(&name);
            match rustix::fs::mkdirat(&parent, &name, Mode::RWXU) {
                Ok(()) => return Ok(Self { parent, name, path, lock }),
                Err(Errno::EXIST) => {}
                Err(errno) => {
                    return Err(FsError::new("create the directory", path, errno).into());
                }
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Temporary {
    /// Removes the directory while others may still work in it, so that they fail.
    pub(crate) fn remove(&self, save: impl FnOnce(&Path)) {
        // Under another name nothing new comes into it by its path.
        let aside = [self.name.as_bytes(), REMOVED_SUFFIX].concat();
        if rustix::fs::renameat(&self.parent, &*self.name, &self.parent, &*aside).is_ok() {
            save(&self.path.with_file_name(OsStr::from_bytes(&aside)));
            // What is left all the same is stale as soon as this process ends.
            let _ = remove_tree(&self.parent, &aside);
        }
        let _ = rustix::fs::unlinkat(CWD, self.lock.path(), AtFlags::empty());
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // A failure leaves a stale directory, which the next look for those removes.
        let _ = remove_tree(&self.parent, self.name.as_bytes());
    }
}

/// A name that nobody else has; process numbers will not do, since containers that share a store
/// have the same ones.
fn random_name() -> String {
    // The standard library seeds this with random bytes of the kernel.
    let random = RandomState::new().hash_one(std::process::id());
    format!("{random:016x}")
}

fn lock_path(layout: &StoreLayout, name: &[u8]) -> PathBuf {
    layout.tmp().join(OsStr::from_bytes(&[name, LOCK_SUFFIX].concat()))
}

/// How the names begin of locks that go with their holder.
const TRANSIENT_PREFIXES: [&[u8]; 2] = [b"step-", b"lease-"];

/// Removes the directories whose owners are gone, the files of locks that nobody holds any more,
/// and files that somebody was about to put in place of others; returns how many directories.
pub(crate) fn remove_stale(
    layout: &StoreLayout,
    save: impl FnOnce(),
) -> Result<usize, ContentError> {
    for directory in layout.places_of_files() {
        AtomicFile::clear_left(directory)?;
    }
    for name in names(&RootDir::open(layout.locks())?)? {
        if TRANSIENT_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            // Taken and given back, which removes it.
            FileLock::try_transient(layout.locks().join(OsStr::from_bytes(&name)))?;
        }
    }
    let parent = RootDir::open(layout.tmp())?;
    for name in owned_names(&parent)? {
        set_aside(layout, &parent, &name)?;
    }
    save();
    let mut count = 0;
    let mut first_error = None;
    for name in names(&parent)? {
        if name.ends_with(REMOVED_SUFFIX) {
            match remove_tree(&parent, &name) {
                Ok(()) => count += 1,
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
    }
    first_error.map_or(Ok(count), |error| Err(error.into()))
}

/// The names that are or were in somebody's use: those of directories and those of locks.
fn owned_names(parent: &RootDir) -> Result<BTreeSet<Box<[u8]>>, FsError> {
    let names = names(parent)?.into_iter().filter(|name| !name.ends_with(REMOVED_SUFFIX));
    Ok(names.map(|name| name.strip_suffix(LOCK_SUFFIX).unwrap_or(&name).into()).collect())
}

/// Renames a directory that nobody owns, so that its lock can go before the long work of removing.
fn set_aside(layout: &StoreLayout, parent: &RootDir, name: &[u8]) -> Result<(), FsError> {
    let Some(_lock) = FileLock::try_transient(lock_path(layout, name))? else { return Ok(()) };
    let aside = [name, REMOVED_SUFFIX].concat();
    match rustix::fs::renameat_with(parent, name, parent, &*aside, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => {
            Err(FsError::new("rename", layout.tmp().join(OsStr::from_bytes(name)), errno))
        }
    }
}

pub(crate) fn names(directory: &RootDir) -> Result<Vec<Box<[u8]>>, FsError> {
    let failed = |errno| FsError::new("list the directory", directory.path(), errno);
    let mut names: Vec<Box<[u8]>> = Vec::new();
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.into());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store() -> (tempfile::TempDir, StoreLayout) {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path().join("store")).unwrap();
        (dir, layout)
    }

    fn left(layout: &StoreLayout) -> Vec<Box<[u8]>> {
        names(&RootDir::open(layout.tmp()).unwrap()).unwrap()
    }

    /// What a process that was killed leaves: the directory and the file of its lock.
    fn leave_stale(layout: &StoreLayout, name: &str) -> PathBuf {
        let path = layout.tmp().join(name);
        fs_err::create_dir(&path).unwrap();
        fs_err::write(layout.tmp().join(format!("{name}.lock")), "").unwrap();
        path
    }

    #[test]
    fn a_directory_goes_with_its_owner() {
        let (_dir, layout) = store();
        let temporary = Temporary::create(&layout).unwrap();
        fs_err::create_dir_all(temporary.path().join("a/b")).unwrap();
        fs_err::set_permissions(temporary.path().join("a"), PermissionsExt::from_mode(0o500))
            .unwrap();
        drop(temporary);
        assert!(left(&layout).is_empty());
    }

    #[test]
    fn what_is_given_up_is_removed_under_those_who_use_it() {
        let (_dir, layout) = store();
        let temporary = Temporary::create(&layout).unwrap();
        fs_err::write(temporary.path().join("file"), "").unwrap();
        temporary.remove(|_| {});
        assert!(left(&layout).is_empty());
        assert!(fs_err::write(temporary.path().join("other"), "").is_err());
    }

    #[test]
    fn what_others_use_is_not_stale() {
        let (_dir, layout) = store();
        let temporary = Temporary::create(&layout).unwrap();
        assert_eq!(layout.remove_stale(|| {}).unwrap(), 0);
        assert!(temporary.path().exists());
        assert_eq!(left(&layout).len(), 2);
    }

    #[test]
    fn what_the_dead_have_left_is_removed_and_nothing_else() {
        let (dir, layout) = store();
        let kept = dir.path().join("kept");
        fs_err::create_dir(&kept).unwrap();
        fs_err::write(kept.join("file"), "").unwrap();
        let stale = leave_stale(&layout, "stale");
        std::os::unix::fs::symlink(&kept, stale.join("link")).unwrap();
        std::os::unix::fs::symlink(&kept, layout.tmp().join("link")).unwrap();
        fs_err::create_dir(stale.join("locked")).unwrap();
        fs_err::write(stale.join("locked/file"), "").unwrap();
        fs_err::set_permissions(stale.join("locked"), PermissionsExt::from_mode(0o000)).unwrap();
        leave_stale(&layout, "being-removed.removed");
        fs_err::write(layout.tmp().join("only.lock"), "").unwrap();
        fs_err::write(layout.tmp().join(OsStr::from_bytes(b"no-text-\xff")), "").unwrap();
        layout.remove_stale(|| {}).unwrap();
        assert!(left(&layout).is_empty(), "{:?}", left(&layout));
        assert!(kept.join("file").exists());
    }

    #[test]
    fn files_that_the_dead_were_about_to_put_in_place_are_removed() {
        let (_dir, layout) = store();
        let left = |directory: PathBuf| {
            fs_err::create_dir_all(&directory).unwrap();
            fs_err::write(directory.join(AtomicFile::NAME_OF_TURN), "").unwrap();
            directory
        };
        for directory in [layout.index().join("0f"), layout.runs(), layout.contexts()].map(left) {
            layout.remove_stale(|| {}).unwrap();
            assert_eq!(fs_err::read_dir(&directory).unwrap().count(), 0);
        }
    }

    #[test]
    fn locks_of_steps_that_nobody_holds_are_removed() {
        let (_dir, layout) = store();
        let held = FileLock::try_transient(layout.lock("step-held")).unwrap();
        for name in ["step-stale", "use"] {
            fs_err::write(layout.lock(name), "").unwrap();
        }
        layout.remove_stale(|| {}).unwrap();
        let exists = |name| layout.lock(name).exists();
        assert!(exists("step-held") && exists("use") && !exists("step-stale"));
        drop(held);
    }

    #[test]
    fn makers_and_removers_may_work_side_by_side() {
        let (_dir, layout) = store();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let temporary = Temporary::create(&layout).unwrap();
                        fs_err::write(temporary.path().join("file"), "").unwrap();
                    }
                });
                scope.spawn(|| {
                    for _ in 0..100 {
                        assert_eq!(layout.remove_stale(|| {}).unwrap(), 0);
                    }
                });
            }
        });
        assert!(left(&layout).is_empty());
    }
}
