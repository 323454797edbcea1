//! Sockets that have paths: connecting takes a right to the file, and making one gives it an owner.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags};

use super::Outcome;
use super::files::new_record;
use super::permissions::WRITE;
use super::process::Caller;
use crate::sys::notify;

/// The longest address of a socket with a path (`struct sockaddr_un`).
const LONGEST_ADDRESS: usize = 110;

impl Caller<'_> {
    /// Connecting to a socket takes the right to write to its file.
    pub(super) fn connect(&self) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.may_ignore_modes() {
            return Ok(Outcome::Continue);
        }
        let Some((path, _)) = self.path_of_socket()? else { return Ok(Outcome::Continue) };
        let found = self.find_path(libc::AT_FDCWD, &path, true)?;
        let may = self.may(&who, &found, WRITE)? && self.may_go(&who, libc::AT_FDCWD, &path)?;
        Ok(if may { Outcome::Continue } else { Outcome::Error(Errno::ACCESS) })
    }

    /// Naming a socket makes a file, which belongs to whoever does it.
    pub(super) fn bind(&self) -> Result<Outcome> {
        let who = self.credentials()?;
        if who.is_plain_root() {
            return Ok(Outcome::Continue);
        }
        let Some((path, address)) = self.path_of_socket()? else { return Ok(Outcome::Continue) };
        let entry = self.entry_of(libc::AT_FDCWD, &path)?;
        if !self.may_change(&who, &entry, None)? {
            return Ok(Outcome::Error(Errno::ACCESS));
        }
        let group = self.inherited_group(&entry)?;
        let socket = self.take(self.int(0) as i32)?;
        let umask = Mode::from_raw_mode(self.umask()?);
        self.make_with(&entry, &new_record(&who, group), |_| {
            // The path becomes the socket's name, so it has to be the very same from the same place.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let from = rustix::fs::openat(CWD, self.own("cwd"), flags, Mode::empty())?;
            let proc = rustix::fs::openat(CWD, ".", flags, Mode::empty())?;
            rustix::process::fchdir(&from)?;
            rustix::process::umask(umask);
            let bound = notify::bind(socket.as_fd(), &address);
            rustix::process::umask(Mode::empty());
            rustix::process::fchdir(&proc).and(bound)
        })
    }

    /// A descriptor of its own, shared.
    fn take(&self, descriptor: i32) -> Result<OwnedFd> {
        let pid = i32::try_from(self.notification.thread).ok().and_then(Pid::from_raw);
        let process = rustix::process::pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
        let descriptor = descriptor as ForeignRawFd;
        rustix::process::pidfd_getfd(process, descriptor, PidfdGetfdFlags::empty())
    }

    /// The path in the address that a call names, and the address.
    fn path_of_socket(&self) -> Result<Option<(CString, Vec<u8>)>> {
        let length = usize::try_from(self.int(2)).unwrap_or(usize::MAX).min(LONGEST_ADDRESS);
        let mut address = vec![0; length];
        self.read_all(self.long(1), &mut address)?;
        let path = match &address[..] {
            // Of its own kind, with a name that is a path.
            [1, 0, path @ ..] if path.first().is_some_and(|byte| *byte != 0) => {
                path.split(|byte| *byte == 0).next().unwrap_or_default()
            }
            _ => return Ok(None),
        };
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        Ok(Some((path, address)))
    }
}
