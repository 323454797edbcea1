//! Cache directories that are away: moved into the root file system of a step, where nothing can be
//! mounted, and back after it.
//!
//! A journal beside the directory says where it is, so that a process that is killed loses nothing:
//! who removes its temporary files, or wants the directory next, brings it home before. What comes
//! home is a directory, found without following a link: a step may have put anything in its place.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formwork_content::StoreLayout;
use formwork_fs::{AtomicFile, FileLock, Follow, FsError, RelPath, RootDir};
use formwork_sandbox::{SandboxError, Stage};
use rustix::fs::{Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::WorkerError;

/// What the names of journals end with; before it comes the directory's number.
const JOURNAL: &str = "lent";
/// What a temporary directory is called that is being removed.
const REMOVED: &str = ".removed";
/// How often who waits for another looks again.
const POLL: Duration = Duration::from_millis(5);

/// A cache directory, or a part of one, that is away.
#[derive(Debug)]
pub(crate) struct Lent {
    journal: PathBuf,
    /// The directory that it is missing from, and its name there.
    home: (RootDir, Vec<u8>),
}

impl Lent {
    /// Moves a part of a cache directory to a name in a directory. `place` is the temporary
    /// directory that this is in, and `path` the way from there.
    pub(crate) fn move_in(
        cache: &Path,
        part: &RelPath,
        (place, path): (&Path, &RelPath),
        (directory, name): (&RootDir, &[u8]),
    ) -> Result<Self, WorkerError> {
        let part = if part.is_root() { RelPath::root() } else { without_links(cache, part)? };
        let home = home_of(cache, &part)?;
        let journal = cache.with_extension(JOURNAL);
        AtomicFile::write(&journal, &encode(place, path, &part))?;
        match rustix::fs::renameat(&home.0, &home.1[..], directory, name) {
            Ok(()) => Ok(Self { journal, home }),
            Err(Errno::NOENT) => Err(WorkerError::Sandbox(SandboxError::Unavailable(
                "without mounts, a cache directory can be at one place only".to_owned(),
            ))),
            Err(errno) => Err(FsError::new("move in", cache, errno).into()),
        }
    }

    /// Moves it back, if the step has left it there.
    pub(crate) fn move_back(&self, directory: &RootDir, name: &[u8]) -> Result<(), FsError> {
        let (parent, own) = &self.home;
        take_home((directory, name), (parent, own))?;
        let _ = fs_err::remove_file(&self.journal);
        Ok(())
    }
}

/// The path of a part of a directory, found as a step would find it that has the directory as its
/// root.
fn without_links(cache: &Path, part: &RelPath) -> Result<RelPath, WorkerError> {
    let failed = |errno: Errno| {
        let path = cache.join(part.as_path());
        WorkerError::Sandbox(SandboxError::Setup {
            stage: Stage::OpenSource,
            path,
            source: errno.into(),
        })
    };
    let base = RootDir::open(cache)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let found = base
        .open_raw(part, flags, Mode::empty(), Follow::InRoot)
        .map_err(|error| failed(errno_of(&error)))?;
    let open = rustix::fs::open(cache, flags | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    let [base, found] = [path_of(&open).map_err(failed)?, path_of(&found).map_err(failed)?];
    let below = found.strip_prefix(&base).map_err(|_| failed(Errno::XDEV))?;
    RelPath::new(below.as_os_str().as_bytes()).map_err(|_| failed(Errno::INVAL))
}

fn errno_of(error: &FsError) -> Errno {
    let source = std::error::Error::source(error);
    let error = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    error.and_then(Errno::from_io_error).unwrap_or(Errno::IO)
}

/// Where the kernel says that a descriptor's file lies.
fn path_of(fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new())?;
    Ok(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

/// The directory that a part of a cache directory is in, or the cache directory itself.
fn home_of(cache: &Path, part: &RelPath) -> Result<(RootDir, Vec<u8>), FsError> {
    if part.is_root() {
        let parent = cache.parent().unwrap_or(Path::new("/"));
        let name = cache.file_name().unwrap_or_default().as_bytes().to_vec();
        return Ok((RootDir::open(parent)?, name));
    }
    let parent = part.parent().unwrap_or_default();
    Ok((RootDir::open(cache)?.open_dir(&parent, Follow::Never)?, part.name().to_vec()))
}

/// Moves a directory home, unless it is none, or one is there already.
fn take_home(
    (directory, name): (&RootDir, &[u8]),
    (parent, own): (&RootDir, &[u8]),
) -> Result<(), FsError> {
    let kind = RelPath::new(name).ok().and_then(|path| directory.stat(&path, Follow::Never).ok());
    if !kind.flatten().is_some_and(|stat| stat.is_dir()) {
        return Ok(());
    }
    match rustix::fs::renameat_with(directory, name, parent, own, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(()),
        Err(errno) => Err(FsError::new("move back", parent.path(), errno)),
    }
}

/// A journal's text: the temporary directory's name, the way from there, the part.
fn encode(place: &Path, path: &RelPath, part: &RelPath) -> Vec<u8> {
    let name = place.file_name().unwrap_or_default().as_bytes();
    [name, b"\0", path.as_bytes(), b"\0", part.as_bytes()].concat()
}

struct Journal {
    place: String,
    path: RelPath,
    part: RelPath,
}

fn read(journal: &Path) -> Option<Journal> {
    let text = fs_err::read(journal).ok()?;
    let mut fields = text.split(|byte| *byte == 0);
    let mut path = || RelPath::new(fields.next()?).ok();
    let (place, path, part) = (path()?, path()?, path()?);
    let place = place.as_path().to_str().filter(|name| !name.contains('/'))?.to_owned();
    Some(Journal { place, path, part })
}

/// Brings a cache directory home that a killed process has lent. The caller has its lock.
pub(crate) fn bring_home(cache: &Path, tmp: &Path) -> Result<(), FsError> {
    let path = cache.with_extension(JOURNAL);
    if let Some(journal) = read(&path) {
        for name in [journal.place.clone(), format!("{}{REMOVED}", journal.place)] {
            let parent = journal.path.parent().unwrap_or_default();
            let Ok(place) = RootDir::open(tmp.join(name)) else { continue };
            let Ok(directory) = place.open_dir(&parent, Follow::Never) else { continue };
            let (home, own) = home_of(cache, &journal.part)?;
            take_home((&directory, journal.path.name()), (&home, &own))?;
        }
    }
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FsError::new("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Brings home all cache directories from temporary directories that are about to be removed. What
/// cannot be brought is lost with them; a cache is made anew when it is wanted.
pub fn bring_caches_home(layout: &StoreLayout) {
    for (cache, place) in lent(layout) {
        let is_about_to_go = || layout.tmp().join(format!("{place}{REMOVED}")).exists();
        // Whoever holds the lock now does the same first.
        while is_about_to_go() && cache.with_extension(JOURNAL).exists() {
            match FileLock::try_exclusive(cache.with_extension("lock")) {
                Ok(Some(_lock)) => drop(bring_home(&cache, &layout.tmp())),
                Ok(None) => std::thread::sleep(POLL),
                Err(_) => break,
            }
        }
    }
}

/// The same for what this process has lent itself, while its steps may still run.
pub fn bring_own_caches_home(layout: &StoreLayout, place: &Path) {
    for (cache, name) in lent(layout) {
        if place.file_name().is_some_and(|own| *own == *format!("{name}{REMOVED}")) {
            let _ = bring_home(&cache, &layout.tmp());
        }
    }
}

/// The cache directories that are away, and the temporary directories that they are in.
fn lent(layout: &StoreLayout) -> Vec<(PathBuf, String)> {
    let entries = |path: &Path| fs_err::read_dir(path).into_iter().flatten().flatten();
    let mounts = entries(&layout.cache_mounts()).map(|entry| entry.path());
    let files = mounts.flat_map(|mount| entries(&mount).map(|entry| entry.path()));
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == JOURNAL))
        .filter_map(|file| Some((file.with_extension(""), read(&file)?.place)))
        .collect()
}
