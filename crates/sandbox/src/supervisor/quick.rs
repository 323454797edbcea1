//! Calls of which one look shows that the kernel's own answer is right: most of them.
//!
//! A file without any attribute that could be a record is what the kernel says; what root makes is
//! root's, unless the directory hands its group down; and a program that lends nothing leaves root
//! as it is. Whatever the look shows, nothing is done or told here: the kernel carries the call out,
//! or the call is looked at closely. So the look may go by paths as they are, and needs no
//! descriptors.

use std::ffi::{CStr, CString};

use formwork_fs::{FileKind, OWNER_ATTRIBUTE, Record};
use rustix::io::{Errno, Result};

use super::calls::{Call, Place};
use super::files::{SET_GROUP, SET_USER, creates};
use super::place::{
    AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, Named, RawStat, directory_and_name, own_descriptor, text,
};
use super::process::Caller;
use crate::sys::notify;

/// The most names of attributes that are looked at; who has more is looked at closely.
const MOST_NAMES: usize = 512;

/// A path from the supervisor's working directory, which is `/proc`.
struct Route {
    path: CString,
    /// Whether a link in the last place is followed.
    follow: bool,
}

impl Caller<'_> {
    /// Whether the kernel shall answer this. Where it is of two minds: no.
    pub(super) fn is_plainly_the_kernels(&self) -> bool {
        let is = match self.meaning.call {
            Call::Stat(place, _) | Call::Stat64(place, _) => self.has_no_record(place),
            Call::Statx => self.has_no_record(Place::AtWith(0, 1, 2)),
            Call::Chown(place, owner) if (self.id(owner), self.id(owner + 1)) == (0, 0) => {
                self.has_no_record(place)
            }
            Call::Open(place, flags) if creates(self.int(flags)) => self.makes_roots_own(place),
            Call::Create => self.makes_roots_own(Place::Path(0)),
            Call::MakeDirectory(place, _) | Call::MakeLink(place) => self.makes_roots_own(place),
            Call::Execute(place) => self.stays_the_same(place),
            _ => Ok(false),
        };
        is.unwrap_or(false)
    }

    /// Whether a file has none of the attributes that hold records.
    fn has_no_record(&self, place: Place) -> Result<bool> {
        let route = self.route(place)?;
        let mut names = [0; MOST_NAMES];
        let length = match route.follow {
            true => rustix::fs::listxattr(&*route.path, &mut names),
            false => rustix::fs::llistxattr(&*route.path, &mut names),
        };
        let Some(length) = if_there(length)? else { return Ok(true) };
        let holds_record = |name: &[u8]| {
            name.starts_with(OWNER_ATTRIBUTE) || name == Record::attribute(FileKind::Socket)
        };
        Ok(!names[..length].split(|byte| *byte == 0).any(holds_record))
    }

    /// Whether root makes something that will be nobody else's.
    fn makes_roots_own(&self, place: Place) -> Result<bool> {
        if !self.credentials()?.is_plain_root() {
            return Ok(false);
        }
        let Named { base, path, .. } = self.named(place)?;
        let (directory, _) = directory_and_name(path.to_bytes())?;
        let mode = mode_of(&self.seen_from_here(base, directory)?)?;
        Ok(mode.is_none_or(|mode| mode & SET_GROUP == 0))
    }

    /// Whether a program lends root nothing.
    fn stays_the_same(&self, place: Place) -> Result<bool> {
        let who = self.credentials()?;
        if !who.may_ignore_modes() || !who.outlasts_programs() {
            return Ok(false);
        }
        let route = self.route(place)?;
        let lends = mode_of(&route.path)?.is_some_and(|mode| mode & (SET_USER | SET_GROUP) != 0);
        Ok(route.follow && !lends)
    }

    /// The route to the file that a call is about.
    fn route(&self, place: Place) -> Result<Route> {
        let open = |descriptor| Ok(Route { path: self.start(descriptor)?, follow: true });
        if let Place::Open(descriptor) = place {
            return open(self.int(descriptor) as i32);
        }
        let Named { base, path, flags } = self.named(place)?;
        let path = path.to_bytes();
        if path.is_empty() {
            return if flags & AT_EMPTY_PATH != 0 { open(base) } else { Err(Errno::NOENT) };
        }
        let follow = flags & AT_SYMLINK_NOFOLLOW == 0;
        match own_descriptor(path).filter(|_| follow) {
            Some(descriptor) => open(descriptor as i32),
            None => Ok(Route { path: self.seen_from_here(base, path)?, follow }),
        }
    }

    /// A path of the process as one from the supervisor's working directory.
    fn seen_from_here(&self, base: i32, path: &[u8]) -> Result<CString> {
        match path.first() {
            Some(b'/') => text(path),
            _ => text(&[self.start(base)?.to_bytes(), b"/", path].concat()),
        }
    }

    /// Where relative paths begin, by a link that has to be followed.
    fn start(&self, base: i32) -> Result<CString> {
        let place = match base {
            libc::AT_FDCWD => self.own("cwd"),
            descriptor => self.own(&format!("fd/{descriptor}")),
        };
        text(place.as_bytes())
    }
}

/// The mode of a file; `None` where there is none.
fn mode_of(path: &CStr) -> Result<Option<u32>> {
    let found = if_there(notify::raw_stat(path, 0))?;
    Ok(found.map(|found| RawStat(found).mode()))
}

/// What was found; `None` where there is nothing, of which the kernel tells best.
fn if_there<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(Errno::NOENT) => Ok(None),
        found => found.map(Some),
    }
}
