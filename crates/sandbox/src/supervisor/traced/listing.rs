//! What directories list. `/proc` lists names alone, in the empty directory that stands there. What they lead to, is
//! found without it.

use std::collections::BTreeSet;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Result;

use super::Inside;
use super::kernels::FILES;
use crate::supervisor::Outcome;
use crate::supervisor::directories::Next;
use crate::supervisor::process::Caller;

impl Caller<'_> {
    /// Lists a directory, where it may have devices. The process gets another descriptor of it if so:
    /// the kernel's list would go on where the one that it has is.
    pub(super) fn list_traced(&self, inside: &Inside) -> Result<Outcome> {
        if !inside.has_devices() {
            return Ok(Outcome::Continue);
        }
        let descriptor = self.int(0);
        let Ok(info) = fs_err::read_to_string(self.own(&format!("fdinfo/{descriptor}"))) else {
            return Ok(Outcome::Continue);
        };
        let place = self.own(&format!("fd/{descriptor}"));
        let open = |flags| rustix::fs::openat(CWD, &place, flags, Mode::empty());
        let Ok(Some(next)) = Next::of(&info, open, self.int(2)) else {
            return Ok(Outcome::Continue);
        };
        self.write(self.long(1), &next.list)?;
        next.answer(self.session.listener.as_fd(), self.notification.id, descriptor)
    }
}

impl Inside {
    /// Whether an open directory is that of `/proc`.
    pub(super) fn lists(&self, identity: [u64; 2]) -> bool {
        self.listing == Some(identity)
    }

    /// Brings the names up to date.
    pub(super) fn list(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = self.open(b"/proc", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        let mut wanted = self.processes();
        for entry in Dir::read_from(&directory)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_process = name.bytes().all(|byte| byte.is_ascii_digit());
            if is_process && !wanted.remove(&name) {
                let _ = rustix::fs::unlinkat(&directory, &*name, AtFlags::REMOVEDIR);
            }
        }
        let mode = Mode::from_raw_mode(0o755);
        for name in &wanted {
            let _ = rustix::fs::mkdirat(&directory, &**name, mode);
        }
        for name in FILES {
            let _ = match name {
                "sys" => rustix::fs::mkdirat(&directory, name, mode),
                "net" | "mounts" => rustix::fs::symlinkat(format!("self/{name}"), &directory, name),
                _ => {
                    let kind = FileType::RegularFile;
                    rustix::fs::mknodat(directory.as_fd(), name, kind, mode, 0)
                }
            };
        }
        let _ = rustix::fs::symlinkat("1", &directory, "self");
        Ok(())
    }

    /// The numbers of all processes; those of further threads are not among them.
    fn processes(&self) -> BTreeSet<String> {
        let programs = self.programs();
        let threads = programs.keys().copied();
        let is_first = |thread: &u32| super::tracer::group_of(*thread as i32) == *thread;
        threads.filter(is_first).map(|thread| thread.to_string()).collect()
    }
}
