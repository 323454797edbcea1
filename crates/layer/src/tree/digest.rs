//! Digests of trees.
//!
//! A digest covers everything about the entries but the modification times and the places of the
//! bytes. It is a BLAKE3 hash, with the purpose as its key, over the entries in order, each
//! written as
//!
//! ```text
//! kind             1 byte: the letter of the table below
//! path             length (4 bytes), bytes
//! mode, uid, gid   4 bytes each
//! attributes       number (4 bytes), then name and value of each: length (4 bytes), bytes
//! ```
//!
//! (for hard links and whiteouts only the first two) and, depending on the kind,
//!
//! ```text
//! f  file          size (8 bytes), content hash (32 bytes)
//! d  directory     1 if opaque, else 0 (1 byte)
//! s  symlink       target: length (4 bytes), bytes
//! h  hard link     target: length (4 bytes), bytes
//! c  char device   major, minor (4 bytes each)
//! b  block device  major, minor (4 bytes each)
//! p  named pipe    nothing
//! w  whiteout      nothing
//! ```
//!
//! Numbers are little-endian. A change of any of this changes cache keys: the version in the
//! purpose goes up with it.

use std::collections::HashMap;
use std::fmt;

use formwork_fs::RelPath;

use super::{Metadata, Node, Tree};

/// The identity of a tree, or of a part of one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreeDigest(pub [u8; 32]);

const TREE: &str = "formwork tree digest v1";
const CONTENT: &str = "formwork content digest v1";

impl Tree {
    /// The identity of the layer: the same for two layers that differ only in modification times.
    pub fn digest(&self) -> TreeDigest {
        let mut writer = Writer::new(TREE, true);
        for entry in &self.entries {
            writer.write(entry.path.as_bytes(), &entry.node, &entry.metadata);
        }
        writer.finish()
    }

    /// The identity of what is at a path and below it, wherever in the tree that is; `None` if
    /// nothing is there.
    ///
    /// Paths count from `path` on. With `owners` false, users and groups are left out, for copies
    /// that get others. A hard link to a file outside counts as the file.
    pub fn content_digest(&self, path: &RelPath, owners: bool) -> Option<TreeDigest> {
        let part = self.subtree(path);
        if part.is_empty() {
            return None;
        }
        let mut writer = Writer::new(CONTENT, owners);
        // For each file outside, the first of its names inside.
        let mut outside = HashMap::<&RelPath, &[u8]>::new();
        for entry in part {
            let below = relative(&entry.path, path);
            let Node::HardLink { target } = &entry.node else {
                writer.write(below, &entry.node, &entry.metadata);
                continue;
            };
            let first = match target.starts_with(path) {
                true => Some(relative(target, path)),
                false => outside.get(target).copied(),
            };
            match first {
                Some(first) => writer.write_hard_link(below, first),
                None => {
                    outside.insert(target, below);
                    writer.write(below, &self.inode(entry).node, &entry.metadata);
                }
            }
        }
        Some(writer.finish())
    }
}

/// The part of a path below a directory that it is known to be in.
fn relative<'a>(path: &'a RelPath, directory: &RelPath) -> &'a [u8] {
    let below = &path.as_bytes()[directory.as_bytes().len()..];
    below.strip_prefix(b"/").unwrap_or(below)
}

/// Feeds the encoding to the hasher, in pieces large enough for it to be fast.
struct Writer {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    owners: bool,
}

