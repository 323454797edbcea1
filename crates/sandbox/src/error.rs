//! What can go wrong with a sandbox.
//!
//! The errors are made in another process than the one that reports them, so they are plain data
//! that can cross a socket. This file never looks anything up to make a message better.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::encoding;

/// Why a process did not run, or nobody knows how it ended.
///
/// A process that ran and failed is no error: [`ExitReport`](crate::ExitReport) tells how it ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SandboxError {
    /// The kernel refused a step on the way to the process.
    #[error("cannot {stage} `{}`: {source}{}", path.display(), stage.way_out(*source))]
    Setup {
        /// What was being done.
        stage: Stage,
        /// What it was being done to: a path of the host, or a path inside where the stage is
        /// about the inside.
        #[serde(with = "encoding::one")]
        path: PathBuf,
        /// What the kernel said.
        source: OsError,
    },
    /// The specification contradicts itself.
    #[error("the process cannot be described like this: {0}")]
    Spec(String),
    /// More layers than the kernel stacks.
    #[error(
        "the root file system has {count} layers, and overlayfs stacks at most {limit}: \
         join instructions, or start from an image with fewer layers"
    )]
    TooManyLayers {
        /// The number of layers.
        count: usize,
        /// The largest number.
        limit: usize,
    },
    /// A user or group that the user namespace does not have.
    #[error(
        "{kind} {id} does not exist here: this build may use the ids {mapped}; \
         give your user a larger range in {}, or build as root", kind.file()
    )]
    IdNotMapped {
        /// User or group.
        kind: IdKind,
        /// The number.
        id: u32,
        /// The numbers that exist, such as `0-65536`.
        mapped: String,
    },
    /// Something cannot be mounted where it should be.
    #[error("cannot mount on `{}`: {problem}", target.display())]
    Target {
        /// The path inside.
        #[serde(with = "encoding::one")]
        target: PathBuf,
        /// What is in the way.
        problem: TargetProblem,
    },
    /// The program cannot be executed.
    #[error("cannot run `{}`: {problem}", program.display())]
    Program {
        /// The program as the specification names it, or the file that it was found to be.
        program: OsString,
        /// What is wrong with it.
        problem: ProgramProblem,
    },
    /// The invoking user may not make the namespaces that a build needs.
    #[error("this user cannot build here: {0}")]
    Rootless(RootlessProblem),
    /// `enter` came too late.
    #[error("the namespaces must be entered before the first thread starts; {threads} are running")]
    Threaded {
        /// The number of threads.
        threads: usize,
    },
    /// The process that starts the sandboxes cannot be started or is gone.
    #[error("the sandbox helper does not answer: {0}")]
    Helper(String),
    /// The first process of a sandbox was killed from outside.
    #[error(
        "the sandbox was killed by signal {signal} from outside; if the machine ran out of \
         memory, run fewer steps at a time"
    )]
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// Something that this machine cannot give a process, with the reason and the way out.
    #[error("{0}")]
    Unavailable(String),
    /// The caller's [`Cancel`](crate::Cancel) was used before the process was started.
    #[error("cancelled before the process was started")]
    Cancelled,
}

/// A step on the way to the process, as an infinitive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Making the new namespaces.
    Namespaces,
    /// Giving the user namespace its ids.
    IdMaps,
    /// Taking the mounts out of the host's sight, and other preparations.
    Private,
    /// Opening a layer.
    OpenLayer,
    /// Mounting the layers.
    MountRoot,
    /// Opening what is to be mounted.
    OpenSource,
    /// Looking for, or making, the place where something is to be mounted.
    OpenTarget,
    /// Mounting.
    Mount,
    /// Hiding a file of `/proc` or `/sys`.
    Mask,
    /// Making `/dev`.
    Device,
    /// Writing a file that is given by its content.
    WriteFile,
    /// Changing to the new root.
    PivotRoot,
    /// Naming the host, setting up the loopback interface.
    Network,
    /// Entering the working directory.
    WorkingDirectory,
    /// Taking on the user.
    User,
    /// Dropping capabilities and loading the system call filter.
    Confine,
    /// Limiting what it may use.
    Limit,
    /// Handing over standard input, output and error.
    Stdio,
    /// Making the process.
    Fork,
    /// Passing messages.
    Messages,
}

