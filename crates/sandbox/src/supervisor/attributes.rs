//! Extended attributes: those in which records are kept are seen by nobody.

use formwork_fs::{FileKind, OWNER_ATTRIBUTE};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::Place;
use super::permissions::{READ, WRITE};
use super::place::Found;
use super::process::Caller;

const CAPABILITY: &[u8] = b"security.capability";
/// The longest list (`XATTR_LIST_MAX`).
const LONGEST_LIST: usize = 65536;

impl Caller<'_> {
    /// Reading an attribute: the kernel answers, unless there shall be none.
    pub(super) fn get_attribute(&self, place: Place, name: usize) -> Result<Outcome> {
        if self.is_hidden(place, name)? {
            return Ok(Outcome::Error(Errno::NODATA));
        }
        self.with_rights_to_attribute(place, name, READ)
    }

    /// Setting or removing one.
    pub(super) fn change_attribute(&self, place: Place, name: usize) -> Result<Outcome> {
        let text = self.string(self.long(name))?;
        let is_privileged = text.to_bytes() == CAPABILITY;
        if self.is_hidden(place, name)? || (is_privileged && !self.credentials()?.is_capable) {
            return Ok(Outcome::Error(Errno::PERM));
        }
        self.with_rights_to_attribute(place, name, WRITE)
    }

    /// Attributes of users take rights to the file, as its content does, and lists of access its
    /// owner.
    fn with_rights_to_attribute(&self, place: Place, name: usize, rights: u32) -> Result<Outcome> {
        if self.credentials()?.may_ignore_modes() {
            return Ok(Outcome::Continue);
        }
        let name = self.string(self.long(name))?;
        match name.to_bytes() {
            name if name.starts_with(b"user.") => self.with_rights(place, rights),
            _ if rights == WRITE => self.owners_business(place),
            _ => Ok(Outcome::Continue),
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
