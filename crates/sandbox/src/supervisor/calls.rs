//! Which system calls the supervisor is asked about, and what they are.
//!
//! Where a call keeps what it is about, is a [`Place`]; the numbers of the calls are those of the
//! table of the filter. Pure data.

use super::devices;
use crate::seccomp::{self, ARCHITECTURES, Ask};

/// Where a call says which file it is about. The numbers are those of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A path from the working directory; a link in the last place is followed.
    Path(usize),
    /// A path from the working directory; a link in the last place is what is meant.
    Link(usize),
    /// An open file.
    Open(usize),
    /// A directory's descriptor and a path from there.
    At(usize, usize),
    /// The same, but a link in the last place is what is meant.
    LinkAt(usize, usize),
    /// A directory's descriptor, a path from there, and flags (`AT_…`).
    AtWith(usize, usize, usize),
}

/// Which of a process's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

/// How the times of a call say that one is the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stamps {
    /// They cannot.
    Plain,
    /// By its nanoseconds, which are a long number.
    Long,
    /// The same, and the number has 64 bits also for 32-bit programs.
    Wide,
}

/// What an attribute shall be, or where to it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum New {
    Nothing,
    /// The bytes at the address in an argument, of the size and with the flags in the next ones.
    At(usize),
    /// The same three in a structure (`struct xattr_args`), at the address in an argument.
    In(usize),
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Tells about a file, in the machine's own structure, at the address in an argument.
    Stat(Place, usize),
    /// The same in the structure that 32-bit programs use.
    Stat64(Place, usize),
    /// `statx`.
    Statx,
    /// Gives a file away, to the user in an argument and the group in the next one.
    Chown(Place, usize),
    /// Reads an attribute whose name is an argument, into a buffer.
    GetAttribute(Place, usize, New),
    /// Sets or removes one.
    ChangeAttribute(Place, usize, New),
    /// Lists them into the buffer and size of two arguments.
    ListAttributes(Place, usize),
    /// Opens a file, with these flags and the mode behind them.
    Open(Place, usize),
    /// `creat`.
    Create,
    /// `openat2`.
    Open2,
    /// Makes a directory of the mode in an argument.
    MakeDirectory(Place, usize),
    /// Makes a file of the type, mode and device in two arguments.
    MakeNode(Place, usize),
    /// Makes a symbolic link whose text is the first argument.
    MakeLink(Place),
    /// Executes a file.
    Execute(Place),
    /// Lists a directory.
    List,
    /// Changes the root directory.
    ChangeRoot,
    /// Tells the real or the effective number.
    Id(Kind, bool),
    /// Tells the real, effective and saved number.
    Ids(Kind),
    /// Tells the supplementary groups.
    Groups,
    /// `setuid`, `setgid`.
    SetId(Kind),
    /// `setreuid`, `setregid`.
    SetTwoIds(Kind),
    /// `setresuid`, `setresgid`.
    SetThreeIds(Kind),
    /// `setfsuid`, `setfsgid`.
    SetFileId(Kind),
    /// `setgroups`.
    SetGroups,
    /// `capget`.
    Capabilities,
    /// `capset`.
    SetCapabilities,
    /// `prctl` about whether capabilities outlive a change of the user.
    KeepCapabilities,
    /// The limit in which the supervisor keeps what it knows of a process: to be read, or set.
    Limit { set: bool },
    /// `prlimit64` on it.
    LimitOf,
    /// Changes the mode of a file: for its owner alone.
    OwnersBusiness(Place),
    /// Sets its times to those at the address in an argument: for its owner alone, too, unless it is
    /// the present.
    SetTimes(Place, usize, Stamps),
    /// Changes what a directory holds in one place or two.
    ChangeEntry(Place, Option<Place>),
    /// Gives a file one more name.
    Name(Place, Place),
    /// Asks for the rights in an argument, of the real user or as flags say in another.
    Access(Place, usize, Option<usize>),
    /// Changes a file's size.
    Truncate(Place),
    /// Connects to a socket that may have a path.
    Connect,
    /// Gives a socket a name, which may be a path.
    Bind,
    /// Asks who is at the other end of a socket.
    Peer,
    /// Any call for sockets, as 32-bit programs make them: its number, and where its arguments are.
    ForSockets,
    /// Changes the working directory.
    ChangeDirectory(Place),
}

