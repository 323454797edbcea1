//! Which system calls are asked about, and what they are.
//!
//! Those that look a path up, two that make paths lead elsewhere later, what devices take that are
//! data, and what parts names. Pure data; the numbers of the calls are those of the table of the filter.

use std::collections::HashMap;

use crate::seccomp::{self, ARCHITECTURES, Ask};
use crate::supervisor::calls::Place;

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Opens a file, with these flags.
    Open(Place, usize),
    /// `creat`.
    Create,
    /// `openat2`.
    Open2,
    /// Tells about a file, in the machine's own structure, at the address in an argument.
    Stat(Place, usize),
    /// The same in the structure that 32-bit programs use.
    Stat64(Place, usize),
    /// `statx`.
    Statx,
    /// Reads a link into the buffer and size of two arguments.
    ReadLink(Place, usize),
    /// Tells about a file system, in the machine's own structure, at the address in an argument.
    StatFileSystem(Place, usize),
    /// Reads an attribute.
    Attribute(Place),
    /// Lists attributes.
    Attributes(Place),
    /// Asks for the rights in an argument.
    Access(Place, usize),
    /// Makes a link whose text is the first argument.
    MakeLink,
    /// Changes the working directory.
    ChangeDirectory,
    /// Tells the name of the host, with those of the kernel.
    HostName,
    /// Makes a file of the type, mode and device in two arguments.
    MakeNode(Place, usize),
    /// Gives a file away, to the user in an argument and the group in the next one.
    Chown(Place, usize),
    /// Lists a directory.
    List,
    /// Changes a file.
    Change(Place),
    /// `linkat`, which changes how many names a file has.
    NameAt,
}

/// `AT_EMPTY_PATH`: it is about an open file, and the kernel knows best.
const OF_OPEN_FILE: u32 = 0x1000;

#[rustfmt::skip]
const CALLS: &[(&str, Call, Ask)] = {
    use Call::*;
    use Place::{At, AtWith, Link, LinkAt, Path};
    const ALWAYS: Ask = Ask::Always;
    &[
        ("open", Open(Path(0), 1), ALWAYS),
        ("openat", Open(At(0, 1), 2), ALWAYS),
        ("openat2", Open2, ALWAYS),
        ("creat", Create, ALWAYS),
        ("stat", Stat(Path(0), 1), ALWAYS),
        ("lstat", Stat(Link(0), 1), ALWAYS),
        ("newfstatat", Stat(AtWith(0, 1, 3), 2), Ask::Unless(3, OF_OPEN_FILE)),
        ("stat64", Stat64(Path(0), 1), ALWAYS),
        ("lstat64", Stat64(Link(0), 1), ALWAYS),
        ("fstatat64", Stat64(AtWith(0, 1, 3), 2), Ask::Unless(3, OF_OPEN_FILE)),
        ("statx", Statx, Ask::Unless(2, OF_OPEN_FILE)),
        ("readlink", ReadLink(Link(0), 1), ALWAYS),
        ("readlinkat", ReadLink(LinkAt(0, 1), 2), ALWAYS),
        ("access", Access(Path(0), 1), ALWAYS),
        ("faccessat", Access(At(0, 1), 2), ALWAYS),
        ("faccessat2", Access(AtWith(0, 1, 3), 2), ALWAYS),
        ("statfs", StatFileSystem(Path(0), 1), ALWAYS),
        ("getxattr", Attribute(Path(0)), ALWAYS),
        ("lgetxattr", Attribute(Link(0)), ALWAYS),
        ("listxattr", Attributes(Path(0)), ALWAYS),
        ("llistxattr", Attributes(Link(0)), ALWAYS),
        ("symlink", MakeLink, ALWAYS),
        ("symlinkat", MakeLink, ALWAYS),
        ("chdir", ChangeDirectory, ALWAYS),
        ("uname", HostName, ALWAYS),
        ("mknod", MakeNode(Path(0), 1), ALWAYS),
        ("mknodat", MakeNode(At(0, 1), 2), ALWAYS),
        ("chown", Chown(Path(0), 1), ALWAYS),
        ("lchown", Chown(Link(0), 1), ALWAYS),
        ("chown32", Chown(Path(0), 1), ALWAYS),
        ("lchown32", Chown(Link(0), 1), ALWAYS),
        ("fchownat", Chown(AtWith(0, 1, 4), 2), ALWAYS),
        ("getdents64", List, ALWAYS),
    ]
};

