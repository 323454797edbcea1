//! Files that are in memory alone, such as secrets, and the container's devices: an empty file in the
//! tree stands for each.

use std::ffi::CString;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use formwork_fs::{FileKind, Record};
use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, ResolveFlags, SealFlags};
use rustix::io::{Errno, Result};

use super::Inside;
use crate::supervisor::place::Found;
use crate::{MountKind, MountPoint, USUAL_DEVICES};

/// A file that is shown.
pub(super) struct Shown {
    /// Which file stands for it: its device and number.
    stub: [u64; 2],
    file: OwnedFd,
}

impl Shown {
    pub(super) fn new(root: &OwnedFd, point: &MountPoint) -> Result<Self> {
        let MountKind::File { data, mode, uid, gid, .. } = &point.kind else {
            return Err(Errno::INVAL);
        };
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let path = CString::new(point.target.as_bytes()).map_err(|_| Errno::INVAL)?;
        let stub = rustix::fs::openat2(root, &*path, flags, Mode::empty(), resolve)?;
        let stub = rustix::fs::statat(&stub, "", AtFlags::EMPTY_PATH)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = std::fs::File::from(rustix::fs::memfd_create("file", flags)?);
        file.write_all(&data.0).and_then(|()| file.rewind()).map_err(|_| Errno::NOSPC)?;
        let record = Record { uid: *uid, gid: *gid, ..Record::default() };
        // A file system in memory before Linux 6.6 keeps none: then it is root's.
        let _ = formwork_fs::write_record(file.as_fd(), FileKind::Regular, &record);
        let _ = formwork_fs::give_mode(file.as_fd(), FileKind::Regular, mode & 0o7777);
        let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { stub: [stub.st_dev, stub.st_ino], file: file.into() })
    }
}

/// The devices that every process has: what stands for each, and its path in the container.
pub(super) fn devices(root: &OwnedFd) -> Vec<([u64; 2], String)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let find = |(name, ..): &(&str, u32, u32)| {
        let path = format!("dev/{name}");
        let file = rustix::fs::openat2(root, &*path, flags, Mode::empty(), resolve).ok()?;
        let stat = rustix::fs::fstat(&file).ok()?;
        Some(([stat.st_dev, stat.st_ino], format!("/{path}")))
    };
    USUAL_DEVICES.iter().filter_map(find).collect()
}

impl Inside {
    /// The device of the container's for which a file stands; nobody uses those that steps make.
    pub(super) fn device_for(&self, identity: [u64; 2]) -> Option<String> {
        let device = self.devices.iter().find(|(stands_for, _)| *stands_for == identity)?;
        Some(device.1.clone())
    }

    /// The file in memory for which one in the tree stands.
    pub(super) fn shown_for(&self, identity: [u64; 2]) -> Option<Found> {
        let shown = self.shown.iter().find(|shown| shown.stub == identity)?;
        Some(Found::at(format!("self/fd/{}", shown.file.as_raw_fd())))
    }
}
