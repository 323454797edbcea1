//! What differs between the machines that a build may find itself on.

pub(crate) mod chroot;
pub(crate) mod forbidden;
pub(crate) mod jail;
pub(crate) mod power;
pub(crate) mod traced;

use std::os::fd::OwnedFd;

use rustix::process::Pid;

use crate::init::Job;
use crate::sys::{self, Fork};
use crate::{SandboxError, Stage};

/// Forks the first process of a sandbox without namespaces.
pub(crate) fn start_in_place(job: &Job, is_traced: bool) -> Result<(Pid, OwnedFd), SandboxError> {
    let run = if is_traced { traced::run } else { chroot::run };
    let parent = rustix::process::getpid();
    // Should the first process be killed, what it leaves is this process's.
    let _ = rustix::process::set_child_subreaper(Some(parent));
    match sys::fork(0) {
        Ok(Fork::Parent(pid, process)) => Ok((pid, process)),
        Ok(Fork::Child) => job.carry_out(|| run(job, parent)),
        Err(errno) => Err(SandboxError::setup(Stage::Fork, "the sandbox", errno)),
    }
}
