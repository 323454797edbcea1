//! Snapshots in a directory of an ordinary file system.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use formwork_fs::{FsError, Lease, RootDir, remove_tree};
use rustix::fs::{CWD, Mode};
use rustix::io::Errno;

use crate::{Active, Committed, SnapshotError, SnapshotKey, Snapshotter};

/// The fact that says under which boot of the machine a snapshot was written, or last examined.
const BOOT: &str = "boot";

/// Snapshots in a directory.
#[derive(Debug)]
pub struct DirectorySnapshots {
    directory: PathBuf,
    temporary: PathBuf,
    boot: String,
    survived: Survived,
    lease: Option<Arc<Lease>>,
    counter: AtomicU64,
}

/// Whether the bytes of a snapshot that another boot of the machine has left are all there.
pub type Survived = fn(&Committed) -> bool;

impl DirectorySnapshots {
    /// Keeps snapshots in `directory`, and those that are being filled in `temporary`, which must
    /// be on the same file system and belong to this process alone.
    ///
    /// `boot` identifies the current boot of the machine: the content of
    /// `/proc/sys/kernel/random/boot_id`. What another boot has left is asked about with
    /// `survived` before it is used for the first time.
    pub fn new(
        directory: impl Into<PathBuf>,
        temporary: impl Into<PathBuf>,
        boot: impl Into<String>,
        survived: Survived,
    ) -> Self {
        Self {
            directory: directory.into(),
            temporary: temporary.into(),
            boot: boot.into(),
            survived,
            lease: None,
            counter: AtomicU64::new(0),
        }
    }

    /// The same snapshots with a lease that holds, by their keys, those that are used.
    #[must_use]
    pub fn with_lease(self, lease: Arc<Lease>) -> Self {
        Self { lease: Some(lease), ..self }
    }

    fn hold(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        Ok(self.lease.as_ref().map_or(Ok(()), |lease| lease.hold(key.as_str()))?)
    }

    fn path(&self, key: &SnapshotKey) -> PathBuf {
        self.directory.join(key.as_str())
    }

    fn committed(&self, key: &SnapshotKey) -> Committed {
        Committed { key: key.clone(), directory: self.path(key) }
    }

    /// A new private directory, without anything in it.
    fn new_directory(&self) -> Result<Active, SnapshotError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let directory = self.temporary.join(format!("snapshot-{number}"));
        create_directory(&directory)?;
        Ok(Active { directory })
    }

    /// The snapshot of a key as it is, which was perhaps left by another boot: for those who only
    /// look at what is there. Counts as no use of it.
    pub fn peek(&self, key: &SnapshotKey) -> Option<Committed> {
        let snapshot = self.committed(key);
        snapshot.directory.is_dir().then_some(snapshot)
    }

    /// Takes a snapshot away, so that nobody finds it any more; its files go, which takes time,
    /// when the result is dropped.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn set_aside(&self, key: &SnapshotKey) -> Result<Active, SnapshotError> {
        let away = self.new_directory()?;
        match move_directory(&self.path(key), &away.directory.join("removed")) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(away),
        }
    }

    /// Whether a snapshot's bytes can be relied on; what has survived a boot is marked so, and
    /// what is used is marked as used.
    fn is_reliable(&self, snapshot: &Committed) -> Result<bool, SnapshotError> {
        if read_and_mark(&snapshot.directory.join(BOOT))?.as_deref() == Some(self.boot.as_bytes()) {
            return Ok(true);
        }
        if !(self.survived)(snapshot) {
            return Ok(false);
        }
        snapshot.set_fact(BOOT, self.boot.as_bytes())?;
        Ok(true)
    }
}

impl Snapshotter for DirectorySnapshots {
    fn prepare(&self) -> Result<Active, SnapshotError> {
        let active = self.new_directory()?;
        create_directory(&active.upper())?;
        create_directory(&active.work())?;
        // The root of the layer is that of an image; everybody may enter it.
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::chmodat(CWD, active.upper(), mode, rustix::fs::AtFlags::empty())
            .map_err(|errno| FsError::new("change the mode of", active.upper(), errno))?;
        Ok(active)
    }

    fn commit(
        &self,
        key: &SnapshotKey,
        active: Option<Active>,
        facts: &[(&str, &[u8])],
    ) -> Result<Committed, SnapshotError> {
        let active = active.map_or_else(|| self.new_directory(), Ok)?;
        remove_path(&active.work())?;
        for (name, content) in facts.iter().copied().chain([(BOOT, self.boot.as_bytes())]) {
            let path = active.directory.join(name);
            fs_err::write(&path, content).map_err(|error| FsError::new("write", path, error))?;
        }
        self.hold(key)?;
        if !move_directory(&active.directory, &self.path(key))? {
            self.complete(key, &active, facts)?;
        }
        Ok(self.committed(key))
    }

