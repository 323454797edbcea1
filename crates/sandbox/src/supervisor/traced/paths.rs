//! Where paths lead for a process that has no root directory of its own.
//!
//! A path is made one from the root, and opened beneath the root's descriptor, so nothing that a
//! process says leads anywhere else. What `/proc` has for a process, [`kernels`](super::kernels)
//! finds.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::Inside;
use super::kernels::Kernels;
use crate::supervisor::process::Caller;

/// Links in a last place that lead to something missing, followed one by one.
const MAX_LINKS: usize = 40;
/// The longest path that the kernel takes, with its end.
const LONGEST: usize = 4096;
/// How deep a directory may be for the way to it to be looked at.
const DEEPEST: usize = 65536;

impl Inside {
    /// A path of the machine as one from the root; `None` for what is not in there.
    pub(super) fn strip<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        match path.strip_prefix(&*self.path)? {
            [] => Some(b"/"),
            rest => rest.starts_with(b"/").then_some(rest),
        }
    }

    /// The path of an open file from the root.
    pub(super) fn path_of(&self, file: BorrowedFd<'_>) -> Result<Vec<u8>> {
        let path = read_link(&format!("self/fd/{}", file.as_raw_fd()))?;
        self.strip(&path).map(<[u8]>::to_vec).ok_or(Errno::NOENT)
    }

    /// Opens a path from the root.
    pub(super) fn open(
        &self,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
        further: ResolveFlags,
    ) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | further;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
    }

    /// Whether a directory is in the root, found by going up.
    fn holds(&self, directory: BorrowedFd<'_>) -> Result<bool> {
        let identity = |fd: BorrowedFd<'_>| {
            rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).map(|stat| (stat.st_dev, stat.st_ino))
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = identity(self.root.as_fd())?;
        let mut here = rustix::fs::openat(directory, ".", flags, Mode::empty())?;
        let mut last = identity(here.as_fd())?;
        for _ in 0..DEEPEST {
            if last == root {
                return Ok(true);
            }
            here = rustix::fs::openat(&here, "..", flags, Mode::empty())?;
            let next = identity(here.as_fd())?;
            if next == last {
                return Ok(false);
            }
            last = next;
        }
        Ok(false)
    }

    /// The directory above one in the root, which has nothing above it.
    fn above(&self, directory: OwnedFd) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::openat(&directory, "..", flags, Mode::empty())?;
        Ok(if self.holds(above.as_fd())? { above } else { directory })
    }
}

impl Caller<'_> {
    /// Opens a path as the process would in its root.
    pub(in crate::supervisor) fn open_inside(
        &self,
        inside: &Inside,
        base: i32,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut way = match self.way(inside, base, path) {
            Err(Errno::NAMETOOLONG) => {
                return self.open_beneath(inside, base, path, flags, mode);
            }
            way => way?,
        };
        for _ in 0..MAX_LINKS {
            if let Some(kernels) = Kernels::of(&way, !flags.contains(OFlags::NOFOLLOW)) {
                return self.open_kernels(inside, &kernels, flags);
            }
            if way.len() >= LONGEST {
                return self.open_beneath(inside, base, path, flags, mode);
            }
            match inside.open(&way, flags, mode, ResolveFlags::empty()) {
                Err(Errno::NOENT) if !flags.contains(OFlags::NOFOLLOW) => {
                    match leads_to_kernels(inside, &way) {
                        Some(next) => way = next,
                        None => return Err(Errno::NOENT),
                    }
                }
                result => return result,
            }
        }
        Err(Errno::LOOP)
    }

    /// A path as one from the root, with all its links and dots.
    pub(super) fn way(&self, inside: &Inside, base: i32, path: &[u8]) -> Result<Vec<u8>> {
        if path.starts_with(b"/") {
            return Ok(path.to_vec());
        }
        let place = match base {
            libc::AT_FDCWD => self.own("cwd"),
            descriptor => self.own(&format!("fd/{descriptor}")),
        };
        let start = match read_link(&place) {
            Err(Errno::NOENT) if base != libc::AT_FDCWD => return Err(Errno::BADF),
            start => start?,
        };
        match inside.strip(&start) {
            // It has no path any more, if that is not its name.
            Some(_) if start.ends_with(b" (deleted)") => Err(Errno::NAMETOOLONG),
            Some(start) => Ok([start, b"/", path].concat()),
            // A directory of `/proc` that the process has open.
            None if start.starts_with(b"/proc/") => Ok([&start, &b"/"[..], path].concat()),
            None if start.starts_with(b"/") => Err(Errno::NOENT),
            None => Err(Errno::NOTDIR),
        }
    }

    /// Opens a path without going up more than once or by absolute links: in directories whose own
    /// paths are too long.
    fn open_beneath(
        &self,
        inside: &Inside,
        base: i32,
        path: &[u8],
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd> {
        let start = self.base(base)?;
        if path.starts_with(b"/") || path.len() >= LONGEST || !inside.holds(start.as_fd())? {
            return Err(Errno::NAMETOOLONG);
        }
        let (start, path) = match up(path) {
            None => (start, path),
            Some(rest) => (inside.above(start)?, rest),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&start, path, flags | OFlags::CLOEXEC, mode, resolve)
    }
}

/// What is left of a path that begins by going up.
fn up(path: &[u8]) -> Option<&[u8]> {
    let rest = path.strip_prefix(b"..")?;
    if rest.is_empty() {
        return Some(b".");
    }
    let begin = rest.strip_prefix(b"/")?.iter().position(|byte| *byte != b'/');
    Some(begin.map_or(&b"."[..], |begin| &rest[1 + begin..]))
}

/// Where a path leads whose last part is a link to something of the kernel's.
fn leads_to_kernels(inside: &Inside, way: &[u8]) -> Option<Vec<u8>> {
    let link = inside
        .open(way, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), ResolveFlags::empty())
        .ok()?;
    let target = rustix::fs::readlinkat(&link, "", Vec::new()).ok()?.into_bytes();
    if target.starts_with(b"/") {
        return Some(target);
    }
    let place = inside.path_of(link.as_fd()).ok()?;
    let end = place.iter().rposition(|byte| *byte == b'/')?;
    Some([&place[..=end], &target].concat())
}

/// What a link in `/proc` says.
pub(super) fn read_link(place: &str) -> Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(CWD, place, Vec::new())?.into_bytes())
}

/// Bytes without zeros as a string.
pub(super) fn text(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::up;

    #[test]
    fn only_whole_names_go_up() {
        for (path, rest) in [
            ("..", Some(".")),
            ("../", Some(".")),
            ("..//", Some(".")),
            ("../a/..", Some("a/..")),
            ("..//./a", Some("./a")),
            ("..a", None),
            (".../a", None),
            ("a/..", None),
        ] {
            assert_eq!(up(path.as_bytes()), rest.map(str::as_bytes), "{path}");
        }
    }
}
