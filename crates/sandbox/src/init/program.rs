//! Finds out why a program could not be executed.
//!
//! The kernel has one number for many causes. This reads the program's first bytes, with bounds on
//! everything: the file is the image's.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;

use formwork_fs::{Follow, RelPath, RootDir};
use rustix::io::Errno;

use super::process::search_path;
use crate::{ProcessSpec, ProgramProblem, SandboxError};

/// Interpreters of interpreters that are looked at; the kernel goes no further, either.
const MAX_DEPTH: usize = 5;

/// The longest first line that the kernel reads (`BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 256;

/// The longest path of a dynamic loader.
const MAX_PATH: usize = 4096;

/// Program headers that are looked at.
const MAX_HEADERS: u16 = 256;

/// The architectures of ELF files, as the kernel numbers and QEMU names them.
const MACHINES: [(u16, &str); 10] = [
    (3, "i386"),
    (8, "mips64el"),
    (20, "ppc"),
    (21, "ppc64le"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

/// The error of a program none of whose candidates could be executed.
pub(super) fn explain(
    spec: &ProcessSpec,
    candidates: &[CString],
    errno: Errno,
    root: RootDir,
) -> SandboxError {
    let named = spec.args.first().cloned().unwrap_or_default();
    let existing = candidates.iter().find_map(|candidate| {
        let path = inside(spec, candidate.as_bytes())?;
        let stat = root.stat(&path, Follow::InRoot).ok()??;
        Some((candidate, path, stat.is_dir()))
    });
    let Some((candidate, path, is_dir)) = existing else {
        let problem = match named.as_bytes().contains(&b'/') {
            true => ProgramProblem::Missing,
            false => ProgramProblem::NotInPath(search_path(spec).to_owned()),
        };
        return SandboxError::Program { program: named, problem: other_than(errno, problem) };
    };
    let problem = match errno {
        Errno::ACCESS if is_dir => ProgramProblem::Directory,
        Errno::ACCESS => ProgramProblem::NotExecutable,
        Errno::TOOBIG => ProgramProblem::TooLong,
        Errno::NOENT | Errno::NOEXEC => {
            inspect(&root, &path, MAX_DEPTH).unwrap_or(ProgramProblem::Format)
        }
        errno => ProgramProblem::Other(errno.into()),
    };
    SandboxError::Program { program: OsStr::from_bytes(candidate.as_bytes()).to_owned(), problem }
}

/// The error of a program for another machine whose emulator the kernel does not take.
pub(super) fn without_emulator(error: SandboxError, errno: Errno) -> SandboxError {
    match error {
        SandboxError::Program { program, problem: ProgramProblem::Architecture(name) } => {
            let problem = ProgramProblem::EmulatorRefused(name, errno.into());
            SandboxError::Program { program, problem }
        }
        error => error,
    }
}

/// Whether a file is a program of this machine that needs no libraries.
pub(crate) fn is_static_program(path: &std::path::Path) -> bool {
    let Ok(file) = fs_err::File::open(path) else { return false };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let file = file.into_file();
    let elf = read(&file, 0, FIRST_LINE).filter(|start| start.starts_with(b"\x7fELF"));
    let elf = elf.and_then(|start| Elf::parse(&start));
    is_file && elf.is_some_and(|elf| elf.is_native() && elf.interpreter(&file).is_none())
}

/// The problem, if it fits what the kernel said.
fn other_than(errno: Errno, problem: ProgramProblem) -> ProgramProblem {
    match errno {
        Errno::NOENT | Errno::NOTDIR => problem,
        Errno::ACCESS => ProgramProblem::NotExecutable,
        errno => ProgramProblem::Other(errno.into()),
    }
}

/// A candidate as a path from the root.
fn inside(spec: &ProcessSpec, candidate: &[u8]) -> Option<RelPath> {
    if candidate.starts_with(b"/") {
        return RelPath::clean(candidate).ok();
    }
    RelPath::clean([spec.cwd.as_bytes(), b"/", candidate].concat()).ok()
}

/// What is wrong with a file that is there; `None` where it looks like a good one.
fn inspect(root: &RootDir, path: &RelPath, depth: usize) -> Option<ProgramProblem> {
    let file = root.open_file(path, Follow::InRoot).ok()?;
    let start = read(&file, 0, FIRST_LINE)?;
    let interpreter = match &*start {
        [b'#', b'!', line @ ..] => script_interpreter(line)?,
        [0x7f, b'E', b'L', b'F', ..] => match Elf::parse(&start)? {
            elf if !elf.is_native() => return Some(ProgramProblem::Architecture(elf.name())),
            elf => elf.interpreter(&file)?,
        },
        _ => return Some(ProgramProblem::Format),
    };
    let path = RelPath::clean(&interpreter).ok()?;
    match root.stat(&path, Follow::InRoot) {
        Ok(Some(_)) if depth > 0 => inspect(root, &path, depth - 1),
        Ok(Some(_)) => None,
        _ => Some(ProgramProblem::InterpreterMissing(OsString::from_vec(interpreter))),
    }
}

/// The program that a script's first line names.
fn script_interpreter(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | 0)).unwrap_or(line.len());
    (end > 0).then(|| line[..end].to_vec())
}

