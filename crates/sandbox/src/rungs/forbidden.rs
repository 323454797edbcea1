//! Root on a machine that gives no user namespaces: a sysctl, a kernel without them, or a security
//! module forbids them.
//!
//! The process then is root of the builder's own user namespace, as in a container of docker's, with
//! docker's default capabilities but for those that would reach what the sandbox does not have to
//! itself: devices, and the machine's network where it shares that.

use rustix::io::Errno;

use crate::supervisor::Makers;
use crate::sys::{self, Fork};
use crate::world::World;
use crate::{NetworkMode, ProcessSpec, SandboxError};

const CAP_NET_BIND_SERVICE: u64 = 1 << 10;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_SYS_CHROOT: u64 = 1 << 18;
const CAP_MKNOD: u64 = 1 << 27;

/// Forks into a sandbox's namespaces and some more (`CLONE_NEW…`); without a user namespace where the machine gives none.
pub(crate) fn fork(world: &mut World, more: i32) -> rustix::io::Result<Fork> {
    let first = match sys::fork(world.namespaces() | more) {
        Err(errno) if world.has_user_namespaces() && is_refusal(errno) => errno,
        other => return other,
    };
    world.no_user_namespaces = Some(first.into());
    sys::fork(world.namespaces() | more).map_err(|_| {
        world.no_user_namespaces = None;
        first
    })
}

/// Whether it may be the user namespace that the kernel does not give.
fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::PERM | Errno::NOSPC | Errno::INVAL | Errno::USERS | Errno::ACCESS)
}

/// Refuses what would be power over the machine itself.
pub(crate) fn check(world: &World, spec: &ProcessSpec) -> Result<(), SandboxError> {
    match world.no_user_namespaces {
        Some(error) if spec.privileged => Err(SandboxError::Unavailable(format!(
            "a privileged process needs a user namespace of its own, without which it would be \
             root of this machine, and the kernel refuses to make one ({error}): `formwork doctor` \
             tells by what"
        ))),
        _ => Ok(()),
    }
}

/// Who may make devices, as data: whoever has the capability; or, where that is nobody, since it
/// would be power over the machine's, the next one that root has beside it.
pub(crate) fn maker(world: &World) -> Makers {
    let is_in_namespace = world.has_user_namespaces();
    let capability = if is_in_namespace { CAP_MKNOD } else { CAP_SYS_CHROOT };
    Makers { capability, is_in_namespace }
}

/// Those of some capabilities that a process may have which is root in the builder's own user
/// namespace.
pub(crate) fn without_reach(capabilities: u64, spec: &ProcessSpec) -> u64 {
    let network = match spec.network {
        NetworkMode::Host => CAP_NET_BIND_SERVICE | CAP_NET_RAW,
        NetworkMode::None | NetworkMode::Private => 0,
    };
    capabilities & !(CAP_MKNOD | network)
}
