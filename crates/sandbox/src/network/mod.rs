//! A network of a sandbox's own, with a way out.
//!
//! The helper, which is outside, connects the network namespace of a sandbox's first process. That
//! one waits meanwhile: it hears over the same pipe that its ids are mapped and that its network is
//! there, or why not.

mod pasta;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::{SandboxError, sys};

/// What connects a private network with the world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Uplink {
    /// A process in user space, `pasta` of <https://passt.top>, which translates connections into
    /// some of its own. It needs no power over the machine and changes nothing there.
    Pasta(PathBuf),
}

/// What a sandbox's first process hears when it may go on.
pub(crate) const GO: u8 = 1;

/// What has to go together with a sandbox.
pub(crate) struct Connected {
    pid: Pid,
    process: OwnedFd,
}

/// Connects the network namespace of a process, and tells it so.
pub(crate) fn connect(uplink: &Uplink, pid: Pid, tell: OwnedFd) -> Result<Connected, SandboxError> {
    match uplink {
        Uplink::Pasta(program) => pasta::start(program, pid, tell),
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let _ = sys::wait(Some(self.pid), true);
    }
}
