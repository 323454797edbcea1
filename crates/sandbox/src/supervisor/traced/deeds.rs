//! Which system calls are carried out for a process, and how. Pure data.

use crate::seccomp::{Ask, Path};
use crate::supervisor::calls::Place;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// What the supervisor of rung (c) does; what it leaves to the kernel needs no path.
    Same,
    Open(Place, usize),
    Create,
    Open2,
    MakeDirectory(Place, usize),
    MakeNode(Place, usize),
    MakeLink(Place),
    Unlink(Place),
    RemoveDirectory(Place),
    /// `unlinkat`, with flags.
    UnlinkAt,
    Rename(Place, Place, Option<usize>),
    Name(Place, Place),
    /// `linkat`, with flags.
    NameAt,
    ChangeMode(Place, usize),
    Access(Place, usize, Option<usize>),
    Truncate(Place),
    /// `utimensat`.
    Times,
    /// `utime`.
    OldTimes,
    /// `utimes`, `futimesat`.
    MicroTimes(Place, usize),
    ReadLink(Place, usize),
    StatFs(Place),
    GetAttribute(Place, usize),
    SetAttribute(Place, usize),
    RemoveAttribute(Place, usize),
    ListAttributes(Place, usize),
    WorkingDirectory,
    /// Lists a directory.
    List,
    /// About a process in an argument, which has to be one of the step's.
    Process(usize),
    /// The priority of a process, a group or a user, whose kinds begin with a number.
    Priority(u32),
    /// A piece of memory, a queue or some semaphores by a key that is the step's own.
    Shared,
    /// The same by a number.
    SharedUse,
    /// Tells the names of the system and of the host.
    HostName,
    /// What nobody may do here.
    Never,
    /// `kill`.
    Signal,
    Control,
    Socket,
    Bind,
    Connect,
    SendTo,
    /// `getsockopt` for who is at the other end.
    Peer,
}

const ALWAYS: Path = Path::Ask(Ask::Always);
/// `AF_UNIX`, `SO_PEERCRED`.
const UNIX: Path = Path::Ask(Ask::IfOneOf(0, [1, 1]));
const PEER: Path = Path::Ask(Ask::IfOneOf(2, [17, 17]));
/// `CLONE_UNTRACED`.
const UNTRACED: u32 = 0x0080_0000;
/// `RLIMIT_RSS`.
const LIMIT: [u32; 2] = [5, 5];

