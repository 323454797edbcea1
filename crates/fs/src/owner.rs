//! Devices that are kept as data, and owners, for a process that has one id to give and no other.
//!
//! In a user namespace with a single id, every file belongs to that id. There, the owner that a file
//! is meant to have is a [`Record`] in an attribute of the file: it goes with the file through
//! renames, further names and the copies that overlayfs makes. Without a record, a file is root's.
//!
//! No process makes a device for a layer: in none of them may a step open one, and most processes
//! may not make them. What stands for a device has a record with its numbers, also where owners are
//! the kernel's; the record says nothing else there. The kernel takes such a record away when the
//! file gets another owner (`chown(2)`), so whoever gives one away writes its record again.
//!
//! Only regular files and directories may have attributes of users. For all others, the one
//! attribute that a user namespace may set on them is used: file capabilities, which mean nothing
//! on what cannot be executed.
//!
//! A socket that nobody listens at stands for a device ([`device_stand_in`]): the kernel lets nobody
//! open, truncate, map or execute one, as it lets nobody use a device on a mount without devices, so
//! nobody has to watch over it. Who plants such a record makes a tree show a device, as any archive
//! can, and gains nothing else. Where sockets can have no record, an empty file can stand for one,
//! too; then it is up to others that nobody opens it.
//!
//! Without any user namespace there is not even that one. Then what is neither file nor directory has
//! its owner in the time of its last use, centuries ahead, where the kernel leaves it as it is; and
//! a mode that would keep the one id itself from a file is data, too.
//!
//! Whether owners are data is a property of the whole process, as its user namespace is; whoever
//! enters that says so, once.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use crate::{FileKind, FileStat};

/// The attribute of regular files and directories that holds their record.
pub const OWNER_ATTRIBUTE: &[u8] = b"user.formwork";
/// The attributes that stand for others where those cannot be given: for the capabilities of a file,
/// and for lists of users, whom the kernel does not know.
const STAND_INS: [(&[u8], &[u8]); 3] = [
    (CAPABILITY, b"user.formwork.capability"),
    (b"system.posix_acl_access", b"user.formwork.access"),
    (b"system.posix_acl_default", b"user.formwork.default"),
];
/// The attribute that holds the record of everything else.
const CAPABILITY: &[u8] = b"security.capability";

/// The flags of a capability attribute in which a record is hidden: version 2, nothing effective.
const CAPABILITY_FLAGS: [u8; 4] = [0, 0, 0, 2];
/// The same as another namespace's root is seen to have written it, with that root behind.
const CAPABILITY_FLAGS_3: [u8; 4] = [0, 0, 0, 3];
/// What tells a record from capabilities.
const MARK: &[u8; 8] = b"formwork";
/// The same for one of a device, whose numbers are before it: a character device and a block device.
const DEVICE_MARKS: [&[u8; 4]; 2] = [b"fwkc", b"fwkb"];

/// What is made in the place of a device: a socket, where those can have a record.
pub fn device_stand_in() -> FileType {
    if lone_ids().is_some() { FileType::RegularFile } else { FileType::Socket }
}

static KEPT_AS_DATA: AtomicBool = AtomicBool::new(false);

/// Says that this process, from now on, has one id and keeps all others as data.
pub fn keep_owners_as_data() {
    KEPT_AS_DATA.store(true, Ordering::Relaxed);
}

/// The one id of a process that has no user namespace: to it, what is its own is root's.
static ALONE: OnceLock<(u32, u32)> = OnceLock::new();

/// Says that this process has no other id than its own and no user namespace, and keeps all others
/// as data, with what else it has no power over.
pub fn keep_owners_as_data_alone() {
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let _ = ALONE.set(ids);
    keep_owners_as_data();
}

/// The one user and group of a process without a user namespace that keeps owners as data.
pub fn lone_ids() -> Option<(u32, u32)> {
    ALONE.get().copied()
}

