//! The names in the store.
//!
//! ```text
//! <root>/
//!   formwork-store      says that the directory is a store; made first
//!   content/            an OCI image layout: oci-layout, index.json, blobs/<algorithm>/<hex>
//!   snapshots-v1/       layers: what is known about each, and its files once they were needed
//!   images-v1/          the names of local images, one file each
//!   index-v1/           cache keys and their results, one file a record
//!   runs-v1/            what the last runs of steps were made of, and what the last build did
//!   cache-mounts-v1/    what `RUN --mount=type=cache` keeps
//!   contexts-v1/        what is known about the files of build contexts
//!   downloads-v1/       what is known about files of web servers
//!   partial-v1/         blobs of which a part has come
//!   locks/              files to lock
//!   tmp/                unfinished things of running processes
//! ```
//!
//! What formwork alone reads carries a version in its name: a format that changes gets a new name,
//! and the old one is left to the versions that know it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use formwork_fs::{FileLock, FsError, Lease, RootDir};
use rustix::fs::{AtFlags, CWD, Dir, IFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::boot::Trusted;
use crate::{ContentError, ContentStore, Temporary};

/// The file that makes a directory a store.
const MARKER: &str = "formwork-store";
const MARKER_TEXT: &[u8] = b"This directory is a store of formwork, a container image builder.\n";
const CONTENT: &str = "content";
const SNAPSHOTS: &str = "snapshots-v1";
const IMAGES: &str = "images-v1";
const INDEX: &str = "index-v1";
const RUNS: &str = "runs-v1";
const CACHE_MOUNTS: &str = "cache-mounts-v1";
const CONTEXTS: &str = "contexts-v1";
const DOWNLOADS: &str = "downloads-v1";
const PARTIAL: &str = "partial-v1";
/// How long somebody waits before asking again whether it is their turn.
const TURN: Duration = Duration::from_millis(20);
const LOCKS: &str = "locks";
const TMP: &str = "tmp";

const DIRECTORIES: [&str; 11] = [
    CONTENT,
    SNAPSHOTS,
    IMAGES,
    INDEX,
    RUNS,
    CACHE_MOUNTS,
    CONTEXTS,
    DOWNLOADS,
    PARTIAL,
    LOCKS,
    TMP,
];

/// A store's directory, with everything in it that has a fixed name.
///
/// Cheap to clone. Clones share one directory for temporary files.
#[derive(Clone, Debug)]
pub struct StoreLayout {
    root: Arc<Path>,
    trusted: Trusted,
    scratch: Arc<OnceLock<Temporary>>,
    lease: Arc<Lease>,
}

impl StoreLayout {
    /// Opens a store and makes what is missing of it, the directory itself included.
    ///
    /// The directory is only for its owner (0700), since images may hold secrets. Several
    /// processes may do this at once. A relative path is only good while the process stays in its
    /// working directory.
    ///
    /// # Errors
    ///
    /// [`ContentError::NotAStore`] for a directory that holds something else, and
    /// [`ContentError::Store`] with the way out where it cannot be made or used.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, ContentError> {
        let root = root.as_ref();
        claim(root)?;
        let failed = |error| unusable(root, error);
        let is_new = !exists(&root.join(TMP)).map_err(failed)?;
        for name in DIRECTORIES {
            make_directory(&root.join(name), 0o755).map_err(failed)?;
        }
        if is_new {
            scatter(&root.join(TMP));
        }
        let layout = Self {
            root: root.into(),
            trusted: Trusted::Always,
            scratch: Arc::default(),
            lease: Arc::new(Lease::new(root.join(LOCKS))),
        };
        ContentStore::create(layout.content()).map_err(|error| match error {
            ContentError::File(error) | ContentError::Full(error) => unusable(root, error),
            other => other,
        })?;
        Ok(layout)
    }

    /// The same store for a process that knows which boot of the machine this is
    /// (`/proc/sys/kernel/random/boot_id`): blobs that another boot has left are compared with
    /// their digests before they count. Without this they are taken for whole.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn under_boot(self, boot: &str) -> Result<Self, ContentError> {
        let newest = self.content().join("blobs/sha256");
        let trusted = Trusted::under_boot(&self.locks(), &newest, boot)?;
        Ok(Self { trusted, ..self })
    }

    /// Which blobs count without a look at their bytes.
    pub(crate) fn trusted(&self) -> Trusted {
        self.trusted
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The OCI image layout with all blobs.
    pub fn content(&self) -> PathBuf {
        self.root.join(CONTENT)
    }

    /// The directory of layers.
    pub fn snapshots(&self) -> PathBuf {
        self.root.join(SNAPSHOTS)
    }

    /// The directory with one file for each name of a local image.
    pub fn images(&self) -> PathBuf {
        self.root.join(IMAGES)
    }

    /// The directory of cache records.
    pub fn index(&self) -> PathBuf {
        self.root.join(INDEX)
    }

    /// The directory of what explains builds: the last runs of steps.
    pub fn runs(&self) -> PathBuf {
        self.root.join(RUNS)
    }

    /// The directory of cache mounts.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join(CACHE_MOUNTS)
    }

    /// The directory with what is known about build contexts.
    pub fn contexts(&self) -> PathBuf {
        self.root.join(CONTEXTS)
    }

    /// The directory with what is known about files of web servers.
    pub fn downloads(&self) -> PathBuf {
        self.root.join(DOWNLOADS)
    }

    /// The directory with blobs of which a part has come.
    pub fn partial(&self) -> PathBuf {
        self.root.join(PARTIAL)
    }

    /// The directory of files to lock.
    pub fn locks(&self) -> PathBuf {
        self.root.join(LOCKS)
    }

    /// The file to lock for something that this program calls `name`, which is one component.
    pub fn lock(&self, name: &str) -> PathBuf {
        debug_assert!(!name.is_empty() && !name.contains('/') && !matches!(name, "." | ".."));
        self.locks().join(name)
    }

    /// The directories in which small files are replaced by others.
    pub(crate) fn places_of_files(&self) -> impl Iterator<Item = PathBuf> {
        let index = self.index();
        // Records lie in directories of two digits.
        let parts = (0..=u8::MAX).map(move |part| index.join(format!("{part:02x}")));
        let flat = [self.index(), self.runs(), self.contexts(), self.downloads(), self.locks()];
        flat.into_iter().chain(parts)
    }

    /// Waits until nobody else does what is called `what`, in this process or another, and keeps
    /// everybody from it as long as the result is held; `None` if `goes_on` says no meanwhile.
    ///
    /// # Errors
    ///
    /// Fails where the lock file can be neither opened nor created.
    pub fn turn(
        &self,
        what: &str,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<Option<FileLock>, ContentError> {
        let path = self.lock(&format!("step-{what}"));
        while goes_on() {
            if let Some(lock) = FileLock::try_transient(&path)? {
                return Ok(Some(lock));
            }
            std::thread::sleep(TURN);
        }
        Ok(None)
    }

    /// The directory that holds the temporary directories of all processes.
    pub fn tmp(&self) -> PathBuf {
        self.root.join(TMP)
    }

    /// A directory for small temporary files, made on the first call and shared by all clones of
    /// this layout; it disappears with the last of them.
    ///
    /// # Errors
    ///
    /// Fails where [`Temporary::create`] does.
    pub fn scratch(&self) -> Result<&Path, ContentError> {
        if let Some(scratch) = self.scratch.get() {
            return Ok(scratch.path());
        }
        let new = Temporary::create(self)?;
        Ok(self.scratch.get_or_init(|| new).path())
    }

    /// What this process uses of the store, shared by all clones of this layout: nobody removes it
    /// meanwhile. Layers are held by their names, blobs by their digests, and cache mounts by the
    /// names of their directories.
    pub fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    /// Removes the directory of [`StoreLayout::scratch`] and all that is in it, for a process that is
    /// about to end while some of its threads still work. `save` comes before, with where the
    /// directory is now, to take out what has to stay.
    pub fn remove_scratch(&self, save: impl FnOnce(&Path)) {
        if let Some(scratch) = self.scratch.get() {
            scratch.remove(save);
        }
    }

    /// Removes what nobody has gone on with for a day in [`StoreLayout::partial`], what killed
    /// processes have left in [`StoreLayout::tmp`] and, of the locks that are
    /// called `step-…` or `lease-…` and go with their holder, in [`StoreLayout::locks`]; returns how many
    /// temporary directories that were. `save` comes before these are removed, when they are called
    /// `<name>.removed`, to take out what has to stay.
    ///
    /// # Errors
    ///
    /// Fails where something cannot be removed, after trying the rest.
    pub fn remove_stale(&self, save: impl FnOnce()) -> Result<usize, ContentError> {
        crate::partial::remove_stale(self)?;
        crate::temporary::remove_stale(self, save)
    }
}

