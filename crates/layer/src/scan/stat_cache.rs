//! What the content of files was when they were last read.
//!
//! A file's content cannot change without a change of its `ctime`, which nobody can set back. So
//! where device, inode, size, `mtime` and `ctime` are those of an earlier scan, the content is that
//! of the earlier scan, too. There are two exceptions, and both are about files that had just been
//! written to when they were read:
//!
//! - A second write within the same tick of the file system's clock leaves the same `ctime`.
//! - What a process writes through a mapping (`mmap(2)`) changes `ctime` once, and then again only
//!   after the kernel has written the page to the disk, which it does within half a minute.
//!
//! So what changed less than [`SETTLED`] before a scan began, or later, is not remembered at all,
//! and read again by the next scan.
//!
//! Only some file systems of this very machine are known to keep `ctime` so, mappings included
//! (not tmpfs, which never writes pages anywhere, nor ZFS, which is late with `ctime`). On others
//! nothing is remembered, and every file is read every time.
//!
//! ```text
//! "fwstat1\n"
//! records, sorted by device and inode, each of 81 bytes:
//!   device, inode                  8 bytes each
//!   size                           8 bytes
//!   mtime, ctime                   8 bytes of seconds, 4 bytes of nanoseconds each
//!   scans since it was last seen   1 byte
//!   content hash                   32 bytes
//! BLAKE3 hash of all before, 32 bytes
//! ```
//!
//! Numbers are little-endian. A damaged file is an empty cache: it only costs time.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use formwork_fs::{AtomicFile, FileStat, FsError, RootDir, Timestamp};

use crate::tree::ContentHash;

/// How many seconds before a scan a file must have been left alone for its content to be
/// remembered: twice the age at which the kernel writes out dirty pages by default
/// (`vm.dirty_expire_centisecs`), and far more than the tick of any clock.
const SETTLED: i64 = 60;
/// After how many scans that did not come across a file it is forgotten. Several, since builds
/// with different `.dockerignore` files may take turns.
const FORGOTTEN_AFTER: u8 = 8;

const MAGIC: &[u8; 8] = b"fwstat1\n";
const RECORD: usize = 81;
const HASH: usize = 32;

/// The contents of the files of one context, by what the kernel says about them.
#[derive(Debug)]
pub struct StatCache {
    path: PathBuf,
    /// Sorted by key, each key once.
    records: Vec<Record>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    device: u64,
    inode: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
    unseen: u8,
    content: ContentHash,
}

impl StatCache {
    /// The cache in a file; empty if the file is missing, damaged or of another version.
    pub fn load(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let records = fs_err::read(&path).ok().and_then(|bytes| decode(&bytes));
        Self { path, records: records.unwrap_or_default() }
    }

    /// The content of a file, if it is the one that was read when the file was last seen.
    pub(super) fn content(&self, stat: &FileStat) -> Option<ContentHash> {
        let at = self.records.binary_search_by_key(&key(stat), Record::key).ok()?;
        let record = &self.records[at];
        let same = (record.size, record.mtime, record.ctime) == (stat.size, stat.mtime, stat.ctime);
        same.then_some(record.content)
    }

    /// Remembers what has been read, and writes the file if that is anything new. `seen` are the
    /// keys of all files that the scan came across.
    pub(super) fn update(
        &mut self,
        read: impl IntoIterator<Item = (FileStat, ContentHash)>,
        seen: impl IntoIterator<Item = FileStat>,
        started: Timestamp,
    ) -> Result<(), FsError> {
        let trusted = read.into_iter().filter(|(stat, _)| is_settled(stat, started));
        let mut records: Vec<Record> =
            trusted.map(|(stat, content)| Record::new(&stat, content)).collect();
        if records.is_empty() {
            return Ok(());
        }
        let mut seen: Vec<_> = seen.into_iter().map(|stat| key(&stat)).collect();
        seen.sort_unstable();
        for mut old in self.records.drain(..) {
            let is_seen = seen.binary_search(&old.key()).is_ok();
            old.unseen = if is_seen { 0 } else { old.unseen + 1 };
            if old.unseen <= FORGOTTEN_AFTER {
                records.push(old);
            }
        }
        // Stable, so that of two records with one key the new one comes first and stays.
        records.sort_by_key(Record::key);
        records.dedup_by_key(|record| record.key());
        self.records = records;
        AtomicFile::write(&self.path, &encode(&self.records))
    }
}

