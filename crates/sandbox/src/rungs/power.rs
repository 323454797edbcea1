//! Machines that give an ordinary user a user namespace, and no power in it.
//!
//! AppArmor does so on Ubuntu since 24.04, its profile for docker's containers forbids to mount
//! anything; podman's filter of system calls allows that and other things not; and who sees a masked
//! `/proc` may mount no other one. Nobody comes back from a user namespace, so it is tried in a child before; only where
//! something confines this process at all, since it takes half a millisecond.

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use crate::sys::{self, Fork};
use crate::{RootlessProblem, wire};

/// Whether a process that has made a user namespace may do there what sandboxes take. A namespace
/// that cannot be made is somebody else's to tell.
pub(crate) fn namespaces_give_power() -> Result<(), RootlessProblem> {
    let is_masked = proc_is_masked();
    if Confinement::of_this_process().is_none() && !is_masked {
        return Ok(());
    }
    let failed = |errno: Errno| RootlessProblem::UserNamespaces(errno.into());
    let (ours, theirs) = wire::channel().map_err(failed)?;
    match sys::fork(0).map_err(failed)? {
        Fork::Child => {
            drop(ours);
            let result = try_powers(is_masked);
            let _ = wire::send(std::os::fd::AsFd::as_fd(&theirs), &result);
            sys::exit(0)
        }
        Fork::Parent(pid, _) => {
            drop(theirs);
            let answer = wire::receive(std::os::fd::AsFd::as_fd(&ours));
            let _ = sys::wait(Some(pid), true);
            answer.map_err(failed)?.unwrap_or(Ok(()))
        }
    }
}

fn try_powers(is_masked: bool) -> Result<(), RootlessProblem> {
    if sys::unshare(UnshareFlags::NEWUSER).is_err() {
        return Ok(());
    }
    try_mounting().map_err(|errno| RootlessProblem::UserNamespaces(errno.into()))?;
    match is_masked {
        true => try_proc().map_err(|errno| RootlessProblem::MaskedProc(errno.into())),
        false => Ok(()),
    }
}

fn try_mounting() -> rustix::io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUTS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    match rustix::mount::mount_change("/", private) {
        // In a chroot, `/` may be no mount.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    rustix::mount::mount("none", "/proc", "tmpfs", MountFlags::empty(), None)?;
    // Podman's filter lets everybody mount, and refuses these to whom its container refuses them.
    rustix::process::chroot("/")?;
    rustix::system::sethostname(rustix::system::uname().nodename().to_bytes())
}

/// Mounts a `/proc`, which takes a process in the namespace whose processes it shows.
fn try_proc() -> rustix::io::Result<()> {
    sys::unshare(UnshareFlags::NEWPID)?;
    match sys::fork(0)? {
        Fork::Child => {
            let mounted = rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), None);
            sys::exit(mounted.map_or_else(Errno::raw_os_error, |()| 0))
        }
        Fork::Parent(pid, _) => match sys::wait(Some(pid), true)? {
            Some(waited) if waited.status != 0 => {
                Err(Errno::from_raw_os_error(libc::WEXITSTATUS(waited.status)))
            }
            _ => Ok(()),
        },
    }
}

/// Whether something is mounted over parts of `/proc`, as containers have it: then the kernel lets
/// nobody in a user namespace see those by another one.
fn proc_is_masked() -> bool {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places.any(|place| place.starts_with("/proc/") && place != "/proc/sys/fs/binfmt_misc")
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
