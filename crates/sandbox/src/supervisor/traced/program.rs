//! What becomes of a process that executes a program: the kernel would find neither the program nor
//! its interpreter, whose paths lead elsewhere for it.
//!
//! So the kernel executes a starter (`sys::trace`), which a list of system calls makes the program:
//! its segments and its interpreter's are mapped as the kernel maps them, the stack gets what the
//! kernel tells a program of itself, and the interpreter begins.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::Inside;
use super::paths::text;
use crate::supervisor::credentials::Credentials;
use crate::supervisor::files::{GROUP_EXECUTES, SET_GROUP, SET_USER};
use crate::supervisor::permissions::EXECUTE;
use crate::supervisor::place::Found;
use crate::supervisor::process::Caller;
use formwork_fs::FileKind;

/// Interpreters of interpreters, as many as the kernel follows.
const MAX_DEPTH: usize = 5;
/// The longest first line that the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 256;
const PAGE: u64 = 4096;
/// The most headers of segments that are read.
const MAX_HEADERS: usize = 512;
const ANY_EXECUTE: u32 = 0o111;
/// `EM_X86_64`.
const MACHINE: u16 = 62;

/// A program that is to be executed.
pub(super) struct Plan {
    pub(super) program: Elf,
    pub(super) interpreter: Option<Elf>,
    /// What stands before the arguments but for the first, in the place of that.
    pub(super) before: Option<Vec<CString>>,
    /// The path that was asked for.
    pub(super) name: CString,
    /// The program's path from the root.
    pub(super) path: Vec<u8>,
    /// Its device and number.
    pub(super) identity: [u64; 2],
    /// Who the process becomes.
    pub(super) credentials: Credentials,
    /// Whether it is lent something.
    pub(super) is_lent: bool,
}

/// A binary that was opened.
pub(super) struct Elf {
    pub(super) file: OwnedFd,
    pub(super) is_movable: bool,
    pub(super) entry: u64,
    pub(super) headers_at: u64,
    pub(super) header_count: u64,
    pub(super) segments: Vec<Segment>,
    interpreter: Option<Vec<u8>>,
    /// Where the headers are, if a segment says so.
    headers: Option<u64>,
    /// Whether it wants a stack that can be executed.
    pub(super) executes_stack: bool,
}

/// A part of a binary that is mapped.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) in_file: u64,
    pub(super) in_memory: u64,
    /// As `mmap` takes them.
    pub(super) protection: u64,
    pub(super) alignment: u64,
}

