//! Carries out what a process asks for about files, in its place and in its root.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use formwork_fs::{FileKind, Record};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Inside;
use super::deeds::Deed;
use super::paths::text;
use crate::supervisor::Outcome;
use crate::supervisor::calls::Place;
use crate::supervisor::files::{SET_GROUP, new_record};
use crate::supervisor::permissions::{SEARCH, WRITE};
use crate::supervisor::place::{AT_EMPTY_PATH, AT_SYMLINK_FOLLOW, Entry, Found};
use crate::supervisor::process::Caller;
use crate::sys::trace::{self, Argument};

const AT_REMOVEDIR: u32 = 0x200;
const ANY_EXECUTE: u32 = 0o111;
/// `UTIME_NOW`, `UTIME_OMIT`.
const NOW: i64 = (1 << 30) - 1;
const OMIT: i64 = (1 << 30) - 2;
/// The longest text of a link.
const LONGEST_LINK: usize = 4096;

pub(super) const DONE: Outcome = Outcome::Value(0);

impl Caller<'_> {
    /// Does it; an error is what the process is told.
    pub(super) fn carry_out(&self, inside: &Inside, deed: Deed) -> Result<Outcome> {
        if !inside.linked.is_empty() {
            // What cannot be parted stays one file.
            let _ = self.part(inside, deed);
        }
        match deed {
            Deed::Same => self.outcome(),
            Deed::HostName => self.host_name(inside),
            Deed::Never => Err(Errno::PERM),
            Deed::Open(place, flags) => self.open_traced(inside, place, flags),
            Deed::Create => self.create_traced(inside),
            Deed::Open2 => self.open2_traced(inside),
            Deed::MakeDirectory(place, mode) => self.make_directory_traced(place, mode),
            Deed::MakeNode(place, mode) => self.make_node_traced(inside, place, mode),
            Deed::MakeLink(place) => {
                let target = self.string(self.long(0))?;
                let make = |entry: &Entry, _| {
                    rustix::fs::symlinkat(&*target, &entry.descriptor, &*entry.name)
                };
                self.make_traced(place, FileKind::Symlink, 0o777, make)
            }
            Deed::Unlink(place) => self.remove(inside, place, 0),
            Deed::RemoveDirectory(place) => self.remove(inside, place, AT_REMOVEDIR),
            Deed::UnlinkAt => self.remove(inside, Place::At(0, 1), self.int(2)),
            Deed::Rename(from, to, flags) => {
                let flags = flags.map_or(0, |flags| self.int(flags));
                self.rename(inside, from, to, flags)
            }
            Deed::Name(from, to) => self.name_traced(from, to),
            Deed::NameAt => {
                let from = match self.int(4) & AT_SYMLINK_FOLLOW {
                    0 => Place::LinkAt(0, 1),
                    _ => Place::At(0, 1),
                };
                let is_open = self.int(4) & AT_EMPTY_PATH != 0
                    && self.string(self.long(1)).is_ok_and(|path| path.is_empty());
                let from = if is_open { Place::Open(0) } else { from };
                self.name_traced(from, Place::At(2, 3))
            }
            Deed::ChangeMode(place, mode) => self.change_mode(place, self.int(mode) & 0o7777),
            Deed::Access(place, rights, flags) => self.access_traced(place, rights, flags),
            Deed::Truncate(place) => self.truncate(inside, place),
            Deed::Times | Deed::OldTimes | Deed::MicroTimes(..) => self.set_times_traced(deed),
            Deed::ReadLink(place, buffer) => self.read_link(inside, place, buffer),
            Deed::StatFs(place) => {
                let found = self.find_shown(place)?;
                let mut bytes = [0; 120];
                let mut arguments = [Argument::Text(found.place()), Argument::Into(&mut bytes)];
                trace::call(libc::SYS_statfs, &mut arguments)?;
                self.write(self.long(1), &bytes)?;
                Ok(DONE)
            }
            Deed::GetAttribute(place, name) => self.get_attribute_traced(place, name),
            Deed::SetAttribute(place, name) => self.set_attribute_traced(place, name),
            Deed::RemoveAttribute(place, name) => self.remove_attribute_traced(place, name),
            Deed::ListAttributes(place, buffer) => self.list_attributes_traced(place, buffer),
            Deed::WorkingDirectory => self.working_directory(inside),
            Deed::List => self.list_traced(inside),
            Deed::Process(at) => self.about_process(at),
            Deed::Priority(first) => self.priority(first),
            Deed::Shared => self.share(inside),
            Deed::SharedUse => self.use_shared(inside),
            Deed::Signal => self.signal(),
            Deed::Control => self.control(),
            Deed::Socket => self.make_socket(inside),
            Deed::Bind => self.bind_traced(inside),
            Deed::Connect => self.connect_traced(inside),
            Deed::SendTo => self.send_to(inside),
            Deed::Peer => self.peer_traced(),
        }
    }

    fn make_directory_traced(&self, place: Place, mode: usize) -> Result<Outcome> {
        let mode = self.int(mode) & 0o1777 & !self.umask()?;
        self.make_traced(place, FileKind::Directory, mode, |entry, mode| {
            rustix::fs::mkdirat(&entry.descriptor, &*entry.name, mode)
        })
    }

    /// A pipe, a socket or an empty file; a device is data.
    fn make_node_traced(&self, inside: &Inside, place: Place, mode: usize) -> Result<Outcome> {
        let bits = self.int(mode);
        let file_type =
            FileType::from_raw_mode(if bits & 0o170_000 == 0 { 0o100_000 } else { bits });
        if matches!(file_type, FileType::BlockDevice | FileType::CharacterDevice) {
            return match self.make_node(place, mode)? {
                Outcome::Continue => Err(Errno::PERM),
                outcome => {
                    inside.have_devices();
                    Ok(outcome)
                }
            };
        }
        let mode = bits & 0o7777 & !self.umask()?;
        self.make_traced(place, file_type.into(), mode, |entry, mode| {
            rustix::fs::mknodat(&entry.descriptor, &*entry.name, file_type, mode, 0)
        })
    }

    /// Makes something, with its owner and mode.
    pub(super) fn make_traced(
        &self,
        place: Place,
        kind: FileKind,
        mode: u32,
        make: impl Fn(&Entry, Mode) -> Result<()>,
    ) -> Result<Outcome> {
        let who = self.credentials()?;
        let entry = self.find_entry(place)?;
        if self.look_at(&entry).is_ok() {
            return Err(Errno::EXIST);
        }
        if !self.may_change(&who, &entry, None)? {
            return Err(Errno::ACCESS);
        }
        let group = self.inherited_group(&entry)?;
        let on_disk = formwork_fs::mode_on_disk(kind, mode);
        make(&entry, Mode::from_raw_mode(on_disk))?;
        self.settle(&self.look_at(&entry)?, kind, mode, new_record(&who, group))?;
        Ok(DONE)
    }

    /// Gives something new its record.
    pub(super) fn settle(
        &self,
        made: &Found,
        kind: FileKind,
        mode: u32,
        record: Record,
    ) -> Result<()> {
        let mut record = record;
        if formwork_fs::mode_on_disk(kind, mode) != mode && kind != FileKind::Symlink {
            // A directory may have inherited the bit that hands down its group.
            let inherited = made.examine()?.raw.mode() & SET_GROUP;
            record.mode = Some(mode | inherited);
        }
        match record.is_plain() {
            true => Ok(()),
            false => made.set_record(kind, &record).map(drop),
        }
    }

    fn remove(&self, inside: &Inside, place: Place, flags: u32) -> Result<Outcome> {
        let is_directory = flags & AT_REMOVEDIR != 0;
        let entry = match self.find_entry(place) {
            Err(Errno::EXIST) if is_directory => return Err(self.why_it_stays(place)),
            Err(Errno::EXIST) => return Err(Errno::ISDIR),
            entry => entry?,
        };
        if let Outcome::Error(errno) = self.change_entry(place, None)? {
            return Err(errno);
        }
        self.refuse_shown(inside, &entry)?;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(&entry.descriptor, &*entry.name, flags)?;
        Ok(DONE)
    }

    /// Why a directory cannot be removed by a path that is no name.
    fn why_it_stays(&self, place: Place) -> Errno {
        let path = match place {
            Place::Path(path) | Place::At(_, path) => self.name_at(path).unwrap_or_default(),
            _ => CString::default(),
        };
        match path.to_bytes() {
            bytes if bytes.ends_with(b"..") => Errno::NOTEMPTY,
            bytes if bytes.ends_with(b".") => Errno::INVAL,
            _ => Errno::BUSY,
        }
    }

    fn rename(&self, inside: &Inside, from: Place, to: Place, flags: u32) -> Result<Outcome> {
        let busy = |errno| if errno == Errno::EXIST { Errno::BUSY } else { errno };
        let (old, new) = (self.find_entry(from).map_err(busy)?, self.find_entry(to).map_err(busy)?);
        if let Outcome::Error(errno) = self.change_entry(from, Some(to))? {
            return Err(errno);
        }
        self.refuse_shown(inside, &old)?;
        self.refuse_shown(inside, &new)?;
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags);
        rustix::fs::renameat_with(&old.descriptor, &*old.name, &new.descriptor, &*new.name, flags)?;
        Ok(DONE)
    }

    /// What would be mounted elsewhere stays where it is.
    fn refuse_shown(&self, inside: &Inside, entry: &Entry) -> Result<()> {
        let Ok(found) = self.look_at(entry) else { return Ok(()) };
        match inside.shown_for(found.examine()?.raw.identity()) {
            Some(_) => Err(Errno::BUSY),
            None => Ok(()),
        }
    }

    fn name_traced(&self, from: Place, to: Place) -> Result<Outcome> {
        let found = self.find(from)?;
        let entry = self.find_entry(to)?;
        if let Outcome::Error(errno) = self.name(to)? {
            return Err(errno);
        }
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, found.place(), &entry.descriptor, &*entry.name, flags)?;
        Ok(DONE)
    }

    fn change_mode(&self, place: Place, mode: u32) -> Result<Outcome> {
        let found = self.find_own(place)?;
        let known = found.examine()?;
        let who = self.credentials()?;
        if !who.is_capable && who.users.file != known.owner().0 {
            return Err(Errno::PERM);
        }
        if known.kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        formwork_fs::give_mode(found.file()?.as_fd(), known.kind, mode)?;
        Ok(DONE)
    }

    fn access_traced(&self, place: Place, rights: usize, flags: Option<usize>) -> Result<Outcome> {
        let found = self.find(place)?;
        if let Outcome::Error(errno) = self.access(place, rights, flags)? {
            return Err(errno);
        }
        let known = found.examine()?;
        let cannot_execute = known.kind == FileKind::Regular
            && self.int(rights) & 1 != 0
            && known.raw.mode() & ANY_EXECUTE == 0;
        if cannot_execute { Err(Errno::ACCESS) } else { Ok(DONE) }
    }

    fn truncate(&self, inside: &Inside, place: Place) -> Result<Outcome> {
        let found = self.find(place)?;
        if !self.may(&*self.credentials()?, &found, WRITE)? {
            return Err(Errno::ACCESS);
        }
        if inside.runs(found.examine()?.raw.identity()) {
            return Err(Errno::TXTBSY);
        }
        let mut arguments = [Argument::Text(found.place()), Argument::Number(self.long(1))];
        trace::call(libc::SYS_truncate, &mut arguments)?;
        Ok(DONE)
    }

    /// Sets the times of a file, which stay those of its owner where its owner is in them.
    fn set_times_traced(&self, deed: Deed) -> Result<Outcome> {
        let (place, times) = match deed {
            Deed::OldTimes => (Place::Path(0), self.stamps(self.long(1), 1)?),
            Deed::MicroTimes(place, at) => (place, self.stamps(self.long(at), 1_000)?),
            _ if self.long(1) == 0 => (Place::Open(0), self.stamps(self.long(2), 1_000_000_000)?),
            _ => (Place::AtWith(0, 1, 3), self.stamps(self.long(2), 1_000_000_000)?),
        };
        let found = match self.find_own(place) {
            // Programs touch what they write to; of a device, nobody looks at the times.
            Err(Errno::PERM) => return Ok(DONE),
            found => found?,
        };
        let known = found.examine()?;
        let who = self.credentials()?;
        let is_now = times.is_none_or(|times| times[1] == NOW && times[3] == NOW);
        let is_owners = who.is_capable || who.users.file == known.owner().0;
        if !(is_owners || is_now && self.may(&who, &found, WRITE)?) {
            return Err(if is_now { Errno::ACCESS } else { Errno::PERM });
        }
        let mut times = times;
        if let (true, Some(record)) = (formwork_fs::is_in_times(known.kind), known.record) {
            let owner = formwork_fs::time_of_owner(record.uid, record.gid);
            let (seconds, nanoseconds) = owner.ok_or(Errno::OPNOTSUPP)?;
            let [_, _, modified, nanos] = times.unwrap_or([0, NOW, 0, NOW]);
            times = Some([seconds, nanoseconds, modified, nanos]);
        }
        let bytes = times.map(|times| times.map(i64::to_ne_bytes).concat());
        let mut arguments = [
            Argument::Number(libc::AT_FDCWD as u64),
            Argument::Text(found.place()),
            bytes.as_deref().map_or(Argument::Nothing, Argument::From),
            Argument::Number(0),
        ];
        trace::call(libc::SYS_utimensat, &mut arguments)?;
        Ok(DONE)
    }

    /// Two times, in seconds and parts of which so many are one; `None` for now.
    fn stamps(&self, address: u64, parts: i64) -> Result<Option<[i64; 4]>> {
        let number = |bytes: &[u8]| i64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        match (address, parts) {
            (0, _) => Ok(None),
            (_, 1) => {
                let bytes: [u8; 16] = self.read(address)?;
                Ok(Some([number(&bytes[..8]), 0, number(&bytes[8..]), 0]))
            }
            _ => {
                let bytes: [u8; 32] = self.read(address)?;
                let mut times = [0, 8, 16, 24].map(|at| number(&bytes[at..at + 8]));
                for nanos in [1, 3] {
                    if parts == 1_000 {
                        times[nanos] = times[nanos].saturating_mul(1000);
                    } else if ![NOW, OMIT].contains(&times[nanos])
                        && !(0..1_000_000_000).contains(&times[nanos])
                    {
                        return Err(Errno::INVAL);
                    }
                }
                Ok(Some(times))
            }
        }
    }

    fn read_link(&self, inside: &Inside, place: Place, buffer: usize) -> Result<Outcome> {
        let (base, path) = match place {
            Place::LinkAt(base, path) => (self.int(base) as i32, path),
            Place::Link(path) => (libc::AT_FDCWD, path),
            _ => return Err(Errno::INVAL),
        };
        let path = self.string(self.long(path))?;
        let size = usize::try_from(self.int(buffer + 1) as i32).map_err(|_| Errno::INVAL)?;
        let target = match self.target_of(inside, base, path.to_bytes()) {
            Ok(target) => target,
            Err(Errno::INVAL) if path.is_empty() => return Err(Errno::NOENT),
            Err(errno) => return Err(errno),
        };
        let length = target.len().min(size).min(LONGEST_LINK);
        if length == 0 {
            return Err(Errno::INVAL);
        }
        self.write(self.long(buffer), &target[..length])?;
        Ok(Outcome::Value(length as i64))
    }

    /// What a link says.
    pub(super) fn target_of(&self, inside: &Inside, base: i32, path: &[u8]) -> Result<Vec<u8>> {
        let file = match path {
            b"" => self.descriptor(self.checked(base)?).file()?,
            path => {
                if let Ok(way) = self.way(inside, base, path)
                    && let Some(target) = self.link_of_kernels(inside, &way)
                {
                    return target;
                }
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                self.open_inside(inside, base, path, flags, Mode::empty())?
            }
        };
        match rustix::fs::readlinkat(&file, "", Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // Not a link.
            Err(Errno::NOENT) => Err(Errno::INVAL),
            Err(errno) => Err(errno),
        }
    }

    fn checked(&self, descriptor: i32) -> Result<u32> {
        u32::try_from(descriptor).map_err(|_| Errno::BADF)
    }

    fn working_directory(&self, inside: &Inside) -> Result<Outcome> {
        let path = super::paths::read_link(&self.own("cwd"))?;
        let path = inside.strip(&path).ok_or(Errno::NOENT)?;
        let path = text(path)?;
        if path.to_bytes().ends_with(b" (deleted)")
            && self.find_path(libc::AT_FDCWD, &path, true).is_err()
        {
            return Err(Errno::NOENT);
        }
        let bytes = path.as_bytes_with_nul();
        if bytes.len() as u64 > self.long(1) {
            return Err(Errno::RANGE);
        }
        self.write(self.long(0), bytes)?;
        Ok(Outcome::Value(bytes.len() as i64))
    }

    /// Whether a process may search a directory, to go there.
    pub(super) fn enter(&self, place: Place) -> Result<OwnedFd> {
        let found = self.find(place)?;
        if found.examine()?.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        match self.may(&*self.credentials()?, &found, SEARCH)? {
            true => found.file(),
            false => Err(Errno::ACCESS),
        }
    }

    pub(super) fn name_at(&self, at: usize) -> Result<CString> {
        self.string(self.long(at))
    }
}
