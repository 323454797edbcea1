//! Devices, which are data: what stands for one in the tree is told to be one, and made.
//!
//! Nothing is looked at before there is one, so steps in trees without devices pay for a question
//! about each directory that they list, and for none about open files. What stands for a device is
//! a socket that the kernel lets nobody open ([`formwork_fs::Record`]), so a wrong answer gives
//! nobody anything.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use formwork_fs::{FileKind, Record, device_stand_in};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};

use super::asker::Asker;
use super::walk::Asked;
use crate::supervisor::calls::Place;
use crate::supervisor::directories::Next;
use crate::supervisor::files::STATX_HOW;
use crate::supervisor::place::{Found, RawStat, directory_and_name, put_device};
use crate::supervisor::{Outcome, files};
use crate::sys::notify;

/// What stands for a device.
struct StandIn {
    found: Found,
    raw: RawStat,
    record: Record,
    device: files::Device,
}

impl Asker<'_> {
    /// What is told of a file of the tree.
    pub(super) fn stat_in_tree(
        &self,
        asked: &Asked,
        buffer: usize,
        for_32_bits: bool,
    ) -> Result<Outcome> {
        let Some(StandIn { mut raw, device, .. }) = self.stand_in(asked)? else {
            return Ok(Outcome::Continue);
        };
        raw.show_device(device);
        let address = self.long(buffer);
        match for_32_bits {
            true => self.write(address, &raw.bytes_of_32_bits())?,
            false => self.write(address, raw.bytes())?,
        }
        Ok(Outcome::Value(0))
    }

    pub(super) fn statx_in_tree(&self, asked: &Asked) -> Result<Outcome> {
        let Some(StandIn { found, device, .. }) = self.stand_in(asked)? else {
            return Ok(Outcome::Continue);
        };
        let (how, mask) = (self.int(2) & STATX_HOW, self.int(3));
        let mut bytes = notify::raw_statx(found.place(), how as i32, mask)?;
        put_device(&mut bytes, device);
        self.write(self.long(4), &bytes)?;
        Ok(Outcome::Value(0))
    }

    /// A device has none of the attributes of what stands for it.
    pub(super) fn attributes_in_tree(&self, asked: &Asked, none: Outcome) -> Result<Outcome> {
        Ok(self.stand_in(asked)?.map_or(Outcome::Continue, |_| none))
    }

    /// `chown` and its kin: the kernel takes the record away, and it comes back.
    pub(super) fn chown(&self, place: Place, owner: usize) -> Result<Outcome> {
        if !self.kernel.has_devices() && self.kernel.linked.is_empty() {
            return Ok(Outcome::Continue);
        }
        let asked = self.path(place)?;
        let Some(StandIn { found, record, .. }) = self.stand_in(&asked)? else {
            return self.part(&asked);
        };
        let id = |at| Some(self.int(at)).filter(|id| *id != u32::MAX);
        let (uid, gid) = (id(owner).map(Uid::from_raw), id(owner + 1).map(Gid::from_raw));
        self.identity()?;
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        let give = || rustix::fs::chownat(CWD, found.place(), uid, gid, AtFlags::empty());
        if let Err(errno) = self.as_itself(give) {
            return Ok(Outcome::Error(errno));
        }
        found.set_record(FileKind::Socket, &record)?;
        Ok(Outcome::Value(0))
    }

    /// Makes a device for root; all else is the kernel's to make, or to refuse.
    pub(super) fn make_node(&self, place: Place, mode: usize) -> Result<Outcome> {
        let (bits, number) = (self.int(mode), self.int(mode + 1));
        let kind = FileType::from_raw_mode(bits);
        let (major, minor) = (rustix::fs::major(number.into()), rustix::fs::minor(number.into()));
        let device = match kind {
            FileType::CharacterDevice => (false, major, minor),
            FileType::BlockDevice => (true, major, minor),
            _ => return Ok(Outcome::Continue),
        };
        if device == files::WHITEOUT || !self.identity()?.is_capable() {
            return Ok(Outcome::Continue);
        }
        let asked = self.path(place)?;
        if asked.path.ends_with(b"/") {
            // It would have to be a directory.
            return Ok(Outcome::Continue);
        }
        let (way, name) = directory_and_name(&asked.path)?;
        let directory = self.open_from(asked.base, way, OFlags::DIRECTORY | OFlags::PATH)?;
        let mode = Mode::from_raw_mode(bits & 0o7777 & !self.umask()?);
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        Ok(match make(&directory, OsStr::from_bytes(name), mode, device) {
            Ok(()) => {
                self.kernel.have_devices();
                Outcome::Value(0)
            }
            Err(errno) => Outcome::Error(errno),
        })
    }

    /// Lists a directory. Where it has devices, the process gets the directory once more in the place
    /// of its own, which is where the list went on: the kernel's list would go on with its own.
    pub(super) fn list_next(&self) -> Result<Outcome> {
        if !self.kernel.has_devices() {
            return Ok(Outcome::Continue);
        }
        let (thread, descriptor) = (self.notification.thread, self.int(0));
        let place = format!("{thread}/fdinfo/{descriptor}");
        let info = self.in_reach(|| self.kernel.read(self.kernel.proc.as_fd(), &place))?;
        let open = |flags| self.open_from(descriptor as i32, b"", flags);
        let Some(next) = Next::of(&info, open, self.int(2))? else {
            return Ok(Outcome::Continue);
        };
        self.write(self.long(1), &next.list)?;
        next.answer(self.kernel.listener.as_fd(), self.notification.id, descriptor)
    }

    /// What stands for a device in the place that is asked about; `None` for everything else.
    fn stand_in(&self, asked: &Asked) -> Result<Option<StandIn>> {
        if !self.kernel.has_devices() || asked.path.is_empty() && !asked.is_open {
            return Ok(None);
        }
        let place = self.place_from(asked.base, &asked.path)?;
        let no_follow = if asked.follows { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        let is_socket =
            |stat: [u8; 144]| FileType::from_raw_mode(RawStat(stat).mode()) == FileType::Socket;
        if !is_socket(self.in_reach(|| notify::raw_stat(&place, no_follow))?) {
            return Ok(None);
        }
        // From here on it is held, and looked for as the process would.
        let flags = if asked.follows { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let file = self.as_itself(|| rustix::fs::openat(CWD, &place, flags, Mode::empty()))?;
        let found = Found::open(file);
        let stat = notify::raw_stat(found.place(), 0)?;
        if !is_socket(stat) {
            return Ok(None);
        }
        let record = found.record(FileKind::Socket)?;
        Ok(record.and_then(|record| {
            let device = record.device?;
            Some(StandIn { found, raw: RawStat(stat), record, device })
        }))
    }

    fn open_from(&self, base: i32, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let place = self.place_from(base, path)?;
        let flags = flags | OFlags::CLOEXEC;
        self.as_itself(|| rustix::fs::openat(CWD, &place, flags, Mode::empty()))
    }

    /// A path of the process as a path from the working directory, the machine's `/proc`: there, it
    /// leads through what the process has open, and never above the root.
    pub(super) fn place_from(&self, base: i32, path: &[u8]) -> Result<CString> {
        let thread = self.notification.thread;
        let from = match (path.first(), base) {
            (Some(b'/'), _) => String::new(),
            (None, libc::AT_FDCWD) => format!("{thread}/cwd"),
            (None, descriptor) => format!("{thread}/fd/{descriptor}"),
            (Some(_), libc::AT_FDCWD) => format!("{thread}/cwd/"),
            (Some(_), descriptor) => format!("{thread}/fd/{descriptor}/"),
        };
        CString::new([from.as_bytes(), path].concat()).map_err(|_| Errno::INVAL)
    }

    /// Does something as oneself, or as the process where only that may look into it.
    pub(super) fn in_reach<T>(&self, act: impl Fn() -> Result<T>) -> Result<T> {
        match act() {
            Err(Errno::ACCESS | Errno::PERM) => self.as_itself(act),
            result => result,
        }
    }
}

/// Makes what stands for a device, if the file system keeps its record.
fn make(directory: &OwnedFd, name: &OsStr, mode: Mode, device: files::Device) -> Result<()> {
    rustix::fs::mknodat(directory, name, device_stand_in(), mode, 0)?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&made)?;
    let is_own = FileType::from_raw_mode(stat.st_mode) == device_stand_in()
        && (stat.st_uid, stat.st_nlink) == (rustix::process::geteuid().as_raw(), 1);
    if !is_own {
        // Whoever owns the directory has put something else in its place.
        return Err(Errno::PERM);
    }
    let found = Found::open(made);
    // Not what the supervisor's own mask has left.
    rustix::fs::chmodat(CWD, found.place(), mode, AtFlags::empty())?;
    let (block, major, minor) = device;
    if found.set_record(FileKind::Socket, &Record::of_device(block, major, minor))? {
        return Ok(());
    }
    let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
    Err(Errno::PERM)
}
