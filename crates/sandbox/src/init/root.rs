//! Layers as one tree.
//!
//! A tree is mounted on top of `/` itself, a place that every machine has: absolute paths go on
//! leading to the host's files, since they start below what is stacked, while `/..` leads to the
//! top of the stack.
//!
//! Overlays are mounted with `mount(2)`. The newer calls take one layer at a time, but only from
//! Linux 6.8 on, and paths of at most 255 bytes; here the layers are descriptors' numbers, short
//! enough for all 500 to fit into the one page of options, and the paths, which may be the host's
//! secret, do not show in the sandbox's `/proc/mounts`.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use formwork_fs::{FsError, RootDir};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::{RootFs, SandboxError, Stage, sys};

/// Mounts a tree on top of `/`; returns its root.
pub(super) fn stack(tree: &RootFs) -> Result<RootDir, SandboxError> {
    let failed = |errno| SandboxError::setup(Stage::MountRoot, tree.topmost(), errno);
    match (&tree.layers[..], &tree.upper) {
        ([layer], None) => {
            let mount = clone_mount(open_layer(layer)?.as_fd()).map_err(failed)?;
            let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV;
            sys::mount_setattr(mount.as_fd(), c"", attributes, true).map_err(failed)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&mount, "", CWD, "/", flags).map_err(failed)?;
        }
        _ => overlay(tree, failed)?,
    }
    RootDir::open("/..").map_err(|error| os(Stage::MountRoot, tree.topmost(), error))
}

/// Mounts an overlay on top of `/`.
fn overlay(
    tree: &RootFs,
    failed: impl Fn(rustix::io::Errno) -> SandboxError,
) -> Result<(), SandboxError> {
    let layers = tree.layers.iter().map(|layer| open_layer(layer));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    let upper = match &tree.upper {
        Some(upper) => Some((open_layer(&upper.upper)?, open_layer(&upper.work)?)),
        None => None,
    };
    if let Some((upper, _)) = &upper {
        refuse_plain(&name(upper)).map_err(&failed)?;
    }
    let options = overlay_options(&layers, upper.as_ref(), tree.volatile);
    // A user namespace's mounts have no working devices anyway.
    let flags = MountFlags::NODEV;
    rustix::mount::mount("overlay", "/", "overlay", flags, &*options).map_err(failed)
}

/// Refuses a file system without attributes of users (`user.*`), such as tmpfs before Linux 6.6: the
/// kernel mounts it, and then no directory of a layer below can be removed.
fn refuse_plain(upper: &str) -> rustix::io::Result<()> {
    match rustix::fs::getxattr(upper, c"user.overlay.opaque", &mut [0; 8]) {
        Err(Errno::OPNOTSUPP) => Err(Errno::OPNOTSUPP),
        _ => Ok(()),
    }
}

/// The options of an overlay of these directories, relative to `/proc/self/fd`.
///
/// `userxattr`, since the sandbox's user namespace has no power over `trusted.*` attributes; the
/// kernel then switches `metacopy` and `redirect_dir` off. `index=off`, since an index ties the
/// upper directory to these very layers, and it will be a layer of other stacks. `xino=auto` keeps
/// inode numbers unique where the layers are on several file systems.
fn overlay_options(
    layers: &[OwnedFd],
    upper: Option<&(OwnedFd, OwnedFd)>,
    volatile: bool,
) -> CString {
    let names: Vec<String> = layers.iter().rev().map(name).collect();
    let mut options = format!("userxattr,index=off,xino=auto,lowerdir={}", names.join(":"));
    if let Some((upper, work)) = upper {
        options += &format!(",upperdir={},workdir={}", name(upper), name(work));
        options += if volatile { ",volatile" } else { "" };
    }
    CString::new(options).unwrap_or_default()
}

fn open_layer(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| SandboxError::setup(Stage::OpenLayer, path, errno))
}

/// A detached copy of the mount that a descriptor is in, with all below, rooted at the descriptor.
pub(crate) fn clone_mount(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(fd, "", flags)
}

/// Opens a path as a process would whose root is the directory; the path may contain `..`.
pub(super) fn look_up(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // The kernel asks to try again when a rename raced with the look-up.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Makes a tree on top of `/` the root, and lets go of everything below it.
pub(super) fn enter(root: &RootDir) -> Result<(), SandboxError> {
    let pivot = || {
        rustix::process::fchdir(root)?;
        // The old root lands on top of the new one, from where the second call takes it away with
        // all that is mounted in it. pivot_root(2) describes this use.
        rustix::process::pivot_root(".", ".")?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        rustix::process::chdir("/")
    };
    pivot().map_err(|errno| SandboxError::setup(Stage::PivotRoot, "/", errno))
}

/// The path of a descriptor's file, relative to `/proc/self/fd`.
pub(super) fn name(fd: &impl AsFd) -> String {
    fd.as_fd().as_raw_fd().to_string()
}

/// An error of the `fs` crate.
pub(super) fn os(stage: Stage, path: &Path, error: FsError) -> SandboxError {
    SandboxError::setup(stage, path, error.source)
}