impl Caller<'_> {
    /// Finds the program that a path stands for, and all that it takes.
    pub(super) fn plan(&self, inside: &Inside, found: Found, name: CString) -> Result<Plan> {
        let old = self.credentials()?;
        let (mut found, mut before) = (found, None::<Vec<CString>>);
        let mut lends = true;
        for _ in 0..=MAX_DEPTH {
            let file = self.open_program(&old, &found)?;
            let mut start = [0; FIRST_LINE];
            let length = file.read_at(&mut start, 0).map_err(|_| Errno::NOEXEC)?;
            let start = &start[..length];
            if !start.starts_with(b"#!") {
                return self.plan_binary(inside, (found, file), before, name, (&old, lends));
            }
            let (interpreter, argument) = script(&start[2..]).ok_or(Errno::NOEXEC)?;
            let path = text(&interpreter)?;
            let mut line = vec![path.clone()];
            line.extend(argument.map(|argument| text(&argument)).transpose()?);
            match &mut before {
                // The interpreter that is a script itself is replaced by its own.
                Some(before) => {
                    line.push(before.remove(0));
                    before.splice(..0, line);
                }
                None => {
                    line.push(name.clone());
                    before = Some(line);
                }
            }
            lends = false;
            found = self.find_path(libc::AT_FDCWD, &path, true)?;
        }
        Err(Errno::LOOP)
    }

    /// Opens a file that a process may execute.
    fn open_program(&self, who: &Credentials, found: &Found) -> Result<File> {
        let known = found.examine()?;
        if known.kind != FileKind::Regular || known.raw.mode() & ANY_EXECUTE == 0 {
            return Err(Errno::ACCESS);
        }
        if !self.may(who, found, EXECUTE)? {
            return Err(Errno::ACCESS);
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(CWD, found.place(), flags, Mode::empty())?))
    }

    fn plan_binary(
        &self,
        inside: &Inside,
        (found, file): (Found, File),
        before: Option<Vec<CString>>,
        name: CString,
        (old, lends): (&Credentials, bool),
    ) -> Result<Plan> {
        let program = Elf::read(file)?;
        let interpreter = match &program.interpreter {
            None => None,
            Some(path) => {
                let path = text(path)?;
                let found = self.find_path(libc::AT_FDCWD, &path, true)?;
                Some(Elf::read(self.open_program(old, &found)?)?)
            }
        };
        let known = found.examine()?;
        let (mode, owner) = (known.raw.mode(), known.owner());
        let lends = lends && inside.lends;
        let lends_user = lends && mode & SET_USER != 0;
        let lends_group =
            lends && mode & (SET_GROUP | GROUP_EXECUTES) == SET_GROUP | GROUP_EXECUTES;
        let mut credentials = old.clone();
        credentials.execute(lends_user.then_some(owner.0), lends_group.then_some(owner.1));
        let is_lent = credentials.users.effective != credentials.users.real
            || credentials.groups.effective != credentials.groups.real;
        use std::os::fd::AsFd;
        // Programs in memory have no path.
        let path = found.file().and_then(|file| inside.path_of(file.as_fd()));
        let path = path.unwrap_or_else(|_| name.to_bytes().to_vec());
        let identity = known.raw.identity();
        Ok(Plan { program, interpreter, before, name, path, identity, credentials, is_lent })
    }
}

/// The interpreter and its argument in the first line of a script, as the kernel reads it.
fn script(line: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let end = line.iter().position(|byte| *byte == b'\n');
    let whole = end.map_or(line, |end| &line[..end]);
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = whole.iter().position(|byte| !is_blank(byte))?;
    let whole = &whole[start..];
    let whole = whole.split(|byte| *byte == 0).next().unwrap_or_default();
    let length = whole.iter().position(is_blank).unwrap_or(whole.len());
    if length == 0 || (length == whole.len() && end.is_none() && line.len() >= FIRST_LINE - 2) {
        return None;
    }
    let rest = whole[length..].trim_ascii();
    let argument = (!rest.is_empty()).then(|| rest.to_vec());
    Some((whole[..length].to_vec(), argument))
}

