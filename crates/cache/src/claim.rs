//! The right to do the work of a key, and its log, which others can follow while they wait.
//!
//! The log is kept in the lock file itself, in frames: where it was written (a byte), how many
//! bytes there are (four, little-endian), the bytes. It goes with the claim; nobody depends on it,
//! so what cannot be written or read is left out.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use formwork_fs::{FileLock, FsError};

/// The most that is kept of a log; what comes later is told by its own process alone.
const LONGEST_LOG: u64 = 16 << 20;
/// The most that one frame holds.
const LONGEST_FRAME: usize = 1 << 20;
/// What stands before the bytes of a frame.
const HEADER: usize = 5;

/// The exclusive right to fill in a key, until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Claim(Option<Arc<Held>>);

#[derive(Debug)]
struct Held {
    lock: FileLock,
    written: AtomicU64,
}

/// A part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// Whether it was written to standard error.
    pub is_error: bool,
    /// The bytes.
    pub data: Vec<u8>,
}

/// What became of an attempt to take a claim.
#[derive(Debug)]
pub enum Claimed {
    /// It is taken now.
    Now(Claim),
    /// Somebody else has it, whose log this is.
    Already(ClaimLog),
}

/// Reads the log of a claim that somebody else holds.
#[derive(Debug)]
pub struct ClaimLog {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
}

impl Claim {
    /// A claim that excludes nobody, for indexes that one process has to itself.
    pub fn unshared() -> Self {
        Self(None)
    }

    /// Takes a claim by its lock file; `None` while somebody else has it.
    pub(crate) fn try_take(path: PathBuf) -> Result<Option<Self>, FsError> {
        let Some(lock) = FileLock::try_transient(path)? else { return Ok(None) };
        // A killed process may have left its log.
        if lock.file().metadata().is_ok_and(|metadata| metadata.len() > 0) {
            let _ = lock.file().set_len(0);
        }
        Ok(Some(Self(Some(Arc::new(Held { lock, written: AtomicU64::new(0) })))))
    }

    /// Adds to the log.
    pub fn log(&self, is_error: bool, data: &[u8]) {
        let Some(held) = &self.0 else { return };
        for part in data.chunks(LONGEST_FRAME) {
            let mut frame = Vec::with_capacity(HEADER + part.len());
            frame.push(u8::from(is_error));
            frame.extend_from_slice(&u32::try_from(part.len()).unwrap_or_default().to_le_bytes());
            frame.extend_from_slice(part);
            let length = frame.len() as u64;
            if held.written.fetch_add(length, Ordering::Relaxed) + length > LONGEST_LOG {
                return;
            }
            // One call, so that what two streams write does not mix.
            if !matches!(held.lock.file().write(&frame), Ok(count) if count == frame.len()) {
                held.written.store(LONGEST_LOG, Ordering::Relaxed);
            }
        }
    }
}

impl ClaimLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, offset: 0 }
    }

    /// What has been written since the last call, by whoever has the claim now or had it then.
    pub fn read(&mut self) -> Vec<LogPart> {
        let mut parts = Vec::new();
        if self.file.is_none() {
            self.file = open(&self.path);
        }
        self.read_file(&mut parts);
        if self.file.as_ref().is_some_and(|file| !is_at(file, &self.path)) {
            // It is complete: its claim has ended.
            (self.file, self.offset) = (open(&self.path), 0);
            self.read_file(&mut parts);
        }
        parts
    }

    fn read_file(&mut self, parts: &mut Vec<LogPart>) {
        let Some(file) = &self.file else { return };
        if file.metadata().is_ok_and(|metadata| metadata.len() < self.offset) {
            self.offset = 0;
        }
        while let Some(part) = read_frame(file, self.offset) {
            self.offset += (HEADER + part.data.len()) as u64;
            parts.push(part);
        }
    }
}

fn open(path: &Path) -> Option<File> {
    fs_err::File::open(path).ok().map(|file| file.into_parts().0)
}

/// The frame at a place, if all of it is there.
fn read_frame(file: &File, offset: u64) -> Option<LogPart> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, offset).ok()?;
    let [is_error, length @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    if length > LONGEST_FRAME {
        return None;
    }
    let mut data = vec![0; length];
    file.read_exact_at(&mut data, offset + HEADER as u64).ok()?;
    Some(LogPart { is_error: is_error != 0, data })
}

/// Whether a file still has its name.
fn is_at(file: &File, path: &Path) -> bool {
    let there = fs_err::symlink_metadata(path);
    matches!((file.metadata(), there), (Ok(own), Ok(there))
        if (own.dev(), own.ino()) == (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> LogPart {
        LogPart { is_error: false, data: text.into() }
    }

    #[test]
    fn who_waits_reads_all_of_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claim");
        let mut log = ClaimLog::new(path.clone());
        assert_eq!(log.read(), []);
        let claim = Claim::try_take(path.clone()).unwrap().unwrap();
        claim.log(false, b"one");
        assert_eq!(log.read(), [part("one")]);
        assert_eq!(log.read(), []);
        claim.log(true, b"two");
        claim.log(false, &[b'x'; 3 << 20]);
        // Also what was written just before the claim ended.
        drop(claim);
        let rest = log.read();
        assert!(
            rest[0].is_error
                && rest[1..].iter().map(|part| part.data.len()).sum::<usize>() == 3 << 20
        );
        let next = Claim::try_take(path).unwrap().unwrap();
        next.log(false, b"three");
        assert_eq!(log.read(), [part("three")]);
    }

    #[test]
    fn what_a_killed_process_has_left_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claim");
        fs_err::write(&path, b"\0\xff\xff\xff\xffgarbage").unwrap();
        let mut log = ClaimLog::new(path.clone());
        assert_eq!(log.read(), []);
        let claim = Claim::try_take(path).unwrap().unwrap();
        claim.log(false, b"one");
        assert_eq!(log.read(), [part("one")]);
    }

    #[test]
    fn a_log_ends_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claim");
        let claim = Claim::try_take(path.clone()).unwrap().unwrap();
        (0..40).for_each(|_| claim.log(false, &[b'x'; LONGEST_FRAME]));
        assert!(fs_err::metadata(&path).unwrap().len() <= LONGEST_LOG);
    }
}