impl Stage {
    /// A hint to append to the message, for the failures that users can do something about.
    fn way_out(self, error: OsError) -> &'static str {
        match (self, error.0) {
            (Self::Namespaces, libc::ENOSPC) => {
                "; raise the sysctls user.max_user_namespaces and user.max_mnt_namespaces"
            }
            (Self::Namespaces, libc::EPERM) => {
                "; user namespaces are forbidden here: `formwork doctor` tells by what"
            }
            (Self::MountRoot, libc::EINVAL) => {
                "; the store must be on ext4, xfs, btrfs or tmpfs, not on overlayfs (a container's \
                 own files), NFS or FUSE: choose its place with `--root`, give the container a \
                 volume there, or build with `--isolation=chroot`"
            }
            (Self::MountRoot, libc::EOPNOTSUPP) => {
                "; the store's file system has no extended attributes of users, as tmpfs before \
                 Linux 6.6: choose its place with `--root`"
            }
            (Self::Mount, libc::EPERM) => {
                "; inside a container, `/proc` must not be masked (`--security-opt unmask=ALL`, \
                 `procMount: Unmasked`)"
            }
            (Self::OpenTarget, libc::EROFS) => {
                "; the place does not exist, and the root file system is read-only"
            }
            (_, libc::EAGAIN) => {
                "; allow more processes: `ulimit -u`, or the limit of pids of the container"
            }
            (_, libc::EMFILE) => {
                "; let formwork open more files at once, such as by `ulimit -n 4096`"
            }
            (_, libc::ENOSPC) => "; free some space there: the disk has no room, or no inode, left",
            (Self::Limit, libc::EPERM) => {
                "; who runs formwork cannot raise limits above their own, which `ulimit -H -a` shows; \
                 and nobody opens more files than the sysctl fs.nr_open says"
            }
            (Self::WorkingDirectory, libc::ENOENT) => "; the working directory does not exist",
            _ => "",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "make the namespaces of",
            Self::IdMaps => "map the ids of",
            Self::Private => "prepare mounting, which needs",
            Self::OpenLayer => "open the layer",
            Self::MountRoot => "mount the layers, of which the topmost is",
            Self::OpenSource => "open the mount's source",
            Self::OpenTarget => "find or make the mount's target",
            Self::Mount => "mount",
            Self::Mask => "hide",
            Self::Device => "make the device",
            Self::WriteFile => "write the file that is mounted on",
            Self::PivotRoot => "change the root to",
            Self::Network => "set up the network name",
            Self::WorkingDirectory => "enter the working directory",
            Self::User => "become the user",
            Self::Confine => "confine",
            Self::Limit => "set the limits of",
            Self::Stdio => "hand over",
            Self::Fork => "start",
            Self::Messages => "exchange messages about",
        })
    }
}

/// An error number of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsError(pub i32);

impl fmt::Display for OsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for OsError {}

impl From<rustix::io::Errno> for OsError {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<io::Error> for OsError {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// The two kinds of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdKind {
    /// A user's.
    User,
    /// A group's.
    Group,
}

impl IdKind {
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::User => "/etc/subuid",
            Self::Group => "/etc/subgid",
        }
    }
}

impl fmt::Display for IdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Group => "group",
        })
    }
}

/// Why nothing can be mounted on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetProblem {
    /// A directory should go where a file is.
    IsFile,
    /// A file should go where a directory is.
    IsDirectory,
    /// The path leads into the kernel's `/proc`.
    InProc,
    /// `/proc`, `/sys` or `/dev` of the image is a symbolic link or a file.
    NotPlainDirectory,
    /// The symbolic links on the way do not end.
    LinkLoop,
}

impl fmt::Display for TargetProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IsFile => "a directory is to be mounted, and the root file system has a file",
            Self::IsDirectory => {
                "a file is to be mounted, and the root file system has a directory"
            }
            Self::InProc => "nothing may be mounted inside /proc",
            Self::NotPlainDirectory => {
                "the root file system must have a plain directory there, or nothing"
            }
            Self::LinkLoop => "its symbolic links lead in a circle",
        })
    }
}

/// Why a program cannot be executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProgramProblem {
    /// No such file in any directory of `PATH`; the string is the `PATH`.
    NotInPath(OsString),
    /// No such file.
    Missing,
    /// The file is there, but may not be executed by this user.
    NotExecutable,
    /// The file is a directory.
    Directory,
    /// The interpreter of a script's first line, or the dynamic loader of a binary, is missing.
    InterpreterMissing(OsString),
    /// A binary for another architecture, with its name in the kernel's and QEMU's terms.
    Architecture(String),
    /// The same, and the kernel does not let a sandbox register the emulator that is there.
    EmulatorRefused(String, OsError),
    /// Neither a binary nor a script that says its interpreter.
    Format,
    /// Arguments and environment are longer than the kernel takes.
    TooLong,
    /// Anything else that the kernel says.
    Other(OsError),
}

