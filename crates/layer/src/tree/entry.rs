//! What a tree consists of.

use std::fmt;
use std::sync::Arc;

use formwork_fs::{RelPath, Timestamp, Xattr};

use super::Bytes;

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: RelPath,
    /// What.
    pub node: Node,
    /// Whose, since when, and what else the kernel keeps about it.
    pub metadata: Metadata,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file; the first in order of its names, if it has several.
    File(File),
    /// A directory.
    Directory {
        /// Whether it hides what layers below have in the same place.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// The text of the link: not empty, without NUL bytes, otherwise anything.
        target: Arc<[u8]>,
    },
    /// One more name of an entry that comes earlier in the same tree.
    HardLink {
        /// The first name; its node is neither a directory nor a hard link nor a whiteout.
        target: RelPath,
    },
    /// A character device; never 0/0, which is how overlayfs writes a whiteout.
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
    /// The absence of what layers below have in this place.
    Whiteout,
}

/// A regular file.
#[derive(Clone, Debug)]
pub struct File {
    /// The number of bytes.
    pub size: u64,
    /// What they are.
    pub content: ContentHash,
    /// Where they are.
    pub bytes: Bytes,
}

/// The BLAKE3 hash of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

/// What the kernel keeps about an entry beside its content.
///
/// A hard link has the metadata of its target, a symbolic link always mode 0777, and a whiteout
/// none (all zero).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// The permission bits with setuid, setgid and sticky: at most 0o7777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When the content changed last. No part of any digest.
    pub mtime: Timestamp,
    /// The extended attributes.
    pub xattrs: Xattrs,
}

/// Extended attributes: sorted by name, each name once. Cheap to clone; most entries have none.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Xattrs(Option<Arc<formwork_fs::Xattrs>>);

impl ContentHash {
    /// The hash of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl File {
    /// A file whose bytes are kept in memory, such as a heredoc.
    pub fn inline(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let (size, content) = (bytes.len() as u64, ContentHash::of(&bytes));
        Self { size, content, bytes: Bytes::Inline(bytes) }
    }
}

impl Node {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }

    /// The device that this is: whether it is a block device, its major and its minor number.
    pub fn device(&self) -> Option<(bool, u32, u32)> {
        match self {
            Self::CharDevice { major, minor } => Some((false, *major, *minor)),
            Self::BlockDevice { major, minor } => Some((true, *major, *minor)),
            _ => None,
        }
    }

    /// A character device, or the whiteout that overlayfs writes as one.
    pub fn char_device(major: u32, minor: u32) -> Self {
        if (major, minor) == (0, 0) { Self::Whiteout } else { Self::CharDevice { major, minor } }
    }
}

impl Metadata {
    /// The metadata of an entry that belongs to root and has no modification time of its own.
    pub fn root_owned(mode: u32) -> Self {
        Self { mode, ..Self::default() }
    }
}

impl Xattrs {
    /// The value of an attribute.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }

    /// Names and values in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.as_slice().iter().map(|(name, value)| (&**name, &**value))
    }

    /// Names and values as one list.
    pub fn as_slice(&self) -> &[Xattr] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Those whose names satisfy a condition.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&[u8]) -> bool) -> Self {
        if self.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        self.iter().filter(|(name, _)| keep(name)).map(|(n, v)| (n.into(), v.into())).collect()
    }
}

impl From<formwork_fs::Xattrs> for Xattrs {
    /// Sorts the attributes; of several with one name the last one is kept.
    fn from(mut list: formwork_fs::Xattrs) -> Self {
        if list.is_empty() {
            return Self(None);
        }
        list.reverse();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list.dedup_by(|next, kept| next.0 == kept.0);
        Self(Some(Arc::new(list)))
    }
}

impl FromIterator<Xattr> for Xattrs {
    fn from_iter<I: IntoIterator<Item = Xattr>>(list: I) -> Self {
        list.into_iter().collect::<Vec<_>>().into()
    }
}

impl fmt::Debug for Xattrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 128, "{}", size_of::<Entry>());
    }

    #[test]
    fn of_attributes_with_one_name_the_last_is_kept() {
        let pair = |name: &str, value: &str| (name.as_bytes().into(), value.as_bytes().into());
        let xattrs = Xattrs::from(vec![pair("b", "1"), pair("a", "2"), pair("b", "3")]);
        let list: Vec<_> = xattrs.iter().collect();
        assert_eq!(list, [(&b"a"[..], &b"2"[..]), (b"b", b"3")]);
        assert_eq!(xattrs.get(b"b"), Some(&b"3"[..]));
        assert_eq!(xattrs.filtered(|name| name == b"a").iter().len(), 1);
        assert_eq!(xattrs.filtered(|_| false), Xattrs::default());
    }
}
