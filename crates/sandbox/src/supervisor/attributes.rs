//! Extended attributes: those in which records are kept are seen by nobody.

use formwork_fs::{FileKind, OWNER_ATTRIBUTE};
use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::{New, Place};
use super::lists;
use super::permissions::{READ, WRITE, is_owners};
use super::place::Found;
use super::process::Caller;

pub(super) const CAPABILITY: &[u8] = b"security.capability";
/// The longest list, and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST_LIST: usize = 65536;

impl Caller<'_> {
    /// Reading an attribute: the kernel answers, unless there shall be none.
    pub(super) fn get_attribute(&self, place: Place, name: usize, buffer: New) -> Result<Outcome> {
        if self.is_hidden(place, name)? {
            return Ok(Outcome::Error(Errno::NODATA));
        }
        let text = self.string(self.long(name))?;
        if lists::kept(text.to_bytes()).is_some() {
            let told = self.list_of(&self.find(place)?, text.to_bytes(), buffer)?;
            return Ok(told.unwrap_or(Outcome::Continue));
        }
        self.with_rights_to_attribute(place, name)
    }

    /// Setting or removing one. This is done here, since a process could change the name behind a
    /// question to that of a record.
    pub(super) fn change_attribute(&self, place: Place, name: usize, new: New) -> Result<Outcome> {
        let name = self.string(self.long(name))?;
        let who = self.credentials()?;
        let found = self.find(place)?;
        let may = match name.to_bytes() {
            name if name.starts_with(OWNER_ATTRIBUTE) => false,
            CAPABILITY => who.is_capable && !has_record_of_links(&found)?,
            name if name.starts_with(b"user.") => match self.may(&who, &found, WRITE)? {
                true => true,
                false => return Ok(Outcome::Error(Errno::ACCESS)),
            },
            name if lists::kept(name).is_some() => {
                who.may_ignore_modes() || is_owners(&who, &found)?
            }
            // Nobody with docker's capabilities may set any other.
            name => {
                let is_known =
                    [&b"security."[..], b"trusted."].iter().any(|it| name.starts_with(it));
                let errno = if is_known { Errno::PERM } else { Errno::OPNOTSUPP };
                return Ok(Outcome::Error(errno));
            }
        };
        if !may {
            return Ok(Outcome::Error(Errno::PERM));
        }
        let is_list = lists::kept(name.to_bytes()).is_some();
        let result = match self.new_value(new)? {
            Some((value, flags)) if is_list => lists::set(&found, name.to_bytes(), &value, flags),
            None if is_list => lists::remove(&found, name.to_bytes()),
            Some((value, flags)) => rustix::fs::setxattr(found.place(), &*name, &value, flags),
            None => rustix::fs::removexattr(found.place(), &*name),
        };
        Ok(result.map_or_else(Outcome::Error, |()| Outcome::Value(0)))
    }

    /// What an attribute shall be, with the flags for how; `None` if it shall not be.
    fn new_value(&self, new: New) -> Result<Option<(Vec<u8>, XattrFlags)>> {
        let flags = match new {
            New::Nothing => return Ok(None),
            New::At(at) => self.int(at + 2),
            New::In(at) => {
                let flags: [u8; 4] = self.read(self.long(at).wrapping_add(12))?;
                u32::from_le_bytes(flags)
            }
        };
        let (address, size) = self.buffer(new)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST_LIST);
        let mut value = vec![0; size.ok_or(Errno::TOOBIG)?];
        self.read_all(address, &mut value)?;
        Ok(Some((value, XattrFlags::from_bits_retain(flags))))
    }

    /// The address and the size of a value.
    pub(super) fn buffer(&self, value: New) -> Result<(u64, u64)> {
        match value {
            New::Nothing => Ok((0, 0)),
            New::At(at) => Ok((self.long(at), self.long(at + 1))),
            New::In(at) => {
                let address: [u8; 8] = self.read(self.long(at))?;
                let size: [u8; 4] = self.read(self.long(at).wrapping_add(8))?;
                Ok((u64::from_le_bytes(address), u32::from_le_bytes(size).into()))
            }
        }
    }

    /// Reading an attribute of users takes the right to read the file.
    fn with_rights_to_attribute(&self, place: Place, name: usize) -> Result<Outcome> {
        let name = self.string(self.long(name))?;
        match name.to_bytes().starts_with(b"user.") {
            true => self.with_rights(place, READ),
            false => Ok(Outcome::Continue),
        }
    }

    /// Whether the attribute of a name is one of a record.
    fn is_hidden(&self, place: Place, name: usize) -> Result<bool> {
        let name = self.string(self.long(name))?;
        match name.to_bytes() {
            name if name.starts_with(OWNER_ATTRIBUTE) => Ok(true),
            CAPABILITY => Ok(has_record_of_links(&self.find(place)?)?),
            _ => Ok(false),
        }
    }

    /// Lists the attributes but for those of records.
    pub(super) fn list_attributes(&self, place: Place, buffer: usize) -> Result<Outcome> {
        self.list_attributes_of(&self.find(place)?, buffer)
    }

    /// The same of a file that was found.
    pub(super) fn list_attributes_of(&self, found: &Found, buffer: usize) -> Result<Outcome> {
        let mut list = vec![0; LONGEST_LIST];
        let length = rustix::fs::listxattr(found.place(), &mut list[..])?;
        let hides_capability = has_record_of_links(found)?;
        let is_shown = |name: &&[u8]| {
            !(name.starts_with(OWNER_ATTRIBUTE) || hides_capability && *name == CAPABILITY)
        };
        let names: Vec<&[u8]> = list[..length].split_inclusive(|byte| *byte == 0).collect();
        let shown = names.iter().map(|name| &name[..name.len() - 1]).filter(is_shown);
        let shown = shown.chain(lists::names(found).map(|name| -> &[u8] { name }));
        let shown: Vec<u8> = shown.flat_map(|name| [name, &b"\0"[..]].concat()).collect();
        if shown.len() == length {
            return Ok(Outcome::Continue);
        }
        let (address, size) = (self.long(buffer), self.long(buffer + 1));
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size == 0 {
            return Ok(Outcome::Value(shown.len() as i64));
        }
        if size < shown.len() {
            return Ok(Outcome::Error(Errno::RANGE));
        }
        if !shown.is_empty() {
            self.write(address, &shown)?;
        }
        Ok(Outcome::Value(shown.len() as i64))
    }
}

/// Whether a file has its record in the place of capabilities.
fn has_record_of_links(found: &Found) -> Result<bool> {
    let known = found.examine()?;
    let is_there = !matches!(known.kind, FileKind::Regular | FileKind::Directory);
    Ok(is_there && known.record.is_some())
}
