//! What a process finds in `/proc` and `/sys`: itself, the step's other processes, and what the
//! machine tells everybody.
//!
//! The links of `/proc` that lead anywhere by magic are answered by what is known of the process.
//! Of other processes there is nothing.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use formwork_fs::FileKind;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::Inside;
use super::paths::{read_link, text};
use crate::supervisor::place::{Found, Known};
use crate::supervisor::process::Caller;

/// What everybody may read there.
pub(super) const FILES: [&str; 16] = [
    "cpuinfo",
    "meminfo",
    "stat",
    "uptime",
    "version",
    "loadavg",
    "filesystems",
    "mounts",
    "swaps",
    "cmdline",
    "devices",
    "diskstats",
    "partitions",
    "vmstat",
    "sys",
    "net",
];
const PROCESSORS: [&str; 3] = ["online", "possible", "present"];
/// The kernel's numbers for its file systems (`PROC_SUPER_MAGIC`, `SYSFS_MAGIC`).
const PROC: i64 = 0x9fa0;
const SYS: i64 = 0x6265_6572;
/// What a process may write of itself.
const WRITABLE: [&[u8]; 3] = [b"comm", b"oom_score_adj", b"timerslack_ns"];

/// A path into `/proc` or `/sys`, its parts behind that.
pub(super) struct Kernels {
    parts: Vec<Vec<u8>>,
    is_sys: bool,
}

impl Kernels {
    /// `None` for all other paths, and for the two directories themselves; likewise for the links in
    /// `/dev`, unless they are followed.
    pub(super) fn of(path: &[u8], follow: bool) -> Option<Self> {
        let starts = [&b"/proc/"[..], b"/sys/", b"/dev/", b"//", b"/."];
        if !starts.iter().any(|start| path.starts_with(start))
            && !path.windows(3).any(|part| part == b"/..")
        {
            return None;
        }
        // What ends with a slash is a directory, or a link to one.
        let follow = follow || path.ends_with(b"/");
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let own = |rest: &[&[u8]]| {
            [&[&b"self"[..], b"fd"], rest].concat().iter().map(|part| part.to_vec()).collect()
        };
        let parts = match &parts[..] {
            [b"proc", rest @ ..] if !rest.is_empty() => rest.iter().map(|p| p.to_vec()).collect(),
            [b"dev", b"fd", rest @ ..] if follow || !rest.is_empty() => own(rest),
            [b"dev", _] if !follow => return None,
            [b"dev", b"stdin"] => own(&[b"0"]),
            [b"dev", b"stdout"] => own(&[b"1"]),
            [b"dev", b"stderr"] => own(&[b"2"]),
            [b"sys", rest @ ..] if !rest.is_empty() => {
                let parts = rest.iter().map(|part| part.to_vec()).collect();
                return Some(Self { parts, is_sys: true });
            }
            _ => return None,
        };
        Some(Self { parts, is_sys: false })
    }
}

/// Something of a process.
enum Own<'a> {
    Program,
    Directory,
    Root,
    Descriptor(&'a [u8]),
    /// An ordinary file.
    File,
    /// No such thing.
    Nothing,
}

impl Own<'_> {
    fn of<'a>(rest: &[&'a [u8]]) -> Own<'a> {
        match rest {
            [b"exe", ..] => Own::Program,
            [b"cwd", ..] => Own::Directory,
            [b"root", ..] => Own::Root,
            [b"fd", number, ..] => Own::Descriptor(number),
            [b"map_files" | b"ns" | b"fdinfo", _, ..] => Own::Nothing,
            _ => Own::File,
        }
    }
}

