//! What all sandboxes of one helper have in common, found out and prepared once.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use crate::cgroup::Cgroups;
use crate::idmap::IdMaps;
use crate::rungs::jail;
use crate::seccomp;
use crate::{OsError, SandboxError, Stage, sys};

/// The files of `/proc` and `/sys` that Docker hides (`defaultLinuxMaskedPaths` of moby): they tell
/// of the hardware, of others' keys and timers, or are a way to the kernel's memory.
const HIDDEN: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// The devices that every process has and may use: their names in `/dev`, their major and their
/// minor numbers (`null(4)`, `full(4)`, `random(4)`, `tty(4)`).
pub const USUAL_DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The type of the second version's file system (`CGROUP2_SUPER_MAGIC`).
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// What all sandboxes of one helper have in common.
pub(crate) struct World {
    /// The ids that exist.
    pub(crate) ids: IdMaps,
    /// Why sandboxes get no user namespaces of their own, where they get none.
    pub(crate) no_user_namespaces: Option<OsError>,
    /// The files of `/proc` and `/sys` to hide, as far as this kernel has them.
    pub(crate) hidden: Vec<Hidden>,
    /// Whether `/sys/fs/cgroup` is the one hierarchy of control groups, version 2.
    pub(crate) cgroup2: bool,
    /// Where control groups can be made.
    pub(crate) cgroups: Cgroups,
    /// The system call filter.
    pub(crate) filter: Vec<libc::sock_filter>,
    /// The same for processes whose first device shall be noticed.
    pub(crate) filter_that_notices: Vec<libc::sock_filter>,
    /// The Landlock rules for processes in the machine's network, where the kernel has them.
    pub(crate) scope: Option<OwnedFd>,
}

/// A file to hide.
pub(crate) struct Hidden {
    /// Its path from the root.
    pub(crate) path: String,
    pub(crate) is_dir: bool,
}

impl World {
    /// Looks at the machine, and leaves the builder's mount namespace for one that the helper can
    /// arrange.
    pub(crate) fn prepare() -> Result<Self, SandboxError> {
        let ids = IdMaps::of_this_process()
            .map_err(|error| SandboxError::setup(Stage::IdMaps, "the builder", error))?;
        if ids.is_single() {
            formwork_fs::keep_owners_as_data();
        }
        sys::unshare(UnshareFlags::NEWNS)
            .map_err(|errno| SandboxError::setup(Stage::Namespaces, "the helper", errno))?;
        jail::become_namespace_root()
            .map_err(|errno| SandboxError::setup(Stage::Private, "/", errno))?;
        let cgroups = Cgroups::find();
        let cgroup2 = has_cgroup2();
        clear_sys(cgroup2);
        seal_devices()?;
        Ok(Self {
            ids,
            no_user_namespaces: None,
            hidden: hidden(),
            cgroup2,
            cgroups,
            filter: seccomp::program(),
            filter_that_notices: seccomp::program_that_notices(),
            scope: sys::abstract_socket_scope().ok(),
        })
    }

    /// Whether each sandbox gets a user namespace of its own.
    pub(crate) fn has_user_namespaces(&self) -> bool {
        self.no_user_namespaces.is_none()
    }

    /// Gives the first process of a sandbox its ids, where it has a user namespace of its own.
    pub(crate) fn give_ids(&self, pid: rustix::process::Pid) -> std::io::Result<()> {
        if self.has_user_namespaces() { self.ids.write_identity(pid) } else { Ok(()) }
    }

    /// The namespaces that each sandbox is made with; that of control groups follows once it is in
    /// its group, which is the topmost one that is seen from there.
    pub(crate) fn namespaces(&self) -> i32 {
        let user = if self.has_user_namespaces() { libc::CLONE_NEWUSER } else { 0 };
        user | libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS
    }
}

/// Puts a new `/sys` in the place of the host's, without what is mounted below that (debugging,
/// tracing and security interfaces, which real root could read), except the control groups of
/// version 1; those of version 2 each sandbox mounts for itself.
///
/// The kernel allows it only to whoever owns the network namespace, so not to ordinary users; they
/// keep the host's, where none of these is readable for them.
fn clear_sys(cgroup2: bool) {
    let Ok(sys) = new_sys() else { return };
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let cgroups = rustix::mount::open_tree(CWD, "/sys/fs/cgroup", clone);
    // The kernel does not mount a file system on itself.
    let _ = rustix::mount::unmount("/sys", UnmountFlags::DETACH);
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let moved = rustix::mount::move_mount(sys, "", CWD, "/sys", flags);
    if let (Ok(()), Ok(cgroups), false) = (moved, cgroups, cgroup2) {
        // Without it, programs in the sandbox do not see their limits; no more.
        let _ = rustix::mount::move_mount(cgroups, "", CWD, "/sys/fs/cgroup", flags);
    }
}

fn new_sys() -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Makes the mounts of the devices read-only: they can be read and written all the same, but root
/// in a sandbox, who may have the number of real root, cannot change their owner and mode.
fn seal_devices() -> Result<(), SandboxError> {
    USUAL_DEVICES.iter().try_for_each(|(device, ..)| {
        let path = format!("/dev/{device}");
        rustix::mount::mount_bind(&path, &path)
            .and_then(|()| read_only(&path))
            .map_err(|errno| SandboxError::setup(Stage::Device, path, errno))
    })
}

/// Makes a mount read-only, and whatever is on it powerless.
pub(crate) fn read_only(path: &str) -> rustix::io::Result<()> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    sys::mount_setattr(CWD, &path, attributes, false)
}

fn has_cgroup2() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type as u64 == CGROUP2_MAGIC)
}

fn hidden() -> Vec<Hidden> {
    // https://github.com/moby/moby/security/advisories/GHSA-6fw5-f8r9-fgfm
    let throttles = (0..).map_while(|cpu| {
        let cpu = format!("sys/devices/system/cpu/cpu{cpu}");
        Path::new("/").join(&cpu).exists().then(|| format!("{cpu}/thermal_throttle"))
    });
    HIDDEN.iter().map(|path| (*path).to_owned()).chain(throttles).filter_map(find).collect()
}

fn find(path: String) -> Option<Hidden> {
    let metadata = fs_err::symlink_metadata(Path::new("/").join(&path)).ok()?;
    Some(Hidden { path, is_dir: metadata.is_dir() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_hidden_elsewhere() {
        // Many machines have no file of the kernel's memory, so no process can try it there.
        let docker_hides = "proc/acpi proc/asound proc/interrupts proc/kcore proc/keys \
                            proc/latency_stats proc/sched_debug proc/scsi proc/timer_list \
                            proc/timer_stats sys/devices/virtual/powercap sys/firmware";
        assert_eq!(HIDDEN.join(" "), docker_hides);
        assert!(find("proc/self".to_owned()).is_some());
        assert!(find("proc/none-such".to_owned()).is_none());
    }
}
