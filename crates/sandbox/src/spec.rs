//! What to run, and in which world.
//!
//! Plain data: nothing here looks at the machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use formwork_fs::RelPath;
use serde::{Deserialize, Serialize};

use crate::{Emulator, Limits, ResourceLimit, SandboxError, Uplink, encoding};

/// The number of lower layers that overlayfs stacks (`OVL_MAX_STACK` of the kernel).
pub const MAX_LAYERS: usize = 500;

/// One process and its world.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// What the process sees as `/`.
    pub root: RootFs,
    /// What is mounted in it, in this order, after `/proc`, `/sys` and `/dev`.
    pub mounts: Vec<MountPoint>,
    /// Where nothing can be mounted: that a supervisor shows the process `/proc`, the files of
    /// `mounts`, and the devices that are plain files in the tree. Holds the last words of all
    /// symbolic links in the tree that may lead to any of these.
    #[serde(with = "encoding::optional_list")]
    pub shown: Option<Vec<Vec<u8>>>,
    /// Whether the tree of a process that is shown something has what stands for devices
    /// ([`formwork_fs::Record`]), of which it is to be told.
    pub has_devices: bool,
    /// The numbers of the files that have several names in the tree of a process that is shown
    /// something: a name gets a file of its own when it changes, as on an overlay.
    pub linked: Vec<u64>,
    /// The program and its arguments. A program without a slash is looked up along `PATH` of
    /// `env`, inside.
    pub args: Vec<OsString>,
    /// The environment: exactly these.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, which must exist.
    #[serde(with = "encoding::one")]
    pub cwd: RelPath,
    /// Who the process is.
    pub user: User,
    /// The host name, at most 64 bytes; empty for the machine's own.
    pub hostname: String,
    /// Which network the process sees.
    pub network: NetworkMode,
    /// The way out of a private network; without one it has none.
    pub uplink: Option<Uplink>,
    /// Whether standard input is a terminal that shall be the process's own: Ctrl-C there
    /// interrupts it, and a change of its size is told. No other session may have that terminal.
    pub terminal: bool,
    /// All capabilities within the sandbox's user namespace, no system call filter, and nothing
    /// hidden or read-only in `/proc`: for `RUN --security=insecure`, and only where the user has
    /// allowed it, since real root's files are then protected by their permissions alone.
    pub privileged: bool,
    /// Whether setuid programs and file capabilities are without effect (`no_new_privs`).
    pub no_new_privileges: bool,
    /// What becomes of the devices that the process makes, where owners are the kernel's. Where they
    /// are data, devices are kept, too.
    pub devices: Devices,
    /// The size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Limits of all processes together.
    pub limits: Limits,
    /// Limits of every single process, in place of the builder's own.
    pub resource_limits: Vec<ResourceLimit>,
    /// How long the process may take; then it is stopped as if it were cancelled.
    pub time_limit: Option<Duration>,
    /// How long a cancelled process has between `SIGTERM` and `SIGKILL`.
    pub stop_grace: Duration,
    /// What runs programs for another machine, where this one does not by itself.
    pub emulator: Option<Emulator>,
}

impl ProcessSpec {
    /// A process with the defaults of a `RUN` as root: no mounts, an empty environment, `/` as
    /// working directory, the machine's network, 64 MiB of `/dev/shm` as Docker has it, ten
    /// seconds to stop as `docker stop` gives.
    pub fn new(root: RootFs, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            root,
            mounts: Vec::new(),
            shown: None,
            has_devices: false,
            linked: Vec::new(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: RelPath::root(),
            user: User::default(),
            hostname: String::new(),
            network: NetworkMode::Host,
            uplink: None,
            terminal: false,
            privileged: false,
            no_new_privileges: false,
            devices: Devices::Refused,
            shm_size: 64 << 20,
            limits: Limits::default(),
            resource_limits: Vec::new(),
            time_limit: None,
            stop_grace: Duration::from_secs(10),
            emulator: None,
        }
    }

