//! The index from keys to results: one small file a record.
//!
//! A record appears by a rename, so it is either there as a whole or not at all, also after
//! `kill -9`; any number of processes read and write at the same time without waiting for each
//! other; opening an index costs nothing, however large it is; and a damaged file costs one
//! record. A record that cannot be read is removed and counts as missing.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use formwork_fs::{AtomicFile, FsError};
use serde::{Deserialize, Serialize};

use crate::{CacheKey, Claim, ClaimLog, Claimed, Component};

/// The result of a step that ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// The layer that the step made, by the name under which the worker keeps it.
    pub layer: String,
    /// When the layer was made, in seconds since 1970.
    pub created: i64,
    /// What the step was called when it ran.
    pub step: String,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// When it ran, in seconds since 1970: later than its layer was made where that was known
    /// before. 0 where that is not known.
    #[serde(default)]
    pub ran: i64,
    /// What the key was made of.
    pub components: Vec<Component>,
}

/// A record in an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// What it is kept under.
    pub key: CacheKey,
    /// The record.
    pub record: CacheRecord,
    /// When it was made or last found, to the hour.
    pub last_used: SystemTime,
}

/// Where records are kept.
pub trait CacheIndex: Send + Sync {
    /// The record under a key.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be read; a record that is there and damaged is no error.
    fn find(&self, key: &CacheKey) -> Result<Option<CacheRecord>, CacheError>;

    /// Puts a record under a key, in place of what was there.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be written.
    fn store(&self, key: &CacheKey, record: &CacheRecord) -> Result<(), CacheError>;

    /// Claims the work of filling in a key, so that nobody else does the same meanwhile. The claim
    /// ends when it is dropped, or with the process.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be written.
    fn try_claim(&self, key: &CacheKey) -> Result<Claimed, CacheError>;

    /// Removes the record under a key, if there is one.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be written.
    fn forget(&self, key: &CacheKey) -> Result<(), CacheError>;

    /// The last runs of a step, the latest first, with components that people understand. They
    /// explain misses and lead to no result: what cannot be read is missing.
    fn runs(&self, step: &CacheKey) -> Vec<CacheRecord>;

    /// Notes a run of a step.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be written.
    fn add_run(&self, step: &CacheKey, run: &CacheRecord) -> Result<(), CacheError>;

    /// Runs of any steps on other machines, which explain misses where a step has not run here.
    fn foreign_runs(&self) -> Vec<CacheRecord> {
        Vec::new()
    }
}

/// An index in a directory.
#[derive(Clone, Debug)]
pub struct DirIndex {
    directory: PathBuf,
    runs: PathBuf,
    locks: PathBuf,
}

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A file of the index.
    #[error("the cache index is unusable: {0}; remove its directory to begin with an empty one")]
    File(#[from] FsError),
}

impl DirIndex {
    /// The index in a directory and the last runs of steps in another, which need not exist yet,
    /// with its locks in a third, which must.
    pub fn new(
        directory: impl Into<PathBuf>,
        runs: impl Into<PathBuf>,
        locks: impl Into<PathBuf>,
    ) -> Self {
        Self { directory: directory.into(), runs: runs.into(), locks: locks.into() }
    }

    /// All records, in no order; what cannot be read is passed over.
    ///
    /// # Errors
    ///
    /// Fails where the index's directories cannot be read.
    pub fn list(&self) -> Result<Vec<StoredRecord>, CacheError> {
        let mut records = Vec::new();
        for start in names(&self.directory)? {
            for rest in names(&self.directory.join(&start))? {
                records.extend(self.stored(&format!("{start}{rest}")));
            }
        }
        Ok(records)
    }

    fn stored(&self, name: &str) -> Option<StoredRecord> {
        let key = name.parse().ok()?;
        let path = self.path(&key);
        let record = serde_json::from_slice(&fs_err::read(&path).ok()?).ok()?;
        let last_used = fs_err::metadata(&path).ok()?.modified().ok()?;
        Some(StoredRecord { key, record, last_used })
    }

    /// Removes what is known about runs that have not been added to for so long.
    ///
    /// # Errors
    ///
    /// Fails where the index cannot be changed.
    pub fn forget_runs(&self, age: Duration) -> Result<(), CacheError> {
        for name in names(&self.runs)? {
            let path = self.runs.join(name);
            let modified = fs_err::metadata(&path).and_then(|metadata| metadata.modified());
            let is_old = |at| SystemTime::now().duration_since(at).is_ok_and(|past| past >= age);
            if modified.is_ok_and(is_old) {
                remove(path)?;
            }
        }
        Ok(())
    }

