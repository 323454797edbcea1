//! The emulator of a sandbox for another machine's programs.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::emulation::Emulator;

/// Registers an emulator for this user namespace, as long as the result is held; it is mounted
/// nowhere, so nobody inside can see or change it.
pub(super) fn register(emulator: &Emulator) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let register = rustix::fs::openat(&mount, "register", flags, Mode::empty())?;
    let written = rustix::io::write(&register, &emulator.registration)?;
    if written == emulator.registration.len() { Ok(mount) } else { Err(Errno::INVAL) }
}
