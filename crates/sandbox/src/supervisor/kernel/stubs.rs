//! Directories of `/proc` that a process may hold: they are the tree's own.
//!
//! No directory of the machine's `/proc` is ever given to a process, since from there it could go
//! on by itself. What it gets is a directory of its own tree, in the place that the path says, with
//! empty files of the right names. So wherever it goes from there, it is in its tree, and asks.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::PoisonError;

use formwork_fs::{RootDir, remove_tree};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Kernel;

/// What links say that only the supervisor can follow.
const NOWHERE: &str = "nowhere";

impl Kernel {
    /// The directory of the tree that stands for one of `/proc`, with these entries.
    pub(super) fn stand_in(
        &self,
        words: &[Vec<u8>],
        entries: &[(Vec<u8>, FileType)],
        flags: OFlags,
    ) -> Result<OwnedFd> {
        let _alone = self.stand_ins.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = open_directory(self.root_proc.as_fd(), b".", OFlags::RDONLY)?;
        for word in words {
            make_directory(at.as_fd(), word)?;
            at = open_directory(at.as_fd(), word, OFlags::RDONLY)?;
        }
        bring_to_date(&at, entries)?;
        open_directory(at.as_fd(), b".", flags)
    }
}

fn bring_to_date(directory: &OwnedFd, entries: &[(Vec<u8>, FileType)]) -> Result<()> {
    let mut there = Vec::new();
    for entry in Dir::read_from(directory)?.flatten() {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match entries.iter().any(|(wanted, kind)| wanted == name && *kind == entry.file_type()) {
            true => there.push(name.to_vec()),
            false => remove(directory, name)?,
        }
    }
    for (name, kind) in entries.iter().filter(|(name, _)| !there.contains(name)) {
        let made = match kind {
            FileType::Directory => make_directory(directory.as_fd(), name),
            FileType::Symlink => rustix::fs::symlinkat(NOWHERE, directory, &name[..]),
            _ => {
                let kind = FileType::RegularFile;
                rustix::fs::mknodat(directory, &name[..], kind, Mode::empty(), 0)
            }
        };
        match made {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn remove(directory: &OwnedFd, name: &[u8]) -> Result<()> {
    // From the working directory, which is the machine's `/proc`.
    let held =
        RootDir::open(format!("self/fd/{}", directory.as_raw_fd())).map_err(|_| Errno::IO)?;
    remove_tree(&held, name).map_err(|_| Errno::IO)
}

fn make_directory(at: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    // Removing one that cannot be written would take a `/proc`.
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn open_directory(at: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}