    /// Two levels, so that no directory gets very large.
    fn path(&self, key: &CacheKey) -> PathBuf {
        let name = key.to_string();
        self.directory.join(&name[..2]).join(&name[2..])
    }

    /// The lock file of a key's claim.
    fn claim_path(&self, key: &CacheKey) -> PathBuf {
        self.locks.join(format!("step-{key}"))
    }

    /// The file with the last runs of a step.
    fn runs_path(&self, step: &CacheKey) -> PathBuf {
        self.runs.join(step.to_string())
    }
}

/// How many runs of a step are kept.
const KEPT_RUNS: usize = 4;

impl CacheIndex for DirIndex {
    fn find(&self, key: &CacheKey) -> Result<Option<CacheRecord>, CacheError> {
        let path = self.path(key);
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(FsError::new("read", path, error).into()),
        };
        match serde_json::from_slice(&bytes) {
            Ok(record) => {
                mark_used(&path);
                Ok(Some(record))
            }
            Err(_) => self.forget(key).map(|()| None),
        }
    }

    fn store(&self, key: &CacheKey, record: &CacheRecord) -> Result<(), CacheError> {
        let path = self.path(key);
        let bytes = serde_json::to_vec(record)
            .map_err(|error| FsError::new("encode the record for", &path, error))?;
        Ok(write(&path, &bytes)?)
    }

    fn try_claim(&self, key: &CacheKey) -> Result<Claimed, CacheError> {
        let path = self.claim_path(key);
        Ok(match Claim::try_take(path.clone())? {
            Some(claim) => Claimed::Now(claim),
            None => Claimed::Already(ClaimLog::new(path)),
        })
    }

    fn forget(&self, key: &CacheKey) -> Result<(), CacheError> {
        remove(self.path(key))
    }

    fn runs(&self, step: &CacheKey) -> Vec<CacheRecord> {
        let bytes = fs_err::read(self.runs_path(step)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    fn add_run(&self, step: &CacheKey, run: &CacheRecord) -> Result<(), CacheError> {
        let path = self.runs_path(step);
        let mut runs = self.runs(step);
        runs.retain(|known| known.components != run.components || known.layer != run.layer);
        runs.insert(0, run.clone());
        runs.truncate(KEPT_RUNS);
        let bytes = serde_json::to_vec(&runs)
            .map_err(|error| FsError::new("encode the runs for", &path, error))?;
        Ok(write(&path, &bytes)?)
    }
}

/// Writes a file, and makes its directory if need be.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FsError> {
    match AtomicFile::write(path, bytes) {
        Err(error) if error.is_not_found() => {
            let parent = path.parent().unwrap_or(path);
            fs_err::create_dir_all(parent)
                .map_err(|error| FsError::new("create the directory", parent, error))?;
            AtomicFile::write(path, bytes)
        }
        result => result,
    }
}

/// The names in a directory, which need not exist.
fn names(directory: &Path) -> Result<Vec<String>, FsError> {
    let failed = |error| FsError::new("list the directory", directory, error);
    let entries = match fs_err::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error)),
    };
    let name = |entry: std::io::Result<fs_err::DirEntry>| match entry {
        Ok(entry) => entry.file_name().into_string().ok().map(Ok),
        Err(error) => Some(Err(failed(error))),
    };
    entries.filter_map(name).collect()
}

/// How old a record's last use may look before it is worth a write.
const USE_RESOLUTION: Duration = Duration::from_secs(3600);

/// Sets the file's time, by which the least recently used records are found. A record that cannot
/// be marked only looks older than it is.
fn mark_used(path: &Path) {
    let now = SystemTime::now();
    let is_recent = |file: &fs_err::File| {
        let modified = file.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age < USE_RESOLUTION))
    };
    if let Ok(file) = fs_err::OpenOptions::new().write(true).open(path)
        && !is_recent(&file)
    {
        let _ = file.set_modified(now);
    }
}

