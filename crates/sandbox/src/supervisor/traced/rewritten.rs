//! Files of `/proc` that tell a process of itself, as they would be on other machines: nobody traces
//! it, it is who it takes itself for, and its files are where it has found them.

use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::MemfdFlags;
use rustix::io::{Errno, Result};

use super::Inside;
use crate::seccomp::CAPABILITIES;
use crate::supervisor::credentials::{Credentials, Ids};
use crate::supervisor::process::Caller;
use crate::sys::notify;

impl Caller<'_> {
    /// A file of a process's as it is to be; `None` for those that are right as they are.
    pub(super) fn rewritten(
        &self,
        inside: &Inside,
        process: u32,
        name: &[u8],
    ) -> Option<Result<OwnedFd>> {
        let read = |name| fs_err::read(format!("/proc/{process}/{name}")).map_err(|_| Errno::SRCH);
        let text = match name {
            b"status" => read("status").and_then(|text| self.status_of(process, &text)),
            b"maps" => read("maps").map(|text| without_root(inside, &text)),
            b"smaps" => read("smaps").map(|text| without_root(inside, &text)),
            b"mounts" | b"mountinfo" => Ok(mounts(name)),
            _ => return None,
        };
        Some(text.and_then(|text| in_memory(&text)))
    }

    fn status_of(&self, process: u32, text: &[u8]) -> Result<Vec<u8>> {
        let [number, _] = notify::carried_limit(process)?;
        let who = self.session.sets.get(number);
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().map(|line| rewritten_line(line, &who).unwrap_or(line.to_owned()));
        Ok(lines.flat_map(|line| [line, "\n".to_owned()]).collect::<String>().into_bytes())
    }
}

fn rewritten_line(line: &str, who: &Credentials) -> Option<String> {
    let (name, _) = line.split_once(':')?;
    let ids = |ids: &Ids| format!("{}\t{}\t{}\t{}", ids.real, ids.effective, ids.saved, ids.file);
    let set = |is_full: bool| format!("{:016x}", if is_full { CAPABILITIES } else { 0 });
    let value = match name {
        "TracerPid" | "NoNewPrivs" => "0".to_owned(),
        "Uid" => ids(&who.users),
        "Gid" => ids(&who.groups),
        "Groups" => who.more_groups.iter().map(|group| format!("{group} ")).collect(),
        "CapPrm" => set(who.is_permitted),
        "CapEff" => set(who.is_capable),
        "CapBnd" => set(true),
        _ => return None,
    };
    Some(format!("{name}:\t{value}"))
}

/// What is mounted, as far as a process has to know.
fn mounts(name: &[u8]) -> Vec<u8> {
    match name {
        b"mounts" => b"overlay / overlay rw,relatime 0 0\nproc /proc proc rw 0 0\n".to_vec(),
        _ => b"21 1 0:1 / / rw,relatime - overlay overlay rw\n\
               22 21 0:2 / /proc rw - proc proc rw\n"
            .to_vec(),
    }
}

/// The same with paths from the root.
fn without_root(inside: &Inside, text: &[u8]) -> Vec<u8> {
    let mut left = text;
    let mut result = Vec::with_capacity(text.len());
    let root = &inside.path[..];
    while let Some(at) = left.windows(root.len()).position(|part| part == root) {
        result.extend_from_slice(&left[..at]);
        left = &left[at + root.len()..];
    }
    result.extend_from_slice(left);
    result
}

/// A file that nobody has a name for.
pub(super) fn in_memory(text: &[u8]) -> Result<OwnedFd> {
    let file = rustix::fs::memfd_create("file", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(file);
    file.write_all(text).and_then(|()| file.rewind()).map_err(|_| Errno::NOSPC)?;
    Ok(file.into())
}