    /// Refuses what no kernel could run, before anything is started.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        if self.args.first().is_none_or(|program| program.is_empty()) {
            return Err(problem("there is no program"));
        }
        if self.args.iter().any(|arg| has_nul(arg)) {
            return Err(problem("an argument contains a NUL byte"));
        }
        if let Some((name, _)) = self.env.iter().find(|(name, value)| !is_variable(name, value)) {
            let name = name.display();
            return Err(problem(format!("the environment variable `{name}` cannot be set")));
        }
        if self.hostname.len() > 64 || self.hostname.contains('\0') {
            return Err(problem("the host name is longer than 64 bytes"));
        }
        self.root.check()?;
        let is_shown = |point: &MountPoint| {
            self.shown.is_some() && matches!(point.kind, MountKind::File { read_only: true, .. })
        };
        if self.root.in_place && !self.mounts.iter().all(is_shown) {
            return Err(problem("nothing can be mounted where the root is a plain directory"));
        }
        self.mounts.iter().try_for_each(MountPoint::check)
    }
}

/// What becomes of the devices that a process makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Devices {
    /// The kernel refuses them, as it does to everybody but real root.
    #[default]
    Refused,
    /// Nothing is there to keep them, but the process is ended when one is to be made by somebody who
    /// might ([`ExitReport::halted`](crate::ExitReport::halted)), and can be run again with
    /// [`Devices::Kept`].
    Noticed,
    /// They are data ([`formwork_fs::Record`]), which a supervisor tells to processes: slower, for
    /// whoever looks at many files.
    Kept,
}

/// A tree of files: layers, and possibly a directory that takes the changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Directories with overlayfs conventions (`userxattr`), the lowest first; absolute paths.
    ///
    /// At least one and at most [`MAX_LAYERS`]. A single one without `upper` is bind-mounted, so
    /// whiteouts in it would show as devices; they can hide nothing.
    #[serde(with = "encoding::list")]
    pub layers: Vec<PathBuf>,
    /// What takes the changes; without it the tree is read-only.
    pub upper: Option<Upper>,
    /// Never sync: after a crash of the machine the upper directory is worth nothing.
    pub volatile: bool,
    /// The only layer is a directory that is the root as it is, and takes the changes: the process
    /// runs in a chroot, without namespaces and mounts.
    pub in_place: bool,
    /// That directory is a root to nobody but the process, whose paths a supervisor follows: for
    /// builders who may not change their root.
    pub traced: bool,
}

impl RootFs {
    /// A read-only tree.
    pub fn read_only(layers: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let layers = layers.into_iter().map(Into::into).collect();
        Self { layers, upper: None, volatile: false, in_place: false, traced: false }
    }

    /// A tree whose changes go to a directory, without any sync.
    pub fn writable(
        layers: impl IntoIterator<Item = impl Into<PathBuf>>,
        upper: impl Into<PathBuf>,
        work: impl Into<PathBuf>,
    ) -> Self {
        let upper = Some(Upper { upper: upper.into(), work: work.into() });
        Self { upper, volatile: true, ..Self::read_only(layers) }
    }

    /// A directory that holds the whole tree and takes the changes.
    pub fn in_place(directory: impl Into<PathBuf>) -> Self {
        Self { in_place: true, ..Self::read_only([directory]) }
    }

    /// The same, for a process that is traced.
    pub fn traced(directory: impl Into<PathBuf>) -> Self {
        Self { traced: true, ..Self::in_place(directory) }
    }

    /// The directory to name in messages: the topmost.
    pub(crate) fn topmost(&self) -> &Path {
        match &self.upper {
            Some(upper) => &upper.upper,
            None => self.layers.last().map_or(Path::new("/"), PathBuf::as_path),
        }
    }

    fn check(&self) -> Result<(), SandboxError> {
        match self.layers.len() {
            2.. if self.in_place => return Err(problem("a plain directory has no layers")),
            0 => return Err(problem("the root file system has no layers")),
            1..=MAX_LAYERS => {}
            count => return Err(SandboxError::TooManyLayers { count, limit: MAX_LAYERS }),
        }
        let upper = self.upper.iter().flat_map(|upper| [&upper.upper, &upper.work]);
        self.layers.iter().chain(upper).try_for_each(|path| absolute(path))
    }
}

