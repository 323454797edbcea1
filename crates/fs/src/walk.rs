//! A parallel walk with an ordered result.
//!
//! Directories are read through their descriptors, so nothing that is renamed meanwhile leads the
//! walk elsewhere, and symbolic links are never followed. The result has the order of [`RelPath`],
//! whatever the number of threads.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use crate::{FileKind, FileStat, Follow, FsError, RelPath, RootDir};

/// One entry that a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkEntry {
    /// Where, relative to the root of the walk; the root itself is not an entry.
    pub path: RelPath,
    /// What the kernel knows about it.
    pub stat: FileStat,
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// List it, and enter it if it is a directory.
    Keep,
    /// Leave it out with all that is in it.
    Prune,
    /// Enter the directory, and list it only if something in it is listed; anything but a
    /// directory is left out.
    Descend,
}

/// Decides which entries a walk lists and enters.
pub trait WalkFilter: Sync {
    /// The verdict on one entry; `is_dir` is false for a link to a directory.
    fn judge(&self, path: &RelPath, is_dir: bool) -> Verdict;
}

impl<F: Fn(&RelPath, bool) -> Verdict + Sync> WalkFilter for F {
    fn judge(&self, path: &RelPath, is_dir: bool) -> Verdict {
        self(path, is_dir)
    }
}

/// Lists what is below a directory, in order, with up to `threads` threads.
///
/// An entry that disappears while the walk is under way is left out.
///
/// # Errors
///
/// Fails on the first directory or entry that cannot be read.
pub fn walk(
    root: &RootDir,
    filter: &dyn WalkFilter,
    threads: usize,
) -> Result<Vec<WalkEntry>, FsError> {
    let top = Arc::new(Directory::new(RelPath::root()));
    let walk = Walk { root, filter, state: Mutex::default(), changed: Condvar::new() };
    walk.push(vec![Job::List(Arc::clone(&top))]);
    walk.run(threads)?;
    let mut entries = Vec::new();
    collect(&top, &mut entries);
    Ok(entries)
}

/// How many entries one thread examines at a time, so that a single huge directory is shared too.
const CHUNK: usize = 1024;
/// How many jobs must wait before more threads are worth their start.
const WORTH_THREADS: usize = 4;

struct Walk<'a> {
    root: &'a RootDir,
    filter: &'a dyn WalkFilter,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Jobs that some thread works on; they may bring new ones.
    active: usize,
    error: Option<FsError>,
}

enum Job {
    /// Read the names in a directory.
    List(Arc<Directory>),
    /// Examine one chunk of a directory's names.
    Examine { directory: Arc<Directory>, handle: Arc<RootDir>, names: Arc<[Name]>, chunk: usize },
}

/// A directory whose chunks are filled in by whichever thread gets to them.
struct Directory {
    path: RelPath,
    chunks: OnceLock<Box<[OnceLock<Vec<Child>>]>>,
}

struct Name {
    bytes: Box<[u8]>,
    is_dir: Option<bool>,
}

struct Child {
    entry: WalkEntry,
    /// Whether to list it even if nothing in it is listed.
    keep: bool,
    directory: Option<Arc<Directory>>,
}

impl Directory {
    fn new(path: RelPath) -> Self {
        Self { path, chunks: OnceLock::new() }
    }
}

