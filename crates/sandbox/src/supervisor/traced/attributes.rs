//! Extended attributes of a process's files. Capabilities are kept under another name, since nobody
//! here may give any.

use formwork_fs::{FileKind, OWNER_ATTRIBUTE, attribute_as_seen, attribute_on_disk};
use rustix::fs::XattrFlags;
use rustix::io::{Errno, Result};

use super::carry::DONE;
use super::paths::text;
use crate::supervisor::Outcome;
use crate::supervisor::calls::Place;
use crate::supervisor::permissions::{READ, WRITE};
use crate::supervisor::place::Found;
use crate::supervisor::process::Caller;

/// The longest value, and the longest list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LONGEST: usize = 65536;
const CAPABILITY: &[u8] = b"security.capability";

impl Caller<'_> {
    pub(super) fn get_attribute_traced(&self, place: Place, name: usize) -> Result<Outcome> {
        let (found, text) = self.attribute(place, name)?;
        if self.is_of_users(&text) && !self.may(&*self.credentials()?, &found, READ)? {
            return Err(Errno::ACCESS);
        }
        let mut value = vec![0; LONGEST];
        let length = rustix::fs::getxattr(found.place(), &*text, &mut value[..])?;
        self.give_bytes(name + 1, &value[..length])
    }

    pub(super) fn set_attribute_traced(&self, place: Place, name: usize) -> Result<Outcome> {
        let (found, text) = self.changed_attribute(place, name)?;
        let size = usize::try_from(self.long(name + 2)).unwrap_or(usize::MAX);
        if size > LONGEST {
            return Err(Errno::TOOBIG);
        }
        let mut value = vec![0; size];
        self.read_all(self.long(name + 1), &mut value)?;
        let flags = XattrFlags::from_bits_retain(self.int(name + 3));
        rustix::fs::setxattr(found.place(), &*text, &value, flags)?;
        Ok(DONE)
    }

    pub(super) fn remove_attribute_traced(&self, place: Place, name: usize) -> Result<Outcome> {
        let (found, text) = self.changed_attribute(place, name)?;
        rustix::fs::removexattr(found.place(), &*text)?;
        Ok(DONE)
    }

    pub(super) fn list_attributes_traced(&self, place: Place, buffer: usize) -> Result<Outcome> {
        let found = self.find(place)?;
        let mut list = vec![0; LONGEST];
        let length = rustix::fs::listxattr(found.place(), &mut list[..])?;
        let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let shown = names.filter_map(attribute_as_seen);
        let shown: Vec<u8> = shown.flat_map(|name| [name, &b"\0"[..]].concat()).collect();
        self.give_bytes(buffer, &shown)
    }

    /// A file, and the name of one of its attributes on the disk.
    fn attribute(&self, place: Place, name: usize) -> Result<(Found, std::ffi::CString)> {
        let name = self.name_at(name)?;
        let found = self.find(place)?;
        if name.to_bytes().starts_with(OWNER_ATTRIBUTE) {
            return Err(Errno::NODATA);
        }
        Ok((found, text(attribute_on_disk(name.to_bytes()))?))
    }

    fn changed_attribute(&self, place: Place, name: usize) -> Result<(Found, std::ffi::CString)> {
        let wanted = self.name_at(name)?;
        if wanted.to_bytes().starts_with(OWNER_ATTRIBUTE) {
            return Err(Errno::PERM);
        }
        let found = self.find_own(place)?;
        let text = text(attribute_on_disk(wanted.to_bytes()))?;
        let who = self.credentials()?;
        let known = found.examine()?;
        if wanted.to_bytes() == CAPABILITY {
            let is_file = known.kind == FileKind::Regular;
            return if who.is_capable && is_file { Ok((found, text)) } else { Err(Errno::PERM) };
        }
        let may = match self.is_of_users(&text) {
            true => self.may(&who, &found, WRITE)?,
            false => who.is_capable || who.users.file == known.owner().0,
        };
        if may { Ok((found, text)) } else { Err(Errno::ACCESS) }
    }

    fn is_of_users(&self, name: &std::ffi::CStr) -> bool {
        name.to_bytes().starts_with(b"user.") && !name.to_bytes().starts_with(OWNER_ATTRIBUTE)
    }

    /// Answers with bytes for a buffer whose address and size are two arguments.
    fn give_bytes(&self, buffer: usize, bytes: &[u8]) -> Result<Outcome> {
        let size = usize::try_from(self.long(buffer + 1)).unwrap_or(usize::MAX);
        if size != 0 && size < bytes.len() {
            return Err(Errno::RANGE);
        }
        if size != 0 && !bytes.is_empty() {
            self.write(self.long(buffer), bytes)?;
        }
        Ok(Outcome::Value(bytes.len() as i64))
    }
}