/// Where the changes go: two directories of one file system, the second empty and for the
/// kernel's use only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// Takes the changes, with overlayfs conventions. Its own mode and owner are those of `/`.
    #[serde(with = "encoding::one")]
    pub upper: PathBuf,
    /// The kernel's scratch directory; a new one for every run where the tree is volatile.
    #[serde(with = "encoding::one")]
    pub work: PathBuf,
}

/// Something mounted in the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPoint {
    /// Where, as a path inside. Symbolic links on the way are followed as the process would.
    #[serde(with = "encoding::one")]
    pub target: RelPath,
    /// What.
    pub kind: MountKind,
}

impl MountPoint {
    /// What has to be at the target for the mount to be possible.
    pub fn stub(&self) -> Stub {
        match &self.kind {
            MountKind::Bind { stub, .. } | MountKind::Overlay { stub, .. } => *stub,
            MountKind::Tmpfs { .. } => Stub::Dir,
            MountKind::File { .. } => Stub::File,
        }
    }

    fn check(&self) -> Result<(), SandboxError> {
        if self.target.is_root() {
            return Err(problem("nothing can be mounted on `/`"));
        }
        match &self.kind {
            MountKind::Bind { source, .. } => absolute(source),
            MountKind::Overlay { tree, .. } => tree.check(),
            MountKind::Tmpfs { .. } | MountKind::File { .. } => Ok(()),
        }
    }
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of the host, with all that is mounted below it; without setuid and
    /// devices.
    Bind {
        /// Where the host has it: an absolute path, trusted.
        #[serde(with = "encoding::one")]
        source: PathBuf,
        /// The part of it that is mounted, found as a process in a chroot at `source` would find
        /// it: symbolic links cannot lead out.
        #[serde(with = "encoding::one")]
        subpath: RelPath,
        /// Whether the process may change nothing through it.
        read_only: bool,
        /// What that part is.
        stub: Stub,
    },
    /// A tree of layers, such as another stage; read-only where it has no upper directory.
    Overlay {
        /// The tree.
        tree: RootFs,
        /// The part of it that is mounted, found as by a process inside that tree.
        #[serde(with = "encoding::one")]
        subpath: RelPath,
        /// What that part is.
        stub: Stub,
    },
    /// An empty directory in memory, gone with the process.
    Tmpfs {
        /// The most that it holds, in bytes; half of the memory by default.
        size: Option<u64>,
        /// The permission bits of the directory.
        mode: u32,
    },
    /// A file in memory: secrets, `/etc/hosts`, certificates.
    File {
        /// What it holds.
        data: FileData,
        /// The permission bits.
        mode: u32,
        /// The owner, as a number inside.
        uid: u32,
        /// The group, as a number inside.
        gid: u32,
        /// Whether the process may not change it.
        read_only: bool,
    },
}

/// The content of a file, which may be secret: its `Debug` form tells only the length.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileData(#[serde(with = "encoding::one")] pub Vec<u8>);

impl fmt::Debug for FileData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The empty file or directory that something is mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stub {
    /// A directory.
    Dir,
    /// A regular file.
    File,
}

impl fmt::Display for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dir => "directory",
            Self::File => "file",
        })
    }
}

/// The numbers of a user, inside. Names are for the caller to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups, exactly these.
    pub groups: Vec<u32>,
}

/// Which network the process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkMode {
    /// The machine's, without power over it: no raw sockets, no ports below 1024.
    Host,
    /// A loopback interface and nothing else.
    None,
    /// One of its own, with a way out through [`ProcessSpec::uplink`]: what listens on this
    /// machine's loopback interface or on an abstract socket cannot be reached.
    Private,
}

fn absolute(path: &Path) -> Result<(), SandboxError> {
    if path.is_absolute() && !has_nul(path.as_os_str()) {
        return Ok(());
    }
    Err(problem(format!("`{}` is not an absolute path", path.display())))
}

fn is_variable(name: &OsStr, value: &OsStr) -> bool {
    let equals = name.as_bytes().contains(&b'=');
    !(name.is_empty() || equals || has_nul(name) || has_nul(value))
}

fn has_nul(text: &OsStr) -> bool {
    text.as_bytes().contains(&0)
}

fn problem(text: impl Into<String>) -> SandboxError {
    SandboxError::Spec(text.into())
}
