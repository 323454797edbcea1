//! The kinds of ops and their parameters.
//!
//! All parameters are final: variables are expanded and paths are absolute. What depends on the
//! files of an input (a user's number, what a wildcard matches) is found out when the op runs.

use formwork_oci::{DiffId, Digest, Platform};

use crate::RemoteSource;

/// The number of an op in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(u32);

/// A part of the source: the first byte and the one behind the last.
pub type Place = (u32, u32);

/// Where the parts of an instruction stand that may turn out wrong when its op runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Places {
    /// The user and the group: the value of `--chown`, or the `USER` above.
    pub account: Option<Place>,
    /// What is looked for, as it is looked for: paths and patterns, names of secrets and agents.
    pub names: Vec<(String, Place)>,
}

/// An op and what is told about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// What to do.
    pub op: Op,
    /// What the user sees, such as `[build 3/7] RUN make`. Never part of a cache key.
    pub name: String,
    /// Where the instruction stands in its source. `None` for ops that no instruction asks for.
    pub location: Option<Place>,
    /// Where parts of it stand.
    pub places: Places,
    /// Whether an earlier result must not be used.
    pub no_cache: bool,
    /// How many seconds ago an earlier result may have been made at most; `None` for any time.
    pub max_age: Option<u64>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Provide a root file system that is already there.
    Source(Source),
    /// Run a process and keep what it changes.
    Exec(Exec),
    /// Put files and directories in place.
    File(FileOp),
}

/// Where a root file system comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Nothing: `FROM scratch`.
    Scratch,
    /// An image that has been resolved to its manifest.
    Image {
        /// The name by which it was asked for; never part of a cache key.
        name: String,
        /// Its manifest.
        manifest: Digest,
        /// Its layers, lowest first.
        layers: Vec<DiffId>,
        /// What it runs on.
        platform: Platform,
    },
    /// A directory of the user's: the build context, or one named with `--build-context`.
    Context {
        /// The name; the main context is called `context`.
        name: String,
    },
    /// Files that lie elsewhere.
    Remote(RemoteSource),
}

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exec {
    /// The root file system that the process sees and changes.
    pub rootfs: OpId,
    /// The program and its arguments; at least one.
    pub args: Vec<String>,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub cwd: String,
    /// `user[:group]` by name or number; empty for root.
    pub user: String,
    /// The host name that the process sees.
    pub hostname: String,
    /// What is mounted, outer mounts first.
    pub mounts: Vec<MountSpec>,
    /// Which network the process has.
    pub network: Network,
    /// What the process may do.
    pub security: Security,
    /// What the root file system's programs are made for.
    pub platform: Platform,
}

/// Something mounted for one process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MountSpec {
    /// Where, as an absolute path.
    pub target: String,
    /// What.
    pub kind: MountKind,
}

/// The kinds of mounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A part of another op's root file system.
    Bind {
        /// The other op.
        from: OpId,
        /// The part, as an absolute path.
        source: String,
        /// Whether the process may write; what it writes is thrown away.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// The name of the directory.
        id: String,
        /// What happens when several processes want it.
        sharing: CacheSharing,
        /// Where its first content comes from, if it is new.
        from: Option<(OpId, String)>,
        /// The part of it that is mounted, as an absolute path.
        subpath: String,
        /// Whether the process may only read.
        read_only: bool,
        /// The mode of a new directory.
        mode: u32,
        /// The owner of a new directory.
        uid: u32,
        /// The group of a new directory.
        gid: u32,
    },
    /// A directory in memory.
    Tmpfs {
        /// The limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file.
    Secret {
        /// The name of the secret.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// The mode of the file.
        mode: u32,
        /// The owner of the file.
        uid: u32,
        /// The group of the file.
        gid: u32,
    },
    /// A secret as an environment variable; the target is the variable's name.
    SecretEnv {
        /// The name of the secret.
        id: String,
        /// Whether the build fails without it.
        required: bool,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// The name of the agent.
        id: String,
        /// Whether the build fails without it.
        required: bool,
        /// The mode of the socket.
        mode: u32,
        /// The owner of the socket.
        uid: u32,
        /// The group of the socket.
        gid: u32,
    },
    /// A file with a given content, such as a script from a heredoc.
    File {
        /// The content.
        data: Vec<u8>,
        /// The mode of the file.
        mode: u32,
    },
}

