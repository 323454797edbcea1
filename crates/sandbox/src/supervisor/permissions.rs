//! What a process may do that is not root in its own eyes.
//!
//! To the kernel it is the owner of everything. So that programs find what they would find
//! elsewhere, the modes of files are looked at here. That keeps users of an image apart as far as
//! they do not fight: who changes a path at the right moment comes through, to files of the same
//! step. What keeps the step from the machine is none of this.

use std::ffi::CStr;
use std::sync::Arc;

use formwork_fs::FileKind;
use rustix::fs::{Mode, OFlags, StatFs};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::{Place, Stamps};
use super::credentials::Credentials;
use super::place::{Entry, Found, Known};
use super::process::Caller;

/// Rights, as the last digit of a mode has them.
pub(super) const READ: u32 = 4;
pub(super) const WRITE: u32 = 2;
pub(super) const EXECUTE: u32 = 1;
pub(super) const SEARCH: u32 = 1;

const STICKY: u32 = 0o1000;
/// `AT_EACCESS`.
const AS_EFFECTIVE: u32 = 0x200;
/// `UTIME_NOW`, `UTIME_OMIT`.
const NOW: u64 = 0x3fff_ffff;
const OMIT: u64 = 0x3fff_fffe;
/// How deep a directory may be for the way to it to be looked at.
const DEEPEST: usize = 512;
/// File systems of the kernel's own, whose files belong to nobody that is kept here: proc, sysfs,
/// devpts, pipes, sockets, control groups, memory files without a name, message queues.
const KERNELS: [u64; 8] =
    [0x9fa0, 0x6265_6572, 0x1cd1, 0x5049_5045, 0x534f_434b, 0x6367_7270, 0x0904_1934, 0x1980_0202];