impl Elf {
    fn read(file: File) -> Result<Self> {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).map_err(|_| Errno::NOEXEC)?;
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let is_native = head.starts_with(b"\x7fELF\x02\x01") && short(18) == MACHINE;
        let (kind, size, count) = (short(16), short(54), usize::from(short(56)));
        if !is_native || !matches!(kind, 2 | 3) || size != 56 || count == 0 || count > MAX_HEADERS {
            return Err(Errno::NOEXEC);
        }
        let headers_at = long(&head, 32);
        let mut headers = vec![0; count * 56];
        file.read_exact_at(&mut headers, headers_at).map_err(|_| Errno::NOEXEC)?;
        let mut elf = Self {
            file: file.into(),
            is_movable: kind == 3,
            entry: long(&head, 24),
            headers_at,
            header_count: count as u64,
            segments: Vec::new(),
            interpreter: None,
            headers: None,
            executes_stack: false,
        };
        headers.chunks_exact(56).try_for_each(|header| elf.take(header))?;
        if elf.segments.is_empty() { Err(Errno::NOEXEC) } else { Ok(elf) }
    }

    fn take(&mut self, header: &[u8]) -> Result<()> {
        const LOAD: u32 = 1;
        const INTERPRETER: u32 = 3;
        const HEADERS: u32 = 6;
        const STACK: u32 = 0x6474_e551;
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap_or_default());
        match kind {
            LOAD => {
                let flags = header[4];
                let of = |bit: u8, protection| if flags & bit != 0 { protection } else { 0 };
                let segment = Segment {
                    offset: long(header, 8),
                    address: long(header, 16),
                    in_file: long(header, 32),
                    in_memory: long(header, 40),
                    protection: of(4, 1) | of(2, 2) | of(1, 4),
                    alignment: long(header, 48).max(1),
                };
                segment.check()?;
                self.segments.push(segment);
            }
            INTERPRETER if self.interpreter.is_none() => {
                let length = usize::try_from(long(header, 32)).map_err(|_| Errno::NOEXEC)?;
                if !(2..=4096).contains(&length) {
                    return Err(Errno::NOEXEC);
                }
                let mut path = vec![0; length];
                let read = rustix::io::pread(&self.file, &mut path, long(header, 8))?;
                if read != length {
                    return Err(Errno::NOEXEC);
                }
                path.truncate(path.iter().position(|byte| *byte == 0).ok_or(Errno::NOEXEC)?);
                self.interpreter = Some(path);
            }
            STACK => self.executes_stack = header[4] & 1 != 0,
            HEADERS => self.headers = Some(long(header, 16)),
            _ => {}
        }
        Ok(())
    }

    /// Where the headers are in memory, before it is moved.
    pub(super) fn headers_address(&self) -> u64 {
        let holds = |segment: &&Segment| {
            (segment.offset..segment.offset + segment.in_file).contains(&self.headers_at)
        };
        let found = self.segments.iter().find(holds);
        let found = found.map(|segment| segment.address + (self.headers_at - segment.offset));
        found.or(self.headers).unwrap_or_default()
    }

    /// Its first and its last address, in whole pages.
    pub(super) fn span(&self) -> (u64, u64) {
        let start = self.segments.iter().map(|segment| segment.address).min().unwrap_or_default();
        let end = self.segments.iter().map(|segment| segment.address + segment.in_memory).max();
        (start & !(PAGE - 1), end.unwrap_or_default().next_multiple_of(PAGE))
    }

    /// The largest alignment of its segments.
    pub(super) fn alignment(&self) -> u64 {
        let all = self.segments.iter().map(|segment| segment.alignment);
        all.filter(|alignment| alignment.is_power_of_two()).max().unwrap_or(PAGE).max(PAGE)
    }
}

impl Segment {
    /// Refuses what reaches beyond the address space, or is longer in the file than in memory.
    fn check(&self) -> Result<()> {
        const END: u64 = 0x7fff_ffff_f000;
        let fits = self.in_file <= self.in_memory
            && self.in_memory <= END
            && self.address <= END - self.in_memory
            && self.offset.checked_add(self.in_file).is_some()
            && self.offset % PAGE == self.address % PAGE;
        if fits { Ok(()) } else { Err(Errno::NOEXEC) }
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn first_lines_are_read_as_the_kernel_reads_them() {
        let parts = |interpreter: &str, argument: Option<&str>| {
            Some((interpreter.as_bytes().to_vec(), argument.map(|text| text.as_bytes().to_vec())))
        };
        for (line, expected) in [
            ("/bin/sh\nx", parts("/bin/sh", None)),
            (" \t/bin/sh  \n", parts("/bin/sh", None)),
            ("/usr/bin/env python3 -u \n", parts("/usr/bin/env", Some("python3 -u"))),
            ("/bin/sh", parts("/bin/sh", None)),
            ("\n/bin/sh", None),
            ("  ", None),
            ("", None),
        ] {
            assert_eq!(script(line.as_bytes()), expected, "{line:?}");
        }
        assert_eq!(script(&[b'x'; 254]), None);
    }
}