/// Those about open files, which may be open as paths.
const OF_OPEN_FILES: &[(&str, Call)] =
    &[("fstat", Call::Stat(Place::Open(0), 1)), ("fstat64", Call::Stat64(Place::Open(0), 1))];

/// Those that change a file which may have several names.
#[rustfmt::skip]
const OF_NAMES: &[(&str, Call)] = {
    use Call::{Change, NameAt};
    use Place::{At, AtWith, Link, LinkAt, Path};
    &[
        ("chmod", Change(Path(0))),
        ("fchmodat", Change(At(0, 1))),
        ("fchmodat2", Change(AtWith(0, 1, 3))),
        ("utime", Change(Path(0))),
        ("utimes", Change(Path(0))),
        ("futimesat", Change(At(0, 1))),
        ("utimensat", Change(AtWith(0, 1, 3))),
        ("utimensat_time64", Change(AtWith(0, 1, 3))),
        ("truncate", Change(Path(0))),
        ("truncate64", Change(Path(0))),
        ("setxattr", Change(Path(0))),
        ("lsetxattr", Change(Link(0))),
        ("removexattr", Change(Path(0))),
        ("lremovexattr", Change(Link(0))),
        ("rename", Change(Link(0))),
        ("renameat", Change(LinkAt(0, 1))),
        ("renameat2", Change(LinkAt(0, 1))),
        ("link", Change(Link(0))),
        ("linkat", NameAt),
    ]
};

/// All calls that some filter asks about.
fn all() -> impl Iterator<Item = (&'static str, Call)> {
    let always = CALLS.iter().map(|(name, call, _)| (*name, *call));
    always.chain(OF_OPEN_FILES.iter().chain(OF_NAMES).copied())
}

/// The filter that asks; about open files, too, if they may be what stands for devices, and about
/// what changes files if some have several names.
pub(super) fn filter(has_devices: bool, has_linked: bool) -> Vec<libc::sock_filter> {
    let ask = |ask| match ask {
        Ask::Unless(_, OF_OPEN_FILE) if has_devices => Ask::Always,
        ask => ask,
    };
    let open = OF_OPEN_FILES.iter().filter(|_| has_devices);
    let further = open.chain(OF_NAMES.iter().filter(|_| has_linked));
    let further = further.map(|(name, _)| (*name, Ask::Always));
    seccomp::asking(CALLS.iter().map(|(name, _, when)| (*name, ask(*when))).chain(further))
}

/// What the calls are, by the instruction set and the number, and whether they are of 32 bits.
pub(super) fn meanings() -> HashMap<(u32, u32), (Call, bool)> {
    let mut meanings = HashMap::new();
    for (audit, column) in ARCHITECTURES {
        let is_32_bit = (audit, column) != ARCHITECTURES[0];
        for (name, call) in all() {
            // The oldest structures of 32-bit programs stay the kernel's, and the shortest numbers.
            let is_old = match call {
                Call::Stat(..) | Call::StatFileSystem(..) => is_32_bit,
                Call::Chown(..) => is_32_bit && matches!(name, "chown" | "lchown"),
                _ => false,
            };
            if let (Some(number), false) = (seccomp::number(name, column), is_old) {
                meanings.insert((audit, number), (call, is_32_bit));
            }
        }
    }
    meanings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_the_table_of_the_filter() {
        for (name, call) in all() {
            // Some are of one kind of machine alone.
            let found = (0..4).any(|column| seccomp::number(name, column).is_some());
            assert!(found, "{name} {call:?}");
        }
    }
}