/// What happens when several processes want the same cache directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheSharing {
    /// They use it together.
    #[default]
    Shared,
    /// Each gets one of its own.
    Private,
    /// They take turns.
    Locked,
}

/// Which network a process has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// The build's default.
    #[default]
    Default,
    /// None but its own loopback interface.
    None,
    /// The host's.
    Host,
}

/// What a process may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// What docker's default profile allows.
    #[default]
    Sandbox,
    /// Everything that the builder itself may do.
    Insecure,
}

/// Files and directories to put in place, all of them in one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileOp {
    /// What the layer goes on.
    pub base: OpId,
    /// Whether the layer must not depend on what is below it (`COPY --link`).
    pub link: bool,
    /// What to do, in order.
    pub actions: Vec<FileAction>,
}

/// One thing to put in place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileAction {
    /// Copy files.
    Copy {
        /// What to copy; at least one.
        sources: Vec<CopySource>,
        /// Where to, as an absolute path.
        destination: String,
        /// Whether the destination is a directory even if it does not exist: it was written with
        /// a slash at its end.
        into_directory: bool,
        /// How to copy.
        options: CopyOptions,
    },
    /// Make a directory and those above it.
    MakeDirectory {
        /// The absolute path.
        path: String,
        /// The owner of every directory that is made: `user[:group]` by name or number.
        owner: String,
    },
}

/// Something to copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// What a path or a wildcard matches in another op's root file system.
    Path {
        /// The other op.
        from: OpId,
        /// The path or pattern.
        pattern: String,
    },
    /// A file with a given content, such as a heredoc.
    Inline {
        /// The file's name.
        name: String,
        /// The content.
        data: Vec<u8>,
    },
}

/// How to copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CopyOptions {
    /// The owner of the copies: `user[:group]` by name or number. `None` keeps the source's
    /// owner, or means root for a context.
    pub owner: Option<String>,
    /// The mode of the copies, octal or symbolic.
    pub mode: Option<String>,
    /// Patterns of what to leave out.
    pub exclude: Vec<String>,
    /// Whether to keep the directories above each source.
    pub parents: bool,
    /// Whether to unpack archives (`ADD`).
    pub unpack: bool,
}

impl Places {
    /// Where a name stands that an op looks for.
    pub fn of_name(&self, name: &str) -> Option<Place> {
        self.names.iter().find(|(known, _)| known == name).map(|(_, place)| *place)
    }
}

impl OpId {
    pub(crate) fn at(index: usize) -> Self {
        // A graph of 2^32 ops does not fit into memory.
        Self(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The position in the graph.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Op {
    /// The ops that this one takes something from, each once, in the order of their first use.
    pub fn inputs(&self) -> Vec<OpId> {
        let mut inputs = match self {
            Self::Source(_) => Vec::new(),
            Self::Exec(exec) => exec.inputs(),
            Self::File(file) => file.inputs(),
        };
        let mut seen = std::collections::BTreeSet::new();
        inputs.retain(|input| seen.insert(*input));
        inputs
    }
}

impl Exec {
    fn inputs(&self) -> Vec<OpId> {
        let mounted = self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Bind { from, .. } => Some(*from),
            MountKind::Cache { from, .. } => from.as_ref().map(|(from, _)| *from),
            _ => None,
        });
        std::iter::once(self.rootfs).chain(mounted).collect()
    }
}

impl FileOp {
    fn inputs(&self) -> Vec<OpId> {
        let copied = self.actions.iter().flat_map(|action| match action {
            FileAction::Copy { sources, .. } => sources.as_slice(),
            FileAction::MakeDirectory { .. } => &[],
        });
        let copied = copied.filter_map(|source| match source {
            CopySource::Path { from, .. } => Some(*from),
            CopySource::Inline { .. } => None,
        });
        std::iter::once(self.base).chain(copied).collect()
    }
}

impl std::fmt::Display for OpId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{}", self.0)
    }
}
