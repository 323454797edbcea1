//! Extended attributes: those in which records are kept are seen by nobody.

use formwork_fs::{FileKind, OWNER_ATTRIBUTE};
use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::{New, Place};
use super::permissions::{READ, WRITE, is_owners};
use super::place::Found;
use super::process::Caller;

const CAPABILITY: &[u8] = b"security.capability";
/// Lists of who may use a file, which its owner sets.
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// The longest list, and the longest value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LONGEST_LIST: usize = 65536;

impl Caller<'_> {
    /// Reading an attribute: the kernel answers, unless there shall be none.
    pub(super) fn get_attribute(&self, place: Place, name: usize) -> Result<Outcome> {
        if self.is_hidden(place, name)? {
            return Ok(Outcome::Error(Errno::NODATA));
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
            OWNER_ATTRIBUTE => false,
            CAPABILITY => who.is_capable && !has_record_of_links(&found)?,
            name if name.starts_with(b"user.") => match self.may(&who, &found, WRITE)? {
                true => true,
                false => return Ok(Outcome::Error(Errno::ACCESS)),
            },
            name if LISTS.contains(&name) => who.may_ignore_modes() || is_owners(&who, &found)?,
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
        let result = match self.new_value(new)? {
            Some((value, flags)) => rustix::fs::setxattr(found.place(), &*name, &value, flags),
            None => rustix::fs::removexattr(found.place(), &*name),
        };
        Ok(result.map_or_else(Outcome::Error, |()| Outcome::Value(0)))
    }

    /// What an attribute shall be, with the flags for how; `None` if it shall not be.
    fn new_value(&self, new: New) -> Result<Option<(Vec<u8>, XattrFlags)>> {
        let (address, size, flags) = match new {
            New::Nothing => return Ok(None),
            New::At(at) => (self.long(at), self.long(at + 1), self.int(at + 2)),
            New::In(at) => {
                let bytes: [u8; 16] = self.read(self.long(at))?;
                let [address, size] = [0, 8].map(|at| {
                    let mut long = [0; 8];
                    long.copy_from_slice(&bytes[at..at + 8]);
                    u64::from_le_bytes(long)
                });
                (address, size & u64::from(u32::MAX), (size >> 32) as u32)
            }
        };
        let size = usize::try_from(size).ok().filter(|size| *size <= LONGEST_LIST);
        let mut value = vec![0; size.ok_or(Errno::TOOBIG)?];
        self.read_all(address, &mut value)?;
        Ok(Some((value, XattrFlags::from_bits_retain(flags))))
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
            OWNER_ATTRIBUTE => Ok(true),
            CAPABILITY => Ok(has_record_of_links(&self.find(place)?)?),
            _ => Ok(false),
        }
    }

    /// Lists the attributes but for those of records.
    pub(super) fn list_attributes(&self, place: Place, buffer: usize) -> Result<Outcome> {
        let found = self.find(place)?;
        let mut list = vec![0; LONGEST_LIST];
        let length = rustix::fs::listxattr(found.place(), &mut list[..])?;
        let hides_capability = has_record_of_links(&found)?;
        let is_shown =
            |name: &&[u8]| *name != OWNER_ATTRIBUTE && !(hides_capability && *name == CAPABILITY);
        let names: Vec<&[u8]> = list[..length].split_inclusive(|byte| *byte == 0).collect();
        let shown = names.iter().map(|name| &name[..name.len() - 1]).filter(is_shown);
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