impl Writer {
    fn new(purpose: &str, owners: bool) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(&[u8::from(owners)]);
        Self { hasher, buffer: Vec::with_capacity(PIECE * 2), owners }
    }

    fn write(&mut self, path: &[u8], node: &Node, metadata: &Metadata) {
        match node {
            Node::File(file) => {
                self.head(b'f', path, Some(metadata));
                self.buffer.extend(file.size.to_le_bytes());
                self.buffer.extend(file.content.0);
            }
            Node::Directory { opaque } => {
                self.head(b'd', path, Some(metadata));
                self.buffer.push(u8::from(*opaque));
            }
            Node::Symlink { target } => {
                self.head(b's', path, Some(metadata));
                self.bytes(target);
            }
            Node::HardLink { target } => self.write_hard_link(path, target.as_bytes()),
            Node::CharDevice { major, minor } => {
                self.head(b'c', path, Some(metadata));
                self.numbers([*major, *minor]);
            }
            Node::BlockDevice { major, minor } => {
                self.head(b'b', path, Some(metadata));
                self.numbers([*major, *minor]);
            }
            Node::Fifo => self.head(b'p', path, Some(metadata)),
            Node::Whiteout => self.head(b'w', path, None),
        }
        if self.buffer.len() >= PIECE {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn write_hard_link(&mut self, path: &[u8], target: &[u8]) {
        self.head(b'h', path, None);
        self.bytes(target);
    }

    fn head(&mut self, kind: u8, path: &[u8], metadata: Option<&Metadata>) {
        self.buffer.push(kind);
        self.bytes(path);
        let Some(metadata) = metadata else { return };
        let owner = if self.owners { [metadata.uid, metadata.gid] } else { [0, 0] };
        self.numbers([metadata.mode, owner[0], owner[1]]);
        self.length(metadata.xattrs.iter().len());
        for (name, value) in metadata.xattrs.iter() {
            self.bytes(name);
            self.bytes(value);
        }
    }

    fn numbers<const N: usize>(&mut self, numbers: [u32; N]) {
        numbers.iter().for_each(|number| self.buffer.extend(number.to_le_bytes()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// Paths and attributes are far below four gigabytes, by the kernel's and the formats' limits.
    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.buffer.extend(length.to_le_bytes());
    }

    fn finish(mut self) -> TreeDigest {
        self.hasher.update(&self.buffer);
        TreeDigest(self.hasher.finalize().into())
    }
}

/// From 16 KiB on BLAKE3 hashes as fast as it can.
const PIECE: usize = 16 << 10;

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dir, file, link, one_of_everything, path, symlink, tree};
    use super::super::{Bytes, Entry, Xattrs};
    use super::*;

    /// Pins the format. If this fails, a digest of an earlier version no longer means the same:
    /// raise the version in the purpose, and in the names of what is stored under digests.
    #[test]
    fn the_digest_is_stable() {
        assert_eq!(
            one_of_everything().digest().to_string(),
            "8d30afd35ce252a623d153f79d638276b512a1526646787eb6d3919bd9ca7bf7"
        );
        assert_eq!(
            one_of_everything().content_digest(&path("dir"), true).unwrap().to_string(),
            "9df6698bdd4c573820161f907f0ceee18cc51c1f00f04bc247b01aa0d0916665"
        );
    }

    #[test]
    fn times_and_places_of_bytes_do_not_count() {
        let digest = one_of_everything().digest();
        let mut entries = one_of_everything().into_entries();
        for entry in &mut entries {
            entry.metadata.mtime.seconds += 1;
            if let Node::File(file) = &mut entry.node {
                file.bytes = Bytes::Missing;
            }
        }
        assert_eq!(Tree::new(entries).unwrap().digest(), digest);
    }

    #[test]
    fn everything_else_counts() {
        let changes: &[fn(&mut Entry)] = &[
            |e| e.path = path("dir/f"),
            |e| e.node = file("", "CONTENT").node,
            |e| e.node = file("", "content\n").node,
            |e| e.node = symlink("", "content").node,
            |e| e.node = Node::Fifo,
            |e| e.node = Node::CharDevice { major: 1, minor: 2 },
            |e| e.node = Node::BlockDevice { major: 1, minor: 2 },
            |e| e.node = Node::BlockDevice { major: 2, minor: 1 },
            |e| e.node = Node::Directory { opaque: false },
            |e| e.node = Node::Directory { opaque: true },
            |e| e.node = Node::Whiteout,
            |e| e.metadata.mode ^= 0o1000,
            |e| e.metadata.uid += 1,
            |e| e.metadata.gid += 1,
            |e| e.metadata.xattrs = Xattrs::default(),
        ];
        let with = |change: &fn(&mut Entry)| {
            let mut file = one_of_everything().get(&path("dir/file")).unwrap().clone();
            change(&mut file);
            tree([dir("dir"), file]).digest()
        };
        let mut digests: Vec<_> = changes.iter().map(with).collect();
        digests.push(with(&((|_| ()) as fn(&mut Entry))));
        let count = digests.len();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), count);
    }

    #[test]
    fn a_part_is_the_same_wherever_it_lies() {
        let here = tree([dir("a"), file("a/x", "1"), link("a/y", "a/x")]);
        let there = tree([dir("b"), dir("b/c"), file("b/c/x", "1"), link("b/c/y", "b/c/x")]);
        let digest = |tree: &Tree, at: &str| tree.content_digest(&path(at), true);
        assert_eq!(digest(&here, "a"), digest(&there, "b/c"));
        assert_eq!(digest(&here, "a/x"), digest(&there, "b/c/x"));
        assert_ne!(digest(&here, "a"), digest(&there, "b"));
        assert_eq!(digest(&here, "c"), None);
    }

    #[test]
    fn a_link_to_a_file_outside_is_the_file() {
        let linked =
            tree([dir("a"), file("a/x", "1"), dir("b"), link("b/x", "a/x"), link("b/y", "a/x")]);
        let plain = tree([dir("b"), file("b/x", "1"), link("b/y", "b/x")]);
        let at = path("b");
        assert_eq!(linked.content_digest(&at, true), plain.content_digest(&at, true));
    }

    #[test]
    fn owners_count_on_request() {
        let mut other = file("a", "");
        other.metadata.uid = 7;
        let trees = [tree([file("a", "")]), tree([other])];
        let digests = |owners| trees.each_ref().map(|t| t.content_digest(&path("a"), owners));
        let [one, other] = digests(false);
        assert_eq!(one, other);
        let [one, other] = digests(true);
        assert_ne!(one, other);
    }
}
