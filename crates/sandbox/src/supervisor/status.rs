//! Who the kernel takes a process for: its numbers for files, and its capabilities.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::process::string_at;
use crate::seccomp::ARCHITECTURES;
use crate::sys::notify::{self, Notification};

/// `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH`: either opens all directories.
const SEARCHES: u64 = 1 << 1 | 1 << 2;
const CAP_CHOWN: u64 = 1;

/// What `/proc` tells of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Those that it has now.
    pub(crate) capabilities: u64,
    /// The bits that files it makes do not get.
    pub(super) umask: u32,
}

impl Status {
    /// Of a process or thread whose directory is this one.
    pub(crate) fn of(from: BorrowedFd<'_>, directory: &str) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(from, format!("{directory}/status"), flags, Mode::empty())?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).map_err(|_| Errno::IO)?;
        Self::parse(&text).ok_or(Errno::IO)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace())
        };
        // Real, effective, saved, and the one that counts for files.
        let of_files = |name| value(name)?.nth(3)?.parse().ok();
        let groups = value("Groups:")?.map(|group| group.parse().ok());
        Some(Self {
            uid: of_files("Uid:")?,
            gid: of_files("Gid:")?,
            groups: groups.collect::<Option<_>>()?,
            capabilities: u64::from_str_radix(value("CapEff:")?.next()?, 16).ok()?,
            umask: u32::from_str_radix(value("Umask:")?.next()?, 8).ok()?,
        })
    }

    /// Whether all directories are open to it.
    pub(super) fn searches_all(&self) -> bool {
        self.capabilities & SEARCHES != 0
    }

    /// Whether it may give a file away that has an owner and a group, as `chown(2)`: `None` leaves a
    /// number.
    pub(super) fn may_give(&self, old: (u32, u32), uid: Option<u32>, gid: Option<u32>) -> bool {
        let is_in = |gid| gid == old.1 || gid == self.gid || self.groups.contains(&gid);
        self.capabilities & CAP_CHOWN != 0
            || self.uid == old.0 && uid.is_none_or(|uid| uid == old.0) && gid.is_none_or(is_in)
    }
}

/// A string in the memory of a process that waits for an answer.
pub(crate) fn string_of(notification: &Notification, address: u64) -> Result<CString> {
    let is_long = notification.audit == ARCHITECTURES[0].0;
    let address = if is_long { address } else { address & u64::from(u32::MAX) };
    string_at(address, |at, piece| match notify::read_memory(notification.thread, at, piece)? {
        count if count == piece.len() => Ok(()),
        _ => Err(Errno::FAULT),
    })
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn who_a_process_is_stands_in_its_status() {
        let text = "Name:\tx\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n\
                    CapPrm:\tff\nCapEff:\t0000000000000003\n";
        let status = Status::parse(text).unwrap();
        assert_eq!((status.uid, status.gid, &status.groups[..]), (4, 8, &[9, 10][..]));
        assert_eq!((status.capabilities, status.umask), (3, 0o27));
        assert!(status.searches_all());
        assert_eq!(Status::parse("Uid:\t1\t2\t3\t4\n"), None);
    }

    #[test]
    fn files_are_given_away_by_their_owner_to_own_groups_alone() {
        let owner = Status { uid: 4, gid: 8, groups: vec![9], capabilities: 0, umask: 0 };
        for (old, uid, gid, may) in [
            ((4, 8), None, None, true),
            ((4, 8), Some(4), Some(9), true),
            ((4, 7), Some(4), Some(7), true),
            ((4, 8), Some(5), None, false),
            ((4, 8), None, Some(10), false),
            ((5, 8), None, None, false),
            ((0, 0), Some(4), Some(8), false),
        ] {
            assert_eq!(owner.may_give(old, uid, gid), may, "{old:?} {uid:?} {gid:?}");
            let root = Status { capabilities: 1, ..owner.clone() };
            assert!(root.may_give(old, uid, gid));
        }
    }
}
