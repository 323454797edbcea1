//! Whether a network of a step's own can be had.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::pipe::PipeFlags;

use super::Feature;
use super::trial::Trial;
use crate::network::{self, Uplink};
use crate::rungs::forbidden;
use crate::subid::find_tool;
use crate::sys::{self, Fork};
use crate::world::World;

/// The device that `pasta` makes interfaces with.
const TUN: &str = "/dev/net/tun";

/// What came of the trial.
pub(super) fn private(trial: &Trial) -> Feature {
    let result = &trial.network;
    Feature {
        name: "private networks".to_owned(),
        available: result.is_ok(),
        required: false,
        found: match result {
            Ok(how) | Err(how) => how.clone(),
        },
        purpose: "`--network=private`: RUN reaches the world, and nothing that listens on this \
                  machine; without it, there are the machine's network and none at all"
            .to_owned(),
        remedy: Some(remedy()),
    }
}

fn remedy() -> String {
    let device = || fs_err::OpenOptions::new().read(true).write(true).open(TUN);
    match find_tool("pasta") {
        None => "install the package `passt`",
        Some(_) if !Path::new(TUN).exists() => {
            "as root: modprobe tun; inside a container: `--device /dev/net/tun`"
        }
        Some(_) if device().is_err() => "as root: chmod 666 /dev/net/tun",
        Some(_) => "see what the kernel's log says of `pasta`: AppArmor may forbid it",
    }
    .to_owned()
}

/// Connects a network namespace with the world, as is done for a step, and throws it away. Tells by
/// what, or why not.
pub(super) fn connect(world: &mut World) -> Result<String, String> {
    let (uplink, how) = match find_tool("pasta") {
        Some(program) => {
            let how = program.display().to_string();
            (Uplink::Pasta { program, ports: Vec::new(), host: None }, how)
        }
        None if is_real_root() => (
            Uplink::Veth { host: false },
            "a pair of interfaces with address translation".to_owned(),
        ),
        None => return Err("`pasta` is not installed".to_owned()),
    };
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| errno.to_string());
    let ((hear, tell), (wait, hold)) = (pipe()?, pipe()?);
    let fork = forbidden::fork(world, libc::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
    let pid = match fork {
        Fork::Child => {
            drop((hear, tell, hold));
            let _ = read(wait);
            sys::exit(0)
        }
        Fork::Parent(pid, _) => pid,
    };
    drop(wait);
    let given = world.give_ids(pid).map_err(|error| error.to_string());
    let result = given.and_then(|()| {
        let connected = network::connect(&uplink, pid, tell).map_err(|error| error.to_string())?;
        let word = read(hear);
        drop(connected);
        if word == [network::GO] { Ok(how) } else { Err(String::from_utf8_lossy(&word).into()) }
    });
    drop(hold);
    let _ = sys::wait(Some(pid), true);
    result
}

/// All that comes over a pipe.
fn read(pipe: OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = std::fs::File::from(pipe).take(4096).read_to_end(&mut bytes);
    bytes
}

/// Whether this is the machine's root, and not one of a user namespace.
fn is_real_root() -> bool {
    let ids = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && ids.contains("4294967295")
}