/// Whether a file had been left alone long enough when a scan began.
fn is_settled(stat: &FileStat, started: Timestamp) -> bool {
    let limit = Timestamp { seconds: started.seconds - SETTLED, ..started };
    stat.mtime < limit && stat.ctime < limit
}

/// The time by the clock that file systems use.
pub(super) fn now() -> Timestamp {
    // Before 1970 nothing counts as settled, which is right for a clock that is wrong.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
    Timestamp { seconds, nanoseconds: now.subsec_nanos() }
}

/// Whether a directory is on a file system whose change times can be relied on.
pub(super) fn keeps_change_times(directory: &RootDir) -> bool {
    // From the kernel's `magic.h`: ext4, xfs, btrfs, f2fs, bcachefs.
    const RELIABLE: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0xca45_1a4e];
    // The field has another width on every architecture, but the numbers have 32 bits.
    rustix::fs::fstatfs(directory).is_ok_and(|stat| RELIABLE.contains(&(stat.f_type as u32)))
}

fn key(stat: &FileStat) -> (u64, u64) {
    (stat.device, stat.inode)
}

impl Record {
    fn new(stat: &FileStat, content: ContentHash) -> Self {
        let FileStat { device, inode, size, mtime, ctime, .. } = *stat;
        Self { device, inode, size, mtime, ctime, unseen: 0, content }
    }

