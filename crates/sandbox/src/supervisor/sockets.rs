//! Sockets that have paths: connecting takes a right to the file, and making one gives it an owner.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags};

use super::Outcome;
use super::calls::{Call, Meaning};
use super::files::new_record;
use super::permissions::WRITE;
use super::process::Caller;
use crate::sys::notify;

/// `SYS_BIND`, `SYS_CONNECT`, `SYS_GETSOCKOPT` of `socketcall`.
const BIND: u32 = 2;
const CONNECT: u32 = 3;
const GET_OPTION: u32 = 15;
/// The longest address of a socket with a path (`struct sockaddr_un`).
const LONGEST_ADDRESS: usize = 110;

impl Caller<'_> {
    /// A call for sockets whose arguments are in memory.
    pub(super) fn for_sockets(&self) -> Result<Outcome> {
        let call = match self.int(0) {
            BIND => Call::Bind,
            CONNECT => Call::Connect,
            GET_OPTION => Call::Peer,
            _ => return Ok(Outcome::Continue),
        };
        // Two of them have three arguments, behind which there may be nothing.
        let count = if call == Call::Peer { 5 } else { 3 };
        let mut bytes = [0; 20];
        self.read_all(self.long(1), &mut bytes[..4 * count])?;
        let mut notification = self.notification;
        for (argument, bytes) in notification.args.iter_mut().zip(bytes.chunks_exact(4)) {
            *argument = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        }
        if call == Call::Peer && notification.args[2] as i32 != libc::SO_PEERCRED {
            return Ok(Outcome::Continue);
        }
        Caller { notification, meaning: Meaning { call, ..self.meaning }, ..*self }.outcome()
    }

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

    /// Who is at the other end, which is what services trust: who that process is now. Of others than
    /// processes of the sandbox, the kernel tells.
    pub(super) fn peer(&self) -> Result<Outcome> {
        if self.int(1) != libc::SOL_SOCKET as u32 {
            return Ok(Outcome::Continue);
        }
        let process = notify::peer(self.take(self.int(0) as i32)?.as_fd())?;
        let (own, peers) = (self.numbers(self.notification.thread)?, self.numbers(process)?);
        let Some(number) = peers.last().filter(|_| own.len() == peers.len()) else {
            return Ok(Outcome::Continue);
        };
        let who = self.credentials_of(process)?;
        let length: [u8; 4] = self.read(self.long(4))?;
        let told = [*number, who.users.effective, who.groups.effective].map(u32::to_le_bytes);
        let told = told.concat();
        let length = told.len().min(usize::try_from(u32::from_le_bytes(length)).unwrap_or(0));
        self.write(self.long(3), &told[..length])?;
        self.write(self.long(4), &(length as u32).to_le_bytes())?;
        Ok(Outcome::Value(0))
    }

    /// A descriptor of its own, shared.
    pub(super) fn take(&self, descriptor: i32) -> Result<OwnedFd> {
        let open = |number: u32| {
            let pid = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
            rustix::process::pidfd_open(pid, PidfdFlags::empty())
        };
        // Threads share what they have open, and only the first of them is known by its number.
        let process = match open(self.notification.thread) {
            Err(Errno::INVAL | Errno::NOENT) => open(self.first_thread()?)?,
            process => process?,
        };
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
