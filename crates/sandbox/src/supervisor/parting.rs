//! Parts the names of a file that is about to change by one of them, as overlayfs does with files of
//! the layers below: the name gets a copy of its own, and the others keep what they have.
//!
//! Only for root file systems that are plain directories, and for files that had several names before
//! the process began. Who is not asked about, or cannot be served, changes all names at once.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, StatxFlags, Timespec,
    Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use super::place::RawStat;

/// The longest list of attributes, and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST: usize = 1 << 16;

/// The files with several names in a root file system.
pub(super) struct Linked {
    numbers: HashSet<u64>,
    root: OwnedFd,
    /// The device of the root, on which all of them are.
    device: u64,
    /// The root as links in `/proc` name it.
    path: Vec<u8>,
    /// When this was made: what is younger only has the number of one that is gone.
    began: (i64, i64),
    /// How many have been parted; held by who parts one.
    turn: Mutex<u64>,
}

impl Linked {
    /// Those with some numbers beneath a root directory, which `/proc` names by a path.
    pub(super) fn new(numbers: &[u64], root: OwnedFd, path: Vec<u8>) -> Result<Self> {
        let device = rustix::fs::fstat(&root)?.st_dev;
        let numbers = numbers.iter().copied().collect();
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        let began = (now.tv_sec, now.tv_nsec);
        Ok(Self { numbers, root, device, path, began, turn: Mutex::default() })
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether a file is one of them, and still has more than one name.
    pub(super) fn has(&self, stat: &RawStat) -> bool {
        let [device, number] = stat.identity();
        FileType::from_raw_mode(stat.mode()) == FileType::RegularFile
            && stat.links() > 1
            && device == self.device
            && self.numbers.contains(&number)
    }

    /// Gives the name by which a file was found a file of its own; `place` leads to the file, which is
    /// open, by way of the machine's `/proc`, the working directory.
    pub(super) fn part(&self, place: &CStr) -> Result<()> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let path = rustix::fs::readlinkat(CWD, place, Vec::new())?.into_bytes();
        let path = path.strip_prefix(&*self.path).and_then(|path| path.strip_prefix(b"/"));
        let path = path.ok_or(Errno::NOENT)?;
        let (way, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], path),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let directory = rustix::fs::openat2(&self.root, way, flags, Mode::empty(), resolve)?;
        let name = OsStr::from_bytes(name);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        let is_the_same = stat.st_dev == self.device && self.numbers.contains(&stat.st_ino);
        if !is_the_same || stat.st_nlink < 2 || self.is_younger(&file) {
            // Somebody was quicker, or it is another one.
            return Ok(());
        }
        *turn += 1;
        replace(&directory, name, &copy(&directory, file, &stat)?, *turn)
    }
}

impl Linked {
    /// Whether a file was made later, as far as the file system knows.
    fn is_younger(&self, file: &OwnedFd) -> bool {
        let (flags, mask) = (AtFlags::EMPTY_PATH, StatxFlags::BTIME);
        rustix::fs::statx(file, "", flags, mask).is_ok_and(|known| {
            let birth = (known.stx_btime.tv_sec, i64::from(known.stx_btime.tv_nsec));
            known.stx_mask & StatxFlags::BTIME.bits() != 0 && birth >= self.began
        })
    }
}

/// A copy of a file in a directory, without a name.
fn copy(directory: &OwnedFd, file: OwnedFd, stat: &Stat) -> Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let copy = File::from(rustix::fs::openat(directory, ".", flags, Mode::RUSR | Mode::WUSR)?);
    let file = File::from(file);
    formwork_fs::copy_contents(&file, &copy)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let made = rustix::fs::fstat(&copy)?;
    if (made.st_uid, made.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&copy, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(stat.st_mode))?;
    copy_attributes(&file, &copy)?;
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    };
    rustix::fs::futimens(&copy, &times)?;
    Ok(copy)
}

fn copy_attributes(from: &File, to: &File) -> Result<()> {
    let (mut names, mut value) = (vec![0; LONGEST], vec![0; LONGEST]);
    let length = match rustix::fs::flistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        let length = rustix::fs::fgetxattr(from, &*name, &mut value[..])?;
        rustix::fs::fsetxattr(to, &*name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

/// Puts a file in the place of another one; of the directory, nobody sees that it has changed.
fn replace(directory: &OwnedFd, name: &OsStr, file: &File, number: u64) -> Result<()> {
    let before = rustix::fs::fstat(directory)?;
    let place = |file: i32| format!("self/fd/{file}");
    let further = format!(".formwork-parted-{}-{number}", std::process::id());
    let follow = AtFlags::SYMLINK_FOLLOW;
    rustix::fs::linkat(CWD, place(file.as_raw_fd()), directory, &*further, follow)?;
    if let Err(errno) = rustix::fs::renameat(directory, &*further, directory, name) {
        let _ = rustix::fs::unlinkat(directory, &*further, AtFlags::empty());
        return Err(errno);
    }
    let last_modification = time(before.st_mtime, before.st_mtime_nsec as i64);
    let times = Timestamps { last_access: time(0, UTIME_OMIT), last_modification };
    let _ = rustix::fs::utimensat(CWD, place(directory.as_raw_fd()), &times, AtFlags::empty());
    Ok(())
}

fn time(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}
