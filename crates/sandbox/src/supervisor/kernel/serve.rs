//! What is answered: files are opened, described, and their rights told.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::asker::Asker;
use super::calls::Call;
use super::files::{in_memory, place_of};
use super::proc::{Item, Listing, Spot};
use super::processes::Process;
use super::terminals::Terminal;
use super::walk::{Asked, Goal};
use crate::supervisor::Outcome;
use crate::supervisor::calls::Place;
use crate::supervisor::files::STATX_HOW;
use crate::supervisor::place::RawStat;
use crate::sys::notify;

const EXECUTE: u32 = 1;
const WRITE: u32 = 2;
const READ: u32 = 4;
/// The most that a file of the machine may hold.
const MOST_TEXT: u64 = 64 << 20;

/// How a file is to be opened.
#[derive(Clone, Copy)]
struct How {
    flags: OFlags,
}

impl How {
    fn new(flags: u32) -> Self {
        Self { flags: OFlags::from_bits_retain(flags) }
    }

    fn access(self) -> OFlags {
        self.flags & (OFlags::WRONLY | OFlags::RDWR)
    }

    fn writes(self) -> bool {
        !self.access().is_empty() || self.flags.contains(OFlags::TRUNC)
    }

    fn is_path(self) -> bool {
        self.flags.contains(OFlags::PATH)
    }

    fn follows(self) -> bool {
        !self.flags.contains(OFlags::NOFOLLOW)
    }

    /// What of the flags is for files that are there.
    fn kept(self) -> OFlags {
        let kept = OFlags::WRONLY
            | OFlags::RDWR
            | OFlags::APPEND
            | OFlags::TRUNC
            | OFlags::DIRECTORY
            | OFlags::NONBLOCK;
        self.flags & kept | OFlags::NOCTTY | OFlags::CLOEXEC
    }
}

