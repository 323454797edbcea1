//! Lists of who may use a file (`acl(5)`), where they name users that the kernel cannot know.
//!
//! Such a list is kept as an attribute of its own, told to whoever asks, and has the one effect that
//! shows in a layer: it sets the mode. It gives nobody rights, and files in a directory do not
//! inherit it; in layers there are no lists, on no rung.

use rustix::fs::{CWD, Mode, XattrFlags};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::calls::New;
use super::place::Found;
use super::process::Caller;

/// The names of lists, and those under which they are kept; a directory hands the second kind down.
const KEPT: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"user.formwork.access"),
    (b"system.posix_acl_default", b"user.formwork.default"),
];
/// What a list begins with, and how long that and an entry is (`struct posix_acl_xattr_entry`).
const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY: usize = 8;
/// The entries that stand for digits of the mode: owner, group, all others; and the most that groups
/// and further users may, which the mode has in the place of the group's digit.
const OWNER: u16 = 1;
const GROUP: u16 = 4;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// Under which name a list is kept.
pub(super) fn kept(name: &[u8]) -> Option<&'static [u8]> {
    KEPT.iter().find(|(list, _)| *list == name).map(|(_, kept)| *kept)
}

/// The names of the lists that are kept of a file.
pub(super) fn names(found: &Found) -> impl Iterator<Item = &'static [u8]> {
    let is_kept = |kept: &[u8]| rustix::fs::getxattr(found.place(), kept, &mut [0_u8; 0]).is_ok();
    KEPT.iter().filter(move |(_, kept)| is_kept(kept)).map(|(name, _)| *name)
}

/// Gives a file a list, which the kernel keeps if it can.
pub(super) fn set(found: &Found, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
    let Some(kept) = kept(name) else { return Err(Errno::INVAL) };
    match rustix::fs::setxattr(found.place(), name, value, flags) {
        Err(Errno::INVAL | Errno::OPNOTSUPP) => {}
        result => return result.and_then(|()| remove_kept(found, kept).map(drop)),
    }
    let mode = mode(value).ok_or(Errno::INVAL)?;
    rustix::fs::setxattr(found.place(), kept, value, XattrFlags::empty())?;
    if name == KEPT[0].0 {
        let special = found.examine()?.raw.mode() & 0o7000;
        rustix::fs::chmodat(
            CWD,
            found.place(),
            Mode::from_raw_mode(special | mode),
            rustix::fs::AtFlags::empty(),
        )?;
    }
    Ok(())
}

/// Takes a list from a file.
pub(super) fn remove(found: &Found, name: &[u8]) -> Result<()> {
    let Some(kept) = kept(name) else { return Err(Errno::INVAL) };
    match remove_kept(found, kept)? {
        true => Ok(()),
        false => rustix::fs::removexattr(found.place(), name),
    }
}

fn remove_kept(found: &Found, kept: &[u8]) -> Result<bool> {
    match rustix::fs::removexattr(found.place(), kept) {
        Ok(()) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl Caller<'_> {
    /// A list that is kept, into the buffer that a call says; `None` if there is none.
    pub(super) fn list_of(
        &self,
        found: &Found,
        name: &[u8],
        buffer: New,
    ) -> Result<Option<Outcome>> {
        let Some(kept) = kept(name) else { return Ok(None) };
        let mut value = vec![0; 65536];
        let Ok(length) = rustix::fs::getxattr(found.place(), kept, &mut value[..]) else {
            return Ok(None);
        };
        let (address, size) = self.buffer(buffer)?;
        if size == 0 {
            return Ok(Some(Outcome::Value(length as i64)));
        }
        if size < length as u64 {
            return Ok(Some(Outcome::Error(Errno::RANGE)));
        }
        self.write(address, &value[..length])?;
        Ok(Some(Outcome::Value(length as i64)))
    }
}

/// The mode that a list means; `None` if it is none.
fn mode(list: &[u8]) -> Option<u32> {
    let entries = list.strip_prefix(&VERSION)?.chunks(ENTRY);
    let mut digits = [None; 3];
    let mut mask = None;
    for entry in entries {
        let [tag, _, rights, _, _, _, _, _] = <[u8; ENTRY]>::try_from(entry).ok()?;
        let rights = Some(u32::from(rights & 7));
        match u16::from(tag) {
            OWNER => digits[0] = rights,
            GROUP => digits[1] = rights,
            OTHERS => digits[2] = rights,
            MASK => mask = rights,
            _ => {}
        }
    }
    let [owner, group, others] = digits;
    Some(owner? << 6 | mask.or(group)? << 3 | others?)
}

#[cfg(test)]
mod tests {
    use super::mode;

    #[test]
    fn lists_mean_modes() {
        let entry = |tag: u8, rights: u8| [tag, 0, rights, 0, 0xe8, 3, 0, 0];
        let list = |entries: &[[u8; 8]]| [&[2, 0, 0, 0][..], &entries.concat()].concat();
        let whole = [entry(1, 6), entry(2, 7), entry(4, 4), entry(0x10, 7), entry(0x20, 0)];
        assert_eq!(mode(&list(&whole)), Some(0o670));
        assert_eq!(mode(&list(&[entry(1, 7), entry(4, 5), entry(0x20, 5)])), Some(0o755));
        assert_eq!(mode(&list(&whole[1..])), None);
        assert_eq!(mode(&list(&whole)[..20]), None);
        assert_eq!(mode(b""), None);
        assert_eq!(mode(b"\x01\0\0\0"), None);
    }
}