impl Caller<'_> {
    /// Opens something of the kernel's.
    pub(super) fn open_kernels(
        &self,
        inside: &Inside,
        kernels: &Kernels,
        flags: OFlags,
    ) -> Result<OwnedFd> {
        let parts: Vec<&[u8]> = kernels.parts.iter().map(Vec::as_slice).collect();
        if kernels.is_sys {
            return open_sys(&parts, flags);
        }
        let Some((process, rest)) = self.process_of(&parts) else {
            return self.open_machines(&parts, flags);
        };
        let process = process?;
        let length = if rest.first() == Some(&&b"fd"[..]) { 2 } else { 1 };
        let is_link = flags.contains(OFlags::NOFOLLOW) && rest.len() == length;
        let open = |path: &[u8], flags| {
            rustix::fs::openat(CWD, text(path)?, flags | OFlags::CLOEXEC, Mode::empty())
        };
        let own = format!("{process}/");
        let place = |rest: &[&[u8]]| [own.as_bytes(), &rest.join(&b'/')].concat();
        let behind = |start: Vec<u8>, rest: &[&[u8]]| {
            let parts: Vec<&[u8]> = [&start[..]].iter().chain(rest).copied().collect();
            let path = parts.join(&b'/');
            let path = if path.is_empty() { b"/" } else { &path[..] };
            inside.open(path, flags, Mode::empty(), ResolveFlags::empty())
        };
        match Own::of(&rest) {
            Own::Nothing => Err(Errno::NOENT),
            Own::File => open_file(process, &rest, flags),
            _ if is_link => open(&place(&rest), flags),
            Own::Program => behind(inside.program_of(process)?, &[]),
            Own::Root => behind(Vec::new(), &rest[1..]),
            Own::Directory => {
                let path = read_link(&format!("{process}/cwd"))?;
                behind(inside.strip(&path).ok_or(Errno::NOENT)?.to_vec(), &rest[1..])
            }
            Own::Descriptor(_) if rest.len() > 2 => {
                let path = rustix::fs::readlinkat(CWD, text(&place(&rest[..2]))?, Vec::new())?;
                behind(inside.strip(path.to_bytes()).ok_or(Errno::NOENT)?.to_vec(), &rest[2..])
            }
            Own::Descriptor(_) => open(&place(&rest), flags - OFlags::CREATE - OFlags::EXCL),
        }
    }

    /// A file of a process's that is not what the kernel has.
    pub(super) fn open_rewritten(&self, inside: &Inside, way: &[u8]) -> Option<Result<OwnedFd>> {
        let kernels = Kernels::of(way, true).filter(|kernels| !kernels.is_sys)?;
        let parts: Vec<&[u8]> = kernels.parts.iter().map(Vec::as_slice).collect();
        let (process, rest) = match &parts[..] {
            [b"mounts"] => (Ok(self.notification.thread), parts),
            _ => self.process_of(&parts)?,
        };
        match (process, &rest[..]) {
            (Ok(process), [name]) => self.rewritten(inside, process, name),
            _ => None,
        }
    }

    /// What a link of the kernel's says; `None` where a path leads elsewhere.
    pub(super) fn link_of_kernels(&self, inside: &Inside, way: &[u8]) -> Option<Result<Vec<u8>>> {
        let kernels = Kernels::of(way, false).filter(|kernels| !kernels.is_sys)?;
        let parts: Vec<&[u8]> = kernels.parts.iter().map(Vec::as_slice).collect();
        match &parts[..] {
            [b"self"] => return Some(self.status("Tgid:").map(String::into_bytes)),
            [b"mounts"] => return Some(Ok(b"self/mounts".to_vec())),
            _ => {}
        }
        let (process, rest) = self.process_of(&parts)?;
        let process = match process {
            Ok(process) => process,
            Err(errno) => return Some(Err(errno)),
        };
        let show = |place: &str| {
            let path = read_link(place)?;
            // Pipes and sockets have names of their own.
            if !path.starts_with(b"/") {
                return Ok(path);
            }
            inside.strip(&path).map(<[u8]>::to_vec).ok_or(Errno::NOENT).or(Ok(path))
        };
        match (Own::of(&rest), rest.len()) {
            (Own::Program, 1) => Some(inside.program_of(process)),
            (Own::Root, 1) => Some(Ok(b"/".to_vec())),
            (Own::Directory, 1) => Some(show(&format!("{process}/cwd"))),
            (Own::Descriptor(number), 2) => {
                let number = String::from_utf8_lossy(number).into_owned();
                Some(show(&format!("{process}/fd/{number}")))
            }
            _ => None,
        }
    }

    /// The process that a path is about, as the kernel names it, and what of it.
    fn process_of<'a>(&self, parts: &[&'a [u8]]) -> Option<(Result<u32>, Vec<&'a [u8]>)> {
        let (first, mut rest) = parts.split_first()?;
        let mut process = match *first {
            b"self" => self.status("Tgid:").and_then(|id| id.parse().map_err(|_| Errno::IO)),
            b"thread-self" => Ok(self.notification.thread),
            number => {
                let number: u32 = std::str::from_utf8(number).ok()?.parse().ok()?;
                if is_ours(number) { Ok(number) } else { Err(Errno::NOENT) }
            }
        };
        if let [b"task", thread, more @ ..] = rest
            && !more.is_empty()
        {
            let thread = std::str::from_utf8(thread).ok().and_then(|text| text.parse().ok());
            let thread = thread.filter(|thread| is_ours(*thread));
            process = process.and(thread.ok_or(Errno::NOENT));
            rest = more;
        }
        Some((process, rest.to_vec()))
    }

    /// A file of the whole machine's.
    fn open_machines(&self, parts: &[&[u8]], flags: OFlags) -> Result<OwnedFd> {
        let path = String::from_utf8(parts.join(&b'/')).map_err(|_| Errno::NOENT)?;
        let first = path.split('/').next().unwrap_or_default();
        if !FILES.contains(&first) {
            return Err(Errno::NOENT);
        }
        let path = match first {
            "mounts" | "net" => self.own(&path),
            _ => path,
        };
        open_to_read(CWD, path.as_bytes(), flags)
    }
}