    fn key(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

fn encode(records: &[Record]) -> Vec<u8> {
    let mut output = Vec::with_capacity(MAGIC.len() + records.len() * RECORD + HASH);
    output.extend(MAGIC);
    for record in records {
        for number in [record.device, record.inode, record.size] {
            output.extend(number.to_le_bytes());
        }
        for time in [record.mtime, record.ctime] {
            output.extend(time.seconds.to_le_bytes());
            output.extend(time.nanoseconds.to_le_bytes());
        }
        output.push(record.unseen);
        output.extend(record.content.0);
    }
    let hash = blake3::hash(&output);
    output.extend(hash.as_bytes());
    output
}

fn decode(bytes: &[u8]) -> Option<Vec<Record>> {
    let (body, hash) = bytes.split_last_chunk::<HASH>()?;
    let (records, []) = body.strip_prefix(MAGIC)?.as_chunks::<RECORD>() else { return None };
    if blake3::hash(body) != *hash {
        return None;
    }
    let records: Option<Vec<Record>> = records.iter().map(decode_record).collect();
    records.filter(|records| records.is_sorted_by(|a, b| a.key() < b.key()))
}

fn decode_record(bytes: &[u8; RECORD]) -> Option<Record> {
    let number = |at| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let time = |at: usize| {
        let nanoseconds = u32::from_le_bytes(*bytes.get(at + 8..)?.first_chunk()?);
        Some(Timestamp { seconds: number(at)?.cast_signed(), nanoseconds })
    };
    Some(Record {
        device: number(0)?,
        inode: number(8)?,
        size: number(16)?,
        mtime: time(24)?,
        ctime: time(36)?,
        unseen: bytes[48],
        content: ContentHash(*bytes.last_chunk()?),
    })
}

#[cfg(test)]
mod tests {
    use formwork_fs::FileKind;

    use super::*;

    const STARTED: Timestamp = Timestamp { seconds: 1000, nanoseconds: 500 };

    fn stat(inode: u64, changed: i64) -> FileStat {
        let time = Timestamp { seconds: changed, nanoseconds: 500 };
        FileStat {
            kind: FileKind::Regular,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 5,
            allocated: 4096,
            mtime: time,
            ctime: time,
            device: 1,
            inode,
            links: 1,
            rdev: (0, 0),
        }
    }

    fn cache(directory: &tempfile::TempDir) -> StatCache {
        StatCache::load(directory.path().join("cache"))
    }

    #[test]
    fn a_file_is_known_as_long_as_nothing_about_it_changed() {
        let directory = tempfile::tempdir().unwrap();
        let known = stat(7, 900);
        let content = ContentHash::of(b"content");
        cache(&directory).update([(known, content)], [known], STARTED).unwrap();
        let cache = cache(&directory);
        assert_eq!(cache.content(&known), Some(content));
        let changes: [fn(&mut FileStat); 7] = [
            |stat| stat.device += 1,
            |stat| stat.inode += 1,
            |stat| stat.size += 1,
            |stat| stat.mtime.seconds += 1,
            |stat| stat.mtime.nanoseconds += 1,
            |stat| stat.ctime.seconds += 1,
            |stat| stat.ctime.nanoseconds += 1,
        ];
        for change in changes {
            let mut other = known;
            change(&mut other);
            assert_eq!(cache.content(&other), None);
        }
    }

    #[test]
    fn what_changed_just_before_the_scan_is_not_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = cache(&directory);
        let content = ContentHash::of(b"content");
        for (changed, remembered) in
            [(939, true), (940, false), (999, false), (1000, false), (2000, false)]
        {
            let changed_then = stat(5, changed);
            cache.update([(changed_then, content)], [changed_then], STARTED).unwrap();
            assert_eq!(cache.content(&changed_then).is_some(), remembered, "{changed}");
        }
        let new_metadata = FileStat { ctime: stat(1, 999).ctime, ..stat(1, 900) };
        cache.update([(new_metadata, content)], [new_metadata], STARTED).unwrap();
        assert_eq!(cache.content(&new_metadata), None);
    }

    #[test]
    fn files_that_are_not_seen_any_more_are_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = cache(&directory);
        let content = ContentHash::of(b"content");
        cache.update([(stat(1, 900), content)], [stat(1, 900)], STARTED).unwrap();
        for scan in 2..=9 {
            cache.update([(stat(scan, 900), content)], [stat(scan, 900)], STARTED).unwrap();
            assert!(cache.content(&stat(1, 900)).is_some(), "{scan}");
        }
        cache.update([(stat(10, 900), content)], [stat(10, 900)], STARTED).unwrap();
        assert_eq!(cache.content(&stat(1, 900)), None);
        assert!(cache.content(&stat(2, 900)).is_some());
    }

    #[test]
    fn nothing_is_written_if_nothing_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let mut cache = cache(&directory);
        cache.update([], [stat(1, 900)], STARTED).unwrap();
        assert!(!directory.path().join("cache").exists());
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let content = ContentHash::of(b"content");
        let known = stat(7, 900);
        cache(&directory).update([(known, content)], [known], STARTED).unwrap();
        let good = fs_err::read(&path).unwrap();
        for at in 0..good.len() {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            fs_err::write(&path, damaged).unwrap();
            assert_eq!(cache(&directory).content(&known), None, "{at}");
            fs_err::write(&path, &good[..at]).unwrap();
            assert_eq!(cache(&directory).content(&known), None, "{at}");
        }
        fs_err::write(&path, good).unwrap();
        assert_eq!(cache(&directory).content(&known), Some(content));
    }

    #[test]
    fn records_come_back() {
        let mut record = Record::new(&stat(u64::MAX, -5), ContentHash::of(b"x"));
        record.ctime = Timestamp { seconds: i64::MAX, nanoseconds: 999_999_999 };
        record.unseen = 3;
        let records = vec![Record::new(&stat(1, 2), ContentHash::of(b"y")), record];
        assert_eq!(decode(&encode(&records)), Some(records));
        assert_eq!(decode(&encode(&[])), Some(vec![]));
    }
}
