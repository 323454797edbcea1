//! What the specification mounts.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use formwork_fs::{RelPath, RootDir};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::root::{self, name};
use super::target::{Targets, attach, is_dir, show};
use crate::world::World;
use crate::{MountKind, MountPoint, RootFs, SandboxError, Stage, Stub, sys};

/// The name under which a file is written before it is mounted where it belongs.
const SCRATCH: &str = ".formwork-file";

/// Mounts one of the specification's mount points; `dev` is the sandbox's `/dev`.
pub(super) fn mount(
    world: &World,
    targets: &mut Targets,
    dev: &RootDir,
    point: &MountPoint,
) -> Result<(), SandboxError> {
    let mount = match &point.kind {
        MountKind::Bind { source, subpath, read_only, .. } => bind(source, subpath, *read_only)?,
        MountKind::Overlay { tree, subpath, .. } => part_of(tree, subpath)?,
        MountKind::File { data, mode, uid, gid, read_only } => {
            world.ids.check_ids(*uid, *gid)?;
            file(dev, &data.0, *mode, (*uid, *gid), *read_only).map_err(|error| {
                SandboxError::setup(Stage::WriteFile, show(&point.target), error)
            })?
        }
        MountKind::Tmpfs { size, mode } => return tmpfs(targets, point, *size, *mode),
    };
    let stub = point.stub();
    let failed = |errno| SandboxError::setup(Stage::Mount, show(&point.target), errno);
    if is_dir(&mount).map_err(failed)? != (stub == Stub::Dir) {
        let target = point.target.to_string();
        return Err(SandboxError::Spec(format!("what is mounted on `{target}` is no {stub}")));
    }
    let target = targets.open(&point.target, stub)?;
    attach(&mount, &target).map_err(failed)?;
    if let MountKind::File { .. } = &point.kind {
        rustix::fs::unlinkat(dev, SCRATCH, AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}

/// A part of the host's tree. It belongs to the host's user, so its setuid programs and devices
/// are none here.
fn bind(source: &Path, subpath: &RelPath, read_only: bool) -> Result<OwnedFd, SandboxError> {
    let failed = |errno| {
        let path = if subpath.is_root() { source.into() } else { source.join(subpath.as_path()) };
        SandboxError::setup(Stage::OpenSource, path, errno)
    };
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let base = rustix::fs::open(source, flags, Mode::empty()).map_err(failed)?;
    let part = if subpath.is_root() { base } else { open_part(&base, subpath).map_err(failed)? };
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | read_only_if(read_only);
    clone_with(&part, attributes).map_err(failed)
}

/// A part of a tree of layers.
fn part_of(tree: &RootFs, subpath: &RelPath) -> Result<OwnedFd, SandboxError> {
    let root = root::stack(tree)?;
    let part = open_part(&root, subpath).and_then(|part| root::clone_mount(part.as_fd()));
    let unmounted = rustix::mount::unmount(name(&root), UnmountFlags::DETACH);
    part.and_then(|part| unmounted.map(|()| part))
        .map_err(|errno| SandboxError::setup(Stage::OpenSource, show(subpath), errno))
}

/// A file in memory: written into the sandbox's `/dev` and taken out of it as a mount. It loses its
/// name there once it is mounted where it belongs; without a name it could not be.
fn file(
    dev: &RootDir,
    data: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    read_only: bool,
) -> std::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(dev, SCRATCH, flags, Mode::empty())?);
    file.write_all(data)?;
    // Before Linux 6.6, memory keeps no records.
    match formwork_fs::give(file.as_fd(), b"", uid, gid) {
        Err(Errno::OPNOTSUPP) if formwork_fs::owners_are_data() => {}
        given => given?,
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | read_only_if(read_only);
    Ok(clone_with(&file, attributes)?)
}

fn tmpfs(
    targets: &mut Targets,
    point: &MountPoint,
    size: Option<u64>,
    mode: u32,
) -> Result<(), SandboxError> {
    let size = size.map_or(String::new(), |size| format!(",size={size}"));
    let options = CString::new(format!("mode={:o}{size}", mode & 0o7777)).unwrap_or_default();
    let target = targets.open(&point.target, Stub::Dir)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount("tmpfs", name(&target), "tmpfs", flags, &*options)
        .map_err(|errno| SandboxError::setup(Stage::Mount, show(&point.target), errno))
}

/// A detached copy of a mount, rooted at a file or directory of it.
fn clone_with(fd: &impl AsFd, attributes: u64) -> rustix::io::Result<OwnedFd> {
    let mount = root::clone_mount(fd.as_fd())?;
    sys::mount_setattr(mount.as_fd(), c"", attributes, true)?;
    Ok(mount)
}

fn open_part(root: &impl AsFd, subpath: &RelPath) -> rustix::io::Result<OwnedFd> {
    root::look_up(root.as_fd(), subpath.as_path().as_os_str().as_bytes())
}

fn read_only_if(read_only: bool) -> u64 {
    if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 }
}