impl Inside {
    /// Whether a file is none of the kernel's, or one that a process may write of itself, by whatever
    /// way it was found.
    pub(super) fn may_be_written(&self, found: &Found, known: &Known) -> Result<bool> {
        if known.kind != FileKind::Regular || known.raw.identity()[0] == self.device {
            return Ok(true);
        }
        let file = found.file()?;
        if ![PROC, SYS].contains(&rustix::fs::fstatfs(&file)?.f_type) {
            return Ok(true);
        }
        let path = read_link(&format!("self/fd/{}", file.as_raw_fd()))?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        Ok(WRITABLE.contains(&name))
    }

    /// The program of a process, from the root.
    pub(super) fn program_of(&self, process: u32) -> Result<Vec<u8>> {
        let status = fs_err::read_to_string(format!("/proc/{process}/status"));
        let status = status.map_err(|_| Errno::NOENT)?;
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let group = group.and_then(|group| group.trim().parse::<u32>().ok()).ok_or(Errno::NOENT)?;
        let programs = self.programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        programs.get(&group).map(|program| program.path.clone()).ok_or(Errno::NOENT)
    }
}

/// Whether a process or thread is one of the step's: all of them have this process as their tracer.
pub(super) fn is_ours(thread: u32) -> bool {
    let status = fs_err::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    let own = std::process::id();
    tracer.and_then(|tracer| tracer.trim().parse().ok()) == Some(own)
}

fn open_file(process: u32, rest: &[&[u8]], flags: OFlags) -> Result<OwnedFd> {
    let path = format!("{process}/{}", String::from_utf8_lossy(&rest.join(&b'/')));
    let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
    match rest {
        [name] if writes && WRITABLE.contains(name) => {
            rustix::fs::openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty())
        }
        [b"mem" | b"clear_refs"] => Err(Errno::ACCESS),
        _ => open_to_read(CWD, path.as_bytes(), flags),
    }
}

fn open_sys(parts: &[&[u8]], flags: OFlags) -> Result<OwnedFd> {
    match parts {
        [b"devices", b"system", b"cpu", file]
            if PROCESSORS.iter().any(|name| name.as_bytes() == *file) =>
        {
            let path = [b"/sys/devices/system/cpu/", *file].concat();
            open_to_read(CWD, &path, flags)
        }
        _ => Err(Errno::NOENT),
    }
}

fn open_to_read(from: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(Errno::ACCESS);
    }
    let resolve = ResolveFlags::NO_MAGICLINKS;
    let flags = (flags - OFlags::CREATE - OFlags::EXCL - OFlags::TRUNC) | OFlags::CLOEXEC;
    rustix::fs::openat2(from, text(path)?, flags, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::Kernels;

    #[test]
    fn paths_into_proc_are_known_by_their_words() {
        for (path, follow, parts) in [
            ("/proc/self/exe", false, Some("self/exe")),
            ("/tmp/../proc//self/./exe", false, Some("self/exe")),
            ("/dev/fd", false, None),
            ("/dev/fd", true, Some("self/fd")),
            ("/dev/fd/", false, Some("self/fd")),
            ("/dev/fd/7", false, Some("self/fd/7")),
            ("/dev/stdout", false, None),
            ("/dev/stdout", true, Some("self/fd/1")),
            ("/dev/null", true, None),
            ("/proc", true, None),
            ("/processes", true, None),
        ] {
            let found =
                Kernels::of(path.as_bytes(), follow).map(|kernels| kernels.parts.join(&b'/'));
            assert_eq!(found.as_deref(), parts.map(str::as_bytes), "{path} {follow}");
        }
    }
}
