//! Which file a process means.
//!
//! The supervisor's root directory is that of the process, so paths and links lead where they lead
//! for the process, and nowhere else. The supervisor's working directory is the machine's `/proc`,
//! which is in no process's reach: from there it goes by numbers alone. What `/proc` inside would
//! lead to by magic is not followed, but for the descriptors of the process itself.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use formwork_fs::{FileKind, OWNER_ATTRIBUTE, Record};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::calls::Place;
use super::files::Device;
use super::process::Caller;
use crate::sys::notify;

pub(super) const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
pub(super) const AT_SYMLINK_FOLLOW: u32 = 0x400;
pub(super) const AT_EMPTY_PATH: u32 = 0x1000;

/// A file that was found, held so that it stays the same.
pub(super) struct Found {
    /// A path to it from `/proc`.
    place: CString,
    file: Option<OwnedFd>,
}

/// What the kernel says of a file, corrected by its record.
pub(super) struct Known {
    pub(super) raw: RawStat,
    pub(super) kind: FileKind,
    pub(super) record: Option<Record>,
}

impl Known {
    pub(super) fn owner(&self) -> (u32, u32) {
        self.record.map_or((self.raw.uid(), self.raw.gid()), |record| (record.uid, record.gid))
    }
}

/// How a call names a file: where a relative path begins, the path, and flags (`AT_…`).
pub(super) struct Named {
    pub(super) base: i32,
    pub(super) path: CString,
    pub(super) flags: u32,
}

/// A name in a directory.
pub(super) struct Entry {
    pub(super) directory: Found,
    pub(super) descriptor: OwnedFd,
    pub(super) name: CString,
}

impl Found {
    pub(super) fn open(file: OwnedFd) -> Self {
        let place = format!("self/fd/{}", file.as_raw_fd());
        Self { place: CString::new(place).unwrap_or_default(), file: Some(file) }
    }

    /// What has a path from `/proc` already.
    pub(super) fn at(place: String) -> Self {
        Self { place: CString::new(place).unwrap_or_default(), file: None }
    }

    /// A path to it, for calls that follow links, from the working directory.
    pub(super) fn place(&self) -> &CStr {
        &self.place
    }

