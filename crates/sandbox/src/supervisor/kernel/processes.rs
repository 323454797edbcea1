//! The processes of a step: whom a process may see.
//!
//! Those that descend from the step's first process, and that one itself not. A process is held by
//! its directory in `/proc`, which shows nothing any more once it has ended, whoever gets its number.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Kernel;
use super::asker::{Asker, Identity};

/// More generations than there can be processes.
const OLDEST: usize = 1 << 22;

/// A process that may be seen.
#[derive(Debug)]
pub(super) struct Process {
    /// Its directory.
    pub(super) handle: OwnedFd,
    /// Whether it is the one that asks.
    pub(super) is_own: bool,
}

/// A number as `/proc` writes it.
pub(super) fn number(word: &[u8]) -> Option<u32> {
    let is_number = word.first().is_some_and(|byte| (b'1'..=b'9').contains(byte))
        && word.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(word).ok()?.parse().ok()).flatten()
}

impl Asker<'_> {
    /// A process of this step.
    pub(super) fn process(&self, number: u32) -> Result<Process> {
        let handle = self.kernel.handle(number)?;
        let is_own = number == self.identity()?.process || number == self.notification.thread;
        // As long as it waits, the number is its own.
        let is_known = if is_own { self.is_waiting() } else { self.kernel.descends(&handle)? };
        if is_known { Ok(Process { handle, is_own }) } else { Err(Errno::NOENT) }
    }

    /// Whether it may look into a process: into itself, as root, or into one of its own user's.
    pub(super) fn may_look_into(&self, process: &Process) -> Result<bool> {
        if process.is_own {
            return Ok(true);
        }
        let own = self.identity()?;
        let status = self.kernel.read(process.handle.as_fd(), "status")?;
        let other = Identity::parse(&status).ok_or(Errno::IO)?;
        let (uid, gid) = own.of_files();
        let is_same = other.users.iter().all(|other| *other == uid)
            && other.groups.iter().all(|other| *other == gid);
        Ok(own.is_root() || is_same)
    }
}

impl Kernel {
    fn handle(&self, number: u32) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.proc, number.to_string(), flags, Mode::empty())
    }

    /// Whether a process descends from the first one.
    fn descends(&self, process: &OwnedFd) -> Result<bool> {
        let mut child = process.try_clone().map_err(|_| Errno::MFILE)?;
        for _ in 0..OLDEST {
            let parent = self.parent(&child)?;
            if parent == self.first {
                return Ok(true);
            }
            if parent <= 1 {
                return Ok(false);
            }
            let above = self.handle(parent)?;
            // As long as it is the parent, it is alive, and the number its own.
            if self.parent(&child)? == parent {
                child = above;
            }
        }
        Ok(false)
    }

    /// The parent of a process, which is the second field behind the name in parentheses.
    fn parent(&self, process: &OwnedFd) -> Result<u32> {
        parent_of(&self.read(process.as_fd(), "stat")?).ok_or(Errno::IO)
    }

    /// The numbers of all processes of the step.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let directory = Dir::read_from(&self.proc)?;
        let numbers = directory.flatten().filter_map(|entry| number(entry.file_name().to_bytes()));
        let parents: HashMap<u32, u32> = numbers
            .filter_map(|number| {
                let stat = self.read(self.proc.as_fd(), &format!("{number}/stat")).ok()?;
                Some((number, parent_of(&stat)?))
            })
            .collect();
        let descends = |number: &u32| {
            let mut at = *number;
            // No circle is longer than the list.
            for _ in 0..parents.len() {
                match parents.get(&at) {
                    Some(parent) if *parent == self.first => return true,
                    Some(parent) => at = *parent,
                    None => return false,
                }
            }
            false
        };
        Ok(parents.keys().copied().filter(descends).collect())
    }
}

fn parent_of(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{number, parent_of};

    #[test]
    fn numbers_are_written_in_one_way() {
        for (word, expected) in
            [("1", Some(1)), ("4711", Some(4711)), ("", None), ("07", None), ("+1", None)]
        {
            assert_eq!(number(word.as_bytes()), expected, "{word}");
        }
        assert_eq!(number(b"99999999999"), None);
    }

    #[test]
    fn names_do_not_make_parents() {
        assert_eq!(parent_of("7 (a) S 1 (b) S 4 5"), Some(4));
        assert_eq!(parent_of("7 (a) S 12 7 7"), Some(12));
        assert_eq!(parent_of(""), None);
    }
}
