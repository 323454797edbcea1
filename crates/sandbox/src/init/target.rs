//! The places in the new root where something is mounted.
//!
//! Every path is looked up once, by the kernel, inside the new root, and what is mounted is
//! mounted on the descriptor found: there is no moment between a check and a use. What is missing
//! is made, and never removed: the caller is told instead (CVE-2024-23652 was a clean-up).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use formwork_fs::{Follow, RelPath, RootDir};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MoveMountFlags;

use super::root::{self, name};
use crate::{SandboxError, Stage, Stub, TargetProblem};

/// The type of `/proc`'s file system (`PROC_SUPER_MAGIC`).
const PROC_MAGIC: u64 = 0x9fa0;

/// Dangling links that are followed on the way to one target, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// The new root, and what had to be made in it.
pub(super) struct Targets {
    root: RootDir,
    device: u64,
    created: Vec<RelPath>,
}

impl Targets {
    pub(super) fn new(root: RootDir) -> Result<Self, SandboxError> {
        let stat = rustix::fs::fstat(&root)
            .map_err(|errno| SandboxError::setup(Stage::OpenTarget, "/", errno))?;
        Ok(Self { root, device: stat.st_dev, created: Vec::new() })
    }

    /// The new root.
    pub(super) fn root(&self) -> &RootDir {
        &self.root
    }

    /// Makes it the root; returns what had to be made in it, in the order in which it was made.
    pub(super) fn enter(self) -> Result<Vec<RelPath>, SandboxError> {
        root::enter(&self.root)?;
        Ok(self.created)
    }

    /// A plain directory of the root for one of the kernel's file systems, which no symbolic link
    /// of the image can send elsewhere.
    pub(super) fn open_plain(&mut self, path: &RelPath) -> Result<OwnedFd, SandboxError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.root.open_raw(path, flags, Mode::empty(), Follow::Never) {
            Ok(fd) => Ok(fd),
            Err(error) if error.source.raw_os_error() == Some(libc::ENOENT) => {
                self.open_or_make(path, Stub::Dir)
            }
            Err(_) => Err(refused(path, TargetProblem::NotPlainDirectory)),
        }
    }

    /// A target of the specification, made where it is missing.
    pub(super) fn open(&mut self, path: &RelPath, stub: Stub) -> Result<OwnedFd, SandboxError> {
        let target = self.open_or_make(path, stub)?;
        let failed = |errno| SandboxError::setup(Stage::OpenTarget, show(path), errno);
        let is_dir = is_dir(&target).map_err(failed)?;
        let magic = rustix::fs::fstatfs(&target).map_err(failed)?.f_type as u64;
        match stub {
            _ if magic == PROC_MAGIC => Err(refused(path, TargetProblem::InProc)),
            Stub::Dir if !is_dir => Err(refused(path, TargetProblem::IsFile)),
            Stub::File if is_dir => Err(refused(path, TargetProblem::IsDirectory)),
            _ => Ok(target),
        }
    }

    fn open_or_make(&mut self, path: &RelPath, stub: Stub) -> Result<OwnedFd, SandboxError> {
        let mut way = path.as_bytes().to_vec();
        let mut links = 0;
        loop {
            let step = match self.look_up(&way) {
                Ok(fd) => return Ok(fd),
                Err(Errno::NOENT) => self.make_next(&way, stub),
                Err(errno) => Err(errno),
            };
            match step {
                Ok(None) => {}
                Ok(Some(detour)) if links < MAX_LINKS => {
                    way = detour;
                    links += 1;
                }
                Ok(Some(_)) | Err(Errno::LOOP) => {
                    return Err(refused(path, TargetProblem::LinkLoop));
                }
                Err(errno) => {
                    return Err(SandboxError::setup(Stage::OpenTarget, show(path), errno));
                }
            }
        }
    }

    fn look_up(&self, way: &[u8]) -> rustix::io::Result<OwnedFd> {
        root::look_up(self.root.as_fd(), if way.is_empty() { b"." } else { way })
    }

    /// Makes the first missing component of a path; or, where that is a symbolic link to something
    /// missing, returns the path that it stands for.
    fn make_next(&mut self, way: &[u8], stub: Stub) -> rustix::io::Result<Option<Vec<u8>>> {
        let mut above = 0;
        loop {
            let end = way[above..].iter().position(|byte| *byte == b'/');
            let end = end.map_or(way.len(), |length| above + length);
            match self.look_up(&way[..end]) {
                // The caller found it missing; a link in the last place may have changed since.
                Ok(_) if end == way.len() => return Ok(None),
                Ok(_) => above = end + 1,
                Err(Errno::NOENT) => {
                    let parent = self.look_up(&way[..above])?;
                    let (component, rest) = (&way[above..end], &way[end..]);
                    if let Ok(link) = rustix::fs::readlinkat(&parent, component, Vec::new()) {
                        let start = if link.as_bytes().starts_with(b"/") { 0 } else { above };
                        return Ok(Some([&way[..start], link.as_bytes(), rest].concat()));
                    }
                    let stub = if rest.is_empty() { stub } else { Stub::Dir };
                    return self.make(parent.as_fd(), component, stub).map(|()| None);
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    fn make(
        &mut self,
        parent: BorrowedFd<'_>,
        component: &[u8],
        stub: Stub,
    ) -> rustix::io::Result<()> {
        match stub {
            Stub::Dir => rustix::fs::mkdirat(parent, component, Mode::from_raw_mode(0o755))?,
            Stub::File => {
                let mode = Mode::from_raw_mode(0o644);
                rustix::fs::mknodat(parent, component, FileType::RegularFile, mode, 0)?;
            }
        }
        // Below another mount it is that mount's business.
        if rustix::fs::fstat(parent)?.st_dev == self.device {
            // The kernel's name of the directory, since links may have led here.
            let directory = rustix::fs::readlink(name(&parent), Vec::new())?;
            if let Ok(directory) = RelPath::new(directory.as_bytes()) {
                self.created.push(directory.join(component));
            }
        }
        Ok(())
    }
}

/// Mounts a detached mount on a target.
pub(super) fn attach(mount: &OwnedFd, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags)
}

/// Whether a descriptor is a directory's.
pub(super) fn is_dir(fd: &OwnedFd) -> rustix::io::Result<bool> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(FileType::from_raw_mode(mode) == FileType::Directory)
}

/// A path inside as an absolute one, for messages.
pub(super) fn show(path: &RelPath) -> std::path::PathBuf {
    Path::new("/").join(path.as_path())
}

fn refused(path: &RelPath, problem: TargetProblem) -> SandboxError {
    SandboxError::Target { target: show(path), problem }
}
