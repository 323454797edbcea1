//! Listing directories: what stands for a device is listed as one.

use std::os::fd::{AsFd, OwnedFd};

use formwork_fs::device_stand_in;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Outcome;
use super::permissions::is_a_kernels;
use super::place::{Found, device_type};
use super::process::Caller;
use crate::sys::notify;

/// The most that is listed at once; C libraries ask for 32 KiB.
pub(super) const MOST: usize = 1 << 16;
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

/// Makes devices of what stands for them in a list of a directory; returns whether there are any.
pub(super) fn tell_of_devices(directory: &OwnedFd, list: &mut [u8]) -> bool {
    let mut has_devices = false;
    for entry in sockets(list) {
        let name = &list[entry + NAME..];
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
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
