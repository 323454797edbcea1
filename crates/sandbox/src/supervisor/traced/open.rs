//! Opens files for a process.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use formwork_fs::FileKind;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::kernels::Kernels;
use super::paths::text;
use super::{Inside, image};
use crate::supervisor::Outcome;
use crate::supervisor::calls::Place;
use crate::supervisor::credentials::Credentials;
use crate::supervisor::files::{How, new_record};
use crate::supervisor::permissions::{SEARCH, WRITE};
use crate::supervisor::place::{Entry, Found, Known};
use crate::supervisor::process::Caller;

const MAX_LINKS: usize = 40;
const O_LARGEFILE: u32 = 0o100_000;

impl Caller<'_> {
    pub(super) fn open_traced(
        &self,
        inside: &Inside,
        place: Place,
        flags: usize,
    ) -> Result<Outcome> {
        let (base, path) = match place {
            Place::At(base, path) => (self.int(base) as i32, path),
            Place::Path(path) => (libc::AT_FDCWD, path),
            _ => return Err(Errno::INVAL),
        };
        if let Some(outcome) = self.open_for_starter(inside, base) {
            return outcome;
        }
        let how = How { flags: self.int(flags), mode: self.int(flags + 1), resolve: 0 };
        self.open_or_make(inside, base, &self.name_at(path)?, &how)
    }

    pub(super) fn create_traced(&self, inside: &Inside) -> Result<Outcome> {
        let flags = (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32;
        let how = How { flags, mode: self.int(1), resolve: 0 };
        self.open_or_make(inside, libc::AT_FDCWD, &self.name_at(0)?, &how)
    }

    /// `openat2`; how a path may lead is left to old kernels, which know no such thing.
    pub(super) fn open2_traced(&self, inside: &Inside) -> Result<Outcome> {
        let bytes: [u8; 24] = self.read(self.long(2))?;
        let long = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
        let short = |at| u32::try_from(long(at)).map_err(|_| Errno::INVAL);
        let how = How { flags: short(0)?, mode: short(8)?, resolve: long(16) };
        if how.resolve != 0 {
            return Err(Errno::NOSYS);
        }
        self.open_or_make(inside, self.int(0) as i32, &self.name_at(1)?, &how)
    }

    /// What a starter opens: the program that it becomes, or its interpreter.
    fn open_for_starter(&self, inside: &Inside, base: i32) -> Option<Result<Outcome>> {
        let which = match base {
            image::PROGRAM => 0,
            image::INTERPRETER => 1,
            _ => return None,
        };
        let mut beginning = inside.beginning();
        let files = beginning.get_mut(&self.notification.thread)?;
        let file = files[which].take();
        if files.iter().all(Option::is_none) {
            beginning.remove(&self.notification.thread);
        }
        Some(file.map(|file| Outcome::Descriptor(file, true)).ok_or(Errno::BADF))
    }

    fn open_or_make(&self, inside: &Inside, base: i32, path: &CStr, how: &How) -> Result<Outcome> {
        let who = self.credentials()?;
        if how.is_nameless() {
            return self.open_nameless_traced(&who, base, path, how);
        }
        let creates = how.flags & libc::O_CREAT as u32 != 0;
        let is_new = creates && how.flags & libc::O_EXCL as u32 != 0;
        let follow = how.flags & libc::O_NOFOLLOW as u32 == 0 && !is_new;
        let looks = how.flags & (libc::O_PATH | libc::O_WRONLY | libc::O_RDWR) as u32 == 0;
        if looks
            && let Ok(way) = self.way(inside, base, path.to_bytes())
            && let Some(file) = self.open_rewritten(inside, &way)
        {
            return file.map(|file| Outcome::Descriptor(file, closes(how)));
        }
        let (mut base, mut path) = (base, path.to_owned());
        for _ in 0..MAX_LINKS {
            match self.find_path(base, &path, follow) {
                Ok(_) if is_new => return Err(Errno::EXIST),
                Ok(found) => return self.open_found(inside, &who, (base, &path), found, how),
                Err(Errno::NOENT) if creates => {}
                Err(errno) => return Err(errno),
            }
            if path.to_bytes().ends_with(b"/") {
                return Err(Errno::ISDIR);
            }
            if self.is_kernels(inside, base, path.to_bytes()) {
                return Err(Errno::ACCESS);
            }
            let entry = self.entry_of(base, &path)?;
            match self.make_file(&who, &entry, how) {
                Err(Errno::EXIST | Errno::LOOP) if !is_new => {}
                result => return result,
            }
            // A link to what is missing, or somebody was quicker.
            if let Ok(target) = self.target_of_entry(inside, &entry) {
                (base, path) = (libc::AT_FDCWD, target);
            }
        }
        Err(Errno::LOOP)
    }

    /// Whether a path leads to something of the kernel's.
    pub(super) fn is_kernels(&self, inside: &Inside, base: i32, path: &[u8]) -> bool {
        let way = self.way(inside, base, path);
        way.is_ok_and(|way| Kernels::of(&way, true).is_some())
    }

    fn target_of_entry(&self, inside: &Inside, entry: &Entry) -> Result<CString> {
        let target = rustix::fs::readlinkat(&entry.descriptor, &*entry.name, Vec::new())?;
        let target = target.into_bytes();
        if target.starts_with(b"/") {
            return text(&target);
        }
        text(&[&inside.path_of(entry.descriptor.as_fd())?[..], b"/", &target].concat())
    }

    /// The file that a call is about, or the device of the container's that it stands for: who
    /// opens it finds the same.
    pub(in crate::supervisor) fn find_shown(&self, place: Place) -> Result<Found> {
        let found = self.find(place)?;
        let Some(inside) = &self.session.inside else { return Ok(found) };
        let known = found.examine()?;
        if let Some(shown) = inside.shown_for(known.raw.identity()) {
            return Ok(shown);
        }
        Ok(inside.device_for(known.raw.identity()).map_or(found, Found::at))
    }

    /// The file that a call is to change, held so that it stays the same: no device or terminal of the
    /// container's, which the step has only been lent, even where they are of the builder's user.
    pub(in crate::supervisor) fn find_own(&self, place: Place) -> Result<Found> {
        let found = self.find(place)?;
        if self.session.inside.is_none() {
            return Ok(found);
        }
        let found = Found::open(found.file()?);
        match found.examine()?.kind {
            FileKind::CharDevice | FileKind::BlockDevice => Err(Errno::PERM),
            _ => Ok(found),
        }
    }

    /// Opens what is there.
    fn open_found(
        &self,
        inside: &Inside,
        who: &Credentials,
        (base, path): (i32, &CStr),
        found: Found,
        how: &How,
    ) -> Result<Outcome> {
        let known = found.examine()?;
        let flags = OFlags::from_bits_retain(how.flags & !O_LARGEFILE);
        let closes = flags.contains(OFlags::CLOEXEC);
        if flags.contains(OFlags::PATH) {
            return self.open_as_path(inside, who, (base, path), (&known, &found), flags);
        }
        if let Outcome::Error(errno) = self.may_open(who, base, path, how.flags)? {
            return Err(errno);
        }
        if known.kind == FileKind::Symlink {
            return Err(Errno::LOOP);
        }
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
        if writes && known.kind == FileKind::Regular && inside.runs(known.raw.identity()) {
            return Err(Errno::TXTBSY);
        }
        if writes && !inside.may_be_written(&found, &known)? {
            return Err(Errno::ACCESS);
        }
        let flags = (flags - OFlags::CREATE - OFlags::EXCL - OFlags::NOFOLLOW) | OFlags::CLOEXEC;
        if known.record.is_some_and(|record| record.device.is_some()) {
            let device = inside.device_for(known.raw.identity()).ok_or(Errno::NXIO)?;
            let file = rustix::fs::open(device, flags - OFlags::TRUNC, Mode::empty())?;
            return Ok(Outcome::Descriptor(file, closes));
        }
        if known.kind == FileKind::Fifo && !flags.contains(OFlags::NONBLOCK) {
            return Ok(Outcome::Later(found.file()?, flags, closes));
        }
        if known.kind == FileKind::Directory && how.flags & libc::O_CREAT as u32 != 0 {
            return Err(Errno::ISDIR);
        }
        if let Some(shown) = inside.shown_for(known.raw.identity()) {
            if writes {
                return Err(Errno::ROFS);
            }
            let file = rustix::fs::openat(CWD, shown.place(), flags, Mode::empty())?;
            return Ok(Outcome::Descriptor(file, closes));
        }
        if inside.lists(known.raw.identity()) {
            inside.list()?;
        }
        let file = rustix::fs::openat(CWD, found.place(), flags, Mode::empty())?;
        Ok(Outcome::Descriptor(file, closes))
    }

    /// Opens what is to be a path alone. The kernel passes no such descriptor on, so a process gets
    /// one to read, of what it may read, or whose names it may know; of links and their like none.
    fn open_as_path(
        &self,
        inside: &Inside,
        who: &Credentials,
        (base, path): (i32, &CStr),
        (known, found): (&Known, &Found),
        flags: OFlags,
    ) -> Result<Outcome> {
        match known.kind {
            FileKind::Directory if inside.lists(known.raw.identity()) => inside.list()?,
            FileKind::Directory => {}
            _ if flags.contains(OFlags::DIRECTORY) => return Err(Errno::NOTDIR),
            FileKind::Regular if known.record.is_none_or(|record| record.device.is_none()) => {
                let to_read = OFlags::RDONLY.bits();
                if let Outcome::Error(errno) = self.may_open(who, base, path, to_read)? {
                    return Err(errno);
                }
            }
            _ => return Err(Errno::OPNOTSUPP),
        }
        let shown = inside.shown_for(known.raw.identity());
        let place = shown.as_ref().unwrap_or(found).place();
        let how = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, place, how, Mode::empty())?;
        Ok(Outcome::Descriptor(file, flags.contains(OFlags::CLOEXEC)))
    }

    /// Opens a file that does not exist yet.
    fn make_file(&self, who: &Credentials, entry: &Entry, how: &How) -> Result<Outcome> {
        if !self.may_change(who, entry, None)? {
            return Err(Errno::ACCESS);
        }
        let group = self.inherited_group(entry)?;
        let mode = how.mode & 0o7777 & !self.umask()?;
        let on_disk = formwork_fs::mode_on_disk(FileKind::Regular, mode);
        let flags = OFlags::from_bits_retain(how.flags & !O_LARGEFILE);
        let closes = flags.contains(OFlags::CLOEXEC);
        let flags = flags | OFlags::EXCL | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(
            &entry.descriptor,
            &*entry.name,
            flags,
            Mode::from_raw_mode(on_disk),
        )?;
        self.settle(&of(&file), FileKind::Regular, mode, new_record(who, group))?;
        Ok(Outcome::Descriptor(file, closes))
    }

    /// A file without a name.
    fn open_nameless_traced(
        &self,
        who: &Credentials,
        base: i32,
        path: &CStr,
        how: &How,
    ) -> Result<Outcome> {
        let directory = self.find_path(base, path, true)?;
        if !self.may(who, &directory, WRITE | SEARCH)? {
            return Err(Errno::ACCESS);
        }
        let mode = how.mode & 0o7777 & !self.umask()?;
        let on_disk = formwork_fs::mode_on_disk(FileKind::Regular, mode);
        let flags = OFlags::from_bits_retain(how.flags & !O_LARGEFILE);
        let closes = flags.contains(OFlags::CLOEXEC);
        let mode_on_disk = Mode::from_raw_mode(on_disk);
        let flags = flags | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, directory.place(), flags, mode_on_disk)?;
        self.settle(&of(&file), FileKind::Regular, mode, new_record(who, None))?;
        Ok(Outcome::Descriptor(file, closes))
    }
}

fn closes(how: &How) -> bool {
    how.flags & libc::O_CLOEXEC as u32 != 0
}

/// An open file, for as long as it is.
fn of(file: &OwnedFd) -> Found {
    Found::at(format!("self/fd/{}", file.as_raw_fd()))
}
