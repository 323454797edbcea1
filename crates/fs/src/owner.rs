//! Owners that are kept as data, for a process that has one id to give and no other.
//!
//! In a user namespace with a single id, every file belongs to that id, and nobody can make a
//! device. There, the owner that a file is meant to have, and the device that it stands for, are a
//! [`Record`] in an attribute of the file: it goes with the file through renames, further names and
//! the copies that overlayfs makes. Without a record, a file is root's.
//!
//! Only regular files and directories may have attributes of users. For all others, the one
//! attribute that a user namespace may set on them is used: file capabilities, which mean nothing
//! on what cannot be executed.
//!
//! A socket that nobody listens at stands for a device ([`DEVICE_STAND_IN`]): the kernel lets nobody
//! open, truncate, map or execute one, as it lets nobody use a device on a mount without devices, so
//! nobody has to watch over it. Where sockets can have no record, an empty file can stand for one,
//! too; then it is up to others that nobody opens it.
//!
//! Whether owners are data is a property of the whole process, as its user namespace is; whoever
//! enters that says so, once.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use crate::{FileKind, FileStat};

/// The attribute of regular files and directories that holds their record.
pub const OWNER_ATTRIBUTE: &[u8] = b"user.formwork";
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

/// What is made in the place of a device.
pub const DEVICE_STAND_IN: FileType = FileType::Socket;

static KEPT_AS_DATA: AtomicBool = AtomicBool::new(false);

/// Says that this process, from now on, has one id and keeps all others as data.
pub fn keep_owners_as_data() {
    KEPT_AS_DATA.store(true, Ordering::Relaxed);
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
}

impl Record {
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
        match self.device {
            None => owner,
            Some((block, major, minor)) => {
                let device = [u32::from(block), major, minor].map(u32::to_le_bytes).concat();
                [owner, device].concat()
            }
        }
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
                    Some((block == 1, number(12)? >> 20, number(12)? & 0xf_ffff))
                }
                _ => return None,
            };
            return Some(Self { uid: number(4)?, gid: number(8)?, device });
        }
        let device = match (value.len(), kind) {
            (8, _) => None,
            (20, FileKind::Regular) => Some((number(8)? != 0, number(12)?, number(16)?)),
            _ => return None,
        };
        Some(Self { uid: number(0)?, gid: number(4)?, device })
    }

    /// Whether it says nothing that a file without one would not say.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// What the kernel knows about a file, corrected by its record.
    #[must_use]
    pub fn correct(&self, stat: FileStat) -> FileStat {
        let (uid, gid) = (self.uid, self.gid);
        match self.device {
            None => FileStat { uid, gid, ..stat },
            Some((block, major, minor)) => {
                let kind = if block { FileKind::BlockDevice } else { FileKind::CharDevice };
                FileStat { uid, gid, kind, rdev: (major, minor), size: 0, ..stat }
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
    if !record.is_plain() {
        return rustix::fs::setxattr(place, attribute, &record.encode(kind), XattrFlags::empty());
    }
    match rustix::fs::removexattr(place, attribute) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        result => result,
    }
}

/// What is known about an open file, which may be open as a path alone, with its record.
///
/// # Errors
///
/// Fails where the file may not be looked at.
pub fn stat_with_record(file: BorrowedFd<'_>) -> Result<FileStat> {
    let stat = FileStat::from(rustix::fs::statat(file, "", AtFlags::EMPTY_PATH)?);
    let record = if owners_are_data() { read_record(file, stat.kind)? } else { None };
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
    let device = read_record(file, kind)?.and_then(|record| record.device);
    write_record(file, kind, &Record { uid, gid, device })
}

/// The calls for attributes take no path's descriptor; through /proc the kernel comes to that very
/// file nevertheless.
fn place_of(file: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Record = Record { uid: 1000, gid: u32::MAX - 1, device: None };

    #[test]
    fn records_come_back_from_their_form() {
        let device = Record { device: Some((true, 4095, 1 << 19)), ..OWNER };
        for (kind, record) in [
            (FileKind::Regular, OWNER),
            (FileKind::Regular, device),
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
