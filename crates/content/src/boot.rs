//! Which blobs were written since the machine booted.
//!
//! Blobs are not synced when they are written, so after a power loss one may have its name and its
//! length and not its bytes. The first process after a boot writes a marker; what has changed
//! since then was written by a process of this boot, which the kernel shows as a whole whatever
//! the disk has. Anything older is compared with its digest before it counts, once: it is then
//! marked as changed. Never trusts the clock where it seems to have gone back.

use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use formwork_fs::{AtomicFile, FileStat, FsError, Timestamp};
use rustix::fs::{AtFlags, CWD, Stat};

use crate::ContentError;

/// The file, among the locks, that the first process after a boot writes.
const MARKER: &str = "boot";
/// What the marker says beside the boot where times tell nothing.
const DISTRUSTED: &str = " and its clock went back";

/// Since when blobs count without a look at their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusted {
    /// Always: nobody has said which boot this is.
    Always,
    /// Since a moment.
    Since(Timestamp),
    /// Never: the clock has gone back.
    Never,
}

impl Trusted {
    /// Finds the moment of the boot with this id, or notes that it is now. `newest` is a directory
    /// whose time says when the last blob came.
    pub(crate) fn under_boot(
        locks: &Path,
        newest: &Path,
        boot: &str,
    ) -> Result<Self, ContentError> {
        let path = locks.join(MARKER);
        match fs_err::read_to_string(&path) {
            Ok(text) if text == boot => return Ok(Self::Since(stat(&path)?.mtime)),
            Ok(text) if text.strip_prefix(boot) == Some(DISTRUSTED) => return Ok(Self::Never),
            _ => {}
        }
        write(&path, boot)?;
        let (now, newest) = (stat(&path)?.mtime, stat(newest)?.mtime);
        if newest <= now {
            return Ok(Self::Since(now));
        }
        write(&path, &format!("{boot}{DISTRUSTED}"))?;
        Ok(Self::Never)
    }

    /// Whether a file counts without a look at its bytes.
    pub(crate) fn covers(self, file: Stat) -> bool {
        match self {
            Self::Always => true,
            Self::Since(moment) => FileStat::from(file).ctime >= moment,
            Self::Never => false,
        }
    }
}

/// Lets a file count from now on, and notes that it was used. One that cannot be marked is looked at
/// again.
pub(crate) fn mark_examined(path: &Path) {
    set_modified_now(path);
}

/// How old a blob's last use may look before it is worth a write, in seconds.
const USE_RESOLUTION: u64 = 86400;

/// Whether a blob's last use was noted lately.
pub(crate) fn was_used_lately(file: Stat) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let used = u64::try_from(FileStat::from(file).mtime.seconds).unwrap_or_default();
    now.as_secs().abs_diff(used) <= USE_RESOLUTION
}

fn set_modified_now(path: &Path) {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn write(path: &Path, text: &str) -> Result<(), ContentError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(|error| FsError::new("write", path, error))?;
    Ok(file.commit()?)
}

fn stat(path: &Path) -> Result<FileStat, FsError> {
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty());
    stat.map(FileStat::from).map_err(|errno| FsError::new("examine", path, errno))
}