impl fmt::Display for ProgramProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInPath(path) => write!(f, "not found in PATH={}", path.display()),
            Self::Missing => f.write_str("no such file in the root file system"),
            Self::NotExecutable => f.write_str("the file is not executable by this user"),
            Self::Directory => f.write_str("it is a directory"),
            Self::InterpreterMissing(path) => write!(
                f,
                "the file exists, but its interpreter `{}` does not: install it, or link the \
                 program statically or against this image's libc",
                path.display()
            ),
            Self::Architecture(name) => write!(
                f,
                "it is a program for {name}, and this machine has no emulator for it: install \
                 one (`apt-get install qemu-user-static`, or a `qemu-{name}-static` on the PATH), \
                 or let the stage run on this machine (`FROM --platform=$BUILDPLATFORM`)"
            ),
            Self::EmulatorRefused(name, error) => write!(
                f,
                "it is a program for {name}; there is an emulator for it, but this sandbox may not \
                 register it ({error}), which takes Linux 6.7: let root register it with \
                 `apt-get install binfmt-support qemu-user-static` (binfmt_misc entry \
                 `qemu-{name}`, flag F), or let the stage run on this machine \
                 (`FROM --platform=$BUILDPLATFORM`)"
            ),
            Self::Format => f.write_str(
                "exec format error: it is neither a binary nor a script that starts with `#!`",
            ),
            Self::TooLong => {
                f.write_str("its arguments and environment are longer than the kernel takes")
            }
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// Why an ordinary user cannot build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RootlessProblem {
    /// No power to mount, as for root in a container.
    MayNotMount(OsError),
    /// The kernel refuses user namespaces.
    UserNamespaces(OsError),
    /// Parts of `/proc` are hidden, so that nobody else may have one.
    MaskedProc(OsError),
    /// The user has no subordinate ids.
    NoSubordinateIds {
        /// The file that lacks a line.
        kind: IdKind,
        /// The user's name, or number where it has none.
        user: String,
        /// The first number above those that the file gives to others.
        free: u32,
    },
    /// A file with the user's ranges cannot be read.
    Unreadable {
        /// The file.
        file: String,
        /// What the kernel said.
        source: OsError,
    },
    /// `newuidmap` or `newgidmap` cannot be executed.
    MapperMissing {
        /// Its name.
        program: String,
        /// What the kernel said.
        source: OsError,
    },
    /// `newuidmap` or `newgidmap` failed.
    MapperFailed {
        /// Its name.
        program: String,
        /// What it wrote.
        message: String,
    },
    /// Another step failed.
    Step {
        /// What was tried, as an infinitive.
        action: String,
        /// What the kernel said.
        source: OsError,
    },
}

impl fmt::Display for RootlessProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MayNotMount(error @ OsError(libc::EACCES)) => write!(
                f,
                "this process may not mount anything ({error}): a security module forbids it, such \
                 as AppArmor's profile of the container (`--security-opt apparmor=unconfined`)"
            ),
            Self::MayNotMount(error) => write!(
                f,
                "this process may not mount anything ({error}): give the container \
                 CAP_SYS_ADMIN, or run as an ordinary user with subordinate ids"
            ),
            Self::UserNamespaces(error) => write!(
                f,
                "the kernel refuses user namespaces, or power in them ({error}): check the sysctls \
                 user.max_user_namespaces, kernel.unprivileged_userns_clone and \
                 kernel.apparmor_restrict_unprivileged_userns, or build as root"
            ),
            Self::MaskedProc(error) => write!(
                f,
                "steps can have no `/proc` of their own ({error}), since the container's is \
                 masked: start it with `--security-opt unmask=ALL` (podman), `--security-opt \
                 systempaths=unconfined` (docker) or `procMount: Unmasked` (Kubernetes)"
            ),
            Self::NoSubordinateIds { kind, user, free } => write!(
                f,
                "{} has no line for {user}: add `{user}:{free}:65536` there (as root), or build \
                 as root",
                kind.file()
            ),
            Self::Unreadable { file, source } => write!(f, "cannot read {file}: {source}"),
            Self::MapperMissing { program, source: source @ OsError(libc::EMFILE) } => write!(
                f,
                "cannot run {program} ({source}): let formwork open more files at once, such as \
                 by `ulimit -n 4096`"
            ),
            Self::MapperMissing { program, source } => write!(
                f,
                "cannot run {program} ({source}): install the package `uidmap` \
                 (Debian, Ubuntu) or `shadow-utils` (Fedora)"
            ),
            Self::MapperFailed { program, message } => write!(
                f,
                "{program} failed: {message}; it must be setuid root (or have file capabilities), \
                 no_new_privs must not be set, and the ranges must be this user's in /etc/subuid \
                 and /etc/subgid"
            ),
            Self::Step { action, source } => write!(f, "cannot {action}: {source}"),
        }
    }
}

impl SandboxError {
    /// An error of the kernel about a path.
    pub(crate) fn setup(
        stage: Stage,
        path: impl Into<PathBuf>,
        source: impl Into<OsError>,
    ) -> Self {
        Self::Setup { stage, path: path.into(), source: source.into() }
    }
}
