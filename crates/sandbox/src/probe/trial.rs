//! Tries what a `RUN` will do, in a process that is thrown away.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::{features, network};
use crate::rungs::forbidden;
use crate::supervisor::kernel;
use crate::sys::{self, Fork};
use crate::world::World;
use crate::{
    Entered, OsError, RootlessProblem, Rung, RungChoice, SandboxError, Stage, enter, wire,
};

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Trial {
    /// Entering the builder's namespaces.
    pub(super) rung: Result<Rung, SandboxError>,
    /// Why the rung is none with namespaces.
    pub(super) lack: Option<SandboxError>,
    /// Making a sandbox's namespaces below them.
    pub(super) namespaces: Result<(), OsError>,
    /// Making user namespaces for sandboxes, which root can do without.
    pub(super) user_namespaces: Result<(), OsError>,
    /// Mounting there.
    pub(super) mounts: Mounts,
    /// Showing a process what cannot be mounted for it.
    pub(super) shown: Result<(), OsError>,
    /// Connecting a private network: by what, or why not.
    pub(super) network: Result<String, String>,
}

/// What could be mounted in a sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Mounts {
    pub(super) overlay: Result<(), OsError>,
    pub(super) volatile: Result<(), OsError>,
    pub(super) proc: Result<(), OsError>,
}

/// The result where a step before failed.
const NOT_TRIED: OsError = OsError(libc::ECANCELED);

impl Mounts {
    fn none(error: OsError) -> Self {
        Self { overlay: Err(error), volatile: Err(error), proc: Err(error) }
    }
}

/// Runs the trial in a child, and waits for it.
pub(super) fn run() -> Trial {
    let rung = Err(SandboxError::setup(Stage::Fork, "a trial", NOT_TRIED));
    let nothing = Trial {
        rung,
        lack: None,
        namespaces: Err(NOT_TRIED),
        user_namespaces: Err(NOT_TRIED),
        mounts: Mounts::none(NOT_TRIED),
        shown: Err(NOT_TRIED),
        network: not_connected(),
    };
    let fork = || sys::fork(0);
    in_child(fork, |channel| wire::send(channel, &try_all()), |_| Ok(())).unwrap_or(nothing)
}

fn try_all() -> Trial {
    let entered = enter(RungChoice::Auto);
    let entered = match entered {
        Ok(Entered { rung: rung @ (Rung::Chroot | Rung::Traced), lack, .. }) => {
            return without_namespaces(rung, lack);
        }
        Ok(Entered { rung: Rung::CopyOnly, lack: Some(lack), .. }) => Err(lack),
        entered => entered,
    };
    let lack = entered.as_ref().ok().and_then(|entered| entered.lack.clone());
    let mut world = entered.and_then(|entered| Ok((entered.rung, World::prepare()?)));
    let mounts = match &mut world {
        Ok((_, world)) => try_sandbox(world),
        Err(_) => Err(NOT_TRIED),
    };
    let namespaces = mounts.as_ref().map(drop).map_err(|error| *error);
    let network = match (&mut world, namespaces) {
        (Ok((_, world)), Ok(())) => network::connect(world),
        _ => not_connected(),
    };
    let user_namespaces = match &world {
        Ok((_, world)) => world.no_user_namespaces.map_or(namespaces, Err),
        Err(SandboxError::Rootless(RootlessProblem::UserNamespaces(error))) => Err(*error),
        Err(_) => try_user_namespace(),
    };
    Trial {
        rung: world.map(|(rung, _)| rung),
        lack,
        namespaces,
        user_namespaces,
        mounts: mounts.unwrap_or_else(Mounts::none),
        shown: Err(NOT_TRIED),
        network,
    }
}

fn not_connected() -> Result<String, String> {
    Err(features::NOT_TRIED.to_owned())
}

fn without_namespaces(rung: Rung, lack: Option<SandboxError>) -> Trial {
    Trial {
        shown: match rung {
            Rung::Chroot => kernel::trial::run().map_err(OsError::from),
            _ => Ok(()),
        },
        rung: Ok(rung),
        lack,
        namespaces: Err(NOT_TRIED),
        user_namespaces: try_user_namespace(),
        mounts: Mounts::none(NOT_TRIED),
        network: not_connected(),
    }
}

/// Makes a user namespace that serves nothing.
fn try_user_namespace() -> Result<(), OsError> {
    let unshare = |channel: BorrowedFd<'_>| {
        let result = sys::unshare(UnshareFlags::NEWUSER).map_err(OsError::from);
        wire::send(channel, &result)
    };
    in_child(|| sys::fork(0), unshare, |_| Ok(())).and_then(|result| result)
}

fn try_sandbox(world: &mut World) -> Result<Mounts, OsError> {
    let world = std::cell::RefCell::new(world);
    in_child(
        || forbidden::fork(&mut world.borrow_mut(), 0),
        |channel| wire::send(channel, &try_mounts()),
        |pid| Ok(world.borrow().give_ids(pid)?),
    )
}

/// Mounts in a file system in memory, which goes with the namespace.
fn try_mounts() -> Mounts {
    let arena = || -> rustix::io::Result<()> {
        rustix::mount::mount("tmpfs", "/tmp", "tmpfs", MountFlags::empty(), None)?;
        for directory in ["a", "b", "upper", "work", "work2", "root"] {
            rustix::fs::mkdir(format!("/tmp/{directory}"), Mode::RWXU)?;
        }
        Ok(())
    };
    if let Err(errno) = arena() {
        return Mounts::none(OsError::from(errno));
    }
    let overlay = |work, volatile| {
        let options = format!(
            "userxattr,index=off,lowerdir=/tmp/a:/tmp/b,upperdir=/tmp/upper,workdir=/tmp/{work}"
        );
        try_mount("overlay", &format!("{options}{volatile}"))
    };
    Mounts {
        overlay: overlay("work", ""),
        volatile: overlay("work2", ",volatile"),
        proc: try_mount("proc", ""),
    }
}

fn try_mount(kind: &str, options: &str) -> Result<(), OsError> {
    let options = std::ffi::CString::new(options).map_err(|_| OsError(libc::EINVAL))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(kind, "/tmp/root", kind, flags, &*options)?;
    rustix::mount::unmount("/tmp/root", rustix::mount::UnmountFlags::DETACH)?;
    Ok(())
}

/// Does something in a child, which sends one message; `prepare` comes first and
/// is done here.
fn in_child<T: serde::de::DeserializeOwned>(
    fork: impl FnOnce() -> rustix::io::Result<Fork>,
    work: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<()>,
    prepare: impl FnOnce(rustix::process::Pid) -> Result<(), OsError>,
) -> Result<T, OsError> {
    let (ours, theirs) = wire::channel()?;
    match fork()? {
        Fork::Child => {
            drop(ours);
            if let Ok(Some(true)) = wire::receive(theirs.as_fd()) {
                let _ = work(theirs.as_fd());
            }
            sys::exit(0)
        }
        Fork::Parent(pid, _) => {
            drop(theirs);
            let prepared = prepare(pid);
            let _ = wire::send(ours.as_fd(), &prepared.is_ok());
            let answer = wire::receive(ours.as_fd());
            let _ = sys::wait(Some(pid), true);
            prepared?;
            answer?.ok_or(OsError::from(Errno::PIPE))
        }
    }
}
