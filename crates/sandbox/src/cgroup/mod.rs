//! Control groups: limits of all processes of a sandbox together.
//!
//! The helper makes a group for each sandbox that has limits, and removes it with the sandbox. Where
//! the helper could not, since it was killed, the next helper that makes a group does: names hold
//! the number of the process that made them. Where a session's own groups cannot be divided, the
//! user's service manager is asked for one that can.

mod scope;
mod v1;
mod v2;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::{Limits, SandboxError};

/// What begins the names of groups of ours.
const PREFIX: &str = "formwork-";
/// The largest file of the kernel's that is read here.
const LONGEST: u64 = 64 << 10;
/// How often removing a group is tried, a millisecond between: the kernel counts processes as its
/// own for a moment after their end.
const ATTEMPTS: usize = 200;

/// Where groups can be made; looked for before the helper arranges its mounts.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    v1: v1::Hierarchies,
    v2: v2::Ancestors,
    made: u64,
    /// Whether the user's service manager has been asked for a group.
    has_asked: bool,
}

/// A group of one sandbox: a directory in each hierarchy that limits something. Goes when dropped.
pub(crate) struct Group {
    parts: Vec<Part>,
    has_v2: bool,
}

/// What the processes of a group have used together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupUsage {
    /// The most memory at one time, in bytes; 0 where the kernel does not tell.
    pub(crate) peak: u64,
    /// How many processes the kernel has killed because they had no more memory.
    pub(crate) oom_kills: u64,
}

/// A directory of a group, and the one that it is in.
struct Part {
    parent: OwnedFd,
    name: String,
    directory: OwnedFd,
}

impl Cgroups {
    /// Looks for the groups of this process.
    pub(crate) fn find() -> Self {
        let v1 =
            v1::Hierarchies::find(&text_of("/proc/self/cgroup"), &text_of("/proc/self/mountinfo"));
        Self { v1, v2: v2::Ancestors::of_this_process(), made: 0, has_asked: false }
    }

    /// Makes a group with limits, without processes. To be done before the processes are made: the
    /// service manager moves this one alone.
    pub(crate) fn make(&mut self, limits: &Limits) -> Result<Group, SandboxError> {
        self.try_make(limits).map_err(|lack| lack.told(limits))
    }

    /// The same, telling more of what is in the way.
    pub(crate) fn try_make(&mut self, limits: &Limits) -> Result<Group, Lack> {
        let group = match self.new_group(limits) {
            Err(_) if self.ask() => self.new_group(limits),
            result => result,
        };
        group.map_err(|errno| Lack::new(limits, errno))
    }

    /// Asks the user's service manager once for a group that can be divided; whether it gave one.
    fn ask(&mut self) -> bool {
        if std::mem::replace(&mut self.has_asked, true) {
            return false;
        }
        let given = scope::enter();
        let is_given = given.is_some();
        self.v2 = given.unwrap_or(std::mem::take(&mut self.v2));
        is_given
    }

    fn new_group(&mut self, limits: &Limits) -> Result<Group, Errno> {
        self.made += 1;
        let name = format!("{PREFIX}{}-{}", std::process::id(), self.made);
        self.v2.make(limits, &name).or_else(|v2| {
            // The version that there is says more than the other.
            self.v1.make(limits, &name).map_err(|v1| if v2 == Errno::NOSYS { v1 } else { v2 })
        })
    }
}

/// Why no group can have limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lack {
    pub(crate) reason: String,
    /// The way out.
    pub(crate) remedy: String,
}

impl Lack {
    fn new(limits: &Limits, errno: Errno) -> Self {
        let controllers = limits.controllers().join(" ");
        let (reason, remedy) = match errno {
            Errno::ROFS => (
                "the control groups are read-only here, as in most containers".to_owned(),
                "limit the container itself, or give it a writable /sys/fs/cgroup".to_owned(),
            ),
            Errno::BUSY => (
                "no control group above this process's own can be reached, and one that has \
                 processes cannot be divided"
                    .to_owned(),
                "limit the container itself, or move its processes into a control group below its \
                 first"
                    .to_owned(),
            ),
            Errno::NOSYS => (
                format!("the control groups of this process have no controller {controllers}"),
                format!(
                    "as root: `systemctl edit user@.service` with the lines [Service] and \
                     Delegate=cpu {controllers}, then log in anew"
                ),
            ),
            errno => (
                format!("this user may make no control group for it here ({errno})"),
                "run formwork as root, or where the user's control groups are delegated, such as \
                 with `systemd-run --user --scope -p Delegate=yes formwork …`"
                    .to_owned(),
            ),
        };
        Self { reason, remedy }
    }

    fn told(self, limits: &Limits) -> SandboxError {
        let Self { reason, remedy } = self;
        SandboxError::Unavailable(format!("cannot limit {limits}: {reason}; {remedy}"))
    }
}

