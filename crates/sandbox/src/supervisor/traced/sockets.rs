//! Sockets with paths.
//!
//! Nobody may take a descriptor out of another process here, so sockets of this kind are made by the
//! supervisor, which keeps each until it is connected: then a path is bound or connected to by the
//! supervisor, in the socket's directory.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::Mode;
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::Inside;
use super::carry::DONE;
use super::paths::{read_link, text};
use crate::supervisor::Outcome;
use crate::supervisor::files::new_record;
use crate::supervisor::permissions::WRITE;
use crate::supervisor::place::Found;
use crate::supervisor::process::Caller;
use formwork_fs::FileKind;

/// The longest address (`struct sockaddr_un`).
const LONGEST: usize = 110;
/// How many sockets are kept that nothing was done with yet.
const MOST: usize = 512;
/// What of a type says which it is.
const TYPE: u32 = 0xf;

/// The sockets that were made, by their names.
#[derive(Default)]
pub(super) struct Sockets(VecDeque<(Vec<u8>, OwnedFd)>);

impl Sockets {
    fn keep(&mut self, name: Vec<u8>, socket: OwnedFd) {
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back((name, socket));
    }

    fn get(&self, name: &[u8]) -> Option<OwnedFd> {
        let (_, socket) = self.0.iter().find(|(known, _)| known == name)?;
        rustix::io::fcntl_dupfd_cloexec(socket, 3).ok()
    }

    fn forget(&mut self, name: &[u8]) {
        self.0.retain(|(known, _)| known != name);
    }
}

/// Where an address leads.
enum Address {
    /// Not to a socket of this kind, or nowhere, or to an abstract one.
    Elsewhere,
    Path(std::ffi::CString),
}

impl Caller<'_> {
    pub(super) fn make_socket(&self, inside: &Inside) -> Result<Outcome> {
        let wanted = self.int(1);
        let flags = SocketFlags::from_bits_truncate(wanted);
        let kind = SocketType::from_raw(wanted & TYPE);
        if self.int(2) > 1 {
            return Err(Errno::PROTONOSUPPORT);
        }
        let flags = flags | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        let closes = wanted & libc::SOCK_CLOEXEC as u32 != 0;
        let name = read_link(&format!("self/fd/{}", socket.as_raw_fd()))?;
        let kept = rustix::io::fcntl_dupfd_cloexec(&socket, 3)?;
        inside.sockets().keep(name, kept);
        Ok(Outcome::Descriptor(socket, closes))
    }

    pub(super) fn bind_traced(&self, inside: &Inside) -> Result<Outcome> {
        let Address::Path(path) = self.address(1, 2)? else { return Ok(Outcome::Continue) };
        let (socket, name) = self.socket(inside)?;
        let who = self.credentials()?;
        let entry = self.entry_of(libc::AT_FDCWD, &path)?;
        if self.look_at(&entry).is_ok() {
            return Err(Errno::ADDRINUSE);
        }
        if !self.may_change(&who, &entry, None)? {
            return Err(Errno::ACCESS);
        }
        let mode = 0o777 & !self.umask()?;
        // Nobody but this process comes to the directory by this way, which is short.
        let way = format!("self/fd/{}/", entry.descriptor.as_raw_fd()).into_bytes();
        let way = text(&[&way[..], entry.name.to_bytes()].concat())?;
        let bound =
            SocketAddrUnix::new(&*way).and_then(|address| rustix::net::bind(&socket, &address));
        bound?;
        let made = self.look_at(&entry)?;
        let on_disk = Mode::from_raw_mode(mode | 0o600);
        rustix::fs::chmodat(rustix::fs::CWD, made.place(), on_disk, rustix::fs::AtFlags::empty())?;
        let record = new_record(&who, self.inherited_group(&entry)?);
        if !record.is_plain() {
            made.set_record(FileKind::Socket, &record)?;
        }
        let is_connected = rustix::net::sockopt::socket_type(&socket)? != SocketType::DGRAM;
        if is_connected {
            inside.sockets().forget(&name);
        }
        Ok(DONE)
    }

    pub(super) fn connect_traced(&self, inside: &Inside) -> Result<Outcome> {
        let Address::Path(path) = self.address(1, 2)? else { return Ok(Outcome::Continue) };
        let (socket, name) = self.socket(inside)?;
        let target = self.socket_at(&path)?;
        // It is this very socket, whatever the path leads to by now.
        let address = SocketAddrUnix::new(target.place())?;
        rustix::net::connect(&socket, &address)?;
        inside.sockets().forget(&name);
        Ok(DONE)
    }

    /// `sendto` with an address.
    pub(super) fn send_to(&self, inside: &Inside) -> Result<Outcome> {
        let Address::Path(path) = self.address(4, 5)? else { return Ok(Outcome::Continue) };
        let (socket, _) = self.socket(inside)?;
        let target = self.socket_at(&path)?;
        let address = SocketAddrUnix::new(target.place())?;
        let length = usize::try_from(self.long(2)).map_err(|_| Errno::INVAL)?;
        let mut message = vec![0; length.min(1 << 20)];
        self.read_all(self.long(1), &mut message)?;
        let flags = rustix::net::SendFlags::from_bits_retain(self.int(3))
            | rustix::net::SendFlags::NOSIGNAL;
        let sent = rustix::net::sendto(&socket, &message, flags, &address)?;
        Ok(Outcome::Value(sent as i64))
    }

    /// Whether a message goes to a socket with a path (`struct msghdr`).
    pub(super) fn goes_to_path(&self) -> Result<bool> {
        let header: [u8; 12] = self.read(self.long(1))?;
        let number =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte));
        let (address, length) = (number(&header[..8]), number(&header[8..]));
        if address == 0 || length < 3 {
            return Ok(false);
        }
        let start: [u8; 3] = self.read(address)?;
        Ok(start[..2] == [1, 0] && start[2] != 0)
    }

    fn address(&self, at: usize, length: usize) -> Result<Address> {
        let length = usize::try_from(self.int(length)).unwrap_or(usize::MAX).min(LONGEST);
        let mut address = vec![0; length];
        self.read_all(self.long(at), &mut address)?;
        let path = match &address[..] {
            [1, 0, path @ ..] if path.first().is_some_and(|byte| *byte != 0) => {
                path.split(|byte| *byte == 0).next().unwrap_or_default()
            }
            _ => return Ok(Address::Elsewhere),
        };
        Ok(Address::Path(text(path)?))
    }

    fn socket(&self, inside: &Inside) -> Result<(OwnedFd, Vec<u8>)> {
        let place = self.own(&format!("fd/{}", self.int(0) as i32));
        let name = read_link(&place).map_err(|_| Errno::BADF)?;
        let socket = inside.sockets().get(&name).ok_or(Errno::INVAL)?;
        Ok((socket, name))
    }

    fn socket_at(&self, path: &CStr) -> Result<Found> {
        let found = self.find_path(libc::AT_FDCWD, path, true)?;
        let may = self.may(&*self.credentials()?, &found, WRITE)?
            && self.may_go(&*self.credentials()?, libc::AT_FDCWD, path)?;
        if !may {
            return Err(Errno::ACCESS);
        }
        match found.examine()?.kind {
            FileKind::Socket => Ok(found),
            _ => Err(Errno::CONNREFUSED),
        }
    }
}