    fn get(&self, key: &SnapshotKey) -> Result<Option<Committed>, SnapshotError> {
        self.hold(key)?;
        let snapshot = self.committed(key);
        if !snapshot.directory.is_dir() {
            return Ok(None);
        }
        if self.is_reliable(&snapshot)? {
            return Ok(Some(snapshot));
        }
        self.remove(key)?;
        Ok(None)
    }

    fn remove(&self, key: &SnapshotKey) -> Result<(), SnapshotError> {
        // Moved away first, so that nobody finds it half removed.
        self.set_aside(key).map(drop)
    }

    fn list(&self) -> Result<Vec<SnapshotKey>, SnapshotError> {
        let failed = |error| FsError::new("list the directory", &self.directory, error);
        let mut keys = Vec::new();
        for entry in fs_err::read_dir(&self.directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            keys.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        Ok(keys)
    }
}

impl DirectorySnapshots {
    /// Gives a snapshot the facts that it lacks, and, if it has facts alone, the directory that was
    /// made meanwhile.
    fn complete(
        &self,
        key: &SnapshotKey,
        active: &Active,
        facts: &[(&str, &[u8])],
    ) -> Result<(), SnapshotError> {
        let snapshot = self.committed(key);
        for (name, content) in facts {
            if snapshot.fact(name)?.is_none() {
                snapshot.set_fact(name, content)?;
            }
        }
        if !active.upper().exists() {
            return Ok(());
        }
        // Whatever was there before, this boot writes bytes now.
        snapshot.set_fact(BOOT, self.boot.as_bytes())?;
        move_directory(&active.upper(), &snapshot.directory.join("fs"))?;
        Ok(())
    }
}

/// Moves a directory, unless there is one with something in it in the new place already; tells
/// whether it moved.
fn move_directory(from: &Path, to: &Path) -> Result<bool, FsError> {
    match rustix::fs::renameat(CWD, from, CWD, to) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(FsError::new("move a directory to", to, errno)),
    }
}

fn create_directory(path: &Path) -> Result<(), FsError> {
    fs_err::create_dir(path).map_err(|error| FsError::new("create the directory", path, error))
}