/// The group of version 2 that this process is in.
fn own_group() -> Option<String> {
    let own = text_of("/proc/self/cgroup");
    own.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

impl Group {
    /// Moves a process there, with all that it will ever start.
    pub(crate) fn take(&self, limits: &Limits, pid: Pid) -> Result<(), SandboxError> {
        let number = pid.as_raw_nonzero().to_string();
        let moved = self.parts.iter().try_for_each(|part| part.write("cgroup.procs", &number));
        moved.map_err(|errno| Lack::new(limits, errno).told(limits))
    }

    /// The version of the control groups that it is of.
    pub(crate) fn version(&self) -> u8 {
        if self.has_v2 { 2 } else { 1 }
    }

    /// What its processes have used so far.
    pub(crate) fn usage(&self) -> GroupUsage {
        if self.has_v2 { v2::usage(&self.parts) } else { v1::usage(&self.parts) }
    }
}

impl Part {
    /// Makes a directory.
    fn make(parent: &OwnedFd, name: &str) -> Result<Self, Errno> {
        remove_stale(parent);
        let parent = parent.try_clone().map_err(|_| Errno::MFILE)?;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        match open(&parent, Path::new(name)) {
            Ok(directory) => Ok(Self { parent, name: name.to_owned(), directory }),
            Err(errno) => {
                let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
                Err(errno)
            }
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        write(&self.directory, file, value)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for _ in 0..ATTEMPTS {
            match rustix::fs::unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR) {
                Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(1)),
                _ => return,
            }
        }
    }
}

/// Removes groups of processes that are gone.
fn remove_stale(parent: &OwnedFd) {
    let Ok(entries) = rustix::fs::Dir::read_from(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let Some(maker) = maker.filter(|maker| maker.parse::<u32>().is_ok()) else { continue };
        if !Path::new("/proc").join(maker).exists() {
            // One that still has processes stays.
            let _ = rustix::fs::unlinkat(parent, &name, AtFlags::REMOVEDIR);
        }
    }
}

/// Opens a directory.
fn open(at: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

fn write(directory: &OwnedFd, file: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, file, flags, Mode::empty())?;
    let written = File::from(file).write_all(value.as_bytes());
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The text of a file; empty where it is not there.
fn read(directory: &OwnedFd, file: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut text = String::new();
    if let Ok(file) = rustix::fs::openat(directory, file, flags, Mode::empty()) {
        let _ = File::from(file).take(LONGEST).read_to_string(&mut text);
    }
    text
}

/// The text of a file of this process in `/proc`; empty where it cannot be read.
fn text_of(file: &str) -> String {
    fs_err::read_to_string(file).unwrap_or_default()
}

/// The number of a line `KEY NUMBER`.
fn number_of(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
}

/// Where a hierarchy is mounted, and what of it: the mount point and the root of a line of
/// `/proc/self/mountinfo` that fits.
fn mounted(mounts: &str, fits: impl Fn(&str, &str) -> bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        fits(kind, options).then(|| (point.into(), root.into()))
    })
}

/// The directory of a group, given where its hierarchy is mounted.
fn directory_of(group: &str, (point, root): (PathBuf, PathBuf)) -> PathBuf {
    let below = Path::new(group).strip_prefix(&root).unwrap_or(Path::new(""));
    point.join(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str =
        "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/docker/abc\n0::/user.slice/x\n";
    const MOUNTS: &str = "\
30 20 0:25 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:26 / /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory
32 30 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn the_own_group_is_found_where_its_hierarchy_is_mounted() {
        let place = |name: &'static str| {
            let fits = |kind: &str, options: &str| {
                kind == "cgroup" && options.split(',').any(|option| option == name)
            };
            mounted(MOUNTS, fits)
        };
        let directory = |group, place| directory_of(group, place).to_str().unwrap().to_owned();
        let memory = place("memory").unwrap();
        assert_eq!(directory("/a/b", memory), "/sys/fs/cgroup/memory/a/b");
        // In a container the mount shows the container's group alone.
        let cpu = place("cpu").unwrap();
        assert_eq!(directory("/docker/abc", cpu.clone()), "/sys/fs/cgroup/cpu,cpuacct/");
        assert_eq!(directory("/docker/abc/d", cpu), "/sys/fs/cgroup/cpu,cpuacct/d");
        assert_eq!(place("pids"), None);
        let two = mounted(MOUNTS, |kind, _| kind == "cgroup2").unwrap();
        let own = OWN.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
        assert_eq!(directory(own, two), "/sys/fs/cgroup/unified/user.slice/x");
    }

    #[test]
    fn events_are_counted() {
        let text = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n";
        assert_eq!(number_of(text, "oom_kill"), 2);
        assert_eq!(number_of("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "oom_kill"), 1);
        assert_eq!(number_of("", "oom_kill"), 0);
    }
}