/// The numbers that the kernel tells of a file, as those see them for whom its owner is root.
pub fn as_seen(uid: u32, gid: u32) -> (u32, u32) {
    let seen = |id, own| if id == own { 0 } else { id };
    lone_ids().map_or((uid, gid), |own| (seen(uid, own.0), seen(gid, own.1)))
}

/// The time of the last use from which on times mean owners: in the year 2242.
const OWNERS_BEGIN: i64 = 1 << 33;

/// The time of the last use, in seconds and nanoseconds, that stands for an owner; `None` for a
/// group whose number is too large.
pub fn time_of_owner(uid: u32, gid: u32) -> Option<(i64, i64)> {
    (gid < 1_000_000_000).then(|| (OWNERS_BEGIN + i64::from(uid), i64::from(gid)))
}

/// The owner for whom such a time stands.
pub fn owner_of_time(seconds: i64, nanoseconds: i64) -> Option<(u32, u32)> {
    let uid = u32::try_from(seconds.checked_sub(OWNERS_BEGIN)?).ok()?;
    Some((uid, u32::try_from(nanoseconds).ok()?))
}

/// What of a mode is kept on the disk, so that the one id is never kept from what it has to reach.
pub fn mode_on_disk(kind: FileKind, mode: u32) -> u32 {
    match kind {
        _ if lone_ids().is_none() => mode,
        FileKind::Directory => mode | 0o700,
        _ => mode | 0o600,
    }
}

/// Whether owners are kept as data.
pub fn owners_are_data() -> bool {
    KEPT_AS_DATA.load(Ordering::Relaxed)
}

/// What a file is meant to be, beyond what its inode says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The device that a socket or an empty file stands for: whether it is a block device, its
    /// major and its minor number, of 12 and 20 bits.
    pub device: Option<(bool, u32, u32)>,
    /// The mode, where it is not the one on the disk.
    pub mode: Option<u32>,
}

impl Record {
    /// The record of a device: whether it is a block device, its major and its minor number.
    pub fn of_device(block: bool, major: u32, minor: u32) -> Self {
        Self { device: Some((block, major, minor)), ..Self::default() }
    }

    /// Whether a file of a kind may have one that counts: where owners are the kernel's, only a
    /// socket, which may stand for a device.
    pub fn counts_for(kind: FileKind) -> bool {
        owners_are_data() || kind == FileKind::Socket
    }

    /// The attribute in which a file of some kind has its record.
    pub fn attribute(kind: FileKind) -> &'static [u8] {
        match kind {
            FileKind::Regular | FileKind::Directory => OWNER_ATTRIBUTE,
            _ => CAPABILITY,
        }
    }

    /// The value of that attribute.
    pub fn encode(&self, kind: FileKind) -> Vec<u8> {
        let owner = [self.uid.to_le_bytes(), self.gid.to_le_bytes()].concat();
        if Self::attribute(kind) == CAPABILITY {
            let mark = match self.device {
                None => MARK.to_vec(),
                Some((block, major, minor)) => {
                    let number = (major << 20 | minor & 0xf_ffff).to_le_bytes();
                    [number, *DEVICE_MARKS[usize::from(block)]].concat()
                }
            };
            return [&CAPABILITY_FLAGS[..], &owner, &mark].concat();
        }
        let device = self.device.map(|(block, major, minor)| {
            [u32::from(block), major, minor].map(u32::to_le_bytes).concat()
        });
        let mode = self.mode.map(|mode| mode.to_le_bytes().to_vec());
        [owner, device.unwrap_or_default(), mode.unwrap_or_default()].concat()
    }

    /// A record from the value of its attribute; `None` if it is something else.
    pub fn decode(kind: FileKind, value: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            let bytes = value.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?))
        };
        if Self::attribute(kind) == CAPABILITY {
            let flags = value.get(..4)?;
            if flags != CAPABILITY_FLAGS && flags != CAPABILITY_FLAGS_3 {
                return None;
            }
            let device = match value.get(12..20)? {
                mark if mark == MARK => None,
                mark if kind == FileKind::Socket => {
                    let block = DEVICE_MARKS.iter().position(|device| mark[4..] == device[..])?;
                    let device = (block == 1, number(12)? >> 20, number(12)? & 0xf_ffff);
                    // The character device 0:0 means that a file is lacking.
                    Some(device).filter(|device| *device != (false, 0, 0))
                }
                _ => return None,
            };
            return Some(Self { uid: number(4)?, gid: number(8)?, device, mode: None });
        }
        let device = match (value.len(), kind) {
            (8 | 12, _) => None,
            (20 | 24, FileKind::Regular) => Some((number(8)? != 0, number(12)?, number(16)?)),
            _ => return None,
        };
        let mode = matches!(value.len(), 12 | 24).then(|| number(value.len() - 4)).flatten();
        let mode = mode.map(|mode| mode & 0o7777);
        Some(Self { uid: number(0)?, gid: number(4)?, device, mode })
    }

    /// Whether it says nothing that a file without one would not say.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// What the kernel knows about a file, corrected by its record: the device alone, where owners
    /// are the kernel's.
    #[must_use]
    pub fn correct(&self, stat: FileStat) -> FileStat {
        let (uid, gid, mode) = match owners_are_data() {
            true => (self.uid, self.gid, self.mode.unwrap_or(stat.mode)),
            false => (stat.uid, stat.gid, stat.mode),
        };
        match self.device {
            None => FileStat { uid, gid, mode, ..stat },
            Some((block, major, minor)) => {
                let kind = if block { FileKind::BlockDevice } else { FileKind::CharDevice };
                FileStat { uid, gid, mode, kind, rdev: (major, minor), size: 0, ..stat }
            }
        }
    }
}

