//! The process that waits for an answer: its arguments, its memory, who it is.
//!
//! Everything that it says may be a lie, and may change while it is looked at: it is read once.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Session;
use super::calls::Meaning;
use super::credentials::Credentials;
use crate::sys::notify::{self, Notification};

/// The longest path (`PATH_MAX`), with its end.
const LONGEST_PATH: usize = 4096;
/// The smallest pages that memory comes in: what is not there begins with one.
const PAGE: u64 = 4096;

/// A process that waits.
pub(super) struct Caller<'a> {
    pub(super) session: &'a Session,
    pub(super) notification: Notification,
    pub(super) meaning: Meaning,
}

impl Caller<'_> {
    /// An argument as an address or a long number.
    pub(super) fn long(&self, at: usize) -> u64 {
        let argument = self.notification.args[at];
        if self.meaning.is_32_bit { argument & u64::from(u32::MAX) } else { argument }
    }

    /// An argument as a number of 32 bits, of which the kernel ignores the upper half.
    pub(super) fn int(&self, at: usize) -> u32 {
        self.notification.args[at] as u32
    }

    /// An argument as the number of a user or group; `u32::MAX` stands for none.
    pub(super) fn id(&self, at: usize) -> u32 {
        match self.int(at) & 0xffff {
            0xffff if self.meaning.has_short_ids => u32::MAX,
            short if self.meaning.has_short_ids => short,
            _ => self.int(at),
        }
    }

    /// Whether it still waits. If not, its number may be that of another process.
    pub(super) fn is_waiting(&self) -> bool {
        // One that stands still for its tracer waits for no answer.
        self.notification.id == 0
            || notify::is_valid(self.session.listener.as_fd(), self.notification.id)
    }

    /// Reads its memory.
    pub(super) fn read<const N: usize>(&self, address: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_all(address, &mut bytes).map(|()| bytes)
    }

    pub(super) fn read_all(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        match notify::read_memory(self.notification.thread, address, bytes)? {
            count if count == bytes.len() => Ok(()),
            _ => Err(Errno::FAULT),
        }
    }

    /// Reads a string, which ends with a zero.
    pub(super) fn string(&self, address: u64) -> Result<CString> {
        string_at(address, |at, piece| self.read_all(at, piece))
    }

    /// Writes to its memory.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        notify::write_memory(self.notification.thread, address, bytes)
    }

    /// The place of something of its own in `/proc`, from there.
    pub(super) fn own(&self, what: &str) -> String {
        format!("{}/{what}", self.notification.thread)
    }

    /// Who it is.
    pub(super) fn credentials(&self) -> Result<Arc<Credentials>> {
        if let Some(only) = self.session.sets.only() {
            return Ok(only);
        }
        self.credentials_of(self.notification.thread)
    }

    /// Who a process of the sandbox is.
    pub(super) fn credentials_of(&self, process: u32) -> Result<Arc<Credentials>> {
        let [number, _] = notify::carried_limit(process)?;
        Ok(self.session.sets.get(number))
    }

    /// Makes it somebody else.
    pub(super) fn become_other(&self, credentials: &Credentials) -> Result<()> {
        let number = self.session.sets.number(credentials)?;
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        let [_, most] = notify::carried_limit(self.notification.thread)?;
        notify::carry_limit(self.notification.thread, [number.min(most), most])
    }

    /// The bits that files it makes do not get.
    pub(super) fn umask(&self) -> Result<u32> {
        let umask = self.status("Umask:")?;
        u32::from_str_radix(&umask, 8).map_err(|_| Errno::IO)
    }

    /// Whether programs lend it nothing (`no_new_privs`).
    pub(super) fn has_no_new_privileges(&self) -> Result<bool> {
        Ok(self.status("NoNewPrivs:")? != "0")
    }

    /// The numbers that a process has, by which namespaces know it, from the supervisor's own inwards.
    pub(super) fn numbers(&self, process: u32) -> Result<Vec<u32>> {
        let text = status_of(process, "NSpid:")?;
        text.split_whitespace().map(|number| number.parse().map_err(|_| Errno::IO)).collect()
    }

    /// The first thread of its process.
    pub(super) fn first_thread(&self) -> Result<u32> {
        self.status("Tgid:")?.parse().map_err(|_| Errno::IO)
    }

    /// A value that `/proc` tells of it.
    pub(super) fn status(&self, name: &str) -> Result<String> {
        status_of(self.notification.thread, name)
    }
}

/// A value that `/proc` tells of a process.
fn status_of(process: u32, name: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, format!("{process}/status"), flags, Mode::empty())?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).map_err(|_| Errno::IO)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or(Errno::IO)?;
    Ok(line.trim().to_owned())
}

/// Reads a string, which ends with a zero, from the memory of a process by pieces.
pub(super) fn string_at(
    address: u64,
    read: impl Fn(u64, &mut [u8]) -> Result<()>,
) -> Result<CString> {
    let mut text = Vec::new();
    while text.len() < LONGEST_PATH {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        // Behind the end of the page there may be nothing.
        let mut piece = [0; 256];
        let length = usize::try_from(PAGE - at % PAGE).unwrap_or(piece.len());
        let length = length.min(piece.len());
        let piece = &mut piece[..length];
        read(at, piece)?;
        match piece.iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                return CString::new(text).map_err(|_| Errno::INVAL);
            }
            None => text.extend_from_slice(piece),
        }
    }
    Err(Errno::NAMETOOLONG)
}