/// Removes a file that another process may be removing as well.
fn remove(path: PathBuf) -> Result<(), CacheError> {
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(FsError::new("remove", path, error).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Components;

    fn record(layer: &str) -> CacheRecord {
        let mut components = Components::default();
        components.add("kind", "exec");
        CacheRecord {
            layer: layer.to_owned(),
            created: 1,
            step: "RUN make".to_owned(),
            milliseconds: 5,
            ran: 2,
            components: components.into_list(),
        }
    }

    fn key(text: &str) -> CacheKey {
        let mut components = Components::default();
        components.add("test", text);
        components.key()
    }

    #[test]
    fn what_is_stored_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        assert_eq!(index.find(&key("a")).unwrap(), None);
        index.store(&key("a"), &record("one")).unwrap();
        index.store(&key("a"), &record("two")).unwrap();
        assert_eq!(index.find(&key("a")).unwrap(), Some(record("two")));
        assert_eq!(index.find(&key("b")).unwrap(), None);
        index.forget(&key("a")).unwrap();
        index.forget(&key("a")).unwrap();
        assert_eq!(index.find(&key("a")).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        for damage in [&b""[..], b"{", b"null", b"\xff", br#"{"layer":5}"#] {
            index.store(&key("a"), &record("one")).unwrap();
            fs_err::write(index.path(&key("a")), damage).unwrap();
            assert_eq!(index.find(&key("a")).unwrap(), None);
            assert!(!index.path(&key("a")).exists());
        }
    }

    #[test]
    fn the_list_has_every_record_that_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        assert!(index.list().unwrap().is_empty());
        for name in ["a", "b", "damaged"] {
            index.store(&key(name), &record(name)).unwrap();
        }
        fs_err::write(index.path(&key("damaged")), "{").unwrap();
        fs_err::write(dir.path().join("index/README"), "not ours").unwrap();
        let mut found: Vec<(CacheKey, String)> =
            index.list().unwrap().into_iter().map(|one| (one.key, one.record.layer)).collect();
        found.sort_by(|a, b| a.1.cmp(&b.1));
        assert_eq!(found, [(key("a"), "a".to_owned()), (key("b"), "b".to_owned())]);
    }

    #[test]
    fn the_last_runs_of_a_step_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        assert!(index.runs(&key("step")).is_empty());
        for layer in ["1", "2", "3", "4", "5", "3"] {
            index.add_run(&key("step"), &record(layer)).unwrap();
        }
        let layers = |index: &DirIndex| -> Vec<String> {
            index.runs(&key("step")).into_iter().map(|run| run.layer).collect()
        };
        assert_eq!(layers(&index), ["3", "5", "4", "2"]);
        assert!(index.list().unwrap().is_empty());
        fs_err::write(index.runs_path(&key("step")), "{").unwrap();
        assert!(layers(&index).is_empty());
        index.add_run(&key("step"), &record("6")).unwrap();
        index.forget_runs(Duration::from_secs(1000)).unwrap();
        assert_eq!(layers(&index), ["6"]);
        index.forget_runs(Duration::ZERO).unwrap();
        assert!(layers(&index).is_empty());
    }

    #[test]
    fn an_old_record_is_marked_when_it_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        index.store(&key("a"), &record("one")).unwrap();
        let path = index.path(&key("a"));
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_modified(old).unwrap();
        index.find(&key("a")).unwrap();
        let modified = fs_err::metadata(&path).unwrap().modified().unwrap();
        assert!(modified > old + USE_RESOLUTION);
    }

    #[test]
    fn writers_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let index = &index;
                scope.spawn(move || {
                    for round in 0..50 {
                        index.store(&key("same"), &record("same")).unwrap();
                        let own = format!("{thread} {round}");
                        index.store(&key(&own), &record(&own)).unwrap();
                        assert_eq!(index.find(&key("same")).unwrap(), Some(record("same")));
                        assert_eq!(index.find(&key(&own)).unwrap(), Some(record(&own)));
                    }
                });
            }
        });
    }

    #[test]
    fn a_key_is_claimed_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let index = DirIndex::new(dir.path().join("index"), dir.path().join("runs"), dir.path());
        let claim = |name| index.try_claim(&key(name)).unwrap();
        let first = claim("a");
        assert!(matches!(first, Claimed::Now(_)));
        assert!(matches!(claim("a"), Claimed::Already(_)));
        assert!(matches!(claim("b"), Claimed::Now(_)));
        drop(first);
        assert!(matches!(claim("a"), Claimed::Now(_)));
    }
}
