//! The host name and the network.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::UnshareFlags;

use crate::{NetworkMode, ProcessSpec, SandboxError, Stage, sys};

/// Sets the host name, and leaves the machine's network where the process may not have it.
pub(super) fn set_up(spec: &ProcessSpec) -> Result<(), SandboxError> {
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).map_err(failed(&spec.hostname))?;
    }
    match spec.network {
        NetworkMode::Host => Ok(()),
        NetworkMode::None => isolate().map_err(failed("none")),
        // The helper has made it already.
        NetworkMode::Private if spec.uplink.is_some() => loopback_up().map_err(failed("private")),
        NetworkMode::Private => isolate().map_err(failed("private")),
    }
}

fn isolate() -> rustix::io::Result<()> {
    sys::unshare(UnshareFlags::NEWNET)?;
    loopback_up()
}

fn loopback_up() -> rustix::io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    sys::loopback_up(socket.as_fd())
}

fn failed(name: &str) -> impl Fn(rustix::io::Errno) -> SandboxError {
    move |errno| SandboxError::setup(Stage::Network, name, errno)
}