impl Asker<'_> {
    /// What becomes of the call. An error means that the kernel shall find out what is wrong.
    pub(super) fn outcome(&self) -> Result<Outcome> {
        match self.call {
            Call::Open(place, flags) => self.open(place, self.int(flags)),
            Call::Create => {
                let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
                self.open(Place::Path(0), flags.bits())
            }
            Call::Open2 => self.open2(),
            Call::Stat(place, buffer) => self.stat(place, buffer, false),
            Call::Stat64(place, buffer) => self.stat(place, buffer, true),
            Call::Statx => self.statx(),
            Call::ReadLink(place, buffer) => self.read_link(place, buffer),
            Call::StatFileSystem(place, buffer) => self.stat_file_system(place, buffer),
            Call::Attribute(place) => self.has_no_attributes(place, Outcome::Error(Errno::NODATA)),
            Call::Attributes(place) => self.has_no_attributes(place, Outcome::Value(0)),
            Call::Access(place, rights) => self.access(place, self.int(rights)),
            Call::MakeLink => {
                let text = self.string(self.long(0))?;
                if self.kernel.may_concern(text.as_bytes()) {
                    self.kernel.be_cautious();
                }
                Ok(Outcome::Continue)
            }
            Call::ChangeDirectory => self.change_directory(),
            Call::MakeNode(place, mode) => self.make_node(place, mode),
            Call::Chown(place, owner) => self.chown(place, owner),
            Call::List => self.list_next(),
            Call::Change(place) => self.change(place),
            Call::NameAt => self.name_at(),
            Call::HostName => self.host_name(),
        }
    }

    /// The kernel goes there, once there is a directory.
    fn change_directory(&self) -> Result<Outcome> {
        let asked = self.path(Place::Path(0))?;
        if let Goal::Proc(words) = self.goal(&asked)? {
            if let Item::Directory(spot, listing) = self.item(&words, true)? {
                self.kernel.stand_in(&words, &self.list(&spot, listing)?, OFlags::PATH)?;
            }
            self.kernel.let_inside();
        }
        Ok(Outcome::Continue)
    }

    /// `uname`: six fields of one length, of which the second is the name of the host.
    fn host_name(&self) -> Result<Outcome> {
        const FIELD: usize = 65;
        let name = self.kernel.host_name.as_bytes();
        if name.is_empty() || name.len() >= FIELD {
            return Ok(Outcome::Continue);
        }
        // Who wants to be told of a machine of 32 bits is told so by the kernel alone.
        let own = self.as_itself(|| {
            let place = format!("{}/personality", self.notification.thread);
            self.kernel.read(self.kernel.proc.as_fd(), &place)
        })?;
        if own.trim_end().ends_with('8') {
            return Ok(Outcome::Continue);
        }
        let uname = rustix::system::uname();
        let domain = uname.domainname();
        let fields =
            [uname.sysname(), c"", uname.release(), uname.version(), uname.machine(), domain];
        let mut bytes = [0; 6 * FIELD];
        for (field, text) in bytes.chunks_mut(FIELD).zip(fields) {
            let text = text.to_bytes();
            field[..text.len()].copy_from_slice(text);
        }
        bytes[FIELD..FIELD + name.len()].copy_from_slice(name);
        self.write(self.long(0), &bytes)?;
        Ok(Outcome::Value(0))
    }

    fn open(&self, place: Place, flags: u32) -> Result<Outcome> {
        let how = How::new(flags);
        let mut asked = self.path(place)?;
        asked.follows &= how.follows() || asked.path.ends_with(b"/");
        self.open_asked(&asked, how)
    }

    fn open2(&self) -> Result<Outcome> {
        let bytes: [u8; 24] = self.bytes(self.long(2))?;
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(long)
        };
        // Who asks for a way of looking up gets the kernel's, which finds nothing of all this.
        if long(16) != 0 {
            return Ok(Outcome::Continue);
        }
        let how = How::new(u32::try_from(long(0)).map_err(|_| Errno::INVAL)?);
        let mut asked = self.path(Place::At(0, 1))?;
        asked.follows &= how.follows() || asked.path.ends_with(b"/");
        self.open_asked(&asked, how)
    }

    fn open_asked(&self, asked: &Asked, how: How) -> Result<Outcome> {
        let opened = match self.goal(asked)? {
            Goal::Tree if how.writes() => return self.part(asked),
            Goal::Tree => return Ok(Outcome::Continue),
            _ if how.flags.contains(OFlags::CREATE | OFlags::EXCL) => Err(Errno::EXIST),
            Goal::Beyond(path) => self.open_beyond(&path, how),
            Goal::File(number) => self.open_shown(number, how),
            Goal::Proc(words) => self.open_proc(&words, asked.follows, how),
            Goal::Terminal(terminal) => self.open_terminal(terminal, how),
        };
        Ok(match opened {
            Ok(file) => Outcome::Descriptor(file, how.flags.contains(OFlags::CLOEXEC)),
            Err(errno) => Outcome::Error(errno),
        })
    }

    fn open_proc(&self, words: &[Vec<u8>], follows: bool, how: How) -> Result<OwnedFd> {
        match self.item(words, follows)? {
            Item::Directory(spot, listing) => self.open_directory(words, &spot, listing, how),
            Item::Open(process, number) => self.open_again(&process, number, how),
            Item::Link(_) => Err(Errno::LOOP),
            _ if how.flags.contains(OFlags::DIRECTORY) => Err(Errno::NOTDIR),
            // What it could do with that, it can do with the path.
            _ if how.is_path() => Err(Errno::ACCESS),
            Item::Text(_) | Item::File(_, false) if how.writes() => Err(Errno::ACCESS),
            Item::Text(number) => {
                self.kernel.open_again(&self.kernel.texts[number], OFlags::RDONLY)
            }
            Item::File(spot, _) if spot.process.is_none() => self.copy(&spot),
            Item::File(spot, _) => {
                let flags = how.kept() - OFlags::TRUNC;
                self.as_itself(|| spot.open(self.kernel, flags))
            }
        }
    }

    /// A copy of a file of the machine: who has the file itself could change its rights for all.
    fn copy(&self, spot: &Spot) -> Result<OwnedFd> {
        let file = self.as_itself(|| spot.open(self.kernel, OFlags::RDONLY))?;
        let mode = rustix::fs::fstat(&file)?.st_mode;
        let mut text = Vec::new();
        let read = std::fs::File::from(file).take(MOST_TEXT).read_to_end(&mut text);
        read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        if spot.is_host_name() && !self.kernel.host_name.is_empty() {
            text = format!("{}\n", self.kernel.host_name).into_bytes();
        }
        let copy = in_memory(&text, mode & 0o444, self.kernel.own)?;
        self.kernel.open_again(&copy, OFlags::RDONLY)
    }

    fn open_directory(
        &self,
        words: &[Vec<u8>],
        spot: &Spot,
        listing: Listing,
        how: How,
    ) -> Result<OwnedFd> {
        if how.writes() {
            return Err(Errno::ISDIR);
        }
        let entries = self.list(spot, listing)?;
        let flags = how.flags & OFlags::PATH;
        let directory = self.kernel.stand_in(words, &entries, flags)?;
        self.kernel.let_inside();
        Ok(directory)
    }

    /// What a process has open, once more, with no other rights.
    fn open_again(&self, process: &Process, number: u32, how: How) -> Result<OwnedFd> {
        let info = self
            .as_itself(|| self.kernel.read(process.handle.as_fd(), &format!("fdinfo/{number}")))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok());
        let has = How::new(flags.ok_or(Errno::IO)?);
        let is_same = has.access() == OFlags::RDWR || has.access() == how.access();
        let gains_nothing = is_same && !has.is_path() && !how.is_path();
        if !gains_nothing || how.flags.contains(OFlags::TRUNC) && has.access().is_empty() {
            let text = self.as_itself(|| {
                let place = format!("fd/{number}");
                rustix::fs::readlinkat(&process.handle, place, Vec::new())
            })?;
            // The same file, if it has that name in the tree at all.
            let held = How { flags: OFlags::PATH | OFlags::CLOEXEC };
            let named = rustix::fs::fstat(self.open_beyond(text.as_bytes(), held)?)?;
            let own = self.as_itself(|| {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                rustix::fs::openat(&process.handle, format!("fd/{number}"), flags, Mode::empty())
            })?;
            let own = rustix::fs::fstat(own)?;
            return match (named.st_dev, named.st_ino) == (own.st_dev, own.st_ino) {
                true => self.open_beyond(text.as_bytes(), how),
                false => Err(Errno::ACCESS),
            };
        }
        let place = format!("fd/{number}");
        self.open_waiting_for_nobody(how, |flags| {
            rustix::fs::openat(&process.handle, &place, flags, Mode::empty())
        })
    }

    /// A file of the tree, for a path without links.
    fn open_beyond(&self, path: &[u8], how: How) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let open = || rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::empty());
        let root = open()?;
        let look = || rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve);
        let found = self.as_itself(look)?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        match kind {
            FileType::RegularFile | FileType::Directory if how.is_path() => Ok(found),
            FileType::RegularFile | FileType::Directory => {
                self.open_waiting_for_nobody(how, |flags| {
                    rustix::fs::openat(&self.kernel.proc, place_of(&found), flags, Mode::empty())
                })
            }
            _ => Err(Errno::ACCESS),
        }
    }

    /// Opens a file as the process, but never waits for another one that should open it, too.
    fn open_waiting_for_nobody(
        &self,
        how: How,
        open: impl Fn(OFlags) -> Result<OwnedFd>,
    ) -> Result<OwnedFd> {
        let file = self.as_itself(|| open(how.kept() | OFlags::NONBLOCK))?;
        if !how.flags.contains(OFlags::NONBLOCK) {
            let flags = rustix::fs::fcntl_getfl(&file)?;
            rustix::fs::fcntl_setfl(&file, flags - OFlags::NONBLOCK)?;
        }
        Ok(file)
    }

    fn open_shown(&self, number: usize, how: How) -> Result<OwnedFd> {
        let shown = &self.kernel.files[number];
        if how.flags.contains(OFlags::DIRECTORY) {
            return Err(Errno::NOTDIR);
        }
        if how.is_path() {
            return Err(Errno::ACCESS);
        }
        if shown.is_device {
            let flags = how.kept() - OFlags::TRUNC;
            return self.as_itself(|| self.kernel.open_again(&shown.file, flags));
        }
        if how.writes() {
            return Err(Errno::ROFS);
        }
        match self.has_rights(&shown.file, READ)? {
            true => self.kernel.open_again(&shown.file, OFlags::RDONLY),
            false => Err(Errno::ACCESS),
        }
    }

    fn terminal(&self, terminal: Terminal) -> Result<OwnedFd> {
        self.kernel.terminals.as_ref().ok_or(Errno::NOENT)?.find(terminal)
    }

    fn open_terminal(&self, terminal: Terminal, how: How) -> Result<OwnedFd> {
        let flags = how.kept() - OFlags::TRUNC;
        match terminal {
            _ if how.is_path() => Err(Errno::ACCESS),
            Terminal::New => {
                let terminals = self.kernel.terminals.as_ref().ok_or(Errno::NOENT)?;
                self.as_itself(|| terminals.make(flags))
            }
            Terminal::Number(_) => {
                let held = self.terminal(terminal)?;
                self.as_itself(|| self.kernel.open_again(&held, flags))
            }
        }
    }

    /// Whether the mode of a file gives the process some rights; root has all.
    fn has_rights(&self, file: &OwnedFd, rights: u32) -> Result<bool> {
        let stat = rustix::fs::fstat(file)?;
        let own = self.identity()?;
        let (uid, gid) = own.of_files();
        let shift = match () {
            () if uid == stat.st_uid => 6,
            () if gid == stat.st_gid || own.others.contains(&stat.st_gid) => 3,
            () => 0,
        };
        let has = stat.st_mode >> shift & rights == rights;
        let is_program = rights & EXECUTE == 0 || stat.st_mode & 0o111 != 0;
        Ok(has || own.is_root() && is_program)
    }

    /// The file of a path, held but not opened; `None` for what is the kernel's to find.
    fn locate(&self, asked: &Asked) -> Result<Option<Result<OwnedFd>>> {
        let held = |file: &OwnedFd| file.try_clone().map_err(|_| Errno::MFILE);
        let place = |spot: &Spot| self.as_itself(|| spot.open(self.kernel, OFlags::PATH));
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        Ok(Some(match self.goal(asked)? {
            Goal::Tree => return Ok(None),
            Goal::File(number) => held(&self.kernel.files[number].file),
            Goal::Terminal(terminal) => self.terminal(terminal),
            Goal::Beyond(path) => self.open_beyond(&path, How { flags }),
            Goal::Proc(words) => self.item(&words, asked.follows).and_then(|item| match &item {
                Item::Directory(spot, _) | Item::File(spot, _) | Item::Link(spot) => place(spot),
                Item::Text(number) => held(&self.kernel.texts[*number]),
                Item::Open(process, number) => self.as_itself(|| {
                    let place = format!("fd/{number}");
                    rustix::fs::openat(&process.handle, place, flags, Mode::empty())
                }),
            }),
        }))
    }

    fn stat(&self, place: Place, buffer: usize, for_32_bits: bool) -> Result<Outcome> {
        let asked = self.path(place)?;
        let Some(found) = self.locate(&asked)? else {
            return self.stat_in_tree(&asked, buffer, for_32_bits);
        };
        let file = match found {
            Ok(file) => file,
            Err(errno) => return Ok(Outcome::Error(errno)),
        };
        let stat = RawStat(notify::raw_stat(&c_string(place_of(&file))?, 0)?);
        let address = self.long(buffer);
        match for_32_bits {
            true => self.write(address, &stat.bytes_of_32_bits())?,
            false => self.write(address, stat.bytes())?,
        }
        Ok(Outcome::Value(0))
    }

    fn statx(&self) -> Result<Outcome> {
        let asked = self.path(Place::AtWith(0, 1, 2))?;
        let Some(found) = self.locate(&asked)? else { return self.statx_in_tree(&asked) };
        let file = match found {
            Ok(file) => file,
            Err(errno) => return Ok(Outcome::Error(errno)),
        };
        let (how, mask) = (self.int(2) & STATX_HOW, self.int(3));
        let bytes = notify::raw_statx(&c_string(place_of(&file))?, how as i32, mask)?;
        self.write(self.long(4), &bytes)?;
        Ok(Outcome::Value(0))
    }

    fn read_link(&self, place: Place, buffer: usize) -> Result<Outcome> {
        let text = match self.goal(&self.path(place)?)? {
            Goal::Tree => return Ok(Outcome::Continue),
            Goal::Proc(words) => self.read_link_of_proc(&words),
            Goal::Beyond(path) => {
                rustix::fs::readlinkat(CWD, path, Vec::new()).map(CString::into_bytes)
            }
            Goal::File(_) | Goal::Terminal(_) => Err(Errno::INVAL),
        };
        let text = match text {
            Ok(text) => text,
            Err(errno) => return Ok(Outcome::Error(errno)),
        };
        let size = self.int(buffer + 1) as usize;
        if size as i32 <= 0 {
            return Ok(Outcome::Error(Errno::INVAL));
        }
        let text = &text[..text.len().min(size)];
        self.write(self.long(buffer), text)?;
        Ok(Outcome::Value(i64::try_from(text.len()).unwrap_or_default()))
    }

    fn stat_file_system(&self, place: Place, buffer: usize) -> Result<Outcome> {
        let asked = self.path(place)?;
        let terminals = self.kernel.terminals.as_ref();
        let told = match (&asked.path[..], terminals) {
            (b"/dev/pts" | b"/dev/pts/", Some(terminals)) => terminals.stat_file_system(),
            _ => match self.goal(&asked)? {
                Goal::Proc(words) => {
                    let known = self.item(&words, asked.follows);
                    known.and_then(|_| notify::raw_statfs(self.kernel.proc.as_fd()))
                }
                _ => return Ok(Outcome::Continue),
            },
        };
        Ok(match told {
            Ok(told) => {
                self.write(self.long(buffer), &told)?;
                Outcome::Value(0)
            }
            Err(errno) => Outcome::Error(errno),
        })
    }

    fn has_no_attributes(&self, place: Place, outcome: Outcome) -> Result<Outcome> {
        let asked = self.path(place)?;
        Ok(match self.locate(&asked)? {
            None => self.attributes_in_tree(&asked, outcome)?,
            Some(Ok(_)) => outcome,
            Some(Err(errno)) => Outcome::Error(errno),
        })
    }

    fn access(&self, place: Place, rights: u32) -> Result<Outcome> {
        let asked = self.path(place)?;
        let goal = self.goal(&asked)?;
        let is_allowed = match &goal {
            Goal::Tree => return Ok(Outcome::Continue),
            Goal::Proc(words) => self.item(words, asked.follows).map(|item| match item {
                Item::Directory(..) => rights & WRITE == 0,
                Item::File(_, is_writable) => {
                    rights & EXECUTE == 0 && (is_writable || rights & WRITE == 0)
                }
                Item::Text(_) => rights & (EXECUTE | WRITE) == 0,
                Item::Link(_) | Item::Open(..) => true,
            }),
            Goal::File(number) => {
                let shown = &self.kernel.files[*number];
                let is_closed = !shown.is_device && rights & WRITE != 0;
                self.has_rights(&shown.file, rights).map(|has| has && !is_closed)
            }
            Goal::Terminal(terminal) => {
                self.terminal(*terminal).and_then(|file| self.has_rights(&file, rights))
            }
            Goal::Beyond(path) => {
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let found = self.open_beyond(path, How { flags });
                found.and_then(|found| self.has_rights(&found, rights))
            }
        };
        Ok(match is_allowed {
            Ok(true) => Outcome::Value(0),
            Ok(false) => Outcome::Error(Errno::ACCESS),
            Err(errno) => Outcome::Error(errno),
        })
    }
}

impl super::Kernel {
    /// A file once more, with a place in it of its own.
    fn open_again(&self, file: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat(&self.proc, place_of(file), flags, Mode::empty())
    }
}

fn c_string(text: String) -> Result<CString> {
    CString::new(text).map_err(|_| Errno::INVAL)
}
