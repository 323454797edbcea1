//! What an archive says about one of its entries.

use std::borrow::Cow;

use formwork_fs::{Timestamp, Xattr};

/// An entry as an archive describes it, read or to be written. Nothing about names has been
/// checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name, without NUL bytes, otherwise anything.
    pub name: Cow<'a, [u8]>,
    /// What the entry is.
    pub node: Node<'a>,
    /// The permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last.
    pub mtime: Timestamp,
    /// The extended attributes.
    pub xattrs: Cow<'a, [Xattr]>,
}

/// What an entry of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// A regular file, whose content comes next.
    File {
        /// The number of bytes, holes included.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// The text of the link, without NUL bytes.
        target: Cow<'a, [u8]>,
    },
    /// One more name of another entry.
    HardLink {
        /// The other entry's name, without NUL bytes.
        target: Cow<'a, [u8]>,
    },
    /// A character device.
    CharDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// Something that POSIX does not know, such as GNU tar's volume labels.
    Other {
        /// The letter that marks it.
        kind: u8,
    },
}

impl<'a> Entry<'a> {
    /// An entry that belongs to root and was changed in 1970.
    pub fn new(name: &'a [u8], node: Node<'a>, mode: u32) -> Self {
        Self {
            name: Cow::Borrowed(name),
            node,
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 0, nanoseconds: 0 },
            xattrs: Cow::Borrowed(&[]),
        }
    }
}