/// The limit that no kernel heeds (`RLIMIT_RSS`).
pub(super) const LIMIT: u32 = 5;
/// `SO_PEERCRED`.
const PEER: u32 = 17;
/// `PR_GET_KEEPCAPS`, `PR_SET_KEEPCAPS`.
const KEEP_CAPABILITIES: [u32; 2] = [7, 8];

impl Call {
    /// Whether this only asks who may do something, which is nothing that root is asked.
    pub(super) fn is_only_about_rights(self) -> bool {
        matches!(
            self,
            Self::OwnersBusiness(_)
                | Self::SetTimes(..)
                | Self::ChangeEntry(..)
                | Self::Name(..)
                | Self::Access(..)
                | Self::Truncate(_)
                | Self::Connect
                | Self::Bind
                | Self::ChangeDirectory(_)
        )
    }
}

/// All calls that are asked about, with the condition under which they are.
///
/// A process that begins as root may become somebody else, and nobody can give it another filter
/// then; so all processes are asked about all of them, and root is let go on as quickly as can be.
#[rustfmt::skip]
const CALLS: &[(&str, Call, Ask)] = {
    use Call::*;
    use Kind::*;
    use Place::{At, AtWith, Link, LinkAt, Open as File, Path};
    const ALWAYS: Ask = Ask::Always;
    &[
        ("stat", Stat(Path(0), 1), ALWAYS),
        ("lstat", Stat(Link(0), 1), ALWAYS),
        ("fstat", Stat(File(0), 1), ALWAYS),
        ("newfstatat", Stat(AtWith(0, 1, 3), 2), ALWAYS),
        ("stat64", Stat64(Path(0), 1), ALWAYS),
        ("lstat64", Stat64(Link(0), 1), ALWAYS),
        ("fstat64", Stat64(File(0), 1), ALWAYS),
        ("fstatat64", Stat64(AtWith(0, 1, 3), 2), ALWAYS),
        ("statx", Statx, ALWAYS),
        ("chown", Chown(Path(0), 1), ALWAYS),
        ("lchown", Chown(Link(0), 1), ALWAYS),
        ("fchown", Chown(File(0), 1), ALWAYS),
        ("chown32", Chown(Path(0), 1), ALWAYS),
        ("lchown32", Chown(Link(0), 1), ALWAYS),
        ("fchown32", Chown(File(0), 1), ALWAYS),
        ("fchownat", Chown(AtWith(0, 1, 4), 2), ALWAYS),
        ("getxattr", GetAttribute(Path(0), 1, New::At(2)), ALWAYS),
        ("lgetxattr", GetAttribute(Link(0), 1, New::At(2)), ALWAYS),
        ("fgetxattr", GetAttribute(File(0), 1, New::At(2)), ALWAYS),
        ("getxattrat", GetAttribute(AtWith(0, 1, 2), 3, New::In(4)), ALWAYS),
        ("setxattr", ChangeAttribute(Path(0), 1, New::At(2)), ALWAYS),
        ("lsetxattr", ChangeAttribute(Link(0), 1, New::At(2)), ALWAYS),
        ("fsetxattr", ChangeAttribute(File(0), 1, New::At(2)), ALWAYS),
        ("setxattrat", ChangeAttribute(AtWith(0, 1, 2), 3, New::In(4)), ALWAYS),
        ("removexattr", ChangeAttribute(Path(0), 1, New::Nothing), ALWAYS),
        ("lremovexattr", ChangeAttribute(Link(0), 1, New::Nothing), ALWAYS),
        ("fremovexattr", ChangeAttribute(File(0), 1, New::Nothing), ALWAYS),
        ("removexattrat", ChangeAttribute(AtWith(0, 1, 2), 3, New::Nothing), ALWAYS),
        ("listxattr", ListAttributes(Path(0), 1), ALWAYS),
        ("llistxattr", ListAttributes(Link(0), 1), ALWAYS),
        ("flistxattr", ListAttributes(File(0), 1), ALWAYS),
        ("listxattrat", ListAttributes(AtWith(0, 1, 2), 3), ALWAYS),
        ("open", Open(Path(0), 1), ALWAYS),
        ("openat", Open(At(0, 1), 2), ALWAYS),
        ("creat", Create, ALWAYS),
        ("openat2", Open2, ALWAYS),
        ("mkdir", MakeDirectory(Path(0), 1), ALWAYS),
        ("mkdirat", MakeDirectory(At(0, 1), 2), ALWAYS),
        ("mknod", MakeNode(Path(0), 1), ALWAYS),
        ("mknodat", MakeNode(At(0, 1), 2), ALWAYS),
        ("symlink", MakeLink(Path(1)), ALWAYS),
        ("symlinkat", MakeLink(At(1, 2)), ALWAYS),
        ("execve", Execute(Path(0)), ALWAYS),
        ("execveat", Execute(AtWith(0, 1, 4)), ALWAYS),
        ("getdents64", List, ALWAYS),
        ("chroot", ChangeRoot, ALWAYS),
        ("getuid", Id(User, false), ALWAYS), ("getuid32", Id(User, false), ALWAYS),
        ("geteuid", Id(User, true), ALWAYS), ("geteuid32", Id(User, true), ALWAYS),
        ("getgid", Id(Group, false), ALWAYS), ("getgid32", Id(Group, false), ALWAYS),
        ("getegid", Id(Group, true), ALWAYS), ("getegid32", Id(Group, true), ALWAYS),
        ("getresuid", Ids(User), ALWAYS), ("getresuid32", Ids(User), ALWAYS),
        ("getresgid", Ids(Group), ALWAYS), ("getresgid32", Ids(Group), ALWAYS),
        ("getgroups", Groups, ALWAYS), ("getgroups32", Groups, ALWAYS),
        ("setuid", SetId(User), ALWAYS), ("setuid32", SetId(User), ALWAYS),
        ("setgid", SetId(Group), ALWAYS), ("setgid32", SetId(Group), ALWAYS),
        ("setreuid", SetTwoIds(User), ALWAYS), ("setreuid32", SetTwoIds(User), ALWAYS),
        ("setregid", SetTwoIds(Group), ALWAYS), ("setregid32", SetTwoIds(Group), ALWAYS),
        ("setresuid", SetThreeIds(User), ALWAYS), ("setresuid32", SetThreeIds(User), ALWAYS),
        ("setresgid", SetThreeIds(Group), ALWAYS), ("setresgid32", SetThreeIds(Group), ALWAYS),
        ("setfsuid", SetFileId(User), ALWAYS), ("setfsuid32", SetFileId(User), ALWAYS),
        ("setfsgid", SetFileId(Group), ALWAYS), ("setfsgid32", SetFileId(Group), ALWAYS),
        ("setgroups", SetGroups, ALWAYS), ("setgroups32", SetGroups, ALWAYS),
        ("capget", Capabilities, ALWAYS),
        ("capset", SetCapabilities, ALWAYS),
        ("prctl", KeepCapabilities, Ask::IfOneOf(0, KEEP_CAPABILITIES)),
        ("getrlimit", Limit { set: false }, Ask::IfOneOf(0, [LIMIT, LIMIT])),
        ("ugetrlimit", Limit { set: false }, Ask::IfOneOf(0, [LIMIT, LIMIT])),
        ("setrlimit", Limit { set: true }, Ask::IfOneOf(0, [LIMIT, LIMIT])),
        ("prlimit64", LimitOf, Ask::IfOneOf(1, [LIMIT, LIMIT])),
        ("chmod", OwnersBusiness(Path(0)), ALWAYS),
        ("fchmod", OwnersBusiness(File(0)), ALWAYS),
        ("fchmodat", OwnersBusiness(At(0, 1)), ALWAYS),
        ("fchmodat2", OwnersBusiness(AtWith(0, 1, 3)), ALWAYS),
        ("utime", SetTimes(Path(0), 1, Stamps::Plain), ALWAYS),
        ("utimes", SetTimes(Path(0), 1, Stamps::Plain), ALWAYS),
        ("futimesat", SetTimes(At(0, 1), 2, Stamps::Plain), ALWAYS),
        ("utimensat", SetTimes(AtWith(0, 1, 3), 2, Stamps::Long), ALWAYS),
        ("utimensat_time64", SetTimes(AtWith(0, 1, 3), 2, Stamps::Wide), ALWAYS),
        ("unlink", ChangeEntry(Path(0), None), ALWAYS),
        ("unlinkat", ChangeEntry(At(0, 1), None), ALWAYS),
        ("rmdir", ChangeEntry(Path(0), None), ALWAYS),
        ("rename", ChangeEntry(Path(0), Some(Path(1))), ALWAYS),
        ("renameat", ChangeEntry(At(0, 1), Some(At(2, 3))), ALWAYS),
        ("renameat2", ChangeEntry(At(0, 1), Some(At(2, 3))), ALWAYS),
        ("link", Name(Link(0), Path(1)), ALWAYS),
        ("linkat", Name(LinkAt(0, 1), At(2, 3)), ALWAYS),
        ("access", Access(Path(0), 1, None), ALWAYS),
        ("faccessat", Access(At(0, 1), 2, None), ALWAYS),
        ("faccessat2", Access(AtWith(0, 1, 3), 2, Some(3)), ALWAYS),
        ("truncate", Truncate(Path(0)), ALWAYS),
        ("truncate64", Truncate(Path(0)), ALWAYS),
        ("connect", Connect, ALWAYS),
        ("bind", Bind, ALWAYS),
        ("socketcall", ForSockets, ALWAYS),
        ("getsockopt", Peer, Ask::IfOneOf(2, [PEER, PEER])),
        ("chdir", ChangeDirectory(Path(0)), ALWAYS),
        ("fchdir", ChangeDirectory(File(0)), ALWAYS),
    ]
};

