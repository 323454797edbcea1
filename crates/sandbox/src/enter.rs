//! Enters the namespaces that a build works in.

use rustix::thread::UnshareFlags;

use crate::{RootlessProblem, SandboxError, sys, world};

/// How a machine lets the user build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Rung {
    /// As root, in a mount namespace of its own.
    Root,
    /// As an ordinary user with subordinate ids, in a user namespace.
    SubordinateIds,
}

/// Which rung to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RungChoice {
    /// Root's for root, that of subordinate ids for everybody else.
    #[default]
    Auto,
    /// This one or none.
    Only(Rung),
}

/// Where the program is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The rung taken.
    pub rung: Rung,
    /// The number that the user who started the program has outside.
    pub host_uid: u32,
    /// The number of that user's group outside.
    pub host_gid: u32,
}

/// Enters the namespaces of a build. Afterwards this process is user 0 with all capabilities over
/// the ids that it has, and what it mounts is seen by nobody else.
///
/// # Errors
///
/// Fails where a thread is running already, and where the machine does not let the user in; the
/// message names the file to edit, the package to install or the sysctl to set.
pub fn enter(choice: RungChoice) -> Result<Entered, SandboxError> {
    let host_uid = rustix::process::geteuid().as_raw();
    let host_gid = rustix::process::getegid().as_raw();
    let rung = match choice {
        RungChoice::Only(rung) => rung,
        RungChoice::Auto if host_uid == 0 => Rung::Root,
        RungChoice::Auto => Rung::SubordinateIds,
    };
    sys::unshare(UnshareFlags::NEWNS)
        .map_err(|errno| SandboxError::Rootless(RootlessProblem::NotReallyRoot(errno.into())))?;
    world::private_mounts()?;
    Ok(Entered { rung, host_uid, host_gid })
}
