//! Owners and devices: what a process is told of files, and what it makes of them.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use formwork_fs::{FileKind, Record, device_stand_in};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, Uid, XattrFlags,
};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::Place;
use super::credentials::Credentials;
use super::permissions::{EXECUTE, SEARCH, WRITE};
use super::place::{Entry, Found, Known, put_device};
use super::process::Caller;
use crate::sys::notify;

/// What a structure with a size may have at most: the kernel takes a page.
const LARGEST_HOW: usize = 4096;
/// The flags of `statx` that say how, and not which file.
pub(super) const STATX_HOW: u32 = 0x6000;
/// `S_ISUID`, `S_ISGID`, and the group's right to execute, without which the second means locks.
pub(super) const SET_USER: u32 = 0o4000;
pub(super) const SET_GROUP: u32 = 0o2000;
pub(super) const GROUP_EXECUTES: u32 = 0o010;

/// Whether it is a block device, and its numbers.
pub(super) type Device = (bool, u32, u32);
/// What overlayfs takes for the lack of a file.
pub(super) const WHITEOUT: Device = (false, 0, 0);

impl Caller<'_> {
    /// `stat` and its kin. A file without a record is what the kernel says.
    pub(super) fn stat(&self, place: Place, buffer: usize, for_32_bits: bool) -> Result<Outcome> {
        let mut known = self.find_shown(place)?.examine()?;
        known.record = known.record.or(self.record_of_all());
        self.tell(known, buffer, for_32_bits)
    }

    /// Tells of a file what its record says, and the kernel of one without.
    pub(super) fn tell(
        &self,
        mut known: Known,
        buffer: usize,
        for_32_bits: bool,
    ) -> Result<Outcome> {
        let Some(record) = known.record else { return Ok(Outcome::Continue) };
        known.raw.correct(&record);
        let address = self.long(buffer);
        match for_32_bits {
            true => self.write(address, &known.raw.bytes_of_32_bits())?,
            false => self.write(address, known.raw.bytes())?,
        }
        Ok(Outcome::Value(0))
    }

    pub(super) fn statx(&self) -> Result<Outcome> {
        let found = self.find_shown(Place::AtWith(0, 1, 2))?;
        let mut known = found.examine()?;
        known.record = known.record.or(self.record_of_all());
        self.tell_extended(&found, &known)
    }

    /// The same as [`Caller::tell`] for `statx`.
    pub(super) fn tell_extended(&self, found: &Found, known: &Known) -> Result<Outcome> {
        let Some(record) = known.record else { return Ok(Outcome::Continue) };
        let (uid, gid) = known.owner();
        let (how, mask) = (self.int(2) & STATX_HOW, self.int(3));
        let mut bytes = notify::raw_statx(found.place(), how as i32, mask)?;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(20, &uid.to_le_bytes());
        put(24, &gid.to_le_bytes());
        if let Some(mode) = record.mode {
            let mode = (known.raw.mode() & !0o7777 | mode) as u16;
            put(28, &mode.to_le_bytes());
        }
        if let Some(device) = record.device {
            put_device(&mut bytes, device);
        }
        self.write(self.long(4), &bytes)?;
        Ok(Outcome::Value(0))
    }

    /// What the files have that have no record, where the kernel's answer is not for the process.
    fn record_of_all(&self) -> Option<Record> {
        self.session.inside.is_some().then(Record::default)
    }

    /// `chown` and its kin.
    pub(super) fn chown(&self, place: Place, owner: usize) -> Result<Outcome> {
        let (uid, gid) = (self.id(owner), self.id(owner + 1));
        let found = self.find_own(place)?;
        let known = found.examine()?;
        let old = known.owner();
        let changed = |new, old| if new == u32::MAX { old } else { new };
        let (new_uid, new_gid) = (changed(uid, old.0), changed(gid, old.1));
        let is_plain = known.record.is_none() && (new_uid, new_gid) == (0, 0) && old == (0, 0);
        if is_plain && self.session.inside.is_none() {
            // The one id may be given to itself.
            return Ok(Outcome::Continue);
        }
        let who = self.credentials()?;
        let is_owners = who.users.file == old.0
            && (uid == u32::MAX || uid == old.0)
            && (gid == u32::MAX || gid == old.1 || who.is_in(gid));
        if !(who.is_capable || is_owners) {
            return Ok(Outcome::Error(Errno::PERM));
        }
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        // The kernel's part: rights to execute as the owner are lost, times change.
        let none = (uid, gid) == (u32::MAX, u32::MAX);
        let (own_uid, own_gid) = formwork_fs::lone_ids().unwrap_or_default();
        let (owner, group) = match none {
            true => (None, None),
            false => (Some(Uid::from_raw(own_uid)), Some(Gid::from_raw(own_gid))),
        };
        let given =
            rustix::fs::chownat(rustix::fs::CWD, found.place(), owner, group, AtFlags::empty());
        if let Err(errno) = given {
            return Ok(Outcome::Error(errno));
        }
        let Record { device, mode, .. } = known.record.unwrap_or_default();
        // Where nothing can be kept (a pipe, a terminal), nobody will look for it either.
        found.set_record(known.kind, &Record { uid: new_uid, gid: new_gid, device, mode })?;
        Ok(Outcome::Value(0))
    }

    /// `open` and `openat`, with flags that the process has given.
    pub(super) fn open(&self, place: Place, flags: usize) -> Result<Outcome> {
        let (base, path) = match place {
            Place::At(base, path) => (self.int(base) as i32, path),
            Place::Path(path) => (libc::AT_FDCWD, path),
            _ => return Ok(Outcome::Continue),
        };
        let how = How { flags: self.int(flags), mode: self.int(flags + 1), resolve: 0 };
        self.open_as(base, path, &how)
    }

    pub(super) fn create(&self) -> Result<Outcome> {
        let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32;
        let how = How { flags, mode: self.int(1), resolve: 0 };
        self.open_as(libc::AT_FDCWD, 0, &how)
    }

    pub(super) fn open2(&self) -> Result<Outcome> {
        let bytes: [u8; 24] = self.read(self.long(2))?;
        // What it may have grown by has to be zero, and it cannot have shrunk.
        let rest =
            usize::try_from(self.long(3)).ok().and_then(|size| size.checked_sub(bytes.len()));
        let mut more = vec![0; rest.filter(|rest| *rest < LARGEST_HOW).ok_or(Errno::INVAL)?];
        self.read_all(self.long(2).wrapping_add(bytes.len() as u64), &mut more)?;
        if more.iter().any(|byte| *byte != 0) {
            return Ok(Outcome::Continue);
        }
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(long)
        };
        let short = |at| u32::try_from(long(at)).map_err(|_| Errno::INVAL);
        let how = How { flags: short(0)?, mode: short(8)?, resolve: long(16) };
        self.open_as(self.int(0) as i32, 1, &how)
    }

    /// Opens a file for a process if it does not exist yet and will not be root's, and lets the
    /// kernel do it else.
    fn open_as(&self, base: i32, path: usize, how: &How) -> Result<Outcome> {
        let who = self.credentials()?;
        if !how.creates() && who.may_ignore_modes() {
            // What most opens of most steps are.
            return Ok(Outcome::Continue);
        }
        let path = &*self.string(self.long(path))?;
        if !how.creates() {
            return self.may_open(&who, base, path, how.flags);
        }
        if how.is_nameless() {
            return self.open_nameless(&who, base, path, how);
        }
        let entry = self.entry_of(base, path)?;
        let group = self.inherited_group(&entry)?;
        if who.is_plain_root() && group.is_none() {
            return Ok(Outcome::Continue);
        }
        let follow = how.flags & (libc::O_NOFOLLOW | libc::O_EXCL) as u32 == 0;
        match self.find_path(base, path, follow) {
            Err(Errno::NOENT) => {}
            _ => return self.may_open(&who, base, path, how.flags),
        }
        if !self.may_change(&who, &entry, None)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        let mode = Mode::from_raw_mode(how.mode & 0o7777 & !self.umask()?);
        // Only what is made here and now: nothing can be opened by mistake, or make this wait.
        let flags = OFlags::from_bits_retain(how.flags) | OFlags::EXCL | OFlags::NOCTTY;
        let resolve = ResolveFlags::from_bits_retain(how.resolve) | ResolveFlags::NO_MAGICLINKS;
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&entry.descriptor, &*entry.name, flags, mode, resolve)?;
        self.hand_over(file, &who, group, how)
    }

    /// A file without a name (`O_TMPFILE`).
    fn open_nameless(
        &self,
        who: &Credentials,
        base: i32,
        path: &CStr,
        how: &How,
    ) -> Result<Outcome> {
        if who.is_plain_root() {
            return Ok(Outcome::Continue);
        }
        let directory = self.find_path(base, path, true)?;
        if !self.may(who, &directory, WRITE | SEARCH)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        let mode = Mode::from_raw_mode(how.mode & 0o7777 & !self.umask()?);
        let flags = OFlags::from_bits_retain(how.flags);
        let file = self.open_path(base, path, flags, mode)?;
        self.hand_over(file, who, None, how)
    }

    fn hand_over(
        &self,
        file: OwnedFd,
        who: &Credentials,
        group: Option<u32>,
        how: &How,
    ) -> Result<Outcome> {
        let record = new_record(who, group);
        let value = record.encode(FileKind::Regular);
        if !record.is_plain() {
            let name = Record::attribute(FileKind::Regular);
            // A file system in memory before Linux 6.6 keeps none.
            let _ = rustix::fs::fsetxattr(file.as_fd(), name, &value, XattrFlags::empty());
        }
        Ok(Outcome::Descriptor(file, how.flags & libc::O_CLOEXEC as u32 != 0))
    }

    pub(super) fn make_directory(&self, place: Place, mode: usize) -> Result<Outcome> {
        let mode = self.int(mode) & 0o1777;
        self.make(place, |entry| {
            let mode = Mode::from_raw_mode(mode & !self.umask()?);
            rustix::fs::mkdirat(&entry.descriptor, &*entry.name, mode)
        })
    }

    /// A pipe, a socket or an empty file; or what stands for a device.
    pub(super) fn make_node(&self, place: Place, mode: usize) -> Result<Outcome> {
        let (bits, number) = (self.int(mode), self.int(mode + 1));
        let kind = FileType::from_raw_mode(bits);
        let mode = bits & 0o7777;
        if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
            let (major, minor) =
                (rustix::fs::major(number.into()), rustix::fs::minor(number.into()));
            return self.make_device(place, mode, (kind == FileType::BlockDevice, major, minor));
        }
        self.make(place, |entry| {
            let mode = Mode::from_raw_mode(mode & !self.umask()?);
            rustix::fs::mknodat(&entry.descriptor, &*entry.name, kind, mode, 0)
        })
    }

    /// A device, as data: what is made is something that nobody can open.
    fn make_device(&self, place: Place, mode: u32, device: Device) -> Result<Outcome> {
        let who = self.credentials()?;
        let entry = self.find_entry(place)?;
        if device == WHITEOUT {
            // It would remove a file of the layer below; the kernel refuses it there.
            return Ok(Outcome::Continue);
        }
        if self.look_at(&entry).is_ok() {
            return Ok(Outcome::Error(Errno::EXIST));
        }
        if !self.may_change(&who, &entry, None)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        if !who.is_capable {
            return Ok(Outcome::Error(Errno::PERM));
        }
        let group = self.inherited_group(&entry)?;
        let record = Record { device: Some(device), ..new_record(&who, group) };
        let mode = Mode::from_raw_mode(mode & !self.umask()?);
        self.make_with(&entry, &record, |entry| {
            rustix::fs::mknodat(&entry.descriptor, &*entry.name, device_stand_in(), mode, 0)
        })
    }

    pub(super) fn make_link(&self, place: Place) -> Result<Outcome> {
        self.make(place, |entry| {
            let text = self.string(self.long(0))?;
            rustix::fs::symlinkat(&*text, &entry.descriptor, &*entry.name)
        })
    }

    /// Makes something that will not be root's, and lets the kernel make all else.
    fn make(&self, place: Place, make: impl Fn(&Entry) -> Result<()>) -> Result<Outcome> {
        let who = self.credentials()?;
        let entry = self.find_entry(place)?;
        let group = self.inherited_group(&entry)?;
        if who.is_plain_root() && group.is_none() {
            return Ok(Outcome::Continue);
        }
        if !self.may_change(&who, &entry, None)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        self.make_with(&entry, &new_record(&who, group), make)
    }

    /// Makes something that has a record.
    pub(super) fn make_with(
        &self,
        entry: &Entry,
        record: &Record,
        make: impl Fn(&Entry) -> Result<()>,
    ) -> Result<Outcome> {
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        if let Err(errno) = make(entry) {
            return Ok(Outcome::Error(errno));
        }
        let made = self.made(entry)?;
        let is_kept = made.set_record(made.examine()?.kind, record)?;
        if record.device.is_some() && !is_kept {
            // Its file system keeps no records: no devices are made there.
            let _ = rustix::fs::unlinkat(&entry.descriptor, &*entry.name, AtFlags::empty());
            return Ok(Outcome::Error(Errno::PERM));
        }
        Ok(Outcome::Value(0))
    }

    /// What was just made in a place.
    fn made(&self, entry: &Entry) -> Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&entry.descriptor, &*entry.name, flags, Mode::empty())?;
        Ok(Found::open(file))
    }

    /// The group that a directory hands down to what is made in it, other than root's.
    pub(super) fn inherited_group(&self, entry: &Entry) -> Result<Option<u32>> {
        let known = entry.directory.examine()?;
        let hands_down = known.raw.mode() & SET_GROUP != 0;
        Ok(Some(known.owner().1).filter(|group| hands_down && *group != 0))
    }

    /// Executes a program, which may lend its owner.
    pub(super) fn execute(&self, place: Place) -> Result<Outcome> {
        let found = self.find(place)?;
        let known = found.examine()?;
        if known.kind != FileKind::Regular {
            return Ok(Outcome::Continue);
        }
        let old = self.credentials()?;
        if !self.may(&old, &found, EXECUTE)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        let (mode, owner) = (known.raw.mode(), known.owner());
        let lends_group = mode & (SET_GROUP | GROUP_EXECUTES) == SET_GROUP | GROUP_EXECUTES;
        let lends = mode & SET_USER != 0 || lends_group;
        let lends =
            lends && !is_powerless(&found) && !self.has_no_new_privileges()? && !is_script(&found);
        let mut new = (*old).clone();
        new.execute(
            (lends && mode & SET_USER != 0).then_some(owner.0),
            (lends && lends_group).then_some(owner.1),
        );
        if new != *old {
            self.become_other(&new)?;
        }
        Ok(Outcome::Continue)
    }

    pub(super) fn change_root(&self) -> Result<Outcome> {
        if !self.credentials()?.is_capable {
            return Ok(Outcome::Error(Errno::PERM));
        }
        self.session.roots_differ();
        Ok(Outcome::Continue)
    }
}

