//! Machines that give an ordinary user a user namespace, and no power in it.
//!
//! AppArmor does so on Ubuntu since 24.04, and its profile for docker's containers forbids to mount
//! anything. Nobody comes back from a user namespace, so it is tried in a child before; only where
//! something confines this process at all, since it takes half a millisecond.

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use crate::sys::{self, Fork};
use crate::{OsError, wire};

/// Whether a process that has made a user namespace may mount something there. A namespace that
/// cannot be made is somebody else's to tell.
pub(crate) fn namespaces_give_power() -> Result<(), OsError> {
    if Confinement::of_this_process().is_none() {
        return Ok(());
    }
    let (ours, theirs) = wire::channel()?;
    match sys::fork(0)? {
        Fork::Child => {
            drop(ours);
            let result: Result<(), OsError> = try_mounting().map_err(OsError::from);
            let _ = wire::send(std::os::fd::AsFd::as_fd(&theirs), &result);
            sys::exit(0)
        }
        Fork::Parent(pid, _) => {
            drop(theirs);
            let answer = wire::receive(std::os::fd::AsFd::as_fd(&ours));
            let _ = sys::wait(Some(pid), true);
            answer?.unwrap_or(Ok(()))
        }
    }
}

fn try_mounting() -> rustix::io::Result<()> {
    if sys::unshare(UnshareFlags::NEWUSER).is_err() {
        return Ok(());
    }
    sys::unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    match rustix::mount::mount_change("/", private) {
        // In a chroot, `/` may be no mount.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    rustix::mount::mount("none", "/proc", "tmpfs", MountFlags::empty(), None)
}

/// What confines this process, beside its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Confinement {
    /// A sysctl of AppArmor's takes power from user namespaces.
    RestrictedNamespaces,
    /// A profile of a security module.
    Profile(String),
    /// A filter of system calls.
    Filter,
}

impl Confinement {
    /// The strongest one that can be seen.
    pub(crate) fn of_this_process() -> Option<Self> {
        let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
        if read(RESTRICTION).trim() == "1" {
            return Some(Self::RestrictedNamespaces);
        }
        let profile = read("/proc/self/attr/current");
        let profile = profile.trim_matches(['\0', '\n']);
        if !profile.is_empty() && !profile.starts_with("unconfined") && profile != "kernel" {
            return Some(Self::Profile(profile.to_owned()));
        }
        let status = read("/proc/self/status");
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        mode.is_some_and(|mode| mode.trim() == "2").then_some(Self::Filter)
    }
}

/// Set on Ubuntu.
const RESTRICTION: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