pub(crate) fn remove_path(path: &Path) -> Result<(), FsError> {
    use std::os::unix::ffi::OsStrExt;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    match RootDir::open(parent) {
        Ok(parent) => remove_tree(&parent, name.as_bytes()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// How old a snapshot's last use may look before it is worth a write.
const USE_RESOLUTION: Duration = Duration::from_secs(86400);

/// Reads a file, if it is there, and sets its time once a day, by which the least recently used
/// snapshots are found. One that cannot be marked only looks older than it is.
fn read_and_mark(path: &Path) -> Result<Option<Vec<u8>>, SnapshotError> {
    let failed = |error| SnapshotError::from(FsError::new("read", path, error));
    let mut file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let now = SystemTime::now();
    let used = file.metadata().and_then(|metadata| metadata.modified());
    let is_recent = |at| now.duration_since(at).is_ok_and(|age| age < USE_RESOLUTION);
    if !used.is_ok_and(is_recent) {
        let _ = file.file().set_modified(now);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// When a snapshot was made or last used, to the day; the beginning of time where that is lost.
pub(crate) fn last_used(snapshot: &Committed) -> SystemTime {
    let boot = fs_err::metadata(snapshot.directory.join(BOOT));
    boot.and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, SnapshotError> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FsError::new("read", path, error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store {
        dir: tempfile::TempDir,
    }

    impl Store {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir(dir.path().join("snapshots")).unwrap();
            fs_err::create_dir(dir.path().join("tmp")).unwrap();
            Self { dir }
        }

        fn open(&self, boot: &str) -> DirectorySnapshots {
            DirectorySnapshots::new(
                self.dir.path().join("snapshots"),
                self.dir.path().join("tmp"),
                boot,
                |snapshot| content(snapshot) != "lost",
            )
        }

        /// Whether the process has left no temporary file.
        fn is_clean(&self) -> bool {
            fs_err::read_dir(self.dir.path().join("tmp")).unwrap().count() == 0
        }
    }

    fn key(text: &str) -> SnapshotKey {
        text.parse().unwrap()
    }

    fn filled(store: &DirectorySnapshots, text: &str) -> Active {
        let active = store.prepare().unwrap();
        fs_err::write(active.upper().join("file"), text).unwrap();
        active
    }

    fn content(snapshot: &Committed) -> String {
        fs_err::read_to_string(snapshot.layer().unwrap().join("file")).unwrap()
    }

    #[test]
    fn what_is_committed_is_found_with_its_facts() {
        let store = Store::new();
        let snapshots = store.open("boot");
        let active = filled(&snapshots, "one");
        snapshots.commit(&key("a"), Some(active), &[("tree", b"facts")]).unwrap();
        let found = snapshots.get(&key("a")).unwrap().unwrap();
        assert_eq!(content(&found), "one");
        assert_eq!(found.fact("tree").unwrap().as_deref(), Some(&b"facts"[..]));
        assert_eq!(found.fact("other").unwrap(), None);
        assert_eq!(snapshots.get(&key("b")).unwrap(), None);
        assert_eq!(snapshots.list().unwrap(), [key("a")]);
        assert!(store.is_clean());
    }

    #[test]
    fn what_is_committed_again_adds_the_facts_that_were_missing() {
        let store = Store::new();
        let snapshots = store.open("boot");
        snapshots.commit(&key("a"), None, &[("tree", b"facts")]).unwrap();
        let more: [(&str, &[u8]); 2] = [("tree", b"others"), ("packed", b"blob")];
        let found = snapshots.commit(&key("a"), None, &more).unwrap();
        assert_eq!(found.fact("tree").unwrap().as_deref(), Some(&b"facts"[..]));
        assert_eq!(found.fact("packed").unwrap().as_deref(), Some(&b"blob"[..]));
        assert!(store.is_clean());
    }

    #[test]
    fn what_is_not_committed_is_gone() {
        let store = Store::new();
        drop(filled(&store.open("boot"), "one"));
        assert!(store.is_clean());
    }

    #[test]
    fn the_first_of_two_equal_snapshots_stays() {
        let store = Store::new();
        let snapshots = store.open("boot");
        for text in ["one", "two"] {
            let active = filled(&snapshots, text);
            snapshots.commit(&key("a"), Some(active), &[]).unwrap();
        }
        assert_eq!(content(&snapshots.get(&key("a")).unwrap().unwrap()), "one");
        assert!(store.is_clean());
    }

    #[test]
    fn facts_come_first_and_the_directory_later() {
        let store = Store::new();
        let snapshots = store.open("boot");
        let facts = snapshots.commit(&key("a"), None, &[("tree", b"facts")]).unwrap();
        assert_eq!(facts.layer(), None);
        let active = filled(&snapshots, "one");
        let whole = snapshots.commit(&key("a"), Some(active), &[]).unwrap();
        assert_eq!(content(&whole), "one");
        assert_eq!(whole.fact("tree").unwrap().as_deref(), Some(&b"facts"[..]));
        assert!(store.is_clean());
    }

    #[test]
    fn what_another_boot_has_left_is_examined_once() {
        let store = Store::new();
        let before = store.open("before");
        before.commit(&key("whole"), Some(filled(&before, "one")), &[]).unwrap();
        before.commit(&key("torn"), Some(filled(&before, "lost")), &[]).unwrap();
        assert!(before.get(&key("torn")).unwrap().is_some());
        let after = store.open("after");
        assert!(after.get(&key("torn")).unwrap().is_none());
        let whole = after.get(&key("whole")).unwrap().unwrap();
        assert_eq!(after.list().unwrap(), [key("whole")]);
        fs_err::write(whole.layer().unwrap().join("file"), "lost").unwrap();
        assert!(after.get(&key("whole")).unwrap().is_some());
        assert!(store.is_clean());
    }

    #[test]
    fn a_directory_that_comes_later_makes_the_snapshot_this_boots() {
        let store = Store::new();
        let before = store.open("before");
        before.commit(&key("a"), None, &[]).unwrap();
        let during = store.open("during");
        during.commit(&key("a"), Some(filled(&during, "lost")), &[]).unwrap();
        assert!(store.open("during").get(&key("a")).unwrap().is_some());
        assert!(store.open("after").get(&key("a")).unwrap().is_none());
    }

    #[test]
    fn what_is_removed_is_gone() {
        let store = Store::new();
        let snapshots = store.open("boot");
        snapshots.commit(&key("a"), Some(filled(&snapshots, "one")), &[]).unwrap();
        snapshots.remove(&key("a")).unwrap();
        snapshots.remove(&key("a")).unwrap();
        assert!(snapshots.get(&key("a")).unwrap().is_none());
        assert!(store.is_clean());
    }
}
