//! Listing directories: what stands for a device is listed as one.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use formwork_fs::device_stand_in;
use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::permissions::is_a_kernels;
use super::place::{Found, device_type};
use super::process::Caller;
use crate::sys::notify;

/// The most that is listed at once; C libraries ask for 32 KiB.
const MOST: usize = 1 << 16;
/// Where an entry has its length, its kind and its name (`struct linux_dirent64`).
const LENGTH: usize = 16;
const KIND: usize = 18;
const NAME: usize = 19;
/// How kinds of files in a mode and in a list go together.
const TYPE_SHIFT: u32 = 12;

impl Caller<'_> {
    /// The next entries of a directory. It is the process's own that goes on, so the list is taken
    /// here and told as a whole.
    pub(super) fn list(&self) -> Result<Outcome> {
        let size = usize::try_from(self.int(2)).unwrap_or(MOST).min(MOST);
        let directory = self.take(self.int(0) as i32)?;
        if rustix::fs::fstatfs(&directory).map_or(true, |known| is_a_kernels(&known)) {
            // What it lists there depends on who asks, and is no device.
            return Ok(Outcome::Continue);
        }
        let mut list = vec![0; size];
        let length = match notify::list_directory(directory.as_fd(), &mut list) {
            Ok(length) => length,
            Err(errno) => return Ok(Outcome::Error(errno)),
        };
        let list = &mut list[..length];
        tell_of_devices(&directory, list);
        if list.is_empty() {
            return Ok(Outcome::Value(0));
        }
        match self.write(self.long(1), list) {
            Err(Errno::SRCH) => Err(Errno::SRCH),
            Err(errno) => Ok(Outcome::Error(errno)),
            Ok(()) => Ok(Outcome::Value(list.len() as i64)),
        }
    }
}

/// What comes next in a directory that has devices.
pub(super) struct Next {
    /// The directory once more, as far as it has been listed then.
    pub(super) directory: OwnedFd,
    /// Whether it ends with the next program.
    pub(super) closes: bool,
    pub(super) list: Vec<u8>,
}

impl Next {
    /// Lists a directory, where nobody can take the descriptor of the process, without going on with
    /// its own; `info` is what `/proc` tells of that. `None` where the kernel's list is as good.
    pub(super) fn of(
        info: &str,
        open: impl FnOnce(OFlags) -> Result<OwnedFd>,
        size: u32,
    ) -> Result<Option<Self>> {
        let value = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).ok_or(Errno::IO)
        };
        let flags = u32::from_str_radix(value("flags:")?, 8).map_err(|_| Errno::IO)?;
        let flags = OFlags::from_bits_retain(flags) & (OFlags::CLOEXEC | OFlags::NONBLOCK);
        let position = value("pos:")?.parse().map_err(|_| Errno::IO)?;
        let directory = open(flags | OFlags::DIRECTORY)?;
        rustix::fs::seek(&directory, SeekFrom::Start(position))?;
        let mut list = vec![0; usize::try_from(size).unwrap_or(MOST).min(MOST)];
        let length = notify::list_directory(directory.as_fd(), &mut list)?;
        list.truncate(length);
        let has_devices = tell_of_devices(&directory, &mut list);
        let closes = flags.contains(OFlags::CLOEXEC);
        Ok(has_devices.then_some(Self { directory, closes, list }))
    }

    /// Gives the process that waits the directory in the place of its own, which would begin again.
    pub(super) fn answer(
        &self,
        listener: BorrowedFd<'_>,
        id: u64,
        descriptor: u32,
    ) -> Result<Outcome> {
        let place = (descriptor, self.closes);
        notify::replace_descriptor(listener, id, self.directory.as_fd(), place)?;
        Ok(Outcome::Value(i64::try_from(self.list.len()).unwrap_or_default()))
    }
}

/// Makes devices of what stands for them in a list of a directory; returns whether there are any.
fn tell_of_devices(directory: &OwnedFd, list: &mut [u8]) -> bool {
    let mut has_devices = false;
    for entry in sockets(list) {
        let name = &list[entry + NAME..];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        // Most files are not even looked at, where it is files that stand for devices.
        let known = rustix::fs::statat(directory, &name[..end], AtFlags::SYMLINK_NOFOLLOW);
        if known.is_ok_and(|known| known.st_size != 0) {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, &name[..end], flags, Mode::empty());
        let record = file.and_then(|file| Found::open(file).record(device_stand_in().into()));
        if let Ok(Some((block, ..))) = record.map(|record| record.and_then(|it| it.device)) {
            list[entry + KIND] = (device_type(block) >> TYPE_SHIFT) as u8;
            has_devices = true;
        }
    }
    has_devices
}

/// Where in a list the entries begin that may stand for devices.
fn sockets(list: &[u8]) -> Vec<usize> {
    let socket = (device_stand_in().as_raw_mode() >> TYPE_SHIFT) as u8;
    let mut found = Vec::new();
    let mut at = 0;
    while let Some([low, high, kind]) = list.get(at + LENGTH..at + NAME) {
        if *kind == socket {
            found.push(at);
        }
        at += usize::from(u16::from_le_bytes([*low, *high])).max(NAME);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::sockets;

    #[test]
    fn entries_are_found_by_their_lengths() {
        let entry = |length: u8, kind: u8| {
            let mut bytes = vec![0; length.into()];
            (bytes[16], bytes[18]) = (length, kind);
            bytes
        };
        let list = [entry(24, 8), entry(32, 12), entry(24, 4), entry(24, 12)].concat();
        assert_eq!(sockets(&list), [24, 80]);
        assert_eq!(sockets(&list[..70]), [24]);
        assert_eq!(sockets(&[]), [0; 0]);
    }
}