/// Makes the directory a store unless it is one.
fn claim(root: &Path) -> Result<(), ContentError> {
    let failed = |error| unusable(root, error);
    if exists(&root.join(MARKER)).map_err(failed)? {
        return Ok(());
    }
    make_directories(root).map_err(failed)?;
    // Whoever makes a store makes the marker before anything else, so a directory that has other
    // things and no marker is not half a store.
    if !is_claimable(root).map_err(failed)? {
        return Err(ContentError::NotAStore(root.to_owned()));
    }
    write_marker(&root.join(MARKER)).map_err(failed)
}

fn exists(path: &Path) -> Result<bool, FsError> {
    match rustix::fs::statat(CWD, path, AtFlags::empty()) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(FsError::new("examine", path, errno)),
    }
}

/// Asks the file system to keep what is made in a directory apart from its neighbours, as at the
/// top of a disk (`chattr(1)`, attribute T); file systems that know no such thing do not mind.
///
/// Each process fills its new layers in a directory of its own there. Without this, ext4 puts them
/// where the layers of the last process were, and if those have just been removed, it first walks
/// past each inode that was freed in the last minutes: forty times slower with 27,000 files.
fn scatter(directory: &Path) {
    let Ok(directory) = RootDir::open(directory) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&directory) {
        let _ = rustix::fs::ioctl_setflags(&directory, flags | IFlags::TOPDIR);
    }
}

