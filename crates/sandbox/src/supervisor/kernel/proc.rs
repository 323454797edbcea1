//! What `/proc` shows: of the processes of a step what each may know of the others, and of the
//! machine what every user may read and docker does not hide.
//!
//! A name that does not stand here is not there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::Kernel;
use super::asker::Asker;
use super::processes::{Process, number};

/// Files of the machine.
const OF_MACHINE: &[&str] = &[
    "buddyinfo",
    "cgroups",
    "cmdline",
    "consoles",
    "cpuinfo",
    "crypto",
    "devices",
    "diskstats",
    "filesystems",
    "loadavg",
    "meminfo",
    "misc",
    "modules",
    "partitions",
    "softirqs",
    "stat",
    "swaps",
    "uptime",
    "version",
    "vmstat",
    "zoneinfo",
];
/// Directories of the machine, with all that is in them.
const TREES_OF_MACHINE: &[&str] = &["pressure", "sys"];
/// Where another file system is mounted, maybe only when somebody looks.
const ELSEWHERE: &str = "sys/fs/binfmt_misc";
const LINKS: &[&str] = &["mounts", "net", "self", "thread-self"];

/// Files of a process that all others may read.
const OPEN: &[&str] = &[
    "arch_status",
    "cgroup",
    "cmdline",
    "comm",
    "cpuset",
    "gid_map",
    "limits",
    "loginuid",
    "oom_adj",
    "oom_score",
    "oom_score_adj",
    "projid_map",
    "sched",
    "schedstat",
    "sessionid",
    "setgroups",
    "stat",
    "statm",
    "status",
    "uid_map",
    "wchan",
];
/// Files of a process for those who may look into it.
const GUARDED: &[&str] = &[
    "auxv",
    "coredump_filter",
    "environ",
    "io",
    "maps",
    "numa_maps",
    "personality",
    "smaps",
    "smaps_rollup",
    "timerslack_ns",
];
/// Those that it may change.
const WRITABLE: &[&str] = &["comm", "coredump_filter", "oom_adj", "oom_score_adj"];
const DIRECTORIES: &[&str] = &["fd", "fdinfo", "net", "ns", "task"];
const LINKS_OF_PROCESS: &[&str] = &["cwd", "exe", "root"];
/// What is known of the network, where the step has it.
const NET: &[&str] = &["dev", "if_inet6", "ipv6_route", "protocols", "route", "sockstat", "snmp"];

/// What there is at a path.
pub(super) enum Item {
    Directory(Spot, Listing),
    /// A file, and whether it may be written to.
    File(Spot, bool),
    /// A file with a text of the supervisor's own, by its number.
    Text(usize),
    Link(Spot),
    /// What a process has open.
    Open(Process, u32),
}

/// What a directory lists.
#[derive(Clone, Copy)]
pub(super) enum Listing {
    Top,
    OfProcess,
    /// Some names.
    Names(&'static [&'static str]),
    /// What the kernel lists there.
    All,
}

/// A place in the machine's `/proc`.
pub(super) struct Spot {
    /// The process that it is about.
    pub(super) process: Option<Process>,
    /// The way from its directory, or from `/proc`.
    way: String,
}

impl Spot {
    /// Opens it, and never what a link there leads to.
    pub(super) fn open(&self, kernel: &Kernel, flags: OFlags) -> Result<OwnedFd> {
        let from = self.process.as_ref().map_or(kernel.proc.as_fd(), |at| at.handle.as_fd());
        let way = if self.way.is_empty() { "." } else { &*self.way };
        open_beneath(from, way, flags)
    }

    /// Whether it is the file that tells the name of the host.
    pub(super) fn is_host_name(&self) -> bool {
        self.process.is_none() && self.way == "sys/kernel/hostname"
    }

    /// What a link says.
    fn read_link(&self, kernel: &Kernel) -> Result<Vec<u8>> {
        let from = self.process.as_ref().map_or(kernel.proc.as_fd(), |at| at.handle.as_fd());
        Ok(rustix::fs::readlinkat(from, &*self.way, Vec::new())?.into_bytes())
    }
}