/// All calls whose meaning depends on the root directory, or on who a process is.
#[rustfmt::skip]
pub(super) const DEEDS: &[(&str, Deed, Path)] = {
    use Deed::*;
    use Place::{At, AtWith, Link, LinkAt, Open as File, Path as Follow};
    const NOT_THERE: Path = Path::Refuse(libc::ENOSYS);
    const FORBIDDEN: Path = Path::Refuse(libc::EPERM);
    &[
        ("open", Open(Follow(0), 1), ALWAYS),
        ("openat", Open(At(0, 1), 2), ALWAYS),
        ("creat", Create, ALWAYS),
        ("openat2", Open2, ALWAYS),
        ("stat", Same, ALWAYS), ("lstat", Same, ALWAYS), ("fstat", Same, ALWAYS),
        ("newfstatat", Same, ALWAYS), ("statx", Same, ALWAYS),
        ("chown", Same, ALWAYS), ("lchown", Same, ALWAYS), ("fchown", Same, ALWAYS),
        ("fchownat", Same, ALWAYS),
        ("mkdir", MakeDirectory(Follow(0), 1), ALWAYS),
        ("mkdirat", MakeDirectory(At(0, 1), 2), ALWAYS),
        ("mknod", MakeNode(Follow(0), 1), ALWAYS),
        ("mknodat", MakeNode(At(0, 1), 2), ALWAYS),
        ("symlink", MakeLink(Follow(1)), ALWAYS),
        ("symlinkat", MakeLink(At(1, 2)), ALWAYS),
        ("unlink", Unlink(Follow(0)), ALWAYS),
        ("rmdir", RemoveDirectory(Follow(0)), ALWAYS),
        ("unlinkat", UnlinkAt, ALWAYS),
        ("rename", Rename(Follow(0), Follow(1), None), ALWAYS),
        ("renameat", Rename(At(0, 1), At(2, 3), None), ALWAYS),
        ("renameat2", Rename(At(0, 1), At(2, 3), Some(4)), ALWAYS),
        ("link", Name(Link(0), Follow(1)), ALWAYS),
        ("linkat", NameAt, ALWAYS),
        ("chmod", ChangeMode(Follow(0), 1), ALWAYS),
        ("fchmod", ChangeMode(File(0), 1), ALWAYS),
        ("fchmodat", ChangeMode(At(0, 1), 2), ALWAYS),
        ("fchmodat2", ChangeMode(AtWith(0, 1, 3), 2), ALWAYS),
        ("access", Access(Follow(0), 1, None), ALWAYS),
        ("faccessat", Access(At(0, 1), 2, None), ALWAYS),
        ("faccessat2", Access(AtWith(0, 1, 3), 2, Some(3)), ALWAYS),
        ("truncate", Truncate(Follow(0)), ALWAYS),
        ("utimensat", Times, ALWAYS),
        ("utime", OldTimes, ALWAYS),
        ("utimes", MicroTimes(Follow(0), 1), ALWAYS),
        ("futimesat", MicroTimes(At(0, 1), 2), ALWAYS),
        ("readlink", ReadLink(Link(0), 1), ALWAYS),
        ("readlinkat", ReadLink(LinkAt(0, 1), 2), ALWAYS),
        ("statfs", StatFs(Follow(0)), ALWAYS),
        ("getxattr", GetAttribute(Follow(0), 1), ALWAYS),
        ("lgetxattr", GetAttribute(Link(0), 1), ALWAYS),
        ("fgetxattr", GetAttribute(File(0), 1), ALWAYS),
        ("setxattr", SetAttribute(Follow(0), 1), ALWAYS),
        ("lsetxattr", SetAttribute(Link(0), 1), ALWAYS),
        ("fsetxattr", SetAttribute(File(0), 1), ALWAYS),
        ("removexattr", RemoveAttribute(Follow(0), 1), ALWAYS),
        ("lremovexattr", RemoveAttribute(Link(0), 1), ALWAYS),
        ("fremovexattr", RemoveAttribute(File(0), 1), ALWAYS),
        ("listxattr", ListAttributes(Follow(0), 1), ALWAYS),
        ("llistxattr", ListAttributes(Link(0), 1), ALWAYS),
        ("flistxattr", ListAttributes(File(0), 1), ALWAYS),
        ("getcwd", WorkingDirectory, ALWAYS),
        ("getdents64", List, ALWAYS),
        ("fchdir", Same, ALWAYS),
        ("getuid", Same, ALWAYS), ("geteuid", Same, ALWAYS),
        ("getgid", Same, ALWAYS), ("getegid", Same, ALWAYS),
        ("getresuid", Same, ALWAYS), ("getresgid", Same, ALWAYS),
        ("getgroups", Same, ALWAYS), ("setgroups", Same, ALWAYS),
        ("setuid", Same, ALWAYS), ("setgid", Same, ALWAYS),
        ("setreuid", Same, ALWAYS), ("setregid", Same, ALWAYS),
        ("setresuid", Same, ALWAYS), ("setresgid", Same, ALWAYS),
        ("setfsuid", Same, ALWAYS), ("setfsgid", Same, ALWAYS),
        ("capget", Same, ALWAYS), ("capset", Same, ALWAYS),
        ("getrlimit", Same, Path::Ask(Ask::IfOneOf(0, LIMIT))),
        ("setrlimit", Same, Path::Ask(Ask::IfOneOf(0, LIMIT))),
        ("prlimit64", Same, Path::Ask(Ask::IfOneOf(1, LIMIT))),
        ("prctl", Control, ALWAYS),
        ("uname", HostName, ALWAYS),
        ("socket", Socket, UNIX),
        ("bind", Bind, ALWAYS),
        ("connect", Connect, ALWAYS),
        ("sendto", SendTo, Path::Ask(Ask::IfAny(5, u32::MAX))),
        ("getsockopt", Peer, PEER),
        ("kill", Signal, ALWAYS),
        ("tgkill", Process(0), ALWAYS),
        ("tkill", Process(0), ALWAYS),
        ("rt_sigqueueinfo", Process(0), ALWAYS),
        ("rt_tgsigqueueinfo", Process(0), ALWAYS),
        ("pidfd_open", Process(0), ALWAYS),
        ("sched_setaffinity", Process(0), ALWAYS),
        ("sched_setattr", Process(0), ALWAYS),
        ("sched_setparam", Process(0), ALWAYS),
        ("sched_setscheduler", Process(0), ALWAYS),
        ("setpriority", Priority(0), ALWAYS),
        ("ioprio_set", Priority(1), ALWAYS),
        ("shmget", Shared, ALWAYS), ("msgget", Shared, ALWAYS), ("semget", Shared, ALWAYS),
        ("shmat", SharedUse, ALWAYS), ("shmctl", SharedUse, ALWAYS),
        ("msgsnd", SharedUse, ALWAYS), ("msgrcv", SharedUse, ALWAYS),
        ("msgctl", SharedUse, ALWAYS),
        ("semop", SharedUse, ALWAYS), ("semtimedop", SharedUse, ALWAYS),
        ("semctl", SharedUse, ALWAYS),
        ("execve", Same, Path::Trace),
        ("execveat", Same, Path::Trace),
        ("chdir", Same, Path::Trace),
        // Processes that nobody could follow.
        ("clone", Never, Path::Ask(Ask::IfAny(0, UNTRACED))),
        ("sendmsg", Same, Path::Trace),
        ("sendmmsg", Same, Path::Trace),
        // Their paths are in structures or lead to descriptors that nobody else can make; programs do
        // without, as on old kernels.
        ("inotify_add_watch", Same, NOT_THERE), ("fanotify_mark", Same, NOT_THERE),
        ("name_to_handle_at", Same, NOT_THERE), ("statmount", Same, NOT_THERE),
        ("listmount", Same, NOT_THERE), ("mq_open", Same, NOT_THERE),
        ("mq_unlink", Same, NOT_THERE),
        ("getxattrat", Same, NOT_THERE), ("setxattrat", Same, NOT_THERE),
        ("removexattrat", Same, NOT_THERE), ("listxattrat", Same, NOT_THERE),
        // The kernel's own root is not the process's.
        ("chroot", Same, FORBIDDEN), ("acct", Same, FORBIDDEN), ("quotactl", Same, FORBIDDEN),
        // Whoever is traced already can be traced by nobody else.
        ("ptrace", Same, FORBIDDEN), ("process_vm_readv", Same, FORBIDDEN),
        ("process_vm_writev", Same, FORBIDDEN), ("kcmp", Same, FORBIDDEN),
        ("pidfd_getfd", Same, FORBIDDEN), ("process_madvise", Same, FORBIDDEN),
    ]
};

/// The filter of such processes.
pub(in crate::supervisor) fn filter() -> Vec<libc::sock_filter> {
    crate::seccomp::leading(DEEDS.iter().map(|(name, _, path)| (*name, *path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp;

    #[test]
    fn every_call_is_known_and_listed_once() {
        let mut seen = std::collections::BTreeSet::new();
        for (name, ..) in DEEDS {
            assert!(seen.insert(name), "{name}");
            assert!(seccomp::number(name, 0).is_some(), "{name}");
        }
        // `assert` once more that the filter fits.
        assert!(filter().len() < 4096);
    }
}
