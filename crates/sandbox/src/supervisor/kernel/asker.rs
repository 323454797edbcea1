//! The process that waits for an answer: its memory, who it is.
//!
//! Everything that it says may be a lie, and may change while it is looked at: it is read once.
//! Nothing is opened for it with more power than it has itself: where its numbers are others than
//! the supervisor's, the thread takes them on for as long as that lasts.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Kernel;
use super::calls::Call;
use crate::supervisor::process::string_at;
use crate::sys::notify::{self, Notification};

/// Who a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// The number of its first thread.
    pub(super) process: u32,
    /// The numbers of its user: real, effective, saved, for files.
    pub(super) users: [u32; 4],
    /// The numbers of its group, likewise.
    pub(super) groups: [u32; 4],
    /// Its supplementary groups.
    pub(super) others: Vec<u32>,
    /// The capabilities that are in effect.
    pub(super) capabilities: u64,
}

impl Identity {
    /// Reads what `/proc` tells of a process or thread to everybody.
    pub(super) fn parse(status: &str) -> Option<Self> {
        let values = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.split_whitespace().map_while(|word| word.parse().ok()).collect::<Vec<u32>>())
        };
        Some(Self {
            process: *values("Tgid:")?.first()?,
            users: values("Uid:")?.try_into().ok()?,
            groups: values("Gid:")?.try_into().ok()?,
            others: values("Groups:").unwrap_or_default(),
            capabilities: capabilities(status).unwrap_or_default(),
        })
    }

    /// The numbers that files are opened with.
    pub(super) fn of_files(&self) -> (u32, u32) {
        (self.users[3], self.groups[3])
    }

    pub(super) fn is_root(&self) -> bool {
        self.users[3] == 0
    }

    /// Whether it may do what docker's root may and no root here: not one that has given up all.
    pub(super) fn is_capable(&self) -> bool {
        self.is_root() && self.capabilities != 0
    }
}

fn capabilities(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

/// A process that waits.
pub(super) struct Asker<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) notification: Notification,
    pub(super) call: Call,
    is_32_bit: bool,
    identity: OnceCell<Identity>,
}

impl<'a> Asker<'a> {
    pub(super) fn new(
        kernel: &'a Kernel,
        notification: Notification,
        (call, is_32_bit): (Call, bool),
    ) -> Self {
        Self { kernel, notification, call, is_32_bit, identity: OnceCell::new() }
    }

    /// An argument as an address or a long number.
    pub(super) fn long(&self, at: usize) -> u64 {
        let argument = self.notification.args[at];
        if self.is_32_bit { argument & u64::from(u32::MAX) } else { argument }
    }

    /// An argument as a number of 32 bits, of which the kernel ignores the upper half.
    pub(super) fn int(&self, at: usize) -> u32 {
        self.notification.args[at] as u32
    }

    /// Whether it still waits. If not, its number may be that of another process.
    pub(super) fn is_waiting(&self) -> bool {
        notify::is_valid(self.kernel.listener.as_fd(), self.notification.id)
    }

    /// Who it is.
    pub(super) fn identity(&self) -> Result<&Identity> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let thread = self.notification.thread;
        let status = self.kernel.read(self.kernel.proc.as_fd(), &format!("{thread}/status"))?;
        let identity = Identity::parse(&status).ok_or(Errno::IO)?;
        if !self.is_waiting() {
            return Err(Errno::SRCH);
        }
        Ok(self.identity.get_or_init(|| identity))
    }

    /// The bits that files it makes do not get.
    pub(super) fn umask(&self) -> Result<u32> {
        let thread = self.notification.thread;
        let status = self.kernel.read(self.kernel.proc.as_fd(), &format!("{thread}/status"))?;
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        u32::from_str_radix(umask.ok_or(Errno::IO)?.trim(), 8).map_err(|_| Errno::IO)
    }

    /// Does something with files as the process.
    pub(super) fn as_itself<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let (uid, gid) = self.identity()?.of_files();
        as_user(self.kernel, uid, gid, act)
    }

    /// A number for which `/proc` has something of its own, as a directory to look in.
    pub(super) fn own_link(&self, what: &str) -> Result<Vec<u8>> {
        let place = format!("{}/{what}", self.notification.thread);
        let read = || rustix::fs::readlinkat(&self.kernel.proc, &place, Vec::new());
        let text = match read() {
            Err(Errno::ACCESS | Errno::PERM) => self.as_itself(read)?,
            result => result?,
        };
        Ok(text.into_bytes())
    }

    fn read_all(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        let count = match notify::read_memory(self.notification.thread, address, bytes) {
            Err(Errno::PERM) => {
                let memory = self.memory(OFlags::RDONLY)?;
                rustix::io::pread(&memory, &mut *bytes, address)?
            }
            result => result?,
        };
        if count == bytes.len() { Ok(()) } else { Err(Errno::FAULT) }
    }

    /// The memory of a process whose user is another one.
    fn memory(&self, access: OFlags) -> Result<OwnedFd> {
        let place = format!("{}/mem", self.notification.thread);
        let flags = access | OFlags::CLOEXEC;
        self.as_itself(|| rustix::fs::openat(&self.kernel.proc, &place, flags, Mode::empty()))
    }

    /// Reads so many bytes of its memory.
    pub(super) fn bytes<const N: usize>(&self, address: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_all(address, &mut bytes).map(|()| bytes)
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
        match notify::write_memory(self.notification.thread, address, bytes) {
            Err(Errno::PERM) => {
                let memory = self.memory(OFlags::RDWR)?;
                match rustix::io::pwrite(&memory, bytes, address)? {
                    count if count == bytes.len() => Ok(()),
                    _ => Err(Errno::FAULT),
                }
            }
            result => result,
        }
    }
}

/// Does something with files as a user, and as oneself again afterwards.
pub(super) fn as_user<T>(
    kernel: &Kernel,
    uid: u32,
    gid: u32,
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if (uid, gid) == kernel.own {
        return act();
    }
    if !kernel.may_be_others {
        return Err(Errno::PERM);
    }
    notify::act_on_files_as(uid, gid);
    let result = act();
    notify::act_on_files_as(kernel.own.0, kernel.own.1);
    result
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn who_a_process_is_stands_in_its_status() {
        let status =
            "Name:\tUid: 0\nTgid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let identity = Identity::parse(status).unwrap();
        assert_eq!((identity.process, identity.of_files()), (7, (4, 8)));
        assert_eq!(identity.others, [9, 10]);
        assert_eq!(Identity::parse("Tgid:\t7\nUid:\t1\t2\n"), None);
        let root = "Tgid:\t7\nUid:\t1\t2\t3\t0\nGid:\t0\t0\t0\t0\nGroups:\t\n";
        let identity = Identity::parse(root).unwrap();
        assert!(identity.is_root() && !identity.is_capable());
        let root = format!("{root}CapEff:\t00000000a80425fb\n");
        assert!(Identity::parse(&root).unwrap().is_capable());
    }
}
