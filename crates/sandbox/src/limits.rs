//! What a process may use at most.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Limits of all processes of a sandbox together, kept by a control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, swap included, in bytes.
    pub memory: Option<u64>,
    /// Processors, in thousandths.
    pub cpus: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// The kernel's names of what keeps these limits.
    pub(crate) fn controllers(&self) -> Vec<&'static str> {
        self.chosen(["memory", "cpu", "pids"])
    }

    /// Those of names for memory, processors and processes that are limited.
    fn chosen(&self, names: [&'static str; 3]) -> Vec<&'static str> {
        let limited = [self.memory.is_some(), self.cpus.is_some(), self.pids.is_some()];
        let named = limited.iter().zip(names).filter(|(is_limited, _)| **is_limited);
        named.map(|(_, name)| name).collect()
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chosen(["memory", "processors", "processes"]).join(" and "))
    }
}

/// A limit of every single process (`setrlimit(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    /// What is limited.
    pub resource: Resource,
    /// What applies, and what the process may raise it to; `None` for no limit.
    pub soft: Option<u64>,
    /// The most that it may ever have; `None` for no limit.
    pub hard: Option<u64>,
}

/// What is limited, by the names of `ulimit` in docker; the units are those of `setrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "setrlimit(2) says what they are")]
pub enum Resource {
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

impl Resource {
    /// All of them with their names.
    pub const ALL: [(&'static str, Self); 15] = [
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];

    /// The resource with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }

    fn raw(self) -> rustix::process::Resource {
        use rustix::process::Resource as Raw;
        match self {
            Self::Core => Raw::Core,
            Self::Cpu => Raw::Cpu,
            Self::Data => Raw::Data,
            Self::Fsize => Raw::Fsize,
            Self::Locks => Raw::Locks,
            Self::Memlock => Raw::Memlock,
            Self::Msgqueue => Raw::Msgqueue,
            Self::Nice => Raw::Nice,
            Self::Nofile => Raw::Nofile,
            Self::Nproc => Raw::Nproc,
            Self::Rss => Raw::Rss,
            Self::Rtprio => Raw::Rtprio,
            Self::Rttime => Raw::Rttime,
            Self::Sigpending => Raw::Sigpending,
            Self::Stack => Raw::Stack,
        }
    }
}

impl ResourceLimit {
    /// Sets the limit for this process and those that it makes. Allocates nothing.
    pub(crate) fn set(&self) -> rustix::io::Result<()> {
        let limit = rustix::process::Rlimit { current: self.soft, maximum: self.hard };
        rustix::process::setrlimit(self.resource.raw(), limit)
    }

    /// Whether it lies above the most that this process may have.
    pub(crate) fn is_beyond(&self) -> bool {
        match (self.hard, rustix::process::getrlimit(self.resource.raw()).maximum) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(limit), Some(than)) => limit > than,
        }
    }

    /// Lets another process set this limit, where it lies above what that process may do by itself
    /// and this one, real root, may.
    pub(crate) fn permit(&self, pid: rustix::process::Pid) {
        if self.is_beyond() {
            let raw = self.resource.raw();
            let now = rustix::process::getrlimit(raw);
            let limit = rustix::process::Rlimit { current: now.current, maximum: self.hard };
            // Who may not, is told when the limit itself is set.
            let _ = rustix::process::prlimit(Some(pid), raw, limit);
        }
    }
}