/// Opens something beneath a directory, and follows nothing.
pub(super) fn open_beneath(from: BorrowedFd<'_>, way: &str, flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(from, way, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

impl Asker<'_> {
    /// What there is at a path of `/proc`; `follows` if a link in the last place is not meant.
    pub(super) fn item(&self, words: &[Vec<u8>], follows: bool) -> Result<Item> {
        let words: Option<Vec<&str>> =
            words.iter().map(|word| std::str::from_utf8(word).ok()).collect();
        let words = words.ok_or(Errno::NOENT)?;
        match &words[..] {
            [] => Ok(Item::Directory(Spot { process: None, way: String::new() }, Listing::Top)),
            [link] if LINKS.contains(link) => {
                Ok(Item::Link(Spot { process: None, way: (*link).to_owned() }))
            }
            [process, rest @ ..] => match number(process.as_bytes()) {
                Some(process) => self.item_of_process(process, rest, follows),
                None => self.item_of_machine(&words.join("/")),
            },
        }
    }

    fn item_of_machine(&self, way: &str) -> Result<Item> {
        let is_within = |tree: &&str| {
            way.strip_prefix(*tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let is_shown = OF_MACHINE.contains(&way) || TREES_OF_MACHINE.iter().any(is_within);
        if !is_shown || way.starts_with(ELSEWHERE) {
            return Err(Errno::NOENT);
        }
        let spot = Spot { process: None, way: way.to_owned() };
        let mode = rustix::fs::fstat(spot.open(self.kernel, OFlags::PATH)?)?.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::Directory => Ok(Item::Directory(spot, Listing::All)),
            // What root alone may read on this machine is not for a step.
            FileType::RegularFile if mode & 0o004 != 0 => Ok(Item::File(spot, false)),
            FileType::RegularFile => Err(Errno::ACCESS),
            _ => Err(Errno::NOENT),
        }
    }

    fn item_of_process(&self, process: u32, words: &[&str], follows: bool) -> Result<Item> {
        let process = self.process(process)?;
        let (before, words) = match words {
            ["task", thread, rest @ ..] if number(thread.as_bytes()).is_some() => {
                (format!("task/{thread}"), rest)
            }
            words => (String::new(), words),
        };
        let way = match (&*before, words) {
            ("", words) => words.join("/"),
            (_, []) => before.clone(),
            (_, words) => format!("{before}/{}", words.join("/")),
        };
        let guard = || match self.may_look_into(&process)? {
            true => Ok(()),
            false => Err(Errno::ACCESS),
        };
        match words {
            [] => Ok(Item::Directory(Spot { process: Some(process), way }, Listing::OfProcess)),
            ["task"] => Ok(Item::Directory(Spot { process: Some(process), way }, Listing::All)),
            ["net"] => Ok(Item::Directory(Spot { process: Some(process), way }, self.net())),
            ["net", file] if NET.contains(file) && self.kernel.has_network => {
                Ok(Item::File(Spot { process: Some(process), way }, false))
            }
            ["mounts"] => Ok(Item::Text(0)),
            ["mountinfo"] => Ok(Item::Text(1)),
            ["fd" | "fdinfo" | "ns"] => {
                guard()?;
                Ok(Item::Directory(Spot { process: Some(process), way }, Listing::All))
            }
            ["fd", open] => {
                guard()?;
                let open = open.parse().map_err(|_| Errno::NOENT)?;
                match follows {
                    true => Ok(Item::Open(process, open)),
                    false => Ok(Item::Link(Spot { process: Some(process), way })),
                }
            }
            ["cwd" | "exe" | "root"] | ["ns", _] => {
                guard()?;
                Ok(Item::Link(Spot { process: Some(process), way }))
            }
            ["fdinfo", _] => {
                guard()?;
                Ok(Item::File(Spot { process: Some(process), way }, false))
            }
            [file] if GUARDED.contains(file) => {
                guard()?;
                Ok(Item::File(Spot { process: Some(process), way }, WRITABLE.contains(file)))
            }
            [file] if OPEN.contains(file) => {
                let is_writable = WRITABLE.contains(file) && self.may_look_into(&process)?;
                Ok(Item::File(Spot { process: Some(process), way }, is_writable))
            }
            _ => Err(Errno::NOENT),
        }
    }

    fn net(&self) -> Listing {
        Listing::Names(if self.kernel.has_network { NET } else { &[] })
    }

    /// What a link of `/proc` says.
    pub(super) fn read_link_of_proc(&self, words: &[Vec<u8>]) -> Result<Vec<u8>> {
        match words {
            [word] if word == b"self" => Ok(self.identity()?.process.to_string().into_bytes()),
            [word] if word == b"thread-self" => {
                let thread = self.notification.thread;
                Ok(format!("{}/task/{thread}", self.identity()?.process).into_bytes())
            }
            [word] if word == b"mounts" => Ok(b"self/mounts".to_vec()),
            [word] if word == b"net" => Ok(b"self/net".to_vec()),
            [.., word] if word == b"root" => self.item(words, false).map(|_| b"/".to_vec()),
            _ => match self.item(words, false)? {
                Item::Link(spot) => self.as_itself(|| spot.read_link(self.kernel)),
                _ => Err(Errno::INVAL),
            },
        }
    }

    /// What a directory lists, with the types.
    pub(super) fn list(&self, spot: &Spot, listing: Listing) -> Result<Vec<(Vec<u8>, FileType)>> {
        use FileType::{Directory, RegularFile, Symlink};
        let all = |names: &[&str], kind| {
            names.iter().map(move |name| (name.as_bytes().to_vec(), kind)).collect::<Vec<_>>()
        };
        Ok(match listing {
            Listing::Names(names) => all(names, RegularFile),
            Listing::Top => {
                let is_there = |name: &&&str| {
                    let follow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                    rustix::fs::statat(&self.kernel.proc, **name, follow).is_ok()
                };
                let files: Vec<&str> = OF_MACHINE.iter().filter(is_there).copied().collect();
                let mut list = all(&files, RegularFile);
                list.extend(all(TREES_OF_MACHINE, Directory));
                list.extend(all(LINKS, Symlink));
                let processes = self.kernel.processes()?;
                list.extend(processes.iter().map(|it| (it.to_string().into_bytes(), Directory)));
                list
            }
            Listing::OfProcess => {
                let mut list = all(OPEN, RegularFile);
                list.extend(all(GUARDED, RegularFile));
                list.extend(all(&["mounts", "mountinfo"], RegularFile));
                list.extend(all(DIRECTORIES, Directory));
                list.extend(all(LINKS_OF_PROCESS, Symlink));
                list
            }
            Listing::All => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let directory = self.as_itself(|| spot.open(self.kernel, flags))?;
                let entries = Dir::new(directory)?.flatten();
                let entries =
                    entries.map(|it| (it.file_name().to_bytes().to_vec(), it.file_type()));
                entries.filter(|(name, _)| name != b"." && name != b"..").collect()
            }
        })
    }
}
