//! What a process may do to others, and what it is told of its own powers.

use rustix::io::{Errno, Result};

use super::Inside;
use super::carry::DONE;
use super::kernels::is_ours;
use crate::seccomp::CAPABILITIES;
use crate::supervisor::Outcome;
use crate::supervisor::process::Caller;
use crate::sys::trace::{self, Argument};

/// `PR_GET_DUMPABLE`, `PR_SET_DUMPABLE`, `PR_GET_KEEPCAPS`, `PR_SET_KEEPCAPS`, `PR_CAPBSET_READ`,
/// `PR_CAPBSET_DROP`, `PR_SET_MM`, `PR_CAP_AMBIENT`.
const GET_DUMPABLE: u32 = 3;
const SET_DUMPABLE: u32 = 4;
const GET_KEEP: u32 = 7;
const SET_KEEP: u32 = 8;
const READ_BOUND: u32 = 23;
const DROP_BOUND: u32 = 24;
const SET_MEMORY: u32 = 35;
const AMBIENT: u32 = 47;
/// The last capability that is known.
const LAST_CAPABILITY: u64 = 40;
/// `SO_PEERCRED`.
const PEER: u32 = 17;

impl Caller<'_> {
    /// A call about a process, which the kernel carries out if that is one of the step's.
    pub(super) fn about_process(&self, at: usize) -> Result<Outcome> {
        let process = self.int(at);
        if process == 0 || process == self.notification.thread || is_ours(process) {
            return Ok(Outcome::Continue);
        }
        Err(Errno::SRCH)
    }

    /// A change of priorities, which concerns processes, groups or users.
    pub(super) fn priority(&self, first: u32) -> Result<Outcome> {
        let (kind, whose) = (self.int(0).wrapping_sub(first), self.int(1));
        match kind {
            0 => self.about_process(1),
            1 if whose == 0 || self.has_group(whose as i32) => Ok(Outcome::Continue),
            1 => Err(Errno::SRCH),
            2 => Err(Errno::PERM),
            _ => Err(Errno::INVAL),
        }
    }

    pub(super) fn signal(&self) -> Result<Outcome> {
        let target = self.int(0) as i32;
        match target {
            0 => Ok(Outcome::Continue),
            1.. if is_ours(target as u32) => Ok(Outcome::Continue),
            // A group, whose first process may have ended.
            ..-1 if self.has_group(-target) => Ok(Outcome::Continue),
            -1 => Err(Errno::PERM),
            _ => Err(Errno::SRCH),
        }
    }

    /// Whether a group of processes is the step's: groups do not reach beyond their session.
    fn has_group(&self, group: i32) -> bool {
        if is_ours(group.unsigned_abs()) {
            return true;
        }
        let Ok(entries) = fs_err::read_dir("/proc") else { return false };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let of_group = names.filter(|name| {
            let text = fs_err::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
            let fields = text.rsplit_once(") ").map(|(_, fields)| fields.to_owned());
            fields.and_then(|fields| fields.split(' ').nth(2)?.parse().ok()) == Some(group)
        });
        let mut members = of_group.filter_map(|name| name.parse().ok()).peekable();
        members.peek().is_some() && members.all(is_ours)
    }

    /// `uname`, with the name that the step's host has.
    pub(super) fn host_name(&self, inside: &Inside) -> Result<Outcome> {
        // Six names of 65 bytes; the second is that of the host.
        const LENGTH: usize = 65;
        let mut names = [0; 6 * LENGTH];
        trace::call(libc::SYS_uname, &mut [Argument::Into(&mut names)])?;
        let own = inside.hostname.as_bytes();
        if !own.is_empty() && own.len() < LENGTH {
            let name = &mut names[LENGTH..2 * LENGTH];
            name.fill(0);
            name[..own.len()].copy_from_slice(own);
        }
        self.write(self.long(0), &names)?;
        Ok(DONE)
    }

    /// `prctl`.
    pub(super) fn control(&self) -> Result<Outcome> {
        match self.int(0) {
            GET_KEEP | SET_KEEP => self.keep_capabilities(),
            // The supervisor has to see the memory of every process.
            SET_DUMPABLE => Ok(DONE),
            GET_DUMPABLE => Ok(Outcome::Value(1)),
            READ_BOUND if self.long(1) <= LAST_CAPABILITY => {
                Ok(Outcome::Value((CAPABILITIES >> self.long(1) & 1) as i64))
            }
            DROP_BOUND if self.long(1) <= LAST_CAPABILITY => {
                if self.credentials()?.is_capable {
                    Ok(DONE)
                } else {
                    Err(Errno::PERM)
                }
            }
            READ_BOUND | DROP_BOUND => Err(Errno::INVAL),
            AMBIENT if self.long(1) == 4 => Ok(DONE),
            AMBIENT | SET_MEMORY => Err(Errno::PERM),
            _ => Ok(Outcome::Continue),
        }
    }

    /// Who is at the other end of a socket: somebody of the step, who is root as far as is known.
    pub(super) fn peer_traced(&self) -> Result<Outcome> {
        const SOCKET_LEVEL: u32 = 1;
        if self.int(1) != SOCKET_LEVEL || self.int(2) != PEER {
            return Ok(Outcome::Continue);
        }
        let length: [u8; 4] = self.read(self.long(4))?;
        if u32::from_ne_bytes(length) < 12 {
            return Ok(Outcome::Continue);
        }
        let who = self.credentials()?;
        let ids = [self.notification.thread, who.users.effective, who.groups.effective];
        self.write(self.long(3), &ids.map(u32::to_ne_bytes).concat())?;
        self.write(self.long(4), &12_u32.to_ne_bytes())?;
        Ok(DONE)
    }
}