impl Walk<'_> {
    /// Works alone until there is enough to do for more threads.
    fn run(&self, threads: usize) -> Result<(), FsError> {
        while self.lock().jobs.len() < WORTH_THREADS && threads > 1 {
            if !self.work_once() {
                break;
            }
        }
        std::thread::scope(|scope| {
            if !self.lock().jobs.is_empty() {
                // Where the machine has no more threads to give, those that are there do the work.
                let start = |_| {
                    let work = || while self.work_once() {};
                    std::thread::Builder::new().spawn_scoped(scope, work).ok()
                };
                let _ = (1..threads).map_while(start).count();
            }
            while self.work_once() {}
        });
        self.lock().error.take().map_or(Ok(()), Err)
    }

    /// Does one job, waiting for it if others may still bring one; `false` when all is done.
    fn work_once(&self) -> bool {
        let Some(job) = self.take() else { return false };
        let result = match job {
            Job::List(directory) => self.list(&directory),
            Job::Examine { directory, handle, names, chunk } => {
                self.examine(&directory, &handle, &names, chunk)
            }
        };
        let mut state = self.lock();
        state.active -= 1;
        if let Err(error) = result {
            state.error.get_or_insert(error);
            state.jobs.clear();
        }
        drop(state);
        self.changed.notify_all();
        true
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            // The newest job first keeps the queue short and the directories in the kernel's cache.
            if let Some(job) = state.jobs.pop_back() {
                state.active += 1;
                return Some(job);
            }
            if state.active == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn push(&self, jobs: Vec<Job>) {
        let mut state = self.lock();
        if state.error.is_none() {
            state.jobs.extend(jobs);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self, directory: &Arc<Directory>) -> Result<(), FsError> {
        let handle = match self.root.open_dir(&directory.path, Follow::Never) {
            Ok(handle) => Arc::new(handle),
            Err(error) if error.is_not_found() && !directory.path.is_root() => return Ok(()),
            Err(error) => return Err(error),
        };
        let names: Arc<[Name]> = read_names(&handle)?.into();
        let count = names.len().div_ceil(CHUNK);
        directory.chunks.get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        if count > 1 {
            let job = |chunk| Job::Examine {
                directory: Arc::clone(directory),
                handle: Arc::clone(&handle),
                names: Arc::clone(&names),
                chunk,
            };
            self.push((1..count).map(job).collect());
        }
        if count > 0 { self.examine(directory, &handle, &names, 0) } else { Ok(()) }
    }

    fn examine(
        &self,
        directory: &Directory,
        handle: &RootDir,
        names: &[Name],
        chunk: usize,
    ) -> Result<(), FsError> {
        let mut children = Vec::new();
        for name in names.iter().skip(chunk * CHUNK).take(CHUNK) {
            children.extend(self.child(directory, handle, name)?);
        }
        let entered = children.iter().filter_map(|child| child.directory.clone());
        // The last pushed is the first taken: reversed, the directories are read in order.
        let mut jobs: Vec<Job> = entered.map(Job::List).collect();
        jobs.reverse();
        if let Some(slot) = directory.chunks.get().and_then(|chunks| chunks.get(chunk)) {
            // Each chunk has one job, so the slot is empty.
            let _ = slot.set(children);
        }
        self.push(jobs);
        Ok(())
    }

    fn child(
        &self,
        directory: &Directory,
        handle: &RootDir,
        name: &Name,
    ) -> Result<Option<Child>, FsError> {
        let path = directory.path.join(&name.bytes);
        // Directories tell the kind of their entries on all common file systems; where one does
        // not, the entry has to be examined before it can be judged.
        let early = name.is_dir.map(|is_dir| self.filter.judge(&path, is_dir));
        if early == Some(Verdict::Prune)
            || (early == Some(Verdict::Descend) && name.is_dir == Some(false))
        {
            return Ok(None);
        }
        let Some(stat) = stat(handle, name)? else { return Ok(None) };
        let verdict = early.unwrap_or_else(|| self.filter.judge(&path, stat.is_dir()));
        let enters = stat.is_dir() && verdict != Verdict::Prune;
        let directory = enters.then(|| Arc::new(Directory::new(path.clone())));
        let keep = verdict == Verdict::Keep;
        let child = Child { entry: WalkEntry { path, stat }, keep, directory };
        Ok((keep || enters).then_some(child))
    }
}

fn read_names(handle: &RootDir) -> Result<Vec<Name>, FsError> {
    let failed = |errno: Errno| FsError::new("list the directory", handle.path(), errno);
    let mut names = Vec::new();
    for entry in Dir::read_from(handle.as_fd()).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = entry.file_name().to_bytes();
        if !matches!(bytes, b"." | b"..") {
            let is_dir = match entry.file_type() {
                FileType::Unknown => None,
                known => Some(FileKind::from(known) == FileKind::Directory),
            };
            names.push(Name { bytes: bytes.into(), is_dir });
        }
    }
    names.sort_unstable_by(|a, b| a.bytes.cmp(&b.bytes));
    Ok(names)
}

