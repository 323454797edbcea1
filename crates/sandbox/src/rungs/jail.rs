//! Builders that run in a chroot, as distributions' build tools make them.
//!
//! The kernel gives no user namespace to a process in a chroot and lets it change neither its root
//! nor, where the directory is no mount of its own, the propagation of mounts. In a mount namespace
//! that nobody else shares there is a way round all three: the directory becomes the root of the
//! namespace.
//!
//! The initial RAM file system cannot be exchanged for another root, either, as on virtual machines that
//! have no other. It is stacked on itself: what is mounted on its very root has no way down to it.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::mount::{MountPropagationFlags, MoveMountFlags};

use crate::init::clone_mount;

/// Makes this process's root directory the root of its mount namespace, which is its own, and takes
/// all mounts of that namespace out of their peer groups. Paths mean the same before and after.
pub(crate) fn become_namespace_root() -> rustix::io::Result<()> {
    use std::os::fd::AsFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())?;
    let here = place(&root)?;
    climb(&root)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    let is_there = place(&rustix::fs::open("/", flags, Mode::empty())?)? == here;
    if is_there && !is_bottom(here.0) {
        return rustix::process::chdir("/");
    }
    let tree = clone_mount(root.as_fd())?;
    let onto = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&tree, "", CWD, "/", onto)?;
    // The way up from the root leads to what is stacked on it.
    rustix::process::chroot("/..")?;
    rustix::process::chdir("/")
}

/// Whether a mount is on no other.
fn is_bottom(mount: u64) -> bool {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    stands_alone(&mounts, mount)
}

/// Whether a mount is its own parent, given `/proc/self/mountinfo`.
fn stands_alone(mounts: &str, mount: u64) -> bool {
    let number = mount.to_string();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        fields.next() == Some(&number) && fields.next() == Some(&number)
    })
}

/// Goes to the root of the mount namespace: from a directory that is not below one's root, the way
/// up does not end there.
fn climb(root: &impl std::os::fd::AsFd) -> rustix::io::Result<()> {
    rustix::process::chroot("/proc")?;
    rustix::process::fchdir(root)?;
    let mut last = place_of(".")?;
    loop {
        rustix::process::chdir("..")?;
        let above = place_of(".")?;
        if above == last {
            return rustix::process::chroot(".");
        }
        last = above;
    }
}

/// Which directory of which mount it is.
type Place = (u64, u32, u32, u64);

fn place(directory: &impl std::os::fd::AsFd) -> rustix::io::Result<Place> {
    look(directory.as_fd(), "", AtFlags::EMPTY_PATH)
}

fn place_of(path: &str) -> rustix::io::Result<Place> {
    look(CWD, path, AtFlags::empty())
}

fn look(at: std::os::fd::BorrowedFd<'_>, path: &str, flags: AtFlags) -> rustix::io::Result<Place> {
    let stat = rustix::fs::statx(at, path, flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
    Ok((stat.stx_mnt_id, stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

#[cfg(test)]
mod tests {
    use super::stands_alone;

    #[test]
    fn the_initial_file_system_is_on_no_other() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:5 / /proc rw - proc proc rw\n";
        assert!(!stands_alone(mounts, 22) && !stands_alone(mounts, 23));
        let initial = "522 522 0:2 / / rw - rootfs rootfs rw\n523 522 0:5 / /proc rw - proc p rw\n";
        assert!(stands_alone(initial, 522) && !stands_alone(initial, 523));
        assert!(!stands_alone("", 1));
    }
}