impl Caller<'_> {
    /// Whether a process has rights to a file.
    pub(super) fn may(&self, who: &Credentials, found: &Found, rights: u32) -> Result<bool> {
        if who.may_ignore_modes() {
            return Ok(true);
        }
        if is_kernels(found) {
            return Ok(true);
        }
        let known = found.examine()?;
        Ok(has(who, &known, rights) || (known.record.is_none() && !found.keeps_records()))
    }

    /// Whether it may put something into a directory, or take something out of it.
    pub(super) fn may_change(
        &self,
        who: &Credentials,
        entry: &Entry,
        taken: Option<&Found>,
    ) -> Result<bool> {
        if who.may_ignore_modes() {
            return Ok(true);
        }
        if !self.may(who, &entry.directory, WRITE | SEARCH)? || !self.may_reach(who, entry)? {
            return Ok(false);
        }
        let Some(taken) = taken else { return Ok(true) };
        let directory = entry.directory.examine()?;
        let is_free = directory.raw.mode() & STICKY == 0;
        Ok(is_free || is_owners(who, &entry.directory)? || is_owners(who, taken)?)
    }

    /// Opening what is there.
    pub(super) fn may_open(
        &self,
        who: &Credentials,
        base: i32,
        path: &CStr,
        flags: u32,
    ) -> Result<Outcome> {
        if who.may_ignore_modes() || flags & libc::O_PATH as u32 != 0 {
            return Ok(Outcome::Continue);
        }
        let follow = flags & libc::O_NOFOLLOW as u32 == 0;
        let found = self.find_path(base, path, follow)?;
        let rights = match flags & libc::O_ACCMODE as u32 {
            0 => READ,
            1 => WRITE,
            _ => READ | WRITE,
        };
        let truncates = if flags & libc::O_TRUNC as u32 != 0 { WRITE } else { 0 };
        let may = self.may(who, &found, rights | truncates)? && self.may_go(who, base, path)?;
        Ok(if may { Outcome::Continue } else { Outcome::Error(Errno::ACCESS) })
    }

    /// Whether it has rights to a file, and the way there is open to it.
    fn may_there(&self, who: &Credentials, place: Place, rights: u32) -> Result<bool> {
        if !self.may(who, &self.find(place)?, rights)? {
            return Ok(false);
        }
        let (base, path) = match place {
            Place::Open(_) => return Ok(true),
            Place::Path(path) | Place::Link(path) => (libc::AT_FDCWD, path),
            Place::At(base, path) | Place::LinkAt(base, path) | Place::AtWith(base, path, _) => {
                (self.int(base) as i32, path)
            }
        };
        match self.long(path) {
            0 => Ok(true),
            address => self.may_go(who, base, &self.string(address)?),
        }
    }

    /// Whether the way to a path is open to a process.
    pub(super) fn may_go(&self, who: &Credentials, base: i32, path: &CStr) -> Result<bool> {
        match self.entry_of(base, path) {
            Ok(entry) => self.may_reach(who, &entry),
            // The root, or a path that ends with dots.
            Err(Errno::EXIST) => Ok(true),
            Err(errno) => Err(errno),
        }
    }

    /// What only a file's owner may do.
    pub(super) fn owners_business(&self, place: Place) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.is_capable {
            return Ok(Outcome::Continue);
        }
        match is_owners(&who, &self.find(place)?)? {
            true => Ok(Outcome::Continue),
            false => Ok(Outcome::Error(Errno::PERM)),
        }
    }

    pub(super) fn set_times(&self, place: Place, times: usize, stamps: Stamps) -> Result<Outcome> {
        let who = self.credentials()?;
        let place = match place {
            // Without a path, the descriptor is what is meant.
            Place::AtWith(base, path, _) if self.long(path) == 0 => Place::Open(base),
            place => place,
        };
        if who.may_ignore_modes() || is_owners(&who, &self.find(place)?)? {
            return Ok(Outcome::Continue);
        }
        match self.times(self.long(times), stamps)? {
            [OMIT, OMIT] => Ok(Outcome::Continue),
            [NOW, NOW] => self.with_rights(place, WRITE),
            _ => Ok(Outcome::Error(Errno::PERM)),
        }
    }

    /// The nanoseconds of two times.
    fn times(&self, address: u64, stamps: Stamps) -> Result<[u64; 2]> {
        let word = |bytes: &[u8]| {
            bytes.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        match stamps {
            _ if address == 0 => Ok([NOW, NOW]),
            Stamps::Plain => Ok([0, 0]),
            Stamps::Long if self.meaning.is_32_bit => {
                let bytes: [u8; 16] = self.read(address)?;
                Ok([word(&bytes[4..8]), word(&bytes[12..])])
            }
            Stamps::Long | Stamps::Wide => {
                let bytes: [u8; 32] = self.read(address)?;
                Ok([word(&bytes[8..16]), word(&bytes[24..])])
            }
        }
    }

    pub(super) fn change_entry(&self, from: Place, to: Option<Place>) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.may_ignore_modes() {
            return Ok(Outcome::Continue);
        }
        for place in [Some(from), to].into_iter().flatten() {
            let entry = self.find_entry(place)?;
            let taken = match self.look_at(&entry) {
                Err(Errno::NOENT) => None,
                found => Some(found?),
            };
            if !self.may_change(&who, &entry, taken.as_ref())? {
                let is_sticky = self.may_change(&who, &entry, None)?;
                let errno = if is_sticky { Errno::PERM } else { Errno::ACCESS };
                return Ok(Outcome::Error(errno));
            }
        }
        Ok(Outcome::Continue)
    }

    /// One more name for a file.
    pub(super) fn name(&self, to: Place) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.may_ignore_modes() {
            return Ok(Outcome::Continue);
        }
        let entry = self.find_entry(to)?;
        match self.may_change(&who, &entry, None)? {
            true => Ok(Outcome::Continue),
            false => Ok(Outcome::Error(Errno::ACCESS)),
        }
    }

    pub(super) fn access(
        &self,
        place: Place,
        rights: usize,
        flags: Option<usize>,
    ) -> Result<Outcome> {
        let mut who = Arc::unwrap_or_clone(self.credentials()?);
        if who.is_capable && who.users.real == 0 {
            return Ok(Outcome::Continue);
        }
        if flags.is_none_or(|flags| self.int(flags) & AS_EFFECTIVE == 0) {
            // The question is what the user may do who has started the program.
            who.users.file = who.users.real;
            who.groups.file = who.groups.real;
            who.is_capable = who.users.real == 0 && who.is_permitted;
        }
        match self.may_there(&who, place, self.int(rights) & 7)? {
            true => Ok(Outcome::Continue),
            false => Ok(Outcome::Error(Errno::ACCESS)),
        }
    }

    /// A call that takes rights to the file itself.
    pub(super) fn with_rights(&self, place: Place, rights: u32) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.may_ignore_modes() || self.may_there(&who, place, rights)? {
            return Ok(Outcome::Continue);
        }
        Ok(Outcome::Error(Errno::ACCESS))
    }

    /// Whether a process may search all directories on the way to an entry.
    fn may_reach(&self, who: &Credentials, entry: &Entry) -> Result<bool> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = self.open_path(libc::AT_FDCWD, c"/", flags, Mode::empty())?;
        let root = Found::open(root).examine()?.raw.identity();
        let mut here = rustix::fs::openat(&entry.descriptor, ".", flags, Mode::empty())?;
        for _ in 0..DEEPEST {
            let above = rustix::fs::openat(&here, "..", flags, Mode::empty())?;
            let found = Found::open(here);
            let known = found.examine()?;
            if !is_kernels(&found) && !has(who, &known, SEARCH) {
                return Ok(false);
            }
            if known.raw.identity() == root {
                break;
            }
            here = above;
        }
        Ok(true)
    }

    /// What a name stands for now.
    pub(super) fn look_at(&self, entry: &Entry) -> Result<Found> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&entry.descriptor, &*entry.name, flags, Mode::empty())?;
        Ok(Found::open(file))
    }
}

/// Whether a file belongs to a process. What has no name and no owner that could be told (memory,
/// perhaps), belongs to whoever has it open; so does what its file system keeps no owner of.
pub(super) fn is_owners(who: &Credentials, found: &Found) -> Result<bool> {
    let known = found.examine()?;
    let is_nobodys = known.record.is_none() && (known.raw.links() == 0 || !found.keeps_records());
    Ok(is_nobodys || known.owner().0 == who.users.file || is_kernels(found))
}

/// Whether the numbers of a process have rights by the mode of a file.
fn has(who: &Credentials, known: &Known, rights: u32) -> bool {
    let (uid, gid) = known.owner();
    let mode = known.raw.mode();
    let digit = if uid == who.users.file {
        mode >> 6
    } else if who.is_in(gid) {
        mode >> 3
    } else {
        mode
    };
    known.kind == FileKind::Symlink || digit & rights == rights
}

fn is_kernels(found: &Found) -> bool {
    rustix::fs::statfs(found.place()).is_ok_and(|known| is_a_kernels(&known))
}

/// Whether a file system is one of the kernel's own.
pub(super) fn is_a_kernels(known: &StatFs) -> bool {
    KERNELS.contains(&(known.f_type as u64))
}
