//! The kernel's own file systems: `/proc`, `/sys` and `/dev`, as Docker makes them.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use formwork_fs::{Follow, RelPath, RootDir};
use rustix::fs::{FileType, Mode};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::root::{self, name};
use super::target::{Targets, attach};
use crate::world::{USUAL_DEVICES, World, read_only};
use crate::{NetworkMode, ProcessSpec, SandboxError, Stage, sys};

/// The parts of `/proc` through which root could change the machine.
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// The terminals' group in all distributions.
const TTY_GROUP: u32 = 5;

/// No device files and no setuid programs.
const BARE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Mounts all of them; returns `/dev`.
pub(super) fn mount(
    world: &World,
    targets: &mut Targets,
    spec: &ProcessSpec,
) -> Result<RootDir, SandboxError> {
    let proc = targets.open_plain(&path("proc"))?;
    mount_at("proc", &name(&proc), BARE | MountFlags::NOEXEC, c"", "/proc")?;
    let sys = targets.open_plain(&path("sys"))?;
    mount_sys(world, targets, spec, &sys)?;
    let dev = targets.open_plain(&path("dev"))?;
    let dev = mount_dev(world, targets, spec, &dev)?;
    if !spec.privileged {
        hide(world, targets, &dev)?;
    }
    Ok(dev)
}

/// Its own `/sys` for a network namespace of its own, since the kernel shows the interfaces of the
/// namespace in which it was mounted; else the host's, which only the owner of the host's network
/// namespace could mount anew.
fn mount_sys(
    world: &World,
    targets: &Targets,
    spec: &ProcessSpec,
    target: &OwnedFd,
) -> Result<(), SandboxError> {
    let flags = BARE | MountFlags::NOEXEC | MountFlags::RDONLY;
    let own = spec.network != NetworkMode::Host
        && mount_at("sysfs", &name(target), flags, c"", "/sys").is_ok();
    if !own {
        clone_sys(target).map_err(|errno| SandboxError::setup(Stage::Mount, "/sys", errno))?;
    }
    if world.cgroup2 {
        let sys = open_dir(targets.root(), "sys")?;
        // Without it, programs do not see their limits; no more.
        let _ = mount_cgroup2(&format!("{}/fs/cgroup", name(&sys)), flags);
    }
    Ok(())
}

/// The control groups from the sandbox's own down. The kernel does not mount a file system on
/// itself, as the host's is where `/sys` is the host's; something else goes in between.
fn mount_cgroup2(target: &str, flags: MountFlags) -> rustix::io::Result<()> {
    let mount = |kind| rustix::mount::mount(kind, target, kind, flags, None);
    match mount("cgroup2") {
        Err(Errno::BUSY) => mount("tmpfs").and_then(|()| mount("cgroup2")),
        result => result,
    }
}

fn clone_sys(target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let host = rustix::fs::open("/sys", flags, Mode::empty())?;
    let clone = root::clone_mount(host.as_fd())?;
    let attributes = libc::MOUNT_ATTR_RDONLY
        | libc::MOUNT_ATTR_NOSUID
        | libc::MOUNT_ATTR_NODEV
        | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(clone.as_fd(), c"", attributes, true)?;
    attach(&clone, target)
}

/// A directory in memory with the harmless devices and a place for everything that programs expect.
fn mount_dev(
    world: &World,
    targets: &Targets,
    spec: &ProcessSpec,
    target: &OwnedFd,
) -> Result<RootDir, SandboxError> {
    let flags = BARE | MountFlags::STRICTATIME;
    mount_at("tmpfs", &name(target), flags, c"mode=755,size=65536k", "/dev")?;
    let dev = open_dir(targets.root(), "dev")?;
    for (device, ..) in USUAL_DEVICES {
        bind_device(&dev, device).map_err(no_device(device))?;
    }
    for (link, to) in LINKS {
        rustix::fs::symlinkat(to, &dev, link).map_err(no_device(link))?;
    }
    let group = if world.ids.has_group(TTY_GROUP) { ",gid=5" } else { "" };
    let pts = format!("newinstance,ptmxmode=0666,mode=0620{group}");
    let inert = BARE | MountFlags::NOEXEC;
    mount_in(&dev, "pts", "devpts", MountFlags::NOSUID | MountFlags::NOEXEC, &pts)?;
    mount_in(&dev, "shm", "tmpfs", inert, &format!("mode=1777,size={}", spec.shm_size))?;
    mount_in(&dev, "mqueue", "mqueue", inert, "")?;
    Ok(dev)
}

/// A user namespace may not make devices, so the host's are used.
fn bind_device(dev: &RootDir, device: &str) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(dev, device, FileType::RegularFile, mode, 0)?;
    rustix::mount::mount_bind(format!("/dev/{device}"), format!("{}/{device}", name(dev)))
}

/// Mounts a file system in a new directory of `/dev`.
fn mount_in(
    dev: &RootDir,
    directory: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), SandboxError> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(dev, directory, mode).map_err(no_device(directory))?;
    let options = CString::new(options).unwrap_or_default();
    let target = format!("{}/{directory}", name(dev));
    mount_at(kind, &target, flags, &options, &format!("/dev/{directory}"))
}

fn no_device(name: &str) -> impl Fn(Errno) -> SandboxError {
    move |errno| SandboxError::setup(Stage::Device, format!("/dev/{name}"), errno)
}

/// Hides files of `/proc` and `/sys` behind `/dev/null` or an empty directory, and makes others
/// read-only.
///
/// Root in the sandbox may have the number of real root, and then file permissions do not stop it;
/// these mounts do.
fn hide(world: &World, targets: &Targets, dev: &RootDir) -> Result<(), SandboxError> {
    let root = name(targets.root());
    let empty = format!("{}/.empty", name(dev));
    let failed = |path: &str| {
        let path = format!("/{path}");
        move |errno| SandboxError::setup(Stage::Mask, path, errno)
    };
    rustix::fs::mkdir(&empty, Mode::from_raw_mode(0o755)).map_err(failed("dev/.empty"))?;
    for hidden in &world.hidden {
        let target = format!("{root}/{}", hidden.path);
        let source = if hidden.is_dir { &*empty } else { "/dev/null" };
        let bound = rustix::mount::mount_bind(source, &target);
        if_there(bound.and_then(|()| read_only(&target))).map_err(failed(&hidden.path))?;
    }
    // Without a name it is still there for the mounts, and nobody can put anything in it.
    rustix::fs::rmdir(&empty).map_err(failed("dev/.empty"))?;
    for path in READ_ONLY {
        let target = format!("{root}/proc/{path}");
        let bound = rustix::mount::mount_bind(&target, &target);
        let sealed = if_there(bound.and_then(|()| read_only(&target)));
        sealed.map_err(failed(&format!("proc/{path}")))?;
    }
    Ok(())
}

/// What this kernel does not have needs no hiding.
fn if_there(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// Mounts a file system; `shown` is for the message.
pub(super) fn mount_at(
    kind: &str,
    target: &str,
    flags: MountFlags,
    options: &std::ffi::CStr,
    shown: &str,
) -> Result<(), SandboxError> {
    rustix::mount::mount(kind, target, kind, flags, options)
        .map_err(|errno| SandboxError::setup(Stage::Mount, shown, errno))
}

/// A directory just mounted by us.
fn open_dir(root: &RootDir, directory: &str) -> Result<RootDir, SandboxError> {
    let path = path(directory);
    root.open_dir(&path, Follow::Never)
        .map_err(|error| root::os(Stage::Mount, &super::target::show(&path), error))
}

/// A path of this file.
fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap_or_default()
}