/// Makes a directory for its owner only, and those above it as `mkdir -p` does.
fn make_directories(path: &Path) -> Result<(), FsError> {
    match make_directory(path, 0o700) {
        Err(error) if error.is_not_found() => {}
        result => return result,
    }
    for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().skip(1).rev() {
        if !ancestor.as_os_str().is_empty() {
            make_directory(ancestor, 0o755)?;
        }
    }
    make_directory(path, 0o700)
}

/// Makes a directory; one that is there, or a link to one, is as good.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), FsError> {
    match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(FsError::new("create the directory", path, errno)),
    }
}

/// Whether the directory is empty, apart from what a new file system has.
fn is_claimable(root: &Path) -> Result<bool, FsError> {
    let failed = |errno| FsError::new("list the directory", root, errno);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, root, flags, Mode::empty()).map_err(failed)?;
    let mut is_empty = true;
    for entry in Dir::read_from(directory).map_err(failed)? {
        match entry.map_err(failed)?.file_name().to_bytes() {
            b"." | b".." | b"lost+found" => {}
            // Another process has claimed it since we looked.
            name if name == MARKER.as_bytes() => return Ok(true),
            _ => is_empty = false,
        }
    }
    Ok(is_empty)
}

fn write_marker(path: &Path) -> Result<(), FsError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o644)) {
        Ok(file) => rustix::io::write(&file, MARKER_TEXT)
            .map(drop)
            .map_err(|errno| FsError::new("write", path, errno)),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(FsError::new("create", path, errno)),
    }
}

fn unusable(root: &Path, source: FsError) -> ContentError {
    use std::io::ErrorKind;
    let way_out = match source.source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "choose a directory that you may write to with `--root`"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free some space there, or choose another directory with `--root`"
        }
        ErrorKind::NotADirectory => "choose a directory with `--root`",
        _ => "choose another directory with `--root`",
    };
    ContentError::Store { path: root.to_owned(), source, way_out }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs_err::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_store_is_complete_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path().join("a/b/store")).unwrap();
        assert_eq!(
            names(layout.root()),
            [
                "cache-mounts-v1",
                "content",
                "contexts-v1",
                "downloads-v1",
                "formwork-store",
                "images-v1",
                "index-v1",
                "locks",
                "partial-v1",
                "runs-v1",
                "snapshots-v1",
                "tmp",
            ]
        );
        assert_eq!(names(&layout.content()), ["blobs", "index.json", "oci-layout"]);
        let mode = fs_err::metadata(layout.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn opening_again_changes_nothing_and_mends_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path()).unwrap();
        fs_err::write(layout.images().join("kept"), "").unwrap();
        fs_err::remove_dir(layout.contexts()).unwrap();
        StoreLayout::open(dir.path()).unwrap();
        assert!(layout.images().join("kept").exists());
        assert!(layout.contexts().exists());
    }

    #[test]
    fn a_directory_with_something_else_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("tmp")).unwrap();
        let error = StoreLayout::open(dir.path()).unwrap_err();
        assert!(matches!(error, ContentError::NotAStore(_)), "{error}");
        assert!(error.to_string().contains("--root"), "{error}");
        assert_eq!(names(dir.path()), ["tmp"]);
    }

    #[test]
    fn a_new_file_system_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::create_dir(dir.path().join("lost+found")).unwrap();
        StoreLayout::open(dir.path()).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_the_store_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("file"), "").unwrap();
        for path in ["file", "file/store"] {
            let path = dir.path().join(path);
            let message = StoreLayout::open(&path).unwrap_err().to_string();
            assert!(message.contains(path.to_str().unwrap()), "{message}");
            assert!(message.contains("--root"), "{message}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_the_way_out() {
        let message = StoreLayout::open("/proc/store").unwrap_err().to_string();
        assert!(message.starts_with("cannot use `/proc/store` as the store: "), "{message}");
        assert!(message.ends_with("with `--root`"), "{message}");
    }

    #[test]
    fn many_may_open_a_new_store_at_once() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let layout = StoreLayout::open(&root).unwrap();
                        layout.scratch().unwrap();
                    });
                }
            });
            assert!(names(&root.join("tmp")).is_empty());
        }
    }

    #[test]
    fn clones_share_their_scratch_directory() {
        let dir = tempfile::tempdir().unwrap();
        let layout = StoreLayout::open(dir.path()).unwrap();
        let clone = layout.clone();
        let scratch = layout.scratch().unwrap().to_owned();
        assert_eq!(clone.scratch().unwrap(), scratch);
        drop(layout);
        assert!(scratch.exists());
        drop(clone);
        assert!(!scratch.exists());
    }
}
