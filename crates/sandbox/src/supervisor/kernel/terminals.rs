//! Terminals that processes make for themselves, such as for the log of apt.
//!
//! They are the container's, as it has no others. A process gets at those that its step has made, and
//! at no others: each is held as the file that it was when it was made, which means nothing any more
//! once it is gone, whoever gets its number.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use crate::sys::{self, notify};

/// The kernel's number for file systems of terminals.
const DEVPTS: u64 = 0x1cd1;
/// The file that makes one.
const MAKER: &str = "ptmx";

/// What stands for a terminal in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Terminal {
    /// The one that is made by opening this.
    New,
    Number(u32),
}

/// The terminals of a step.
#[derive(Debug)]
pub(super) struct Terminals {
    directory: OwnedFd,
    made: Mutex<HashMap<u32, OwnedFd>>,
}

impl Terminals {
    /// Those of the container, looked for while they can be found.
    pub(super) fn of_container() -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open("/dev/pts", flags, Mode::empty()).ok()?;
        let is_devpts = rustix::fs::fstatfs(&directory).is_ok_and(|it| it.f_type as u64 == DEVPTS);
        let made = Mutex::default();
        is_devpts.then_some(Self { directory, made })
    }

    /// Adds one that the step was given.
    pub(super) fn adopt(&self, given: &OwnedFd) {
        let adopt = || -> Result<()> {
            let given = rustix::fs::fstat(given)?;
            let number = rustix::fs::minor(given.st_rdev);
            let end = self.hold(&number.to_string())?;
            let named = rustix::fs::fstat(&end)?;
            if (named.st_dev, named.st_ino) == (given.st_dev, given.st_ino) {
                self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(number, end);
            }
            Ok(())
        };
        // One from elsewhere has no name here.
        let _ = adopt();
    }

    /// Makes one, which belongs to whom the thread acts for.
    pub(super) fn make(&self, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, MAKER, flags, Mode::empty())?;
        let number = sys::terminal_number(&file)?;
        let end = self.hold(&number.to_string())?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(number, end);
        Ok(file)
    }

    /// The file of one, held but not opened.
    pub(super) fn find(&self, terminal: Terminal) -> Result<OwnedFd> {
        let number = match terminal {
            Terminal::New => return self.hold(MAKER),
            Terminal::Number(number) => number,
        };
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let end = made.get(&number).ok_or(Errno::NOENT)?;
        // Its name goes with it.
        match rustix::fs::fstat(end)?.st_nlink {
            0 => Err(Errno::NOENT),
            _ => end.try_clone().map_err(|_| Errno::MFILE),
        }
    }

    /// What is told of their file system, as the kernel tells it.
    pub(super) fn stat_file_system(&self) -> Result<[u8; 120]> {
        notify::raw_statfs(self.directory.as_fd())
    }

    /// The file that makes terminals.
    pub(super) fn maker(&self) -> Option<OwnedFd> {
        self.hold(MAKER).ok()
    }

    fn hold(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, name, flags, Mode::empty())
    }
}

/// The terminal of a path.
pub(super) fn of_path(path: &[u8]) -> Option<Terminal> {
    match path {
        b"/dev/ptmx" | b"/dev/pts/ptmx" => Some(Terminal::New),
        _ => {
            let name = path.strip_prefix(b"/dev/pts/")?;
            let is_number = name == b"0" || super::processes::number(name).is_some();
            let number = is_number.then(|| std::str::from_utf8(name).ok()?.parse().ok());
            number.flatten().map(Terminal::Number)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Terminal, of_path};

    #[test]
    fn terminals_have_paths() {
        for (path, expected) in [
            ("/dev/ptmx", Some(Terminal::New)),
            ("/dev/pts/ptmx", Some(Terminal::New)),
            ("/dev/pts/0", Some(Terminal::Number(0))),
            ("/dev/pts/12", Some(Terminal::Number(12))),
            ("/dev/pts/01", None),
            ("/dev/pts", None),
            ("/dev/pts/", None),
            ("/dev/pts/1/2", None),
        ] {
            assert_eq!(of_path(path.as_bytes()), expected, "{path}");
        }
    }
}