/// The head of a binary.
struct Elf {
    machine: u16,
    is_64: bool,
    is_big: bool,
    headers_at: u64,
    header_size: u16,
    headers: u16,
}

impl Elf {
    fn parse(start: &[u8]) -> Option<Self> {
        let (is_64, is_big) = (*start.get(4)? == 2, *start.get(5)? == 2);
        let number = |at, size| unsigned(start.get(at..at + size)?, is_big);
        let short = |at| number(at, 2).and_then(|number| u16::try_from(number).ok());
        Some(Self {
            machine: short(18)?,
            is_64,
            is_big,
            headers_at: if is_64 { number(32, 8)? } else { number(28, 4)? },
            header_size: short(if is_64 { 54 } else { 42 })?,
            headers: short(if is_64 { 56 } else { 44 })?,
        })
    }

    /// Whether a kernel for this program's own architecture runs it, as a rule.
    fn is_native(&self) -> bool {
        let native: [u16; 2] = if cfg!(target_arch = "x86_64") { [62, 3] } else { [183, 40] };
        native.contains(&self.machine) && !self.is_big
    }

    fn name(&self) -> String {
        let known = MACHINES.iter().find(|(machine, _)| *machine == self.machine);
        known.map_or_else(|| format!("ELF machine {}", self.machine), |(_, name)| (*name).into())
    }

    /// The dynamic loader, from the program header of type `PT_INTERP` (3).
    fn interpreter(&self, file: &File) -> Option<Vec<u8>> {
        let size = usize::from(self.header_size);
        for index in 0..self.headers.min(MAX_HEADERS) {
            let at = u64::from(index).checked_mul(size as u64)?.checked_add(self.headers_at)?;
            let header = read(file, at, size)?;
            let number = |at, size| unsigned(header.get(at..at + size)?, self.is_big);
            if number(0, 4)? == 3 {
                let (offset, length) = match self.is_64 {
                    true => (number(8, 8)?, number(32, 8)?),
                    false => (number(4, 4)?, number(16, 4)?),
                };
                let length = usize::try_from(length).ok().filter(|length| *length <= MAX_PATH)?;
                let path = read(file, offset, length)?;
                return path.split(|byte| *byte == 0).next().map(<[u8]>::to_vec);
            }
        }
        None
    }
}

/// An unsigned number of up to eight bytes.
fn unsigned(bytes: &[u8], is_big: bool) -> Option<u64> {
    let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    Some(if is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
}

/// Up to so many bytes of a file.
fn read(file: &File, at: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let length = file.read_at(&mut bytes, at).ok()?;
    bytes.truncate(length);
    Some(bytes)
}
