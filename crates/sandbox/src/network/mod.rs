//! A network of a sandbox's own, with a way out.
//!
//! The helper, which is outside, connects the network namespace of a sandbox's first process. That
//! one waits meanwhile: it hears over the same pipe that its ids are mapped and that its network is
//! there, or why not.

mod netlink;
mod pasta;
mod veth;

use std::net::{IpAddr, Ipv4Addr};
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
    Pasta {
        /// The program.
        program: PathBuf,
        /// What of the private network can be reached through this machine.
        ports: Vec<Port>,
        /// The gateway, where it shall lead to whatever listens on this machine, also on its
        /// loopback interface alone.
        host: Option<Ipv4Addr>,
    },
    /// A pair of interfaces and address translation by the kernel: for real root, on machines that
    /// route between their interfaces anyway; IPv6 where they have and route that, too.
    Veth {
        /// Whether [`HOST`] leads to what listens on all of this machine's interfaces.
        host: bool,
    },
}

/// An address of this machine in private networks that says nothing about its others. Link-local, so
/// that it is nobody else's.
pub const HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 2);

/// A port of this machine that leads into a private network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The address of this machine on which it is; all of them if none is given.
    pub address: Option<IpAddr>,
    /// The port of this machine.
    pub outside: u16,
    /// The port in the private network.
    pub inside: u16,
    /// Whether it is for UDP rather than TCP.
    pub udp: bool,
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
        Uplink::Pasta { program, ports, host } => {
            let options = pasta::options(ports, *host);
            pasta::start(program, options, pid, tell)
        }
        Uplink::Veth { host } => veth::start(*host, pid, tell),
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
        let _ = sys::wait(Some(self.pid), true);
    }
}