/// The record of an open file, which may be open as a path alone; `None` where it has none.
///
/// # Errors
///
/// Fails where the file may not be looked at.
pub fn read_record(file: BorrowedFd<'_>, kind: FileKind) -> Result<Option<Record>> {
    if is_in_times(kind) {
        let stat = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?;
        let owner = owner_of_time(stat.st_atime as i64, stat.st_atime_nsec as i64);
        return Ok(owner.map(|(uid, gid)| Record { uid, gid, ..Record::default() }));
    }
    let mut value = [0; 32];
    match rustix::fs::getxattr(place_of(file), Record::attribute(kind), &mut value) {
        Ok(length) => Ok(Record::decode(kind, &value[..length])),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Gives an open file, which may be open as a path alone, a record in the place of what it has.
///
/// # Errors
///
/// Fails where the file system has no such attributes.
pub fn write_record(file: BorrowedFd<'_>, kind: FileKind, record: &Record) -> Result<()> {
    let (place, attribute) = (place_of(file), Record::attribute(kind));
    if is_in_times(kind) {
        return write_time(file, record);
    }
    if !record.is_plain() {
        return rustix::fs::setxattr(place, attribute, &record.encode(kind), XattrFlags::empty());
    }
    match rustix::fs::removexattr(place, attribute) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// The attribute on the disk that stands for another one.
pub fn attribute_on_disk(attribute: &[u8]) -> &[u8] {
    let found = STAND_INS.iter().find(|(seen, _)| *seen == attribute);
    found.filter(|_| lone_ids().is_some()).map_or(attribute, |(_, on_disk)| on_disk)
}

/// The attribute for which one on the disk stands; `None` for those that are nobody's business.
pub fn attribute_as_seen(attribute: &[u8]) -> Option<&[u8]> {
    if !attribute.starts_with(OWNER_ATTRIBUTE) {
        return Some(attribute);
    }
    let found = STAND_INS.iter().find(|(_, on_disk)| *on_disk == attribute);
    found.filter(|_| lone_ids().is_some()).map(|(seen, _)| *seen)
}

/// Whether files of a kind have their record in a time.
pub fn is_in_times(kind: FileKind) -> bool {
    lone_ids().is_some() && Record::attribute(kind) == CAPABILITY
}

fn write_time(file: BorrowedFd<'_>, record: &Record) -> Result<()> {
    let wanted = match record.is_plain() {
        true if read_record(file, FileKind::Symlink)?.is_none() => return Ok(()),
        true => (0, 0),
        false => time_of_owner(record.uid, record.gid).ok_or(Errno::OPNOTSUPP)?,
    };
    let last_access = Timespec { tv_sec: wanted.0, tv_nsec: wanted.1 };
    let last_modification = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access, last_modification };
    rustix::fs::utimensat(CWD, place_of(file), &times, AtFlags::empty())?;
    // Some file systems know no such time, and take the nearest one.
    let stat = rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?;
    let is_kept = (stat.st_atime as i64, stat.st_atime_nsec as i64) == wanted;
    if is_kept { Ok(()) } else { Err(Errno::OPNOTSUPP) }
}

/// Gives an open file, which may be open as a path alone, a mode: to the file itself, and to its
/// record where it would keep the one id from it.
///
/// # Errors
///
/// Fails as `chmod(2)`, or where the file system cannot keep records.
pub fn give_mode(file: BorrowedFd<'_>, kind: FileKind, mode: u32) -> Result<()> {
    let on_disk = mode_on_disk(kind, mode);
    let flags = AtFlags::empty();
    rustix::fs::chmodat(CWD, place_of(file), Mode::from_raw_mode(on_disk), flags)?;
    if lone_ids().is_none() || !matches!(kind, FileKind::Regular | FileKind::Directory) {
        return Ok(());
    }
    let old = read_record(file, kind)?.unwrap_or_default();
    let new = Record { mode: (on_disk != mode).then_some(mode), ..old };
    if new == old { Ok(()) } else { write_record(file, kind, &new) }
}

/// What is known about an open file, which may be open as a path alone, with its record.
///
/// # Errors
///
/// Fails where the file may not be looked at.
pub fn stat_with_record(file: BorrowedFd<'_>) -> Result<FileStat> {
    let stat = FileStat::from(rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?);
    let record = if Record::counts_for(stat.kind) { read_record(file, stat.kind)? } else { None };
    Ok(record.map_or(stat, |record| record.correct(stat)))
}

/// Gives a file away: to the owner itself, or to its record where owners are data. An empty name
/// stands for the open file; a symbolic link is not followed.
///
/// # Errors
///
/// Fails as `chown(2)`, or where the file system cannot keep records.
pub fn give(directory: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> Result<()> {
    if !owners_are_data() {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        return rustix::fs::chownat(directory, name, uid, gid, flags);
    }
    if name.is_empty() {
        return record_owner(directory, uid, gid);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    record_owner(std::os::fd::AsFd::as_fd(&file), uid, gid)
}

fn record_owner(file: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<()> {
    let kind = FileStat::from(rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?).kind;
    let old = read_record(file, kind)?.unwrap_or_default();
    write_record(file, kind, &Record { uid, gid, ..old })
}

/// The calls for attributes take no path's descriptor; through /proc the kernel comes to that very
/// file nevertheless.
fn place_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Record = Record { uid: 1000, gid: u32::MAX - 1, device: None, mode: None };

    #[test]
    fn records_come_back_from_their_form() {
        let device = Record { device: Some((true, 4095, 1 << 19)), ..OWNER };
        for (kind, record) in [
            (FileKind::Regular, OWNER),
            (FileKind::Regular, device),
            (FileKind::Regular, Record { mode: Some(0o4000), ..device }),
            (FileKind::Directory, Record { mode: Some(0), ..OWNER }),
            (FileKind::Directory, OWNER),
            (FileKind::Symlink, OWNER),
            (FileKind::Fifo, OWNER),
            (FileKind::Socket, OWNER),
            (FileKind::Socket, device),
            (FileKind::Socket, Record { device: Some((false, 1, 3)), ..OWNER }),
        ] {
            assert_eq!(Record::decode(kind, &record.encode(kind)), Some(record), "{kind:?}");
        }
    }

    #[test]
    fn the_form_on_the_disk_stays() {
        assert_eq!(OWNER.encode(FileKind::Directory), [0xe8, 3, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        let link = [&[0, 0, 0, 2][..], &OWNER.encode(FileKind::Regular), b"formwork"].concat();
        assert_eq!(OWNER.encode(FileKind::Symlink), link);
        let device = Record { device: Some((true, 8, 1)), ..OWNER }.encode(FileKind::Socket);
        assert_eq!(device[12..], *b"\x01\0\x80\0fwkb");
        let seen_elsewhere = [&[0, 0, 0, 3], &link[4..], &[0; 4]].concat();
        assert_eq!(Record::decode(FileKind::Symlink, &seen_elsewhere), Some(OWNER));
    }

    #[test]
    fn where_owners_are_the_kernels_a_record_tells_of_the_device_alone() {
        let dir = tempfile::tempdir_in(".").unwrap();
        let stat = FileStat::from(rustix::fs::stat(dir.path()).unwrap());
        let device = Record { device: Some((true, 8, 1)), mode: Some(0o7777), ..OWNER };
        let corrected = device.correct(stat);
        assert_eq!((corrected.kind, corrected.rdev), (FileKind::BlockDevice, (8, 1)));
        assert_eq!((corrected.mode, corrected.size), (stat.mode, 0));
        assert_eq!((corrected.uid, corrected.gid), (stat.uid, stat.gid));
        assert_eq!(OWNER.correct(stat), stat);
        for kind in [FileKind::Regular, FileKind::Directory, FileKind::Symlink, FileKind::Fifo] {
            assert!(!Record::counts_for(kind), "{kind:?}");
        }
        assert!(Record::counts_for(FileKind::Socket));
    }

    #[test]
    fn owners_come_back_from_times() {
        for owner in [(0, 0), (1000, 50), (u32::MAX - 1, 999_999_999)] {
            let (seconds, nanoseconds) = time_of_owner(owner.0, owner.1).unwrap();
            assert_eq!(owner_of_time(seconds, nanoseconds), Some(owner));
        }
        assert_eq!(time_of_owner(0, 1_000_000_000), None);
        for seconds in [i64::MIN, -1, 0, 1_700_000_000, OWNERS_BEGIN - 1, OWNERS_BEGIN * 2] {
            assert_eq!(owner_of_time(seconds, 0), None, "{seconds}");
        }
    }

    #[test]
    fn what_is_no_record_is_none() {
        let capability = [&[1, 0, 0, 2][..], &[0; 16]].concat();
        let device = Record { device: Some((false, 1, 3)), ..OWNER }.encode(FileKind::Socket);
        for (kind, value) in [
            (FileKind::Symlink, &capability[..]),
            (FileKind::Socket, &capability[..]),
            (FileKind::Fifo, &device[..]),
            (FileKind::Symlink, b""),
            (FileKind::Regular, b""),
            (FileKind::Regular, &[0; 9]),
            (FileKind::Directory, &[0; 20]),
            (FileKind::Regular, &[0; 32]),
        ] {
            assert_eq!(Record::decode(kind, value), None, "{kind:?} {value:?}");
        }
    }

    #[test]
    fn a_record_stays_with_its_file() {
        use std::os::fd::AsFd;
        let dir = tempfile::tempdir_in(".").unwrap();
        let file = fs_err::File::create(dir.path().join("a")).unwrap();
        assert_eq!(read_record(file.as_fd(), FileKind::Regular).unwrap(), None);
        write_record(file.as_fd(), FileKind::Regular, &OWNER).unwrap();
        fs_err::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let moved = fs_err::File::open(dir.path().join("b")).unwrap();
        assert_eq!(read_record(moved.as_fd(), FileKind::Regular).unwrap(), Some(OWNER));
        write_record(moved.as_fd(), FileKind::Regular, &Record::default()).unwrap();
        assert_eq!(read_record(moved.as_fd(), FileKind::Regular).unwrap(), None);
    }
}