/// How a file is to be opened.
pub(super) struct How {
    pub(super) flags: u32,
    pub(super) mode: u32,
    pub(super) resolve: u64,
}

impl How {
    pub(super) fn is_nameless(&self) -> bool {
        is_nameless(self.flags)
    }

    fn creates(&self) -> bool {
        creates(self.flags)
    }
}

/// Whether flags of `open` may make a file.
pub(super) fn creates(flags: u32) -> bool {
    flags & libc::O_CREAT as u32 != 0 || is_nameless(flags)
}

fn is_nameless(flags: u32) -> bool {
    flags & libc::O_TMPFILE as u32 == libc::O_TMPFILE as u32
}

pub(super) fn new_record(who: &Credentials, group: Option<u32>) -> Record {
    let (uid, gid) = (who.users.file, group.unwrap_or(who.groups.file));
    Record { uid, gid, ..Record::default() }
}

/// Whether a file is on a mount whose programs lend nothing.
fn is_powerless(found: &Found) -> bool {
    let stat = rustix::fs::statvfs(found.place());
    stat.is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOSUID))
}

/// Whether a file is a text for another program, which is lent nothing.
fn is_script(found: &Found) -> bool {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(rustix::fs::CWD, found.place(), flags, Mode::empty());
    let mut start = [0; 2];
    file.is_ok_and(|file| rustix::io::read(file, &mut start).is_ok() && start == *b"#!")
}