/// The filter that asks.
pub(super) fn filter() -> Vec<libc::sock_filter> {
    seccomp::asking(CALLS.iter().map(|(name, _, ask)| (*name, *ask)))
}

/// The filter that asks about what concerns devices.
pub(super) fn filter_for_devices() -> Vec<libc::sock_filter> {
    let concerned = CALLS.iter().filter(|(_, call, _)| devices::concerns(*call));
    seccomp::asking(concerned.map(|(name, call, ask)| match call {
        Call::MakeNode(_, mode) => (*name, Ask::IfDevice(*mode as u32)),
        _ => (*name, *ask),
    }))
}

/// What the calls are that are asked about, by the numbers that they have in each instruction set.
pub(super) struct Calls([Vec<Option<Meaning>>; ARCHITECTURES.len()]);

/// What a call is, in one of the two instruction sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meaning {
    pub(super) call: Call,
    /// Whether addresses and long numbers have 32 bits.
    pub(super) is_32_bit: bool,
    /// Whether numbers of users have 16 bits.
    pub(super) has_short_ids: bool,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self(ARCHITECTURES.map(|(_, column)| {
            let is_32_bit = column != ARCHITECTURES[0].1;
            let mut meanings = Vec::new();
            for (name, call, _) in CALLS {
                let has_short_ids = is_32_bit && !name.ends_with("32") && *name != "fchownat";
                // The oldest structures of 32-bit programs stay the kernel's.
                let is_old = is_32_bit && matches!(call, Call::Stat(..));
                if let (Some(number), false) = (seccomp::number(name, column), is_old) {
                    let meaning = Meaning { call: *call, is_32_bit, has_short_ids };
                    let number = number as usize;
                    meanings.resize(meanings.len().max(number + 1), None);
                    meanings[number] = Some(meaning);
                }
            }
            meanings
        }))
    }

    pub(super) fn get(&self, audit: u32, number: u32) -> Option<Meaning> {
        let at = ARCHITECTURES.iter().position(|(known, _)| *known == audit)?;
        *self.0[at].get(number as usize)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_in_the_table_of_the_filter() {
        for (name, call, _) in CALLS {
            // Some are of one kind of machine alone.
            let found = (0..4).any(|column| seccomp::number(name, column).is_some());
            assert!(found, "{name} {call:?}");
        }
    }
}
