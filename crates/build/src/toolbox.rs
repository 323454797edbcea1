//! The tools that `formwork shell` brings along.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use formwork_diagnostics::{EventSink, NoEvents};
use formwork_fs::{FsError, RelPath};
use formwork_image::StoredImage;
use formwork_layer::Stack;
use formwork_layer::tree::Last;
use formwork_solver::Cancel;

use crate::files::trees;
use crate::{BuildError, Destination, Host, ImagePath, copy_out};

/// A directory of programs that need nothing of the image in which they run.
#[derive(Debug)]
pub struct Toolbox;

/// The longest list of names that a busybox may give.
const NAMES: usize = 4096;

impl Toolbox {
    /// A directory with tools: the given one, or one with a busybox under all names that it knows,
    /// which goes when the program ends.
    ///
    /// # Errors
    ///
    /// Fails where the directory has no `sh`, the file is no static busybox, and where the store
    /// cannot be written.
    pub fn of(host: &Host, tools: &Path) -> Result<PathBuf, BuildError> {
        if tools.is_dir() {
            let shell = tools.join("sh");
            return match shell.symlink_metadata() {
                Ok(_) => Ok(tools.to_owned()),
                Err(_) => Err(unusable(tools, "there is no `sh` in it")),
            };
        }
        if !Self::is_static(tools) {
            return Err(unusable(tools, "it is no static program: the image may lack its loader"));
        }
        let listed = Command::new(tools).arg0("busybox").arg("--list").env_clear().output();
        let listed =
            listed.map_err(|error| BuildError::store(FsError::new("run", tools, error)))?;
        let names = String::from_utf8_lossy(&listed.stdout).into_owned();
        let names: Vec<&str> = names.lines().map(str::trim).filter(|name| is_name(name)).collect();
        if !names.contains(&"sh") {
            return Err(unusable(tools, "it is no busybox: `--list` names no `sh`"));
        }
        let scratch = host.layout.scratch().map_err(BuildError::store)?;
        let place = scratch.join("tools");
        fill(&place, tools, &names).map_err(BuildError::store)?;
        Ok(place)
    }

    /// A directory with the static busybox of an image under all names that it knows.
    ///
    /// # Errors
    ///
    /// Fails where the image has none, and as [`Toolbox::of`] does.
    pub fn of_image(host: &Host, image: &StoredImage) -> Result<PathBuf, BuildError> {
        let (events, cancel) = (Arc::new(NoEvents) as Arc<dyn EventSink>, Cancel::default());
        let trees = trees(host, image, false, &events, &cancel)?;
        let stack = Stack::new(trees.iter().map(|tree| &**tree));
        let scratch = host.layout.scratch().map_err(BuildError::store)?;
        for path in ["/bin/busybox", "/busybox", "/usr/bin/busybox", "/bin/busybox.static"] {
            if !has_program(&stack, path)? {
                continue;
            }
            let source = ImagePath { path: path.to_owned(), follow: true };
            let file = scratch.join(path.trim_start_matches('/').replace('/', "-"));
            let target = Destination::File(file.clone());
            copy_out(host, image, &source, &target, &events, &cancel)?;
            if Self::is_static(&file) {
                return Self::of(host, &file);
            }
        }
        let message = format!("the image `{}` has no static busybox", image.title());
        Err(BuildError::input_error(message).with_help("`busybox:musl` has one"))
    }

    /// Whether an image has a shell of its own, as `/bin/sh`.
    ///
    /// # Errors
    ///
    /// Fails where its layers cannot be had.
    pub fn is_needless(host: &Host, image: &StoredImage) -> Result<bool, BuildError> {
        let events = Arc::new(NoEvents) as Arc<dyn EventSink>;
        let trees = trees(host, image, false, &events, &Cancel::default())?;
        has_program(&Stack::new(trees.iter().map(|tree| &**tree)), "/bin/sh")
    }

    /// Whether a file is a program for Linux that needs no loader.
    pub fn is_static(file: &Path) -> bool {
        let mut head = Vec::new();
        let read = fs_err::File::open(file)
            .and_then(|file| file.take(4096).read_to_end(&mut head))
            .is_ok();
        read && has_no_interpreter(&head).unwrap_or(false)
    }
}

/// Whether something that may be run is at a path of an image.
fn has_program(stack: &Stack<'_>, path: &str) -> Result<bool, BuildError> {
    let path = RelPath::clean(path).map_err(BuildError::input_error)?;
    let found = stack.resolve(&path, Last::Follow);
    Ok(found.is_ok_and(|resolved| resolved.found.is_some() && !resolved.is_directory()))
}

/// Whether no program header of an ELF file asks for an interpreter; `None` for what is no such
/// file of 64 bits and this machine's byte order.
fn has_no_interpreter(head: &[u8]) -> Option<bool> {
    const INTERPRETER: u32 = 3;
    let half = |at: usize| Some(u16::from_le_bytes(head.get(at..at + 2)?.try_into().ok()?));
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = u64::from_le_bytes(head.get(32..40)?.try_into().ok()?);
    let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
    for number in 0..count {
        let at = usize::try_from(table).ok()?.checked_add(number * size)?;
        let kind = u32::from_le_bytes(head.get(at..at.checked_add(4)?)?.try_into().ok()?);
        if kind == INTERPRETER {
            return Some(false);
        }
    }
    Some(count > 0)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".." && name != "busybox"
}

fn fill(place: &Path, busybox: &Path, names: &[&str]) -> Result<(), FsError> {
    let failed = |error| FsError::new("put tools into", place, error);
    fs_err::create_dir_all(place).map_err(failed)?;
    fs_err::copy(busybox, place.join("busybox")).map_err(failed)?;
    for name in names.iter().take(NAMES) {
        match std::os::unix::fs::symlink("busybox", place.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn unusable(tools: &Path, problem: &str) -> BuildError {
    BuildError::input_error(format!("cannot use `{}` as tools: {problem}", tools.display()))
        .with_help("name a static busybox, or a directory of static programs with `sh` among them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_without_an_interpreter_are_static() {
        let elf = |kinds: &[u32]| {
            let mut head = b"\x7fELF\x02\x01".to_vec();
            head.resize(64, 0);
            head[32] = 64;
            head[54] = 56;
            head[56] = u8::try_from(kinds.len()).unwrap();
            for kind in kinds {
                let at = head.len();
                head.resize(at + 56, 0);
                head[at..at + 4].copy_from_slice(&kind.to_le_bytes());
            }
            head
        };
        assert_eq!(has_no_interpreter(&elf(&[1, 2])), Some(true));
        assert_eq!(has_no_interpreter(&elf(&[1, 3])), Some(false));
        assert_eq!(has_no_interpreter(&elf(&[])), Some(false));
        for head in [&b"#!/bin/sh"[..], b"", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01"] {
            assert_eq!(has_no_interpreter(head), None);
        }
        // A table beyond the end of what was read.
        let mut long = elf(&[1]);
        long[33] = 0xff;
        assert_eq!(has_no_interpreter(&long), None);
        long[32..40].fill(0xff);
        assert_eq!(has_no_interpreter(&long), None);
    }
}