fn stat(handle: &RootDir, name: &Name) -> Result<Option<FileStat>, FsError> {
    match rustix::fs::statat(handle.as_fd(), &*name.bytes, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => {
            let path = handle.path_of(&RelPath::root().join(&name.bytes));
            Err(FsError::new("examine", path, errno))
        }
    }
}

/// Appends what is below a directory, in order; tells whether there was anything.
fn collect(directory: &Directory, entries: &mut Vec<WalkEntry>) -> bool {
    let before = entries.len();
    let chunks = directory.chunks.get().into_iter().flatten();
    for child in chunks.filter_map(OnceLock::get).flatten() {
        let at = entries.len();
        entries.push(child.entry.clone());
        let found = child.directory.as_ref().is_some_and(|below| collect(below, entries));
        if !found && !child.keep {
            entries.truncate(at);
        }
    }
    entries.len() > before
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(entries: &[WalkEntry]) -> Vec<String> {
        entries.iter().map(|entry| entry.path.to_string()).collect()
    }

    fn keep_all(_: &RelPath, _: bool) -> Verdict {
        Verdict::Keep
    }

    fn tree(paths: &[&str]) -> (tempfile::TempDir, RootDir) {
        let dir = tempfile::tempdir().unwrap();
        for path in paths {
            let path = dir.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "").unwrap();
        }
        let root = RootDir::open(dir.path()).unwrap();
        (dir, root)
    }

    #[test]
    fn entries_come_in_the_order_of_their_paths() {
        let (_dir, root) = tree(&["b", "a/z", "a-b", "a/b/c", "a.c"]);
        for threads in [1, 4] {
            let entries = walk(&root, &keep_all, threads).unwrap();
            assert_eq!(names(&entries), ["/a", "/a/b", "/a/b/c", "/a/z", "/a-b", "/a.c", "/b"]);
        }
    }

    #[test]
    fn large_trees_are_the_same_with_any_number_of_threads() {
        let paths: Vec<String> = (0..5000)
            .map(|i| format!("flat/{i}"))
            .chain((0..600).map(|i| format!("d{i}/x/y")))
            .collect();
        let (_dir, root) = tree(&paths.iter().map(String::as_str).collect::<Vec<_>>());
        let one = walk(&root, &keep_all, 1).unwrap();
        let four = walk(&root, &keep_all, 4).unwrap();
        assert_eq!(one.len(), 1 + 5000 + 3 * 600);
        assert!(one.is_sorted_by(|a, b| a.path < b.path));
        assert_eq!(one, four);
    }

    #[test]
    fn pruned_directories_are_not_read() {
        let (dir, root) = tree(&["keep/a", "prune/b"]);
        // A name that is gone by the time it would be read shows that nobody looks.
        let filter = |path: &RelPath, _: bool| {
            assert!(!path.as_bytes().starts_with(b"prune/"));
            if path.as_bytes() == b"prune" { Verdict::Prune } else { Verdict::Keep }
        };
        assert_eq!(names(&walk(&root, &filter, 2).unwrap()), ["/keep", "/keep/a"]);
        drop(dir);
    }

    #[test]
    fn directories_on_the_way_are_listed_only_if_used() {
        let (_dir, root) = tree(&["a/used/x.rs", "a/unused/y.c", "z"]);
        let filter = |path: &RelPath, is_dir: bool| match (is_dir, path.name().ends_with(b".rs")) {
            (false, true) => Verdict::Keep,
            _ => Verdict::Descend,
        };
        let entries = walk(&root, &filter, 2).unwrap();
        assert_eq!(names(&entries), ["/a", "/a/used", "/a/used/x.rs"]);
    }

    #[test]
    fn links_are_listed_and_not_followed() {
        let (dir, root) = tree(&["real/x"]);
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let entries = walk(&root, &keep_all, 2).unwrap();
        assert_eq!(names(&entries), ["/link", "/real", "/real/x"]);
        assert_eq!(entries[0].stat.kind, FileKind::Symlink);
    }

    #[test]
    fn an_empty_directory_has_no_entries() {
        let (_dir, root) = tree(&[]);
        assert!(walk(&root, &keep_all, 4).unwrap().is_empty());
    }
}