    /// It, open as a path.
    pub(super) fn file(&self) -> Result<OwnedFd> {
        rustix::fs::openat(CWD, &*self.place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// What is known of it.
    pub(super) fn examine(&self) -> Result<Known> {
        let raw = match &self.file {
            Some(file) => notify::raw_stat_of(file.as_fd())?,
            None => notify::raw_stat(&self.place, 0)?,
        };
        let mut raw = RawStat(raw);
        let kind = FileKind::from(FileType::from_raw_mode(raw.mode()));
        let record = match formwork_fs::is_in_times(kind) {
            true => raw.record_in_times(),
            false => self.record(kind)?,
        };
        raw.show_to_others(record.and_then(|record| record.mode));
        Ok(Known { record, raw, kind })
    }

    /// The record of a file of this kind.
    pub(super) fn record(&self, kind: FileKind) -> Result<Option<Record>> {
        let mut value = [0; 32];
        match rustix::fs::getxattr(&*self.place, Record::attribute(kind), &mut value) {
            Ok(length) => Ok(Record::decode(kind, &value[..length])),
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether its file system keeps records at all: one in memory before Linux 6.6 does not.
    pub(super) fn keeps_records(&self) -> bool {
        let mut value = [0; 32];
        rustix::fs::getxattr(&*self.place, OWNER_ATTRIBUTE, &mut value) != Err(Errno::OPNOTSUPP)
    }

    /// Gives it a record; `false` where its file system keeps none.
    pub(super) fn set_record(&self, kind: FileKind, record: &Record) -> Result<bool> {
        if formwork_fs::is_in_times(kind) {
            return formwork_fs::write_record(self.file()?.as_fd(), kind, record).map(|()| true);
        }
        let attribute = Record::attribute(kind);
        let flags = rustix::fs::XattrFlags::empty();
        let result = match record.is_plain() {
            true => rustix::fs::removexattr(&*self.place, attribute),
            false => rustix::fs::setxattr(&*self.place, attribute, &record.encode(kind), flags),
        };
        match result {
            Ok(()) | Err(Errno::NODATA) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
}

impl Caller<'_> {
    /// The file that a call is about; fails where the kernel shall find out what is wrong.
    pub(super) fn find(&self, place: Place) -> Result<Found> {
        match place {
            Place::Open(descriptor) => Ok(self.descriptor(self.int(descriptor))),
            _ => self.find_named(&self.named(place)?),
        }
    }

    /// The file that is named so.
    pub(super) fn find_named(&self, named: &Named) -> Result<Found> {
        let Named { base, path, flags } = named;
        if !path.is_empty() {
            return self.find_path(*base, path, flags & AT_SYMLINK_NOFOLLOW == 0);
        }
        match (flags & AT_EMPTY_PATH != 0, *base) {
            (true, libc::AT_FDCWD) => Ok(Found::open(self.base(*base)?)),
            (true, descriptor) => Ok(self.descriptor(descriptor as u32)),
            (false, _) => Err(Errno::NOENT),
        }
    }

    /// How a call names a file.
    pub(super) fn named(&self, place: Place) -> Result<Named> {
        let (base, path, flags) = match place {
            Place::Path(path) => (None, path, 0),
            Place::Link(path) => (None, path, AT_SYMLINK_NOFOLLOW),
            Place::Open(_) => return Err(Errno::INVAL),
            Place::At(base, path) => (Some(base), path, 0),
            Place::LinkAt(base, path) => (Some(base), path, AT_SYMLINK_NOFOLLOW),
            Place::AtWith(base, path, flags) => (Some(base), path, self.int(flags)),
        };
        let path = match self.long(path) {
            0 if flags & AT_EMPTY_PATH != 0 => CString::default(),
            address => self.string(address)?,
        };
        let base = base.map_or(libc::AT_FDCWD, |base| self.int(base) as i32);
        Ok(Named { base, path, flags })
    }

    /// The file of a path.
    pub(super) fn find_path(&self, base: i32, path: &CStr, follow: bool) -> Result<Found> {
        if let Some(descriptor) = own_descriptor(path.to_bytes()).filter(|_| follow) {
            return Ok(self.descriptor(descriptor));
        }
        let link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        Ok(Found::open(self.open_path(base, path, OFlags::PATH | link, Mode::empty())?))
    }

    /// The place of a call as a name in a directory that there is; for calls that make or remove.
    pub(super) fn find_entry(&self, place: Place) -> Result<Entry> {
        let Named { base, path, .. } = self.named(place)?;
        self.entry_of(base, &path)
    }

    /// A path as a name in a directory that there is.
    pub(super) fn entry_of(&self, base: i32, path: &CStr) -> Result<Entry> {
        let (way, name) = directory_and_name(path.to_bytes())?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let descriptor = self.open_path(base, &text(way)?, flags, Mode::empty())?;
        let place = format!("self/fd/{}", descriptor.as_raw_fd());
        let directory = Found { place: text(place.as_bytes())?, file: None };
        Ok(Entry { directory, descriptor, name: text(name)? })
    }

    /// Opens a path as the process would, but without magic.
    pub(super) fn open_path(
        &self,
        base: i32,
        path: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        if let Some(inside) = &self.session.inside {
            return self.open_inside(inside, base, path.to_bytes(), flags, mode);
        }
        self.open_from(self.from(base, path)?.as_ref(), path, flags, mode)
    }

    /// Where a path begins; `None` for the root.
    pub(super) fn from(&self, base: i32, path: &CStr) -> Result<Option<OwnedFd>> {
        match path.to_bytes().first() {
            Some(b'/') => Ok(None),
            _ => self.base(base).map(Some),
        }
    }

    /// Opens a path that begins there, without magic.
    pub(super) fn open_from(
        &self,
        directory: Option<&OwnedFd>,
        path: &CStr,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_MAGICLINKS;
        let from = directory.map_or(CWD, AsFd::as_fd);
        loop {
            match rustix::fs::openat2(from, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// The directory that relative paths begin in.
    pub(super) fn base(&self, base: i32) -> Result<OwnedFd> {
        let place = match base {
            libc::AT_FDCWD => self.own("cwd"),
            descriptor => self.own(&format!("fd/{descriptor}")),
        };
        rustix::fs::openat(CWD, place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
    }

    /// A file that the process has open.
    pub(super) fn descriptor(&self, descriptor: u32) -> Found {
        let place = self.own(&format!("fd/{}", descriptor as i32));
        Found { place: CString::new(place).unwrap_or_default(), file: None }
    }
}

/// The path of a directory, and a name in it.
pub(super) fn directory_and_name(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let (way, name) = match path[..end].iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..=slash], &path[slash + 1..end]),
        None => (&b"."[..], &path[..end]),
    };
    if matches!(name, b"" | b"." | b"..") { Err(Errno::EXIST) } else { Ok((way, name)) }
}

pub(super) fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// The descriptor whose name in `/proc` or `/dev` a path is.
pub(super) fn own_descriptor(path: &[u8]) -> Option<u32> {
    let places = [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"];
    let number = places.iter().find_map(|place| path.strip_prefix(*place))?;
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(number).ok()?.parse().ok()).flatten()
}

/// What the kernel says of a file, as it says it to programs of this machine.
#[derive(PartialEq, Eq)]
pub(super) struct RawStat(pub(super) [u8; 144]);

/// Where in that structure things are; from the size on, it is the same on all machines.
#[cfg(target_arch = "x86_64")]
mod layout {
    pub(super) const LENGTH: usize = 144;
    pub(super) const LINKS: usize = 16;
    pub(super) const MODE: usize = 24;
    pub(super) const UID: usize = 28;
    pub(super) const GID: usize = 32;
    pub(super) const RDEV: usize = 40;
}
#[cfg(target_arch = "aarch64")]
mod layout {
    pub(super) const LENGTH: usize = 128;
    pub(super) const LINKS: usize = 20;
    pub(super) const MODE: usize = 16;
    pub(super) const UID: usize = 24;
    pub(super) const GID: usize = 28;
    pub(super) const RDEV: usize = 32;
}
const SIZE: usize = 48;

impl RawStat {
    pub(super) fn mode(&self) -> u32 {
        self.word(layout::MODE)
    }

    pub(super) fn links(&self) -> u32 {
        self.word(layout::LINKS)
    }

    pub(super) fn uid(&self) -> u32 {
        self.word(layout::UID)
    }

    pub(super) fn gid(&self) -> u32 {
        self.word(layout::GID)
    }

    /// The owner that a file has in its times.
    fn record_in_times(&self) -> Option<Record> {
        let owner = formwork_fs::owner_of_time(self.long(72) as i64, self.long(80) as i64);
        owner.map(|(uid, gid)| Record { uid, gid, ..Record::default() })
    }

    /// Makes of what the kernel tells this process what it would tell one whose own files are root's.
    fn show_to_others(&mut self, mode: Option<u32>) {
        let (uid, gid) = formwork_fs::as_seen(self.uid(), self.gid());
        self.put(layout::UID, &uid.to_le_bytes());
        self.put(layout::GID, &gid.to_le_bytes());
        if formwork_fs::owner_of_time(self.long(72) as i64, self.long(80) as i64).is_some() {
            self.0.copy_within(88..104, 72);
        }
        if let Some(mode) = mode {
            let mode = self.mode() & !0o7777 | mode;
            self.put(layout::MODE, &mode.to_le_bytes());
        }
    }

    /// The file's device and number, which tell it from all others.
    pub(super) fn identity(&self) -> [u64; 2] {
        [self.long(0), self.long(8)]
    }

    /// The same with what a record says.
    pub(super) fn correct(&mut self, record: &Record) {
        self.put(layout::UID, &record.uid.to_le_bytes());
        self.put(layout::GID, &record.gid.to_le_bytes());
        if let Some(device) = record.device {
            self.show_device(device);
        }
    }

    /// The same as what is known of a device.
    pub(super) fn show_device(&mut self, (block, major, minor): Device) {
        let mode = self.mode() & 0o7777 | device_type(block);
        self.put(layout::MODE, &mode.to_le_bytes());
        self.put(layout::RDEV, &rustix::fs::makedev(major, minor).to_le_bytes());
        self.put(SIZE, &[0; 8]);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0[..layout::LENGTH]
    }

    /// The same in the structure `stat64` of 32-bit programs.
    pub(super) fn bytes_of_32_bits(&self) -> Vec<u8> {
        // Arm aligns numbers of 64 bits, and x86 does not.
        let shift = if cfg!(target_arch = "aarch64") { 4 } else { 0 };
        let mut bytes = vec![0; 96 + 2 * shift];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &self.0[0..8]);
        put(12, &self.0[8..12]);
        put(16, &self.mode().to_le_bytes());
        put(20, &self.word(layout::LINKS).to_le_bytes());
        put(24, &self.uid().to_le_bytes());
        put(28, &self.gid().to_le_bytes());
        put(32, &self.0[layout::RDEV..layout::RDEV + 8]);
        put(44 + shift, &self.0[SIZE..SIZE + 8]);
        put(52 + shift, &self.0[56..60]);
        put(56 + 2 * shift, &self.0[64..72]);
        for (index, from) in (72..120).step_by(8).enumerate() {
            put(64 + 2 * shift + 4 * index, &self.0[from..from + 4]);
        }
        put(88 + 2 * shift, &self.0[8..16]);
        bytes
    }

    fn word(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[at..at + 4]);
        u32::from_le_bytes(word)
    }

    fn long(&self, at: usize) -> u64 {
        let mut long = [0; 8];
        long.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(long)
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        self.0[at..at + value.len()].copy_from_slice(value);
    }
}

/// Makes of what `statx` says of a file what it says of a device.
pub(super) fn put_device(bytes: &mut [u8; 256], (block, major, minor): Device) {
    let mode = u16::from_le_bytes([bytes[28], bytes[29]]);
    let mode = mode & 0o7777 | device_type(block) as u16;
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(28, &mode.to_le_bytes());
    put(40, &[0; 8]);
    put(128, &major.to_le_bytes());
    put(132, &minor.to_le_bytes());
}

/// The type of a device, as modes have it.
pub(super) fn device_type(block: bool) -> u32 {
    if block { libc::S_IFBLK } else { libc::S_IFCHR }
}

#[cfg(test)]
mod tests {
    use super::own_descriptor;

    #[test]
    fn own_descriptors_are_known_by_their_names() {
        for (path, descriptor) in [
            ("/proc/self/fd/7", Some(7)),
            ("/proc/thread-self/fd/0", Some(0)),
            ("/dev/fd/12", Some(12)),
            ("/proc/self/fd/", None),
            ("/proc/self/fd/7/..", None),
            ("/proc/self/fd/-1", None),
            ("/proc/self/fd/99999999999", None),
            ("/proc/1/fd/7", None),
        ] {
            assert_eq!(own_descriptor(path.as_bytes()), descriptor, "{path}");
        }
    }
}
